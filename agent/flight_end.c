/* SPDX-License-Identifier: Apache-2.0 */
/* flight_end: a pull is over: what becomes of its folder and its worker. */
#include "agent/flight_internal.h"
#include "base/log.h"

/* Of a pull that went well. */
typedef struct Leftover {
    const FlightContext *context;
    pid_t worker;    /* was killed; or 0 */
    uint64_t memory; /* of that, its buffers */
    char ingest[STORE_INGEST_NAME_MAX];
    char id[PULL_ID_MAX];
    char *reference;
} Leftover;

static void give_back(const FlightContext *c, uint64_t memory) {
    c->memory->bytes -= memory;
    c->memory->n -= memory > 0;
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

    worker_wait(l->worker); /* nobody must write into the folder any more */
    return store_ingest_end(l->context->store, l->ingest, err);
}

static void on_cleared(void *arg, int r, const Err *err) {
    Leftover *l = arg;

    give_back(l->context, l->memory);
    l->context->changed(l->context->arg); /* others may have it */
    if (r < 0)
        warn_of_rest(l->id, l->reference, r, err);
    free(l->reference);
    free(l);
}

/* The kernel takes up to 50 ms to end a worker, and nobody needs to wait for that: what it brought
 * is the store's. */
static void clear_later(Flight *p) {
    Leftover *l = xnew(Leftover);

    *l = (Leftover){ .context = p->context,
                     .worker = p->leaving,
                     .memory = p->limits.memory_bytes,
                     .reference = xstrdup(p->reference_text) };
    p->limits.memory_bytes = 0;
    memcpy(l->ingest, p->ingest, sizeof(l->ingest));
    memcpy(l->id, p->id, sizeof(l->id));
    pool_submit(p->context->pool, run_clear, on_cleared, l);
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
