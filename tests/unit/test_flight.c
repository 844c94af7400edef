/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of agent/flight: room, for a pull that has something of its layers already. */
#include "agent/flight_internal.h"
#include "tests/unit/agent_env.h"

#define REFERENCE  "r.example/large:1"
#define LEFT_BYTES MiB(256) /* of 1 GiB, the first layer of fake_worker.h's "large" */

typedef struct Room {
    AgentEnv *env;
    unsigned n; /* how often it was asked for */
} Room;

/* When the worker begins nobody else writes anything; when the plan is made, so much that nothing
 * is left; then what is left suffices for what is not there of the layer, and not for all of it. */
static uint64_t promised(void *arg, const Flight *except) {
    Room *room = arg;

    (void)except;
    room->n++;
    if (room->n <= 2)
        return room->n == 1 ? 0 : UINT64_MAX;
    return flight_room(room->env->store) - (GiB(1) - LEFT_BYTES / 2);
}

static void changed(void *arg) {
    (void)arg;
}

typedef struct End {
    unsigned done;
    int r;
    Err err;
} End;

static void on_done(void *arg, Flight *p, int r, const Err *err) {
    End *end = arg;

    (void)p;
    *end = (End){ 1, r, *err };
}

/* What an earlier pull had of the first layer. */
static uint64_t leave_part(Store *s) {
    char name[STORE_INGEST_NAME_MAX];
    _cleanup_close_ int fd = -EBADF, part = -EBADF;
    uint64_t bytes = 0;
    Err err = { "" };

    ASSERT_OK(store_ingest_name(name, "r.example/large", &err));
    fd = env_ingest(s, name);
    part = openat(fd, fake_partial(0, ".part"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_OK(fallocate(part, 0, 0, (off_t)LEFT_BYTES));
    part = safe_close(part);
    env_write(fd, fake_partial(0, ".map"), "map", 3);
    ASSERT_OK(store_partial_keep(s, name, true, &err));
    ASSERT_OK(store_ingest_end(s, name, &err));
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    return bytes;
}

static Flight *start(AgentEnv *e, const FlightContext *context, End *end) {
    static const uint8_t fingerprint[GRANT_BYTES];
    _cleanup_(reference_freep) Reference *reference = NULL;
    FlightRequest request = { .platform = "linux/amd64", .fingerprint = fingerprint };
    Flight *p = NULL;
    Err err = { "" };

    ASSERT_OK(reference_parse(&reference, REFERENCE, &err));
    request.reference = reference;
    ASSERT_OK(flight_new(&p, context, &request, on_done, end, &err));
    flight_set_limits(p, &(FlightLimits){ .connections = 1 });
    flight_start(p, e->options);
    return p;
}

/* Each as it is read back, and after it. */
static void check_promised(Flight *p, uint64_t all, uint64_t claimed) {
    ASSERT_EQ(flight_promised(p), all - claimed);
    flight_progress(p, 0, MiB(100), MiB(100));
    ASSERT_EQ(flight_promised(p), all - claimed);
    flight_progress(p, 0, MiB(300), MiB(250));
    ASSERT_EQ(flight_promised(p), all - MiB(300));
    flight_progress(p, 0, 0, 0); /* it was of no use */
    ASSERT_EQ(flight_promised(p), all);
    p->manifest->layers[0].kind = LAYER_KIND_TAR; /* more is on disk than the blob had */
    p->layers[0].claimed = claimed;
    flight_progress(p, 0, MiB(100), MiB(100));
    ASSERT_EQ(flight_promised(p), all - claimed);
    flight_progress(p, 0, MiB(100) + 1, MiB(100));
    ASSERT_EQ(flight_promised(p), all - MiB(100) - 1);
    p->manifest->layers[0].kind = LAYER_KIND_RAW;
}

TEST(flight_what_an_earlier_pull_left_needs_no_room_again) {
    STORE_TEST_DIR(dir);
    _cleanup_(shares_freep) Shares *shares = shares_new();
    AgentEnv e;
    Room room = { .env = &e };
    FlightContext context = {
        .shares = shares, .promised = promised, .changed = changed, .arg = &room
    };
    End end = { 0 };
    uint64_t claimed;
    Flight *p;

    agent_env_init(&e, dir, NULL);
    if (flight_room(e.store) < GiB(2)) {
        agent_env_done(&e);
        SKIP("less than 2 GiB are free where the tests are: set TMPDIR");
    }
    context.event = e.event;
    context.store = e.store;
    context.pool = e.pool;
    context.metrics = e.metrics;
    context.worker_program = tmpdir_join(dir, "fake-worker");
    claimed = leave_part(e.store);
    p = start(&e, &context, &end);
    while (!end.done && p->state < FLIGHT_FETCHING)
        (void)sd_event_run(e.event, 50 * USEC_PER_MSEC);
    if (end.done)
        test_fail(__FILE__, __LINE__, "%s", err_text(&end.err, end.r));
    ASSERT_EQ(room.n, 3);
    check_promised(p, GiB(1) + strlen(fake_content(1)), claimed);
    flight_cancel(p, -ECANCELED, &end.err);
    agent_env_wait(&e, &end.done, 1);
    ASSERT_EQ(flight_promised(p), 0);
    ASSERT_EQ(env_count(e.store, "partial", true), 2);
    (void)flight_free(p);
    agent_env_done(&e);
}
