/* SPDX-License-Identifier: Apache-2.0 */
/* test_puller_shares: several pulls at a time: layers that they share, turns, limits, priorities.
 */
#include "agent/flight_internal.h"
#include "base/privilege.h"
#include "tests/unit/agent_env.h"

#include <linux/capability.h>

static void ask_for(AgentEnv *e, Caller *a, const char *text, EnsureRequest request) {
    _cleanup_(reference_freep) Reference *reference = NULL;
    Err err = { "" };

    ASSERT_OK(reference_parse(&reference, text, &err));
    request.reference = reference;
    *a = (Caller){ 0 };
    ASSERT_OK(puller_ensure(e->puller, &a->ticket, &request, caller_done, a, &err));
}

static void ask_as(AgentEnv *e, Caller *a, const char *text, PullPolicy policy, bool background) {
    ask_for(e, a, text, (EnsureRequest){ .policy = policy, .background = background });
}

static void ask_until(AgentEnv *e, Caller *a, const char *text, uint64_t deadline_usec) {
    ask_for(e, a, text, (EnsureRequest){ .deadline_usec = deadline_usec });
}

static void ask(AgentEnv *e, Caller *a, const char *text, bool background) {
    ask_as(e, a, text, PULL_POLICY_IF_NOT_PRESENT, background);
}

/* The workers that wait for it go on. */
static void let_go(AgentEnv *e) {
    safe_close(openat(tmpdir_fd(e->dir), "go", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static const Flight *find(AgentEnv *e, const char *reference) {
    for (size_t i = 0; i < puller_count(e->puller); i++) {
        FlightView v;
        flight_view(puller_get(e->puller, i), &v);
        if (streq(v.reference, reference))
            return puller_get(e->puller, i);
    }
    return NULL;
}

/* Runs the loop until the pull is at least in that state. */
static void run_until(AgentEnv *e, const char *reference, FlightState state) {
    uint64_t until = now_usec() + 30 * USEC_PER_SEC;

    while (now_usec() < until) {
        const Flight *f = find(e, reference);
        FlightView v;

        if (f) {
            flight_view(f, &v);
            if (v.state >= state)
                return;
        }
        (void)sd_event_run(e->event, 5 * USEC_PER_MSEC);
    }
    test_fail(__FILE__, __LINE__, "%s is not %s", reference, flight_state_name(state));
}

static FlightState state_of(AgentEnv *e, const char *reference) {
    FlightView v;

    flight_view(find(e, reference), &v);
    return v.state;
}

/* What the fake workers wrote; the caller frees. */
static char *read_log(AgentEnv *e) {
    char *text = NULL;

    if (fs_read_file(tmpdir_fd(e->dir), "fake.log", MiB(1), &text, NULL, NULL) < 0)
        return xstrdup("");
    return text;
}

static unsigned count(const char *text, const char *what) {
    unsigned n = 0;

    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

/* Loops until the log has the line. */
static void wait_log(AgentEnv *e, const char *line) {
    for (unsigned i = 0; i < 2000; i++) {
        _cleanup_free_ char *log = read_log(e);
        if (strstr(log, line))
            return;
        (void)sd_event_run(e->event, 5 * USEC_PER_MSEC);
    }
    _cleanup_free_ char *log = read_log(e);
    test_fail(__FILE__, __LINE__, "no '%s' in:\n%s", line, log);
}

TEST(shares_layers_of_two_pulls_come_once) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *log = NULL;
    bool waited = false;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/tags:slow-a", false);
    run_until(&e, "r.example/tags:slow-a", FLIGHT_FETCHING);
    ask(&e, &b, "r.example/tags:slow-b", false);
    while (!b.done) {
        const Flight *f = find(&e, "r.example/tags:slow-b");
        char text[800] = "";
        if (f)
            flight_text(f, text, sizeof(text));
        waited |=
            strstr(text, "; waits for layer sha256:") && strstr(text, "that another pull fetches");
        (void)sd_event_run(e.event, 5 * USEC_PER_MSEC);
    }
    agent_env_wait(&e, &a.done, 1);
    ASSERT_OK(a.r);
    if (b.r < 0)
        test_fail(__FILE__, __LINE__, "%s", b.err.text);
    ASSERT_TRUE(waited);
    log = read_log(&e);
    ASSERT_EQ(count(log, "fetch 0"), 1);
    ASSERT_EQ(count(log, "fetch 1"), 1);
    ASSERT_EQ(agent_env_left(&e), 0);
    agent_env_done(&e);
}

/* Another repository's word is not taken: its bytes come again, and are stored once. */
TEST(shares_nothing_on_the_wire_with_another_repository) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *log = NULL;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/slow-a:1", false);
    run_until(&e, "r.example/slow-a:1", FLIGHT_FETCHING);
    ask(&e, &b, "r.example/slow-b:1", false);
    agent_env_wait(&e, &a.done, 1);
    agent_env_wait(&e, &b.done, 1);
    ASSERT_OK(a.r);
    ASSERT_OK(b.r);
    log = read_log(&e);
    ASSERT_EQ(count(log, "slow-a fetch"), 2);
    ASSERT_EQ(count(log, "slow-b fetch"), 2);
    ASSERT_EQ(env_count(e.store, "objects", false), 2);
    ASSERT_EQ(agent_env_left(&e), 0);
    agent_env_done(&e);
}

/* Loops until both have ended: what one of the pulls had of a layer on disk, when it was to fetch
 * it. */
static uint64_t claimed_until(AgentEnv *e, const Caller *b, const Caller *c) {
    uint64_t bytes = 0;

    while (!b->done || !c->done) {
        for (size_t i = 0; i < puller_count(e->puller); i++) {
            const Flight *f = puller_get(e->puller, i);

            for (size_t k = 0; f->layers && k < f->manifest->n_layers; k++)
                bytes = MAX(bytes, f->layers[k].claimed);
        }
        (void)sd_event_run(e->event, 5 * USEC_PER_MSEC);
    }
    return bytes;
}

TEST(shares_the_other_pull_fetches_what_the_first_one_could_not) {
    static const char *const first[] = { "r.example/tags:half", "r.example/tags:crash" };

    for (size_t i = 0; i < ELEMENTSOF(first); i++) {
        STORE_TEST_DIR(dir);
        _cleanup_free_ char *log = NULL;
        Caller a, b, c;
        AgentEnv e;

        agent_env_init(&e, dir, NULL);
        ask(&e, &a, first[i], false);
        run_until(&e, first[i], FLIGHT_FETCHING);
        ask(&e, &b, "r.example/tags:slow-b", false);
        ask(&e, &c, "r.example/tags:slow-c", true);
        agent_env_wait(&e, &a.done, 1);
        ASSERT_EQ(claimed_until(&e, &b, &c) > 0, i == 0);
        ASSERT_ERR(a.r, i == 0 ? -ECONNRESET : -EIO);
        ASSERT_OK(b.r);
        ASSERT_OK(c.r);
        log = read_log(&e);
        ASSERT_EQ(count(log, "fetch 0") + count(log, "resume 0"), 1);
        ASSERT_EQ(count(log, "fetch 1") + count(log, "resume 1"), 1);
        if (i == 0) /* with what is there already */
            ASSERT_EQ(count(log, "resume 1 0"), 1);
        ASSERT_EQ(agent_env_left(&e), 0);
        ASSERT_EQ(env_count(e.store, "partial", true), 0);
        agent_env_done(&e);
    }
}

/* Asked for again, it goes on where it was. */
TEST(shares_an_interrupted_pull_is_gone_on_with) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *log = NULL;
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/tags:half", false);
    agent_env_wait(&e, &a.done, 1);
    ASSERT_ERR(a.r, -ECONNRESET);
    ASSERT_EQ(env_count(e.store, "partial", true), 2);
    ask(&e, &a, "r.example/tags:absent", false); /* which never comes leaves it alone */
    agent_env_wait(&e, &a.done, 1);
    ASSERT_EQ(env_count(e.store, "partial", true), 2);
    ask(&e, &a, "r.example/tags:plain", false);
    agent_env_wait(&e, &a.done, 1);
    ASSERT_OK(a.r);
    log = read_log(&e);
    ASSERT_EQ(count(log, "fetch 0"), 1);
    ASSERT_EQ(count(log, "plain resume 1"), 1);
    agent_env_done(&e);
}

TEST(turns_those_that_somebody_waits_for_come_first) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a[4];

    agent_env_init(&e, dir, "pull.concurrent=1");
    ask(&e, &a[0], "r.example/slow-a:1", true);
    run_until(&e, "r.example/slow-a:1", FLIGHT_RESOLVING);
    ask(&e, &a[1], "r.example/slow-b:1", true);
    run_until(&e, "r.example/slow-b:1", FLIGHT_QUEUED); /* it is the older one */
    ask(&e, &a[2], "r.example/slow-c:1", true);
    run_until(&e, "r.example/slow-c:1", FLIGHT_QUEUED);
    ASSERT_EQ(state_of(&e, "r.example/slow-b:1"), FLIGHT_QUEUED);
    ask(&e, &a[3], "r.example/slow-c:1", false); /* lifted, past the older one */
    while (state_of(&e, "r.example/slow-c:1") == FLIGHT_QUEUED) {
        ASSERT_EQ(state_of(&e, "r.example/slow-b:1"), FLIGHT_QUEUED);
        (void)sd_event_run(e.event, 5 * USEC_PER_MSEC);
    }
    ASSERT_TRUE(!a[0].done); /* nor did it wait for the one that ran */
    for (size_t i = 0; i < ELEMENTSOF(a); i++) {
        agent_env_wait(&e, &a[i].done, 1);
        ASSERT_OK(a[i].r);
    }
    agent_env_done(&e);
}

/* Else they would be too many once nobody waits for these layers any more. */
TEST(turns_of_background_pulls_that_are_waited_for_only_now_are_counted) {
    STORE_TEST_DIR(dir);
    Flight wanted = { .wanted = true, .state = FLIGHT_FETCHING };
    const SharerHandlers handlers = { .arg = &wanted };
    const char *const names[] = { "gated-a", "gated-b", "gated-c" };
    Sharer *sharers[2];
    AgentEnv e;
    Caller a[3];

    agent_env_init(&e, dir, "pull.concurrent=2");
    for (unsigned i = 0; i < 2; i++) {
        _cleanup_free_ char *origin = xasprintf("r.example/%s", names[i]);
        _cleanup_free_ char *reference = xasprintf("%s:1", origin);
        size_t same;

        ask(&e, &a[i], reference, true);
        run_until(&e, reference, FLIGHT_FETCHING);
        sharers[i] = sharer_new(find(&e, reference)->context->shares, origin, 1, &handlers);
        ASSERT_EQ(sharer_take(sharers[i], 0, &find(&e, reference)->manifest->layers[0], &same),
                  SHARE_WAIT);
        ASSERT_TRUE(flight_is_wanted(find(&e, reference)));
    }
    ask(&e, &a[2], "r.example/gated-c:1", true);
    run_until(&e, "r.example/gated-c:1", FLIGHT_QUEUED);
    for (unsigned i = 0; i < 10; i++)
        (void)sd_event_run(e.event, 5 * USEC_PER_MSEC);
    ASSERT_EQ(state_of(&e, "r.example/gated-c:1"), FLIGHT_QUEUED);
    for (unsigned i = 0; i < 2; i++)
        (void)sharer_free(sharers[i]);
    let_go(&e);
    for (unsigned i = 0; i < ELEMENTSOF(a); i++)
        agent_env_wait(&e, &a[i].done, 1);
    agent_env_done(&e);
}

TEST(limits_are_divided_and_told_on_every_change) {
    STORE_TEST_DIR(dir);
    FlightView v;
    AgentEnv e;
    Caller a[3];

    agent_env_init(&e, dir, "pull.background_bandwidth=1000");
    ask(&e, &a[0], "r.example/sleep-a:1", false);
    wait_log(&e, "sleep-a limits 8 0\n");
    ask(&e, &a[1], "r.example/sleep-b:1", true);
    wait_log(&e, "sleep-b background 1 1000\n");
    wait_log(&e, "sleep-a limits 7 0\n");
    flight_view(find(&e, "r.example/sleep-b:1"), &v);
    ASSERT_TRUE(v.background);
    ask(&e, &a[2], "r.example/sleep-b:1", false); /* somebody waits for it now */
    wait_log(&e, "sleep-b limits 4 0\n");
    wait_log(&e, "sleep-a limits 4 0\n");
    flight_view(find(&e, "r.example/sleep-b:1"), &v);
    ASSERT_TRUE(!v.background);
    agent_env_done(&e);
}

/* What a fake worker says that is so much nicer than we. */
static char *nice_line(const char *name, int more) {
    return xasprintf("%s nice %u 0\n", name,
                     (unsigned)MIN(getpriority(PRIO_PROCESS, 0) + more, 19));
}

TEST(priority_of_a_background_pull_is_lifted) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *polite = nice_line("sleep-b", 10), *normal = nice_line("sleep-b", 0);
    _cleanup_free_ char *log = NULL, *other = nice_line("sleep-a", 10);
    AgentEnv e;
    Caller a[3];

    if (!privilege_has(CAP_SYS_NICE))
        SKIP("no CAP_SYS_NICE: priorities stay as they are");
    agent_env_init(&e, dir, NULL);
    ask(&e, &a[0], "r.example/sleep-a:1", false);
    ask(&e, &a[1], "r.example/sleep-b:1", true);
    wait_log(&e, "sleep-b ioprio 3 0\n");
    wait_log(&e, polite);
    ask(&e, &a[2], "r.example/sleep-b:1", false);
    wait_log(&e, "sleep-b ioprio 2 4\n");
    wait_log(&e, normal);
    log = read_log(&e);
    ASSERT_TRUE(strstr(log, "sleep-b ioprio 2 4\n") > strstr(log, "sleep-b ioprio 3 0\n"));
    ASSERT_TRUE(strstr(log, normal) > strstr(log, polite));
    ASSERT_TRUE(!strstr(log, "sleep-a ioprio 3") && !strstr(log, other));
    agent_env_done(&e);
}

TEST(limits_a_background_pull_that_another_one_waits_for_is_lifted) {
    STORE_TEST_DIR(dir);
    FlightView v;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, "pull.background_bandwidth=1000");
    ask(&e, &a, "r.example/tags:slow-a", true);
    run_until(&e, "r.example/tags:slow-a", FLIGHT_FETCHING);
    wait_log(&e, "slow-a background 8 1000\n");
    ask(&e, &b, "r.example/tags:slow-b", false);
    run_until(&e, "r.example/tags:slow-b", FLIGHT_FETCHING);
    flight_view(find(&e, "r.example/tags:slow-a"), &v);
    ASSERT_TRUE(!v.background);
    agent_env_wait(&e, &a.done, 1);
    agent_env_wait(&e, &b.done, 1);
    ASSERT_OK(a.r);
    ASSERT_OK(b.r);
    agent_env_done(&e);
}

TEST(limits_of_one_registry) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a, b, c;

    agent_env_init(&e, dir, "registries.r.example.connections=2");
    ask(&e, &a, "r.example/sleep-a:1", false);
    wait_log(&e, "sleep-a limits 2 0\n");
    ask(&e, &b, "r.example/sleep-b:1", false);
    wait_log(&e, "sleep-a limits 1 0\n");
    ask(&e, &c, "other.example/sleep-c:1", false);
    wait_log(&e, "sleep-c limits 6 0\n"); /* what the other registry cannot have */
    agent_env_done(&e);
}

static int run_blocked(void *arg, Err *err) {
    (void)err;
    while (!atomic_load((atomic_bool *)arg))
        (void)usleep(1000);
    return 0;
}

static void on_blocked(void *arg, int r, const Err *err) {
    (void)arg;
    (void)r;
    (void)err;
}

/* So many threads have no time until `*go`. */
static void block(Pool *pool, size_t threads, atomic_bool *go) {
    for (size_t i = 0; i < threads; i++)
        pool_submit(pool, run_blocked, on_blocked, go);
}

static PullOptions *options_with(const char *set) {
    _cleanup_(config_freep) Config *config = NULL;
    PullOptions *o;
    Err err;

    ASSERT_OK(config_load(&config, &(ConfigSources){ .sets = &set, .n_sets = 1 }, &err));
    ASSERT_OK(pull_options_new(&o, config, &err));
    return o;
}

/* 24 MiB are the part of one in the background, and the second gets what is left.  Then a reload
 * leaves less than they have. */
TEST(memory_is_divided_and_never_taken_away) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *log = NULL;
    PullOptions *less;
    FlightView v;
    AgentEnv e;
    Caller a[3];

    agent_env_init(&e, dir, NULL);
    less = options_with("pull.memory_total=48MiB");
    less->concurrent = 1;
    puller_set_options(e.puller, less);
    ask(&e, &a[0], "r.example/gated:1", true);
    run_until(&e, "r.example/gated:1", FLIGHT_FETCHING);
    ASSERT_EQ(flight_memory(find(&e, "r.example/gated:1")), MiB(24));
    ask(&e, &a[1], "r.example/sleep-b:1", false);
    wait_log(&e, "sleep-b memory 24 0\n");
    ASSERT_EQ(puller_memory(e.puller), MiB(48));
    less->memory_total_bytes = MiB(32);
    less->concurrent = 2;
    ask(&e, &a[2], "r.example/sleep-c:1", false);
    run_until(&e, "r.example/sleep-c:1", FLIGHT_FETCHING);
    flight_view(find(&e, "r.example/sleep-c:1"), &v);
    ASSERT_STREQ(v.waiting, "waits for memory: other pulls have all that pull.memory_total allows");
    ASSERT_EQ(flight_connections(find(&e, "r.example/sleep-c:1")), 0);
    ASSERT_EQ(puller_memory(e.puller), MiB(48));
    let_go(&e);
    wait_log(&e, "sleep-c memory 4 0\n");
    agent_env_wait(&e, &a[0].done, 1);
    ASSERT_EQ(puller_memory(e.puller), MiB(28)); /* the process of the first one is gone, too */
    log = read_log(&e);
    ASSERT_EQ(count(log, "sleep-b memory"), count(log, "sleep-b memory 24 0\n"));
    agent_env_done(&e);
    (void)pull_options_unref(less);
}

/* The process is killed once the pull is over; no thread needs to have time for what it leaves. */
TEST(memory_comes_back_when_the_process_has_ended) {
    STORE_TEST_DIR(dir);
    atomic_bool go = false;
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/lingers:1", false);
    agent_env_wait(&e, &a.done, 1);
    ASSERT_OK(a.r);
    ASSERT_EQ(puller_memory(e.puller), MiB(108));
    block(e.bulk, AGENT_ENV_BULK, &go);
    for (unsigned i = 0; i < 1000 && puller_memory(e.puller) > 0; i++)
        (void)sd_event_run(e.event, 20 * USEC_PER_MSEC);
    ASSERT_EQ(puller_memory(e.puller), 0);
    atomic_store(&go, true);
    agent_env_done(&e);
}

/* A lookup ends, with the pool of the lookups, after the pool that clears up is gone. */
TEST(a_stop_while_a_process_ends_and_the_store_is_slow) {
    STORE_TEST_DIR(dir);
    atomic_bool go = false;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/lingers:1", false);
    agent_env_wait(&e, &a.done, 1);
    ASSERT_TRUE(puller_memory(e.puller) > 0);
    block(e.pool, AGENT_ENV_POOL, &go);
    ask(&e, &b, "r.example/gated:1", false);
    puller_stop(e.puller, NULL, NULL);
    e.bulk = pool_free(e.bulk);
    atomic_store(&go, true);
    agent_env_done(&e);
    ASSERT_ERR(b.r, -ECANCELED);
}

/* It is over, and its end has to wait for the one thread, when another one's end gives it a turn.
 */
TEST(a_pull_that_is_over_before_its_turn_has_none) {
    STORE_TEST_DIR(dir);
    atomic_bool go = false, more = false;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, "pull.concurrent=1");
    ask(&e, &a, "r.example/gated-a:1", false);
    run_until(&e, "r.example/gated-a:1", FLIGHT_FETCHING);
    block(e.bulk, AGENT_ENV_BULK - 1, &more);
    block(e.bulk, 1, &go);
    flight_cancel((Flight *)find(&e, "r.example/gated-a:1"), -ETIMEDOUT, &(Err){ "late" });
    ask_until(&e, &b, "r.example/gated-b:1", now_usec() + 300 * USEC_PER_MSEC);
    run_until(&e, "r.example/gated-b:1", FLIGHT_DONE);
    atomic_store(&go, true);
    agent_env_wait(&e, &a.done, 1);
    agent_env_wait(&e, &b.done, 1);
    ASSERT_ERR(a.r, -ETIMEDOUT);
    ASSERT_ERR(b.r, -ETIMEDOUT);
    atomic_store(&more, true);
    agent_env_done(&e);
}

#define NODE_FULL     "pull.connections allows"
#define REGISTRY_FULL "registries[].connections allows for r.example"

/* Of a pull that fetches. */
static void assert_waits(AgentEnv *e, const char *reference, const char *full) {
    _cleanup_free_ char *want =
        xasprintf("waits for a connection: other pulls have all that %s", full ? full : "");
    char text[800] = "";
    FlightView v;

    flight_view(find(e, reference), &v);
    ASSERT_STREQ(v.waiting, full ? want : "");
    flight_text(find(e, reference), text, sizeof(text));
    ASSERT_TRUE(!full || strstr(text, want));
}

static unsigned connections_of(AgentEnv *e, const char *reference) {
    return find(e, reference)->limits.connections;
}

static unsigned given(AgentEnv *e) {
    unsigned sum = 0;

    for (size_t i = 0; i < puller_count(e->puller); i++)
        sum += puller_get(e->puller, i)->limits.connections;
    return sum;
}

/* Four pulls, one connection: it goes to one that somebody waits for, the oldest first, at once,
 * and on to the next one when that ends. */
static void check_one_connection(const char *key, const char *full) {
    static const char *const references[] = { "r.example/sleep-a:1", "r.example/sleep-b:1",
                                              "r.example/gated-c:1", "r.example/sleep-d:1" };
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a[4];

    agent_env_init(&e, dir, key);
    for (size_t i = 0; i < ELEMENTSOF(references); i++) {
        ask(&e, &a[i], references[i], i < 2);
        run_until(&e, references[i], FLIGHT_FETCHING);
        ASSERT_EQ(given(&e), 1);
        ASSERT_EQ(connections_of(&e, references[i]), i % 2 ? 0 : 1);
    }
    for (size_t i = 0; i < ELEMENTSOF(references); i++)
        assert_waits(&e, references[i], i == 2 ? NULL : full);
    let_go(&e);
    agent_env_wait(&e, &a[2].done, 1);
    ASSERT_OK(a[2].r);
    wait_log(&e, "sleep-a background 1 0\n"); /* before the third came … */
    wait_log(&e, "sleep-a background 0 0\n"); /* … and after that */
    wait_log(&e, "sleep-d limits 1 0\n");
    ASSERT_EQ(given(&e), 1);
    assert_waits(&e, references[0], full);
    assert_waits(&e, references[3], NULL);
    agent_env_done(&e);
}

TEST(limits_of_one_connection_hold_for_four_pulls) {
    check_one_connection("pull.connections=1", NODE_FULL);
    check_one_connection("registries.r.example.connections=1", REGISTRY_FULL);
}

/* An older pull that needs one later does not take it away. */
TEST(limits_leave_a_connection_where_it_is) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, "pull.connections=1");
    ask(&e, &a, "r.example/late-a:1", false);
    run_until(&e, "r.example/late-a:1", FLIGHT_RESOLVING);
    ask(&e, &b, "r.example/sleep-b:1", false);
    run_until(&e, "r.example/sleep-b:1", FLIGHT_FETCHING);
    let_go(&e);
    run_until(&e, "r.example/late-a:1", FLIGHT_FETCHING);
    ASSERT_EQ(connections_of(&e, "r.example/late-a:1"), 0);
    ASSERT_EQ(connections_of(&e, "r.example/sleep-b:1"), 1);
    agent_env_done(&e);
}

/* A pull that asks for its manifest needs none. */
TEST(limits_are_not_for_manifests) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, "pull.connections=1");
    ask(&e, &a, "r.example/hello-sleep:1", false);
    run_until(&e, "r.example/hello-sleep:1", FLIGHT_RESOLVING);
    ask(&e, &b, "r.example/sleep-b:1", true);
    run_until(&e, "r.example/sleep-b:1", FLIGHT_FETCHING);
    ASSERT_EQ(connections_of(&e, "r.example/sleep-b:1"), 1);
    assert_waits(&e, "r.example/hello-sleep:1", NULL);
    agent_env_done(&e);
}

/* Once the one layer that another pull waits for is in, the rest is in the background again. */
TEST(limits_of_a_pull_that_was_lifted_for_one_layer) {
    STORE_TEST_DIR(dir);
    const Flight *lifted;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/tags:first-a", true);
    run_until(&e, "r.example/tags:first-a", FLIGHT_FETCHING);
    ask(&e, &b, "r.example/tags:single-b", false);
    run_until(&e, "r.example/tags:single-b", FLIGHT_FETCHING);
    lifted = find(&e, "r.example/tags:first-a");
    ASSERT_TRUE(!lifted->limits.background);
    let_go(&e);
    while (!lifted->layers[0].done)
        (void)sd_event_run(e.event, 50 * USEC_PER_MSEC);
    ASSERT_TRUE(!b.done);
    ASSERT_TRUE(lifted->limits.background);
    ASSERT_EQ(lifted->limits.connections, 8);
    agent_env_wait(&e, &b.done, 1);
    ASSERT_OK(b.r);
    agent_env_done(&e);
}

/* What has come is being committed, and nothing more comes, as all is here or the worker has
 * failed: others have the connection. */
static void check_connection_goes_on(const char *reference) {
    STORE_TEST_DIR(dir);
    atomic_bool go = false;
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, "pull.connections=1");
    ask(&e, &a, reference, false);
    run_until(&e, reference, FLIGHT_FETCHING);
    ask(&e, &b, "r.example/sleep-b:1", false);
    run_until(&e, "r.example/sleep-b:1", FLIGHT_FETCHING);
    ASSERT_EQ(connections_of(&e, reference), 1);
    ASSERT_EQ(connections_of(&e, "r.example/sleep-b:1"), 0);
    block(e.bulk, AGENT_ENV_BULK, &go);
    let_go(&e);
    wait_log(&e, "sleep-b limits 1 0\n");
    ASSERT_EQ(state_of(&e, reference), FLIGHT_FETCHING);
    atomic_store(&go, true);
    agent_env_wait(&e, &a.done, 1);
    agent_env_done(&e);
}

TEST(limits_are_for_those_that_fetch) {
    check_connection_goes_on("r.example/gated-a:1");
    check_connection_goes_on("r.example/gated-crash:1");
}

/* Also when each that runs in the background is lifted, and so the next one begins. */
TEST(turns_never_more_than_twice_as_many) {
    static const char *const references[] = { "r.example/sleep-a:1", "r.example/sleep-b:1",
                                              "r.example/sleep-c:1" };
    STORE_TEST_DIR(dir);
    Caller a[3], lift[2];
    AgentEnv e;

    agent_env_init(&e, dir, "pull.concurrent=1");
    for (size_t i = 0; i < ELEMENTSOF(references); i++) {
        ask(&e, &a[i], references[i], true);
        run_until(&e, references[i], FLIGHT_QUEUED);
    }
    for (size_t i = 0; i < ELEMENTSOF(lift); i++) {
        run_until(&e, references[i], FLIGHT_FETCHING);
        ask(&e, &lift[i], references[i], false);
        while (find(&e, references[i])->limits.background)
            (void)sd_event_run(e.event, 5 * USEC_PER_MSEC);
    }
    ASSERT_EQ(state_of(&e, references[2]), FLIGHT_QUEUED);
    agent_env_done(&e);
}
