/* SPDX-License-Identifier: Apache-2.0 */
/* test_puller_shares: several pulls at a time: layers that they share, turns, limits, priorities.
 */
#include "agent/flight_internal.h"
#include "base/privilege.h"
#include "tests/unit/agent_env.h"

#include <linux/capability.h>

static void ask(AgentEnv *e, Caller *a, const char *text, bool background) {
    _cleanup_(reference_freep) Reference *reference = NULL;
    EnsureRequest request = { .policy = PULL_POLICY_IF_NOT_PRESENT, .background = background };
    Err err = { "" };

    ASSERT_OK(reference_parse(&reference, text, &err));
    request.reference = reference;
    *a = (Caller){ 0 };
    ASSERT_OK(puller_ensure(e->puller, &a->ticket, &request, caller_done, a, &err));
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
    wait_log(&e, "sleep-c limits 2 0\n");
    agent_env_done(&e);
}
