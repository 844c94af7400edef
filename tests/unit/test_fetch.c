/* SPDX-License-Identifier: Apache-2.0 */
/* test_fetch: one blob from a registry of the test's own (this file defines its functions), to a
 * file or a feed. */
#include "oci/fetch.h"

#include "base/fs.h"
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
    unsigned n_expecting, n_dropped;    /* requests that were ended before their end */
    uint64_t sent;
    unsigned turn_usec; /* each piece takes so long, behind the first range */
    unsigned chance;    /* not 0: some answers are much slower than others */
};

RegistryRequest *registry_request_free(RegistryRequest *q) {
    if (q) {
        q->registry->n_dropped += !q->done;
        (void)sd_event_source_disable_unref(q->source);
        free(q);
    }
    return NULL;
}

static int on_turn(sd_event_source *source, void *arg) {
    RegistryRequest *q = arg;
    size_t k = MIN(q->piece, q->n - q->at);
    RegistryBlobHandlers h = q->handlers;
    Err err = { "the network fails" };
    int r = 0;

    if (++q->turns % q->every != 0)
        return 0;
    (void)usleep(q->turn_usec);
    if (!q->told && q->fail != REGISTRY_RANGE_IGNORED) {
        q->told = true;
        q->registry->n_before_head = q->registry->n_before_head ?: q->registry->n_requests;
        h.on_head(h.arg, &q->head);
    }
    if (k > 0) {
        r = h.on_data(h.arg, q->body + q->at, k);
        if (r == 1) { /* until it is resumed */
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

static void on_end(void *arg, int r, const Err *err) {
    Fixture *f = arg;

    ASSERT_TRUE(!f->ended);
    f->ended = true;
    f->r = r;
    f->err = *err;
    f->resumed = fetch_resumed(f->fetch);
    f->fetch = fetch_free(f->fetch);
}

static void on_trouble(void *arg, const char *text) {
    ((Fixture *)arg)->troubles++;
    ASSERT_TRUE(strstr(text, "; trying again in ") || strstr(text, " in one stream"));
}

static void on_free(void *arg) {
    Fixture *f = arg;

    if (f->fetch)
        fetch_wake(f->fetch);
    if (f->other)
        fetch_wake(f->other);
}

static void start_ring(Fixture *f) {
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
static void stop_ring(Fixture *f) {
    ring_set_on_free(f->ring, NULL, NULL);
    f->ring = ring_free(f->ring);
    f->pool = pool_free(f->pool);
}

static void start_traffic(Fixture *f, unsigned connections, uint64_t give_up_usec) {
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

static void fixture_open(Fixture *f, size_t n) {
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

static void fixture_close(Fixture *f) {
    f->fetch = fetch_free(f->fetch);
    stop_ring(f);
    f->traffic = traffic_free(f->traffic);
    f->event = sd_event_unref(f->event);
    free(f->body);
    f->dir = tmpdir_free(f->dir);
}

static FetchOptions options(Fixture *f, uint64_t size) {
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

static int run(Fixture *f, const FetchOptions *o) {
    f->ended = false;
    ASSERT_OK(fetch_new(&f->fetch, o, &f->err));
    while (!f->ended)
        ASSERT_OK(sd_event_run(f->event, UINT64_MAX));
    ASSERT_EQ(ring_buffers_free(f->ring), N_BUFFERS);
    return f->r;
}

static void check_file(Fixture *f, size_t n) {
    _cleanup_free_ char *got = NULL;
    size_t n_got;

    ASSERT_OK(fs_read_file(tmpdir_fd(f->dir), "blob", MiB(8), &got, &n_got, &f->err));
    ASSERT_EQ(n_got, n);
    ASSERT_MEMEQ(got, f->body, n);
    ASSERT_OK(unlinkat(tmpdir_fd(f->dir), "blob", 0));
}

TEST(blobs_of_every_size_and_in_every_piece_arrive) {
    static const size_t sizes[] = {
        0, 1, 4095, 4096, 4097, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, MiB(2) + 5
    };
    static const size_t pieces[] = { 4000, KiB(16), 3 * BUFFER_BYTES + 7, MiB(3) };

    for (size_t i = 0; i < ELEMENTSOF(sizes); i++)
        for (size_t k = 0; k < ELEMENTSOF(pieces); k++) {
            Fixture f;
            FetchOptions o;

            fixture_open(&f, sizes[i]);
            f.registry.piece = pieces[k];
            o = options(&f, sizes[i]);
            ASSERT_OK(run(&f, &o));
            check_file(&f, sizes[i]);
            fixture_close(&f);
        }
}

TEST(embedded_content_needs_no_registry) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, MiB(1) + 3);
    o = options(&f, MiB(1) + 3);
    f.context.registry = NULL;
    o.data = f.body;
    ASSERT_OK(run(&f, &o));
    check_file(&f, MiB(1) + 3);
    fixture_close(&f);
}

TEST(other_content_is_refused_and_leaves_nothing) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, 100000);
    o = options(&f, 100000);
    f.body[50000] ^= 1;
    ASSERT_ERR(run(&f, &o), -EBADMSG);
    ASSERT_STRSTR(f.err.text, DIGEST_STR(&f.digest));
    ASSERT_EQ(tmpdir_count(f.dir), 0);
    fixture_close(&f);
}

TEST(a_network_that_stays_broken_ends_it) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, 300000);
    o = options(&f, 300000);
    start_traffic(&f, 3, 900 * USEC_PER_MSEC);
    f.registry.n = 200000;
    f.registry.fail = -ECONNRESET;
    ASSERT_ERR(run(&f, &o), -ECONNRESET);
    ASSERT_STRSTR(f.err.text, "the network fails; gave up after 0 s without a new byte");
    ASSERT_TRUE(f.troubles > 1 && f.registry.n_requests > 2);
    ASSERT_EQ(tmpdir_count(f.dir), 2); /* what came is kept, with its map … */
    f.registry.n = 300000;
    f.registry.fail = 0;
    f.registry.n_requests = 0;
    o.dir_fd = tmpdir_fd(f.dir);
    ASSERT_OK(run(&f, &o)); /* … and gone on with */
    ASSERT_EQ(f.registry.n_requests, 1);
    ASSERT_EQ(tmpdir_count(f.dir), 2); /* the map is complete … */
    f.registry.n_requests = 0;
    ASSERT_OK(run(&f, &o)); /* … and until somebody has taken the file, none is asked for it */
    ASSERT_EQ(f.registry.n_requests, 0);
    ASSERT_EQ(f.resumed, 300000);
    check_file(&f, 300000);
    ASSERT_OK(run(&f, &o)); /* a map alone says nothing */
    ASSERT_EQ(f.registry.n_requests, 1);
    check_file(&f, 300000);
    fixture_close(&f);
}

/* A fixture whose registry takes so long for an answer, the manifest before this blob included. */
static void fixture_open_at(Fixture *f, size_t n, uint64_t answer_usec) {
    fixture_open(f, n);
    f->context.range_min_bytes = KiB(128);
    f->registry.answer_usec = answer_usec;
    traffic_answered(f->traffic, answer_usec, false);
}

static void check_breaks(bool far, uint64_t at, unsigned breaks) {
    FetchOptions o;
    Fixture f;

    fixture_open_at(&f, MiB(1) + 77, far ? 20 * USEC_PER_MSEC : 2 * USEC_PER_MSEC);
    f.registry.piece = 7000;
    f.registry.breaks_at = at;
    f.registry.n_breaks = breaks;
    o = options(&f, MiB(1) + 77);
    ASSERT_OK(run(&f, &o));
    ASSERT_TRUE(f.registry.n_requests > (far ? 3 : 1));
    check_file(&f, MiB(1) + 77);
    fixture_close(&f);
}

TEST(ranges_over_connections_that_break) {
    for (unsigned breaks = 0; breaks < 4; breaks++)
        for (uint64_t at = 1; at < MiB(1); at += 130001)
            for (unsigned far = 0; far < 2; far++)
                check_breaks(far, at, breaks);
}

/* Up to three times in a row the rest of it is asked for in one stream; then there is no other way
 * than from the start. */
TEST(ranges_that_are_mishandled_cost_little) {
    const size_t size = MiB(1) + 77, on_the_way = 3 * 7000;

    for (unsigned bad = 0; bad <= 3; bad++)
        for (uint64_t from = 1; from < size; from += 170001) {
            Fixture f;
            FetchOptions o;

            fixture_open(&f, size);
            f.context.range_min_bytes = KiB(128);
            f.registry.piece = 7000;
            f.registry.bad_from = from;
            f.registry.n_bad = bad;
            o = options(&f, size);
            ASSERT_OK(run(&f, &o));
            ASSERT_TRUE(f.registry.sent + on_the_way >= size &&
                        f.registry.sent <= (bad < 3 ? size + on_the_way : 2 * size));
            check_file(&f, size);
            fixture_close(&f);
        }
}

/* One connection was asked for all the rest, and then brings too little. */
TEST(a_near_registry_that_is_slow_gets_more_connections) {
    Fixture f;
    FetchOptions o;

    fixture_open_at(&f, MiB(2), 2 * USEC_PER_MSEC);
    f.registry.turn_usec = 4000; /* hash and disk have the time, also on a busy machine */
    f.registry.piece = KiB(16);
    o = options(&f, MiB(2));
    ASSERT_OK(run(&f, &o));
    ASSERT_TRUE(f.registry.n_dropped > 0 && f.registry.n_dropped <= 2); /* not again and again */
    ASSERT_TRUE(f.registry.n_requests > 4);
    ASSERT_EQ(f.registry.sent, MiB(2)); /* nothing twice */
    check_file(&f, MiB(2));
    fixture_close(&f);
}

/* All connections begin before the first answer; it tells the others what they have to expect. */
TEST(nothing_waits_for_the_first_answer_of_a_far_registry) {
    for (unsigned far = 0; far < 2; far++) {
        Fixture f;
        FetchOptions o;

        fixture_open_at(&f, MiB(2), far ? 20 * USEC_PER_MSEC : 2 * USEC_PER_MSEC);
        f.registry.etag = "\"a\"";
        o = options(&f, MiB(2));
        ASSERT_OK(run(&f, &o));
        ASSERT_EQ(f.registry.n_before_head, far ? 3 : 1);
        ASSERT_EQ(f.registry.n_expecting, f.registry.n_before_head);
        check_file(&f, MiB(2));
        fixture_close(&f);
    }
}

/* The manifest took long, the blob does not: its three ranges go on, of which two wait for buffers
 * until their turn comes.  The lowest breaks, and takes the place of one other. */
TEST(a_registry_that_only_seemed_far_loses_no_connection) {
    Fixture f;
    FetchOptions o;

    fixture_open_at(&f, MiB(4), 20 * USEC_PER_MSEC);
    f.context.n_buffers = 64; /* so that they do not limit ranges */
    f.registry.piece = 7000;
    f.registry.breaks_at = 7000;
    f.registry.n_breaks = 1;
    f.registry.answer_usec = 2 * USEC_PER_MSEC;
    o = options(&f, MiB(4));
    ASSERT_OK(run(&f, &o));
    ASSERT_EQ(f.registry.n_before_head, 3);
    ASSERT_EQ(f.registry.n_dropped, 1);
    ASSERT_TRUE(f.registry.sent <= MiB(4) + 7000);
    check_file(&f, MiB(4));
    fixture_close(&f);
}

TEST(a_far_registry_that_ignores_ranges_sends_the_blob_once) {
    for (unsigned last = 0; last < 2; last++) {
        Fixture f;
        FetchOptions o;

        fixture_open_at(&f, MiB(2), 20 * USEC_PER_MSEC);
        f.registry.ignores = true;
        f.registry.whole_last = last;
        o = options(&f, MiB(2));
        ASSERT_OK(run(&f, &o));
        ASSERT_EQ(f.troubles, last);
        ASSERT_EQ(f.registry.n_requests, 3 + last);
        ASSERT_EQ(f.registry.sent, MiB(2));
        ASSERT_TRUE(traffic_ranges_are_bad(f.traffic));
        check_file(&f, MiB(2));
        fixture_close(&f);
    }
}

/* It has one connection and hopes for no other: nothing is shared. */
TEST(a_blob_without_more_connections_asks_for_long_ranges) {
    for (unsigned alone = 0; alone < 2; alone++) {
        Fixture f;
        FetchOptions o;

        fixture_open_at(&f, 3 * BUFFER_BYTES, 20 * USEC_PER_MSEC);
        f.context.n_buffers = 64; /* so that they do not limit ranges */
        traffic_limit_extras(f.traffic, alone ? 0 : 2);
        o = options(&f, 3 * BUFFER_BYTES);
        ASSERT_OK(run(&f, &o));
        ASSERT_EQ(f.registry.n_requests, alone ? 1 : 3);
        check_file(&f, 3 * BUFFER_BYTES);
        fixture_close(&f);
    }
}

TEST(a_registry_that_never_serves_a_range) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, MiB(1));
    f.registry.n_bad = UINT32_MAX;
    f.registry.breaks_at = 700000;
    f.registry.n_breaks = 1;
    o = options(&f, MiB(1));
    ASSERT_OK(run(&f, &o));
    ASSERT_EQ(f.registry.sent, MiB(1) + 700000);
    ASSERT_EQ(f.registry.n_requests, 5);
    check_file(&f, MiB(1));
    fixture_close(&f);
}

TEST(a_file_that_cannot_be_made_is_an_error) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, 300000);
    o = options(&f, 300000);
    o.name = o.map = "no/such/folder";
    ASSERT_ERR(run(&f, &o), -ENOENT);
    o = options(&f, GiB(8 * 1024)); /* found out before the first byte comes */
    ASSERT_ERR(run(&f, &o), -ENOSPC);
    ASSERT_STRSTR(f.err.text, "no space left");
    ASSERT_EQ(tmpdir_count(f.dir), 0);
    fixture_close(&f);
}

TEST(another_size_is_refused) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, 300000);
    start_traffic(&f, 3, 30 * USEC_PER_MSEC);
    o = options(&f, 300001);
    ASSERT_ERR(run(&f, &o), -ECONNRESET);
    ASSERT_STRSTR(f.err.text, "ended early");
    fixture_close(&f);
}

/* A file with its map, or neither. */
TEST(a_cancelled_fetch_says_nothing_and_leaves_what_can_be_gone_on_with) {
    for (unsigned turns = 0; turns < 200; turns += 9) {
        Fixture f;
        FetchOptions o;
        bool has_file, has_map;

        fixture_open(&f, MiB(2));
        f.registry.piece = 20000;
        o = options(&f, MiB(2));
        ASSERT_OK(fetch_new(&f.fetch, &o, &f.err));
        for (unsigned i = 0; i < turns && !f.ended; i++)
            ASSERT_OK(sd_event_run(f.event, 1000));
        f.fetch = fetch_free(f.fetch);
        stop_ring(&f);
        has_file = faccessat(tmpdir_fd(f.dir), "blob", F_OK, 0) == 0;
        has_map = faccessat(tmpdir_fd(f.dir), "map", F_OK, 0) == 0;
        ASSERT_TRUE(has_file == has_map && (has_file || !f.ended));
        ASSERT_EQ(tmpdir_count(f.dir), has_file + has_map);
        start_ring(&f);
        ASSERT_OK(run(&f, &o));
        ASSERT_TRUE(has_map || f.resumed == 0);
        check_file(&f, MiB(2));
        fixture_close(&f);
    }
}

TEST(a_file_without_a_map_is_not_gone_on_with) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, 300000);
    o = options(&f, 300000);
    f.body[7] ^= 1; /* what lies there is not the blob */
    ASSERT_OK(fs_write_file_durably(tmpdir_fd(f.dir), "blob", f.body, 300000, 0600, &f.err));
    f.body[7] ^= 1;
    ASSERT_OK(run(&f, &o));
    ASSERT_EQ(f.resumed, 0);
    ASSERT_EQ(f.registry.sent, 300000);
    check_file(&f, 300000);
    fixture_close(&f);
}

TEST(a_feed_hears_of_the_end_only_with_the_right_digest) {
    for (int damage = 0; damage < 2; damage++) {
        _cleanup_(feed_freep) Feed *feed = NULL;
        Fixture f;
        FetchOptions o;
        Err err;

        fixture_open(&f, 100000);
        ASSERT_OK(feed_new(&feed, f.event, 2, &err));
        o = options(&f, 100000);
        o.feed = feed;
        f.body[5] ^= (uint8_t)damage;
        f.ended = false;
        ASSERT_OK(fetch_new(&f.fetch, &o, &f.err));
        while (!f.ended)
            ASSERT_OK(sd_event_run(f.event, UINT64_MAX));
        ASSERT_EQ(f.r, damage ? -EBADMSG : 0);
        ASSERT_EQ(feed_drain(feed, &err), f.r);
        feed = feed_free(feed);
        fixture_close(&f);
    }
}

/* What comes first was unpacked by another worker: it is neither asked for nor given. */
TEST(a_feed_begins_where_another_one_was) {
    for (int damage = 0; damage < 2; damage++) {
        _cleanup_(feed_freep) Feed *feed = NULL;
        _cleanup_(hasher_freep) Hasher *hasher = hasher_new();
        const size_t size = 6 * BUFFER_BYTES + 17, from = 4 * BUFFER_BYTES;
        FetchOptions o;
        Fixture f;
        Err err;

        fixture_open(&f, size);
        ASSERT_OK(feed_new(&feed, f.event, 8, &err));
        o = options(&f, size);
        o.feed = feed;
        hasher_update(hasher, f.body, from);
        hasher_save(hasher, &o.from.hash);
        o.from.offset = from;
        o.from.hash.words[3] ^= (uint32_t)damage;
        f.ended = false;
        ASSERT_OK(fetch_new(&f.fetch, &o, &f.err));
        ASSERT_EQ(fetch_bytes(f.fetch), from);
        while (!f.ended)
            ASSERT_OK(sd_event_run(f.event, UINT64_MAX));
        ASSERT_EQ(f.r, damage ? -EBADMSG : 0);
        ASSERT_EQ(f.registry.sent, size - from);
        ASSERT_EQ(f.resumed, from);
        for (size_t at = from; !damage;) {
            const uint8_t *data;
            FeedMark mark;
            uint64_t skip;
            size_t n;
            int r = feed_next(feed, &data, &n, &err);

            ASSERT_OK(r);
            if (r == 0) {
                ASSERT_EQ(at, size);
                break;
            }
            ASSERT_MEMEQ(data, f.body + at, n);
            ASSERT_OK(feed_mark(feed, 7, &mark, &skip, &err));
            ASSERT_EQ(mark.offset + skip, at + n - 7);
            at += n;
        }
        feed = feed_free(feed);
        fixture_close(&f);
    }
}

static void on_one_of_two(void *arg, int r, const Err *err) {
    if (r < 0)
        test_fail(__FILE__, __LINE__, "%s", err_text(err, r));
    ((Fixture *)arg)->n_ended++;
}

static void start_two(Fixture *f, size_t size) {
    FetchOptions o = options(f, size);

    o.done = on_one_of_two;
    ASSERT_OK(fetch_new(&f->fetch, &o, &f->err));
    o.name = "other";
    o.map = "other-map";
    ASSERT_OK(fetch_new(&f->other, &o, &f->err));
}

/* Four buffers, and ranges of two blobs that arrive in any order: without the reserve, bytes whose
 * turn is later take all of them, and none is left for those whose turn it is. */
TEST(fetches_that_share_few_buffers_do_not_stand_still) {
    for (unsigned chance = 1; chance <= 20; chance++) {
        uint64_t end = now_usec() + 20 * USEC_PER_SEC;
        Fixture f;

        fixture_open(&f, MiB(1) + 77);
        f.registry.piece = 7000;
        f.registry.chance = chance;
        f.registry.answer_usec = 20 * USEC_PER_MSEC; /* so that all connections are used */
        start_traffic(&f, 8, 60 * USEC_PER_SEC);
        traffic_answered(f.traffic, f.registry.answer_usec, false);
        f.context.range_min_bytes = KiB(128);
        f.context.reserve = 2;
        start_two(&f, MiB(1) + 77);
        while (f.n_ended < 2) {
            ASSERT_OK(sd_event_run(f.event, USEC_PER_SEC));
            if (now_usec() > end)
                test_fail(__FILE__, __LINE__, "chance %u: they stand still, %u buffers are free",
                          chance, ring_buffers_free(f.ring));
        }
        ASSERT_EQ(ring_buffers_free(f.ring), N_BUFFERS);
        f.other = fetch_free(f.other);
        fixture_close(&f);
    }
}
