/* SPDX-License-Identifier: Apache-2.0 */
/* flight_end: a pull is over: what becomes of its folder and its worker. */
#include "agent/flight_internal.h"
#include "base/log.h"

#include <sys/wait.h>

/* Of a pull that went well. */
typedef struct Leftover Leftover;
struct Leftover {
    const FlightContext *context;
    Leftover *prev, *next; /* of those whose worker is waited for */
    sd_event_source *child;
    pid_t worker;    /* was killed; or 0 */
    uint64_t memory; /* of that, its buffers */
    char ingest[STORE_INGEST_NAME_MAX];
    char id[PULL_ID_MAX];
    char *reference;
};

static void give_back(const FlightContext *c, uint64_t memory) {
    c->workers->memory -= memory;
    c->workers->n -= memory > 0;
}

void flight_give_memory_back(Flight *p) {
    give_back(p->context, p->limits.memory_bytes);
    p->limits.memory_bytes = 0;
}

/* Its folder goes at the next start, then. */
static void warn_of_rest(const char *id, const char *reference, int r, const Err *err) {
    log_write(LOG_WARN, LOG_FIELDS({ "pull", id }, { "reference", reference }),
              "cannot clean up after the pull of %s: %s", reference, err_text(err, r));
}

static int run_clear(void *arg, Err *err) {
    const Leftover *l = arg;

    worker_wait(l->worker); /* nobody may write into the folder any more */
    return store_ingest_end(l->context->store, l->ingest, err);
}

/* The worker has ended. */
static void take_memory(Leftover *l) {
    uint64_t memory = l->memory;

    l->memory = 0;
    give_back(l->context, memory);
    l->context->changed(l->context->arg); /* others may have it */
}

static void on_cleared(void *arg, int r, const Err *err) {
    Leftover *l = arg;

    take_memory(l);
    if (r < 0)
        warn_of_rest(l->id, l->reference, r, err);
    free(l->reference);
    free(l);
}

/* Its worker has ended, or a thread waits for it. */
static void clear(Leftover *l) {
    if (l->prev)
        l->prev->next = l->next;
    else
        l->context->workers->ending = l->next;
    if (l->next)
        l->next->prev = l->prev;
    l->child = sd_event_source_disable_unref(l->child);
    pool_submit(l->context->pool, run_clear, on_cleared, l);
}

static int on_child(sd_event_source *source, const siginfo_t *si, void *arg) {
    Leftover *l = arg;

    (void)source;
    (void)si;
    l->worker = 0; /* the loop reaps it */
    take_memory(l);
    clear(l);
    return 0;
}

void flight_end_workers(const FlightContext *c) {
    while (c->workers->ending)
        clear(c->workers->ending);
}

/* The kernel takes up to 50 ms to end a worker, and nobody needs to wait for that: what it brought
 * is the store's. */
static void clear_later(Flight *p) {
    const FlightContext *c = p->context;
    Leftover *l = xnew(Leftover);

    *l = (Leftover){ .context = c,
                     .next = c->workers->ending,
                     .worker = p->leaving,
                     .memory = p->limits.memory_bytes,
                     .reference = xstrdup(p->reference_text) };
    p->limits.memory_bytes = 0;
    memcpy(l->ingest, p->ingest, sizeof(l->ingest));
    memcpy(l->id, p->id, sizeof(l->id));
    if (l->next)
        l->next->prev = l;
    c->workers->ending = l;
    if (l->worker == 0 || c->workers->closing ||
        sd_event_add_child(c->event, &l->child, l->worker, WEXITED, on_child, l) < 0)
        clear(l);
}

static void on_ended(void *arg, int r, const Err *err) {
    Flight *p = arg;

    p->n_works--;
    p->sharer = sharer_free(p->sharer); /* what it leaves in part is there for the next one */
    if (p->r >= 0)
        clear_later(p); /* what has failed is tried once more */
    else if (r < 0)
        warn_of_rest(p->id, p->reference_text, r, err);
    flight_give_memory_back(p); /* else its worker has been waited for */
    p->done(p->arg, p, p->r, &p->err);
}

static int run_end(void *arg, Err *err) {
    Flight *p = arg;

    if (p->r >= 0)
        return store_ingest_release(p->context->store, p->ingest, err);
    worker_wait(p->leaving); /* as above */
    if (p->refused) {
        Grant grant = flight_grant(p);
        AccessName name = { p->reference, p->reference_text, p->platform_text, p->filter };

        flight_refused(p->context->store, &grant, &name, p->worker_r, p->answered);
    }
    return p->has_folder
               ? flight_failed(p->context->store, p->ingest, p->r, p->died, &p->freed, err)
               : 0;
}

void flight_settle(Flight *p) {
    if (p->n_works == 0 && !p->ending) {
        p->ending = true;
        flight_submit(p, run_end, on_ended, p);
    }
}
