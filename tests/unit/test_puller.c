/* SPDX-License-Identifier: Apache-2.0 */
/* test_puller: policies, joining, limits, failures, with a real store and fake workers. */
#include "tests/unit/agent_env.h"

static void ask_as(AgentEnv *e, Caller *a, const char *text, EnsureRequest request) {
    _cleanup_(reference_freep) Reference *reference = NULL;
    Err err = { "" };

    ASSERT_OK(reference_parse(&reference, text, &err));
    request.reference = reference;
    *a = (Caller){ 0 };
    ASSERT_OK(puller_ensure(e->puller, &a->ticket, &request, caller_done, a, &err));
    ASSERT_EQ(a->done, 0);
}

static void ask(AgentEnv *e, Caller *a, const char *text, PullPolicy policy) {
    ask_as(e, a, text, (EnsureRequest){ .policy = policy });
}

static void get(AgentEnv *e, Caller *a, const char *text, PullPolicy policy) {
    ask(e, a, text, policy);
    agent_env_wait(e, &a->done, 1);
}

TEST(puller_pulls_once_and_then_knows) {
    STORE_TEST_DIR(dir);
    Caller a;
    AgentEnv e;
    Digest want;

    agent_env_init(&e, dir, NULL);
    get(&e, &a, "r.example/plain:1", PULL_POLICY_IF_NOT_PRESENT);
    if (a.r < 0)
        test_fail(__FILE__, __LINE__, "%s", a.err.text);
    ASSERT_TRUE(a.had_pull);
    digest_of(&want, FAKE_MANIFEST("plain"), strlen(FAKE_MANIFEST("plain")));
    ASSERT_TRUE(digest_equal(&want, &a.manifest));
    ASSERT_EQ(agent_env_left(&e), 0);
    get(&e, &a, "r.example/plain:1", PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_OK(a.r);
    ASSERT_TRUE(!a.had_pull);
    get(&e, &a, "r.example/plain:1", PULL_POLICY_NEVER);
    ASSERT_OK(a.r);
    get(&e, &a, "r.example/plain:1", PULL_POLICY_ALWAYS);
    ASSERT_OK(a.r);
    ASSERT_TRUE(a.had_pull);
    get(&e, &a, "r.example/plain", PULL_POLICY_DEFAULT); /* :latest: the registry is asked */
    ASSERT_OK(a.r);
    ASSERT_TRUE(a.had_pull);
    agent_env_done(&e);
}

/* The kernel takes a while to give its memory back. */
TEST(puller_does_not_wait_for_a_worker_that_is_done) {
    STORE_TEST_DIR(dir);
    uint64_t begin = now_usec();
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    get(&e, &a, "r.example/lingers:1", PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_OK(a.r);
    ASSERT_TRUE(now_usec() - begin < 4 * USEC_PER_SEC); /* after 5 s it would be killed */
    ASSERT_EQ(agent_env_left(&e), 0);
    agent_env_done(&e);
}

/* Whether that is seen before the pull is over or not. */
TEST(puller_takes_what_came_before_a_worker_went_wrong) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    for (unsigned i = 0; i < 6; i++) {
        _cleanup_free_ char *reference = xasprintf("r.example/repeats%u:1", i);

        get(&e, &a, reference, PULL_POLICY_IF_NOT_PRESENT);
        if (a.r < 0)
            test_fail(__FILE__, __LINE__, "%s: %s", reference, a.err.text);
    }
    ASSERT_TRUE(
        metric_value(e.metrics, "modelcached_pull_worker_failures_total{reason=\"protocol\"}") > 0);
    agent_env_done(&e);
}

/* Whose patterns take too long to compare gets that as an answer. */
TEST(puller_a_subset_that_takes_too_long) {
    STORE_TEST_DIR(dir);
    _cleanup_(filter_freep) Filter *filter = NULL;
    _cleanup_free_ char *patterns = xstrdup("x");
    AgentEnv e;
    Caller a;
    Err err;

    for (unsigned i = 0; i < 50; i++) {
        _cleanup_free_ char *before = patterns;
        patterns = xasprintf("%s,*%040u%ux", before, 0U, i);
    }
    ASSERT_OK(filter_parse(&filter, patterns, NULL, &err));
    agent_env_init(&e, dir, NULL);
    ask_as(&e, &a, "r.example/winding:1", (EnsureRequest){ .filter = filter });
    agent_env_wait(&e, &a.done, 1);
    ASSERT_ERR(a.r, -E2BIG);
    ASSERT_STRSTR(a.err.text, "pull r.example/winding:1");
    agent_env_done(&e);
}

TEST(puller_a_digest_that_is_stored_needs_no_registry) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *by_digest = NULL, *elsewhere = NULL;
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    get(&e, &a, "r.example/plain:1", PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_OK(a.r);
    by_digest = xasprintf("r.example/plain@%s", DIGEST_STR(&a.manifest));
    elsewhere = xasprintf("other.example/absent@%s", DIGEST_STR(&a.manifest));
    get(&e, &a, by_digest, PULL_POLICY_ALWAYS);
    ASSERT_OK(a.r);
    ASSERT_TRUE(!a.had_pull);
    get(&e, &a, elsewhere, PULL_POLICY_NEVER); /* that repository never gave it */
    ASSERT_ERR(a.r, -ENOENT);
    get(&e, &a, elsewhere, PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_STRSTR(a.err.text, "no such tag");
    agent_env_done(&e);
}

TEST(puller_refuses_another_manifest_than_the_digest_asked_for) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    get(&e, &a,
        "r.example/plain@sha256:0000000000000000000000000000000000000000000000000000000000000001",
        PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_ERR(a.r, -EBADMSG);
    ASSERT_STRSTR(a.err.text, "not the one asked for");
    ASSERT_EQ(agent_env_left(&e), 0);
    agent_env_done(&e);
}

static const struct {
    const char *reference;
    PullPolicy policy;
    int r;
    const char *sentence;
} failures[] = {
    { "r.example/none:1", PULL_POLICY_NEVER, -ENOENT, "r.example/none:1 is not stored here for " },
    { "r.example/absent:1", PULL_POLICY_ALWAYS, -ENOENT, "pull r.example/absent:1: no such tag" },
    { "r.example/crash:1", PULL_POLICY_ALWAYS, -EIO, "the pull worker was killed by signal 9" },
    { "r.example/garbage:1", PULL_POLICY_ALWAYS, -EPROTO, "the pull worker broke its protocol" },
    { "r.example/exit:1", PULL_POLICY_ALWAYS, -EIO, "the pull worker ended with exit code 7" },
    { "r.example/huge:1", PULL_POLICY_ALWAYS, -ENOSPC, "r.example/huge:1: needs 32" },
};

TEST(puller_failures) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    for (size_t i = 0; i < ELEMENTSOF(failures); i++) {
        Caller a;
        get(&e, &a, failures[i].reference, failures[i].policy);
        if (a.r != failures[i].r || !strstr(a.err.text, failures[i].sentence))
            test_fail(__FILE__, __LINE__, "%s: %d: %s", failures[i].reference, a.r, a.err.text);
        ASSERT_EQ(agent_env_left(&e), 0);
    }
    agent_env_done(&e);
}

TEST(puller_fetches_a_layer_once_that_is_there_twice) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a;

    agent_env_init(&e, dir, NULL);
    get(&e, &a, "r.example/three:1", PULL_POLICY_ALWAYS);
    ASSERT_STRSTR(a.err.text, "pull r.example/three:1: two");
    agent_env_done(&e);
}

TEST(puller_joins_those_who_ask_the_same) {
    STORE_TEST_DIR(dir);
    unsigned done = 0;
    Caller a[8];
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    for (size_t i = 0; i < ELEMENTSOF(a); i++)
        ask(&e, &a[i], "r.example/slow:1", PULL_POLICY_ALWAYS);
    while (puller_count(e.puller) == 0)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    for (size_t i = 0; i < ELEMENTSOF(a); i++) {
        agent_env_wait(&e, &a[i].done, 1);
        ASSERT_OK(a[i].r);
        ASSERT_TRUE(puller_count(e.puller) <= 1);
        done += a[i].done;
    }
    ASSERT_EQ(done, 8);
    agent_env_done(&e);
}

TEST(puller_runs_a_few_at_a_time_and_says_where_they_are) {
    STORE_TEST_DIR(dir);
    static const char *const texts[] = { "r.example/slow:1", "r.example/slow:2",
                                         "r.example/slow:3" };
    bool waited = false, fetched = false;
    Caller a[3];
    AgentEnv e;

    agent_env_init(&e, dir, "pull.concurrent=1");
    for (size_t i = 0; i < 3; i++)
        ask(&e, &a[i], texts[i], PULL_POLICY_ALWAYS);
    while (!a[0].done || !a[1].done || !a[2].done) {
        unsigned running = 0;
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
        for (size_t i = 0; i < puller_count(e.puller); i++) {
            FlightView v;
            char text[200];
            flight_view(puller_get(e.puller, i), &v);
            flight_text(puller_get(e.puller, i), text, sizeof(text));
            running += v.state != FLIGHT_QUEUED && v.state != FLIGHT_DONE;
            waited |= streq(text, "queued; waits for a turn");
            fetched |= strstr(text, "of 36 B (") != NULL;
        }
        ASSERT_TRUE(running <= 1);
    }
    ASSERT_TRUE(waited && fetched);
    agent_env_done(&e);
}

TEST(puller_goes_on_without_askers) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller a, b;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/slow:1", PULL_POLICY_ALWAYS);
    a.ticket = puller_ticket_free(a.ticket); /* while the store is asked */
    while (puller_count(e.puller) == 0)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    ask(&e, &b, "r.example/slow:1", PULL_POLICY_ALWAYS);
    while (!puller_ticket_pull(b.ticket))
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    b.ticket = puller_ticket_free(b.ticket);
    while (puller_count(e.puller) > 0)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    ASSERT_EQ(a.done + b.done, 0);
    get(&e, &a, "r.example/slow:1", PULL_POLICY_NEVER);
    ASSERT_OK(a.r);
    agent_env_done(&e);
}

static void on_stopped(void *arg) {
    (*(unsigned *)arg)++;
}

TEST(puller_stop_ends_everything) {
    STORE_TEST_DIR(dir);
    unsigned stopped = 0;
    Caller a, b;
    AgentEnv e;
    Err err = { "" };
    _cleanup_(reference_freep) Reference *reference = NULL;
    EnsureTicket *ticket = NULL;

    agent_env_init(&e, dir, "pull.concurrent=1");
    ask(&e, &a, "r.example/sleep:1", PULL_POLICY_ALWAYS);
    ask(&e, &b, "r.example/sleep:2", PULL_POLICY_ALWAYS);
    while (puller_count(e.puller) < 2)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    puller_stop(e.puller, on_stopped, &stopped);
    agent_env_wait(&e, &stopped, 1);
    ASSERT_ERR(a.r, -ECANCELED);
    ASSERT_STREQ(a.err.text, "r.example/sleep:1: the daemon is stopping");
    ASSERT_ERR(b.r, -ECANCELED);
    ASSERT_EQ(agent_env_left(&e), 0);
    ASSERT_OK(reference_parse(&reference, "r.example/x:1", &err));
    ASSERT_ERR(puller_ensure(e.puller, &ticket, &(EnsureRequest){ .reference = reference },
                             caller_done, &a, &err),
               -ECANCELED);
    agent_env_done(&e);
}

/* What a look into the store finds to do while the daemon stops is not begun. */
TEST(puller_stop_begins_nothing) {
    STORE_TEST_DIR(dir);
    _cleanup_(filter_freep) Filter *filter = NULL;
    AgentEnv e;
    Caller subset, absent;
    Err err = { "" };

    agent_env_init(&e, dir, NULL);
    get(&e, &subset, "r.example/plain:1", PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_OK(filter_parse(&filter, "*.json", NULL, &err));
    ask_as(&e, &subset, "r.example/plain:1", (EnsureRequest){ .filter = filter });
    ask(&e, &absent, "r.example/plain:2", PULL_POLICY_IF_NOT_PRESENT);
    puller_stop(e.puller, NULL, NULL);
    agent_env_wait(&e, &subset.done, 1);
    agent_env_wait(&e, &absent.done, 1);
    ASSERT_ERR(subset.r, -ECANCELED);
    ASSERT_STREQ(subset.err.text, "the daemon is stopping");
    ASSERT_ERR(absent.r, -ECANCELED);
    ASSERT_EQ(metric_value(e.metrics, "modelcached_artifact_requests_total{result=\"failed\"}"), 2);
    agent_env_done(&e);
}

TEST(puller_platform_that_is_none) {
    STORE_TEST_DIR(dir);
    _cleanup_(reference_freep) Reference *reference = NULL;
    EnsureTicket *ticket = NULL;
    EnsureRequest request = { .platform = "linux" };
    AgentEnv e;
    Err err = { "" };

    agent_env_init(&e, dir, NULL);
    ASSERT_OK(reference_parse(&reference, "r.example/x:1", &err));
    request.reference = reference;
    ASSERT_ERR(puller_ensure(e.puller, &ticket, &request, caller_done, NULL, &err), -EINVAL);
    agent_env_done(&e);
}

/* Events of a type, and of them the last one's pull and pod. */
static unsigned said(AgentEnv *e, const char *type, char pull[PULL_ID_MAX], char pod[64]) {
    StoreEvent *events;
    unsigned found = 0;
    size_t n;
    Err err = { "" };

    for (unsigned i = 0; i < 20; i++)
        (void)sd_event_run(e->event, 10 * USEC_PER_MSEC);
    ASSERT_OK(store_event_list(e->store, &(EventFilter){ 0 }, 100, &events, &n, &err));
    for (size_t i = 0; i < n; i++)
        if (streq(events[i].type, type)) {
            found++;
            (void)snprintf(pull, PULL_ID_MAX, "%s", events[i].pull);
            (void)snprintf(pod, 64, "%s %s/%s", events[i].volume_id, events[i].pod_namespace,
                           events[i].pod_name);
        }
    store_event_array_free(events, n);
    return found;
}

TEST(puller_says_who_began_a_pull_and_who_joined_it) {
    static const Asker askers[] = { { "v1", "prod", "a" }, { "v2", "prod", "b" } };
    STORE_TEST_DIR(dir);
    char id[PULL_ID_MAX], other[PULL_ID_MAX], pod[64];
    Caller a, b, again, person;
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ask_as(&e, &a, "r.example/slow:1", (EnsureRequest){ .asker = askers[0] });
    ASSERT_STREQ(puller_ticket_pull_id(a.ticket), "");
    while (!puller_ticket_pull(a.ticket))
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    ASSERT_EQ(strlen(puller_ticket_pull_id(a.ticket)), 16);
    ask_as(&e, &b, "r.example/slow:1", (EnsureRequest){ .asker = askers[1] });
    ask_as(&e, &again, "r.example/slow:1", (EnsureRequest){ .asker = askers[1] });
    ask_as(&e, &person, "r.example/slow:1", (EnsureRequest){ 0 });
    while (!puller_ticket_pull(b.ticket))
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    (void)snprintf(other, sizeof(other), "%s", puller_ticket_pull_id(b.ticket));
    agent_env_wait(&e, &person.done, 1);
    ASSERT_EQ(said(&e, "pull.started", id, pod), 1);
    ASSERT_STREQ(id, other);
    ASSERT_STREQ(pod, "v1 prod/a");
    ASSERT_EQ(said(&e, "pull.joined", id, pod), 1); /* a volume once, and people not at all */
    ASSERT_STREQ(id, other);
    ASSERT_STREQ(pod, "v2 prod/b");
    ASSERT_EQ(said(&e, "pull.done", id, pod), 1);
    ASSERT_STREQ(id, other);
    ASSERT_STREQ(pod, "v1 prod/a");
    agent_env_done(&e);
}

static const struct {
    const char *series;
    double value;
} counted[] = {
    { "modelcached_artifact_requests_total{result=\"hit\"}", 1 },
    { "modelcached_artifact_requests_total{result=\"pull\"}", 6 },
    { "modelcached_artifact_requests_total{result=\"joined\"}", 1 },
    { "modelcached_artifact_requests_total{result=\"failed\"}", 0 },
    { "modelcached_pulls_total{code=\"OK\"}", 1 },
    { "modelcached_pulls_total{code=\"NOT_FOUND\"}", 2 },
    { "modelcached_pulls_total{code=\"INTERNAL\"}", 1 },
    { "modelcached_pulls_total{code=\"FAILED_PRECONDITION\"}", 1 },
    { "modelcached_pulls_total{code=\"DATA_LOSS\"}", 1 },
    { "modelcached_pulls_total{code=\"UNAVAILABLE\"}", -1 },
    { "modelcached_verify_failures_total{where=\"pull\"}", 1 },
    { "modelcached_pull_workers_started_total", 6 },
    { "modelcached_pull_worker_failures_total{reason=\"crashed\"}", 1 },
    { "modelcached_pull_worker_failures_total{reason=\"protocol\"}", 1 },
    { "modelcached_pull_worker_failures_total{reason=\"silent\"}", 0 },
    { "modelcached_pull_bytes_total{source=\"registry\"}", 36 },
    { "modelcached_pull_bytes_total{source=\"store\"}", 23 },
    { "modelcached_pull_bytes_total{source=\"shared\"}", 0 },
    { "modelcached_pull_duration_seconds_count", 1 },
    { "modelcached_pull_queue_duration_seconds_count", 6 },
};

TEST(puller_counts) {
    STORE_TEST_DIR(dir);
    Caller a, b;
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ask(&e, &a, "r.example/slow:1", PULL_POLICY_ALWAYS);
    get(&e, &b, "r.example/slow:1", PULL_POLICY_ALWAYS);
    get(&e, &a, "r.example/slow:1", PULL_POLICY_NEVER);
    get(&e, &a, "r.example/none:1", PULL_POLICY_NEVER);
    get(&e, &a, "r.example/absent:1", PULL_POLICY_ALWAYS);
    get(&e, &a, "r.example/crash:1", PULL_POLICY_ALWAYS);
    get(&e, &a, "r.example/garbage:1", PULL_POLICY_ALWAYS);
    get(&e, &a,
        "r.example/plain@sha256:0000000000000000000000000000000000000000000000000000000000000001",
        PULL_POLICY_IF_NOT_PRESENT);
    for (size_t i = 0; i < ELEMENTSOF(counted); i++)
        if (metric_value(e.metrics, counted[i].series) != counted[i].value)
            test_fail(__FILE__, __LINE__, "%s is %g, not %g", counted[i].series,
                      metric_value(e.metrics, counted[i].series), counted[i].value);
    agent_env_done(&e);
}

TEST(puller_writes_the_history) {
    STORE_TEST_DIR(dir);
    StoreEvent *events;
    size_t n;
    AgentEnv e;
    Caller a;
    Err err = { "" };

    agent_env_init(&e, dir, NULL);
    get(&e, &a, "r.example/plain:1", PULL_POLICY_ALWAYS);
    get(&e, &a, "r.example/absent:1", PULL_POLICY_ALWAYS);
    for (unsigned i = 0; i < 20; i++)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    ASSERT_OK(store_event_list(e.store, &(EventFilter){ 0 }, 10, &events, &n, &err));
    ASSERT_EQ(n, 4);
    ASSERT_STREQ(events[0].type, "pull.started");
    ASSERT_STREQ(events[1].type, "pull.done");
    ASSERT_STRSTR(events[1].text, "pulled r.example/plain:1: 36 B fetched, 23 B were here");
    ASSERT_STREQ(events[3].type, "pull.failed");
    for (size_t i = 0; i < n; i++)
        store_event_clear(&events[i]);
    free(events);
    agent_env_done(&e);
}
