/* SPDX-License-Identifier: Apache-2.0 */
/* agent_env: a real store, a pool, a puller whose workers are fake: for the tests of puller and
 * control. */
#pragma once

#include "agent/event_log.h"
#include "agent/puller.h"
#include "tests/unit/fake_worker.h"
#include "tests/unit/store_env.h"

#define AGENT_ENV_POOL 3 /* threads */
#define AGENT_ENV_BULK 3

typedef struct AgentEnv {
    TmpDir *dir;
    sd_event *event;
    Store *store;
    Pool *pool, *bulk;
    Config *config;
    PullOptions *options;
    EventLog *events;
    Metrics *metrics;
    Standby *standby;
    Puller *puller;
} AgentEnv;

_unused_ static void agent_env_event(void *arg, const StoreEvent *event) {
    event_log_add(((AgentEnv *)arg)->events, event);
}

/* `dir` is borrowed; `set` is one more key, or NULL. */
_unused_ static void agent_env_init(AgentEnv *e, TmpDir *dir, const char *set) {
    ConfigSources sources = { .sets = &set, .n_sets = set ? 1 : 0 };
    Err err = { "" };
    int r;

    *e = (AgentEnv){ .dir = dir, .event = fake_event() };
    r = config_load(&e->config, &sources, &err);
    if (r >= 0)
        r = pull_options_new(&e->options, e->config, &err);
    if (r >= 0)
        r = pool_new(&e->pool, e->event, AGENT_ENV_POOL, &err);
    if (r >= 0)
        r = pool_new(&e->bulk, e->event, AGENT_ENV_BULK, &err);
    if (r < 0)
        test_fail(__FILE__, __LINE__, "%s", err_text(&err, r));
    e->store = env_open(dir);
    event_log_new(&e->events, e->store, e->pool);
    metrics_new(&e->metrics);
    standby_new(&e->standby, e->event, fake_program(dir));
    puller_new(&e->puller, &(PullerOptions){ .event = e->event,
                                             .store = e->store,
                                             .pool = e->pool,
                                             .bulk = e->bulk,
                                             .standby = e->standby,
                                             .options = e->options,
                                             .on_event = agent_env_event,
                                             .arg = e,
                                             .metrics = e->metrics });
}

_unused_ static void agent_env_done(AgentEnv *e) {
    puller_stop(e->puller, NULL, NULL);
    (void)pool_free(e->bulk);
    (void)pool_free(e->pool);
    (void)puller_free(e->puller);
    (void)standby_free(e->standby);
    (void)event_log_free(e->events);
    (void)metrics_free(e->metrics);
    (void)store_close(e->store);
    (void)pull_options_unref(e->options);
    (void)config_free(e->config);
    (void)sd_event_unref(e->event);
}

/* Runs the loop until `*flag`, at most 30 s. */
_unused_ static void agent_env_wait(AgentEnv *e, const unsigned *flag, unsigned want) {
    uint64_t until = now_usec() + 30 * USEC_PER_SEC;

    while (*flag < want && now_usec() < until)
        (void)sd_event_run(e->event, 50 * USEC_PER_MSEC);
    if (*flag < want)
        test_fail(__FILE__, __LINE__, "waited for %u, got %u", want, *flag);
}

/* The value of a series, "name{label=\"value\"}"; -1: there is none. */
_unused_ static double metric_value(const Metrics *m, const char *series) {
    _cleanup_free_ char *text = NULL;
    size_t size = 0, n = strlen(series);
    FILE *f = open_memstream(&text, &size);
    const char *at;

    ASSERT_TRUE(f);
    metrics_write(m, f);
    (void)fclose(f);
    for (at = text; (at = strstr(at, series)); at += n)
        if ((at == text || at[-1] == '\n') && at[n] == ' ')
            return strtod(at + n, NULL);
    return -1;
}

static int agent_env_count_left(AgentEnv *e) {
    _cleanup_free_ char *path = xasprintf("%s/ingest", store_path(e->store));
    DIR *d = opendir(path);
    int n = -2;

    if (!d)
        return 0;
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

/* What stays in ingest/ of the store: a pull that went well is over before its folder is gone. */
_unused_ static int agent_env_left(AgentEnv *e) {
    for (unsigned i = 0; i < 100 && agent_env_count_left(e) > 0; i++)
        (void)sd_event_run(e->event, 20 * USEC_PER_MSEC);
    return agent_env_count_left(e);
}

/* One who asks the puller. */
typedef struct Caller {
    const char *password; /* NULL: no credentials */
    bool trusted;
    bool late;            /* its deadline is past */
    const Filter *filter; /* NULL: all of it; borrowed */
    unsigned done;
    int r;
    Err err;
    Digest manifest;
    EnsureTicket *ticket;
    bool had_pull;
} Caller;

_unused_ static void caller_done(void *arg, int r, const Err *err, const Digest *manifest) {
    Caller *a = arg;

    a->done++;
    a->r = r;
    a->err = *err;
    a->had_pull = puller_ticket_pull(a->ticket) != NULL;
    if (r >= 0)
        a->manifest = *manifest;
    a->ticket = puller_ticket_free(a->ticket);
}
