/* SPDX-License-Identifier: Apache-2.0 */
/* fetch_env: what the tests of fetch share: a registry of the test's own (this file defines the
 * functions of registry.h that fetch calls), what a fetch needs, its end. */
#pragma once

#include "base/fs.h"
#include "oci/fetch.h"
#include "tests/unit/test.h"

#include <fcntl.h>

#define BUFFER_BYTES KiB(64)
#define N_BUFFERS    4

/* Gives `body` in pieces, one an iteration of the loop. */
struct RegistryRequest {
    Registry *registry;
    RegistryBlobHandlers handlers;
    sd_event_source *source;
    const uint8_t *body;
    size_t n, at, piece;
    int fail;                         /* instead of the end */
    unsigned turns, every, turn_usec; /* of so many turns one gives a piece; a turn takes so long */
    RegistryBlobHead head;
    bool told, expects, done;
};

struct Registry {
    sd_event *event;
    const uint8_t *body;
    size_t n, piece;
    int fail;
    uint64_t breaks_at; /* answers that pass this byte end there … */
    unsigned n_breaks;  /* … so often */
    uint64_t bad_from;  /* ranges from this byte on are refused … */
    unsigned n_bad;     /* … so often */
    bool ignores;       /* all ranges: the blob comes whole */
    bool whole_last;    /* … after the refusals of the others */
    uint64_t answer_usec;
    const char *etag;
    unsigned n_requests, n_before_head; /* before the first head came */
    unsigned n_expecting, n_dropped;    /* requests that were ended before their last byte */
    unsigned n_paused;                  /* pieces that had to wait */
    uint64_t sent;
    unsigned turn_usec; /* each piece takes so long, behind the first range … */
    bool turn_once;     /* … but only ten times, before the answer */
    unsigned chance;    /* not 0: some answers are much slower than others */
};

RegistryRequest *registry_request_free(RegistryRequest *q) {
    if (q) {
        q->registry->n_dropped += !q->done && q->at < q->n;
        (void)sd_event_source_disable_unref(q->source);
        free(q);
    }
    return NULL;
}

static inline int on_turn(sd_event_source *source, void *arg) {
    RegistryRequest *q = arg;
    size_t k = MIN(q->piece, q->n - q->at);
    RegistryBlobHandlers h = q->handlers;
    Err err = { "the network fails" };
    int r = 0;

    if (++q->turns % q->every != 0)
        return 0;
    (void)usleep(q->turn_usec);
    if (q->registry->turn_once && q->turns >= 10)
        q->turn_usec = 0;
    if (q->turn_usec > 0 && q->registry->turn_once)
        return 0;
    if (!q->told && q->fail != REGISTRY_RANGE_IGNORED) {
        q->told = true;
        q->registry->n_before_head = q->registry->n_before_head ?: q->registry->n_requests;
        h.on_head(h.arg, &q->head);
    }
    if (k > 0) {
        r = h.on_data(h.arg, q->body + q->at, k);
        if (r == 1) { /* until it is resumed */
            q->registry->n_paused++;
            (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
            return 0;
        }
        if (r == 0) {
            q->at += k;
            q->registry->sent += k;
            return 0;
        }
    } else {
        r = q->fail;
    }
    q->done = true;
    h.on_done(h.arg, r, &err);
    (void)registry_request_free(q);
    return 0;
}

void registry_request_expect(RegistryRequest *q, const char *etag) {
    q->registry->n_expecting += !q->expects && etag;
    q->expects = true;
}

uint64_t registry_request_retry_usec(const RegistryRequest *q) {
    (void)q;
    return 0;
}

int registry_get_blob(Registry *r, RegistryRequest **ret, const RegistryBlob *blob,
                      const RegistryBlobHandlers *handlers) {
    RegistryRequest *q = xnew(RegistryRequest);
    bool breaks = r->breaks_at > blob->begin && r->breaks_at < blob->end && r->n_breaks > 0;
    bool is_bad = blob->begin > 0 && blob->begin >= r->bad_from && r->n_bad > 0;
    bool whole =
        (!blob->probe || r->ignores) && !blob->begin && (r->ignores || blob->end == blob->size);

    r->n_requests++;
    r->n_breaks -= breaks;
    r->n_bad -= is_bad;
    *q = (RegistryRequest){
        .registry = r,
        .handlers = *handlers,
        .body = r->body,
        .at = (size_t)blob->begin,
        .every = r->chance > 0 ? 1U << rand_r(&r->chance) % 8 : 1,
        .piece = r->piece,
        .head = { .whole = whole, .etag = r->etag, .answer_usec = r->answer_usec },
        .expects = blob->etag,
    };
    q->turn_usec = blob->begin > 0 ? r->turn_usec : 0;
    q->n = (size_t)MIN(whole ? blob->size : blob->end, (uint64_t)r->n);
    q->fail = r->fail;
    if (breaks) {
        q->n = (size_t)r->breaks_at;
        q->fail = -ECONNRESET;
    }
    if (is_bad || (r->ignores && blob->begin > 0)) {
        q->n = q->at;
        q->fail = REGISTRY_RANGE_IGNORED;
    }
    ASSERT_OK(sd_event_add_defer(r->event, &q->source, on_turn, q));
    if (q->turn_usec > 0) /* hash and disk do not wait for it */
        ASSERT_OK(sd_event_source_set_priority(q->source, SD_EVENT_PRIORITY_IDLE));
    ASSERT_OK(sd_event_source_set_enabled(q->source, SD_EVENT_ON));
    if (whole && r->whole_last)
        ASSERT_OK(sd_event_source_set_priority(q->source, SD_EVENT_PRIORITY_IDLE));
    *ret = q;
    return 0;
}

void registry_request_resume(RegistryRequest *q) {
    (void)sd_event_source_set_enabled(q->source, SD_EVENT_ON);
}

typedef struct Fixture {
    TmpDir *dir;
    sd_event *event;
    Pool *pool;
    Ring *ring;
    Registry registry;
    Traffic *traffic;
    FetchContext context;
    unsigned troubles;
    Fetch *fetch, *other; /* `other`: of a test with two */
    unsigned n_ended;     /* of these */
    uint8_t *body;
    Digest digest;
    bool ended;
    uint64_t resumed;
    int r;
    Err err;
} Fixture;

static inline void on_end(void *arg, int r, const Err *err) {
    Fixture *f = arg;

    ASSERT_TRUE(!f->ended);
    f->ended = true;
    f->r = r;
    f->err = *err;
    f->resumed = fetch_resumed(f->fetch);
    f->fetch = fetch_free(f->fetch);
}

static inline void on_trouble(void *arg, const char *text) {
    ((Fixture *)arg)->troubles++;
    ASSERT_TRUE(strstr(text, "; trying again in ") || strstr(text, " in one stream"));
}

static inline void on_free(void *arg) {
    Fixture *f = arg;

    if (f->fetch)
        fetch_wake(f->fetch);
    if (f->other)
        fetch_wake(f->other);
}

static inline void start_ring(Fixture *f) {
    RingOptions ring = {
        .mode = RING_AUTO, .depth = 4, .n_buffers = N_BUFFERS, .buffer_bytes = BUFFER_BYTES
    };

    ASSERT_OK(pool_new(&f->pool, f->event, 2, &f->err));
    ring.event = f->event;
    ring.pool = f->pool;
    ASSERT_OK(ring_new(&f->ring, &ring, &f->err));
    ring_set_on_free(f->ring, on_free, f);
    f->context.ring = f->ring;
    f->context.pool = f->pool;
}

/* Ends what a fetch that was freed left in flight. */
static inline void stop_ring(Fixture *f) {
    ring_set_on_free(f->ring, NULL, NULL);
    f->ring = ring_free(f->ring);
    f->pool = pool_free(f->pool);
}

static inline void start_traffic(Fixture *f, unsigned connections, uint64_t give_up_usec) {
    f->traffic = traffic_free(f->traffic);
    ASSERT_OK(traffic_new(&f->traffic,
                          &(TrafficOptions){ .event = f->event,
                                             .connections = connections,
                                             .retry_usec = 1000,
                                             .give_up_usec = give_up_usec,
                                             .wake = on_free,
                                             .arg = f },
                          &f->err));
    f->context.traffic = f->traffic;
}

static inline void fixture_open(Fixture *f, size_t n) {
    *f = (Fixture){ .dir = tmpdir_new(), .body = xcalloc(1, n + 1) };
    for (size_t i = 0; i < n; i++)
        f->body[i] = (uint8_t)(i * 7 + i / 251);
    digest_of(&f->digest, f->body, n);
    ASSERT_OK(sd_event_new(&f->event));
    f->registry = (Registry){ .event = f->event, .body = f->body, .n = n, .piece = 1000 };
    f->context = (FetchContext){
        .event = f->event, .registry = &f->registry, .n_buffers = N_BUFFERS, .reserve = 1
    };
    start_traffic(f, 3, 60 * USEC_PER_SEC); /* nobody gives up because the machine is busy */
    start_ring(f);
}

static inline void fixture_close(Fixture *f) {
    f->fetch = fetch_free(f->fetch);
    stop_ring(f);
    f->traffic = traffic_free(f->traffic);
    f->event = sd_event_unref(f->event);
    free(f->body);
    f->dir = tmpdir_free(f->dir);
}

static inline FetchOptions options(Fixture *f, uint64_t size) {
    return (FetchOptions){ .context = &f->context,
                           .digest = f->digest,
                           .size = size,
                           .dir_fd = tmpdir_fd(f->dir),
                           .name = "blob",
                           .map = "map",
                           .on_trouble = on_trouble,
                           .done = on_end,
                           .arg = f };
}

static inline int run(Fixture *f, const FetchOptions *o) {
    f->ended = false;
    ASSERT_OK(fetch_new(&f->fetch, o, &f->err));
    while (!f->ended)
        ASSERT_OK(sd_event_run(f->event, UINT64_MAX));
    ASSERT_EQ(ring_buffers_free(f->ring), N_BUFFERS);
    return f->r;
}

static inline void check_file(Fixture *f, size_t n) {
    _cleanup_free_ char *got = NULL;
    size_t n_got;

    ASSERT_OK(fs_read_file(tmpdir_fd(f->dir), "blob", MiB(8), &got, &n_got, &f->err));
    ASSERT_EQ(n_got, n);
    ASSERT_MEMEQ(got, f->body, n);
    ASSERT_OK(unlinkat(tmpdir_fd(f->dir), "blob", 0));
}
