/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of agent/flight: room, for a pull that has something of its layers already, and for layers
 * that become its own late. */
#include "agent/flight_internal.h"
#include "tests/unit/agent_env.h"

#define REFERENCE  "r.example/large:1"
#define ORIGIN     "r.example/large"
#define LEFT_BYTES MiB(256) /* of 1 GiB, the first layer of fake_worker.h's "large" */
#define ROOM_BYTES (GiB(1) - LEFT_BYTES / 2)
#define LAYERS     2 /* of "large" */
#define NO_ROOM    "less than 2 GiB are free where the tests are: set TMPDIR"

typedef struct Fixture {
    AgentEnv e;
    Shares *shares;
    Pool *pool; /* one thread: works end in the order in which they began */
    Sharer *other;
    FlightContext context;
    FlightWorkers workers;
    unsigned n;      /* how often room was asked for */
    uint64_t others; /* bytes that other pulls have to write */
    unsigned done;
    int r;
    Err err;
    Flight *p;
} Fixture;

/* When the plan is made others write so much that nothing is left; then what is left suffices for
 * what is not there of the layer, and not for all of it.  Meanwhile another pull may end. */
static uint64_t promised(void *arg, const Flight *except) {
    Fixture *f = arg;

    if (f->n++ > 0)
        return except->room.bytes - ROOM_BYTES;
    f->other = sharer_free(f->other);
    return UINT64_MAX;
}

static void changed(void *arg) {
    (void)arg;
}

static void on_done(void *arg, Flight *p, int r, const Err *err) {
    Fixture *f = arg;

    (void)p;
    f->done = 1;
    f->r = r;
    f->err = *err;
}

/* What an earlier pull had of a blob. */
static uint64_t leave_part_of(Store *s, const char *digest, uint64_t n) {
    _cleanup_free_ char *name_part = xasprintf("%s.part", digest);
    _cleanup_free_ char *name_map = xasprintf("%s.map", digest);
    char name[STORE_INGEST_NAME_MAX];
    _cleanup_close_ int fd = -EBADF, part = -EBADF;
    uint64_t bytes = 0;
    Err err = { "" };

    ASSERT_OK(store_ingest_name(name, ORIGIN, &err));
    fd = env_ingest(s, name);
    part = openat(fd, name_part, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_OK(fallocate(part, 0, 0, (off_t)n));
    part = safe_close(part);
    env_write(fd, name_map, "map", 3);
    ASSERT_OK(store_partial_keep(s, name, true, &err));
    ASSERT_OK(store_ingest_end(s, name, &err));
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    return bytes;
}

/* … of the first layer. */
static uint64_t leave_part(Store *s) {
    return leave_part_of(s, fake_partial(0, ""), LEFT_BYTES);
}

static void fixture_close(Fixture *f) {
    (void)flight_free(f->p);
    (void)sharer_free(f->other);
    flight_end_workers(&f->context);
    (void)pool_free(f->pool);
    (void)shares_free(f->shares);
    agent_env_done(&f->e);
}

/* False: there is not enough room for the tests. */
static bool fixture_open(Fixture *f, TmpDir *dir) {
    *f = (Fixture){ .shares = shares_new() };
    agent_env_init(&f->e, dir, NULL);
    ASSERT_OK(pool_new(&f->pool, f->e.event, 1, &f->err));
    f->context = (FlightContext){ .event = f->e.event,
                                  .store = f->e.store,
                                  .pool = f->pool,
                                  .standby = f->e.standby,
                                  .shares = f->shares,
                                  .metrics = f->e.metrics,
                                  .workers = &f->workers,
                                  .promised = promised,
                                  .changed = changed,
                                  .arg = f };
    if (flight_room(f->e.store).bytes >= GiB(2))
        return true;
    fixture_close(f);
    return false;
}

/* Another pull has the layers of "large" from this one on. */
static void give_other(Fixture *f, unsigned first) {
    static const SharerHandlers none;
    size_t same;

    f->other = sharer_new(f->shares, ORIGIN, LAYERS - first, &none);
    for (unsigned i = first; i < LAYERS; i++) {
        Layer layer = { .kind = LAYER_KIND_RAW };

        digest_of(&layer.digest, fake_content(i), strlen(fake_content(i)));
        ASSERT_EQ(sharer_take(f->other, i - first, &layer, &same), SHARE_FETCH);
    }
}

/* Runs the pull until its layers come. */
static void start(Fixture *f) {
    static const uint8_t fingerprint[GRANT_BYTES];
    _cleanup_(reference_freep) Reference *reference = NULL;
    FlightRequest request = { .platform = "linux/amd64", .fingerprint = fingerprint };

    ASSERT_OK(reference_parse(&reference, REFERENCE, &f->err));
    request.reference = reference;
    ASSERT_OK(flight_new(&f->p, &f->context, &request, on_done, f, &f->err));
    flight_set_limits(f->p, &(WorkerLimits){ .connections = 1 }, DIVIDE_LACKS_NOTHING);
    flight_start(f->p, f->e.options);
    while (!f->done && f->p->state < FLIGHT_FETCHING)
        (void)sd_event_run(f->e.event, 50 * USEC_PER_MSEC);
    if (f->done)
        test_fail(__FILE__, __LINE__, "%s", err_text(&f->err, f->r));
}

static void cancel(Fixture *f) {
    flight_cancel(f->p, -ECANCELED, &f->err);
    agent_env_wait(&f->e, &f->done, 1);
}

/* Each as it is read back, and after it. */
static void check_promised(Flight *p, uint64_t all, uint64_t claimed) {
    ASSERT_EQ(flight_promised(p), all - claimed);
    flight_own_progress(p, 0, 0, 0, GiB(1)); /* the file has all its space */
    ASSERT_EQ(flight_promised(p), all - GiB(1));
    flight_own_progress(p, 0, MiB(1), MiB(1), GiB(1) - MiB(1));
    ASSERT_EQ(flight_promised(p), all - GiB(1));
    flight_own_progress(p, 0, 0, 0, 0); /* it was of no use */
    ASSERT_EQ(flight_promised(p), all);
}

/* Of a tar more is on disk than the blob had. */
static void check_promised_tar(Flight *p, uint64_t all, uint64_t claimed) {
    p->layers[0].claimed = claimed;
    ASSERT_EQ(flight_promised(p), all - claimed);
    flight_own_progress(p, 0, 0, 0, MiB(60)); /* the worker has looked how much of the blob it is */
    ASSERT_EQ(flight_promised(p), all - MiB(60));
    flight_own_progress(p, 0, MiB(40), MiB(40), MiB(20));
    ASSERT_EQ(flight_promised(p), all - MiB(60));
    ASSERT_EQ(flight_content_max(p), ROOM_BYTES + claimed);
    flight_own_progress(p, 0, MiB(100) + 1, MiB(60), MiB(500)); /* its open file */
    ASSERT_EQ(flight_promised(p), all - MiB(600) - 1);
    flight_own_progress(p, 0, MiB(100) + 1, MiB(60), 0);
    ASSERT_EQ(flight_promised(p), all - MiB(100) - 1);
    flight_own_progress(p, 0, 0, 0, MiB(60));
    p->layers[0].claimed = claimed;
    flight_own_progress(p, 0, 0, 0, 0); /* it was of no use */
    ASSERT_EQ(flight_promised(p), all);
    p->layers[0].came = true;
    ASSERT_EQ(flight_promised(p), all - GiB(1));
    p->layers[0].came = false;
}

TEST(flight_what_an_earlier_pull_left_needs_no_room_again) {
    STORE_TEST_DIR(dir);
    const uint64_t all = GiB(1) + strlen(fake_content(1));
    uint64_t claimed;
    Fixture f;

    if (!fixture_open(&f, dir))
        SKIP(NO_ROOM);
    claimed = leave_part(f.e.store);
    start(&f);
    ASSERT_EQ(f.n, 3); /* for the check, for that after room was made, and for the plan */
    check_promised(f.p, all, claimed);
    f.p->manifest->layers[0].kind = LAYER_KIND_TAR;
    check_promised_tar(f.p, all, claimed);
    f.p->manifest->layers[0].kind = LAYER_KIND_RAW;
    cancel(&f);
    ASSERT_EQ(flight_promised(f.p), 0);
    ASSERT_EQ(env_count(f.e.store, "partial", true), 2);
    fixture_close(&f);
}

/* What there is of our layers, and what is left for them. */
TEST(flight_content_has_the_room_that_is_left) {
    STORE_TEST_DIR(dir);
    uint64_t claimed;
    Fixture f;

    if (!fixture_open(&f, dir))
        SKIP(NO_ROOM);
    claimed = leave_part(f.e.store);
    start(&f);
    ASSERT_EQ(flight_content_max(f.p), ROOM_BYTES + claimed);
    flight_own_progress(f.p, 0, MiB(1), 0, GiB(1) - MiB(1));
    ASSERT_EQ(flight_content_max(f.p), ROOM_BYTES + GiB(1));
    flight_own_progress(f.p, 0, MiB(1), 0, 0);
    f.p->manifest->layers[0].kind = LAYER_KIND_TAR;
    ASSERT_EQ(flight_content_max(f.p), ROOM_BYTES + claimed);
    f.p->layers[0].came = true;
    f.p->content = MiB(700); /* of its files */
    ASSERT_EQ(flight_content_max(f.p), ROOM_BYTES + MiB(700));
    f.p->layers[0].done = true;
    ASSERT_EQ(flight_content_max(f.p), ROOM_BYTES + MiB(700));
    f.p->layers[0].came = f.p->layers[0].done = false;
    cancel(&f);
    fixture_close(&f);
}

/* Loops until the fake worker has written that. */
static void wait_log(Fixture *f, const char *line) {
    _cleanup_free_ char *log = NULL;

    for (unsigned i = 0; i < 1000 && !(log && strstr(log, line)); i++) {
        free(TAKE_PTR(log));
        (void)sd_event_run(f->e.event, 5 * USEC_PER_MSEC);
        (void)!fs_read_file(tmpdir_fd(f->e.dir), "fake.log", KiB(64), &log, NULL, NULL);
    }
    ASSERT_STRSTR(log ? log : "", line);
}

/* The worker is told of it with the first plan, and of room that is as it is then. */
TEST(flight_fetches_what_becomes_its_own_while_room_is_made) {
    STORE_TEST_DIR(dir);
    Fixture f;

    if (!fixture_open(&f, dir))
        SKIP(NO_ROOM);
    give_other(&f, 1);
    (void)leave_part(f.e.store);
    start(&f);
    ASSERT_EQ(f.p->n_own, 2);
    ASSERT_EQ(f.p->n_waiting, 0);
    wait_log(&f, "large plan 2 1152\n");
    cancel(&f);
    fixture_close(&f);
}

static uint64_t promised_others(void *arg, const Flight *except) {
    (void)except;
    return ((Fixture *)arg)->others;
}

/* What came in part gives way, if it has to.  (It counts as room, which `others` takes.) */
TEST(flight_makes_room_for_what_becomes_its_own_late) {
    const uint64_t second_bytes = strlen(fake_content(1));

    for (int full = 0; full < 2; full++) {
        STORE_TEST_DIR(dir);
        Fixture f;

        if (!fixture_open(&f, dir))
            SKIP(NO_ROOM);
        f.context.promised = promised_others;
        give_other(&f, 1);
        start(&f);
        ASSERT_EQ(f.p->n_own, 1);
        (void)leave_part(f.e.store);
        ASSERT_EQ(env_count(f.e.store, "partial", true), 2);
        f.others = full ? UINT64_MAX : 0;
        f.other = sharer_free(f.other);
        ASSERT_EQ(flight_promised(f.p), GiB(1) + second_bytes); /* nobody else gets it */
        while (f.p->n_waiting + f.p->n_late > 0 && !f.done)
            (void)sd_event_run(f.e.event, 50 * USEC_PER_MSEC);
        ASSERT_EQ(flight_promised(f.p), GiB(1) + second_bytes);
        ASSERT_EQ(env_count(f.e.store, "partial", true), full ? 0 : 2);
        cancel(&f);
        fixture_close(&f);
    }
}

/* Of two layers that come late at the same time each has its part on disk, which no room is made
 * for; and what came in part of another layer stays while the rest fits beside it. */
TEST(flight_makes_room_once_for_all_that_becomes_its_own_late) {
    static const uint64_t slack = MiB(64); /* others write to the disk as well */
    static const char other[] = "00000000000000aa000000000000000000000000000000000000000000000000";

    for (int full = 0; full < 2; full++) {
        STORE_TEST_DIR(dir);
        const uint64_t all = GiB(1) + strlen(fake_content(1));
        uint64_t partial;
        Fixture f;

        if (!fixture_open(&f, dir))
            SKIP(NO_ROOM);
        f.context.promised = promised_others;
        give_other(&f, 0);
        start(&f);
        ASSERT_EQ(f.p->n_own, 0);
        (void)leave_part_of(f.e.store, fake_partial(1, ""), KiB(4));
        partial = leave_part_of(f.e.store, other, 2 * slack);
        (void)leave_part(f.e.store);
        ASSERT_EQ(env_count(f.e.store, "partial", true), 6);
        f.others = flight_room(f.e.store).bytes - all - partial + (full ? slack : -slack);
        f.other = sharer_free(f.other);
        ASSERT_EQ(flight_promised(f.p), all);
        wait_log(&f, "large plan 2 ");
        ASSERT_TRUE(f.p->layers[0].claimed >= LEFT_BYTES && f.p->layers[1].claimed > 0);
        ASSERT_EQ(env_count(f.e.store, "partial", true), full ? 0 : 2);
        cancel(&f);
        fixture_close(&f);
    }
}
