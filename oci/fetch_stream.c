/* SPDX-License-Identifier: Apache-2.0 */
/* fetch_stream: the connections of one blob: what each asks for, and what becomes of its failures.
 */
#include "oci/fetch_internal.h"
#include "oci/retry.h"

#define RAMP_USEC     (10 * USEC_PER_MSEC) /* between two looks whether others are wanted */
#define RAMP_BACKLOG  4  /* so many buffers wait for the hash: it has enough to do */
#define HASH_BACKLOG  16 /* buffers that may wait for the hash: 10 to 30 ms of its time */
#define WATCH_USEC    (50 * USEC_PER_MSEC)
#define SLOW_USEC     (3 * USEC_PER_SEC) /* a connection has so long to show its speed … */
#define SLOW_FACTOR   8 /* … and is dropped when others are, or were, so many times faster */
#define RATE_PIECES   4 /* shorter ranges tell how long an answer takes, not how fast it comes */
#define RATE_FORGET   8 /* so they forget no more than this part of what is known */
#define NO_WAIT_BYTES MiB(1) /* a connection that brought so much is replaced at once */
#define DOUBTS_MAX    2 /* ranges mishandled in a row, before the blob is fetched from the start */

/* Ends it; its connection is still taken.  Returns whether that is an extra one. */
static bool detach_stream(FetchStream *s) {
    Fetch *f = s->fetch;
    bool extra = s->extra;

    for (unsigned i = 0; i < f->n_streams; i++)
        if (f->streams[i] == s) {
            f->streams[i] = f->streams[--f->n_streams];
            break;
        }
    f->waited_usec += fetch_stream_idle_usec(s, now_usec());
    s->request = registry_request_free(s->request);
    free(s);
    return extra;
}

static void remove_stream(FetchStream *s) {
    Traffic *t = s->fetch->c->traffic;

    traffic_give(t, detach_stream(s));
}

void fetch_streams_stop(Fetch *f) {
    while (f->n_streams > 0)
        remove_stream(f->streams[0]);
}

/* The lowest or the highest range; NULL: there is none. */
static FetchStream *outer_stream(const Fetch *f, bool lowest) {
    FetchStream *s = NULL;

    for (unsigned i = 0; i < f->n_streams; i++)
        if (!s || (f->streams[i]->at < s->at) == lowest)
            s = f->streams[i];
    return s;
}

/* The hash or the decoder has enough to do: what comes now would only lie in memory. */
static bool is_full(const Fetch *f) {
    const Piece *p = window_piece(&f->window, f->window.head);

    return f->hashing >= HASH_BACKLOG || (p && p->state == PIECE_FULL);
}

/* Bytes that it passed over, because they were on disk, are not all of their piece, or could not be
 * read: it cannot go on from here. */
static bool has_gap(const FetchStream *s) {
    const Piece *p = window_piece(&s->fetch->window, s->at / s->fetch->window.piece_bytes);
    size_t offset = (size_t)(s->at % s->fetch->window.piece_bytes);

    return p && p->state == PIECE_MISSING && offset > (p->buffer ? p->buffer->len : 0);
}

/* Takes of the body what belongs to one piece; returns how much that was: 0 when it has to wait. */
static size_t take(FetchStream *s, const uint8_t *data, size_t n) {
    Fetch *f = s->fetch;
    uint64_t i = s->at / f->window.piece_bytes;
    size_t offset = (size_t)(s->at % f->window.piece_bytes);
    size_t length = window_length(&f->window, i), have;
    Piece *p = window_piece(&f->window, i);

    n = MIN(n, length - offset);
    if (i < f->window.head || (p && p->state != PIECE_MISSING)) { /* it is there already */
        s->at += n;
        return n;
    }
    if (!p)
        return 0;
    if (!p->buffer && (is_full(f) || !(p->buffer = fetch_get_buffer(f, i)))) {
        f->was_full = true;
        return 0;
    }
    have = p->buffer->len;
    if (offset < have) {
        n = MIN(n, have - offset);
        s->at += n;
        return n;
    }
    memcpy(p->buffer->data + offset, data, n);
    p->buffer->len += n;
    s->at += n;
    s->fresh += n;
    f->received += n;
    if (p->buffer->len == length) {
        fetch_piece_full(f, i);
        fetch_hand_on(f);
    }
    return n;
}

/* The request gives all of a piece of body or none of it.  Of one that was taken in part, and comes
 * again, the first bytes are `known`. */
static int on_data(void *arg, const uint8_t *data, size_t n) {
    FetchStream *s = arg;
    Fetch *f = s->fetch;
    uint64_t fresh = s->fresh;
    size_t at = s->known, k = 1;
    bool gap = false;

    if (!traffic_may_receive(f->c->traffic)) {
        f->throttled = true;
        k = 0;
    }
    while (at < n && k > 0 && !(gap = has_gap(s))) {
        k = take(s, data + at, n - at);
        at += k;
    }
    traffic_received(f->c->traffic, at - s->known, s->fresh > fresh);
    if (gap)
        return -ECONNRESET;
    s->known = at < n ? at : 0;
    if (at < n)
        s->paused_usec = now_usec();
    return at < n;
}

/* The first answer has it: all others must have the same, also those that are on their way. */
static void expect(Fetch *f, const char *etag) {
    f->etag = xstrdup(etag);
    for (unsigned i = 0; i < f->n_streams; i++)
        registry_request_expect(f->streams[i]->request, etag);
}

/* All others ask for what this one brings. */
static void keep_only(const FetchStream *s) {
    Fetch *f = s->fetch;

    while (f->n_streams > 1)
        remove_stream(f->streams[f->streams[0] == s ? 1 : 0]);
}

static void on_head(void *arg, const RegistryBlobHead *head) {
    FetchStream *s = arg;
    Fetch *f = s->fetch;

    if (!f->etag)
        expect(f, head->etag);
    if (head->whole && s->end < f->o.size) {
        s->begin = s->at = 0;
        s->end = f->o.size;
        f->mode = FETCH_PLAIN;
        traffic_mark_ranges_bad(f->c->traffic);
        keep_only(s);
        return;
    }
    if (!head->whole)
        traffic_mark_ranges_good(f->c->traffic);
    if (f->mode == FETCH_PROBING)
        f->mode = FETCH_RANGES;
    if (f->mode == FETCH_RANGES && !f->ramp.begun) { /* one may have been slow by chance */
        traffic_answered(f->c->traffic, head->answer_usec, true);
        ramp_answered(&f->ramp, traffic_nearest_usec(f->c->traffic),
                      traffic_connections(f->c->traffic));
    }
}

/* The registry has broken its word about ranges: the blob comes in one stream, which goes on where
 * the bytes end; when that does not work either, from the start, and much comes twice.  (It may be
 * one of many servers behind a name, or one answer of a proxy.)  The digest proves the content, so
 * the ETag may be another now. */
static void leave_ranges(Fetch *f, int r, const Err *why) {
    Err text;

    if (f->mode == FETCH_WHOLE) {
        fetch_fail(f, -EPROTO, why);
        return;
    }
    f->doubts = f->doubted_at == f->received ? f->doubts + 1 : 1;
    f->doubted_at = f->received;
    f->mode = f->doubts > DOUBTS_MAX ? FETCH_WHOLE : FETCH_PLAIN;
    free(TAKE_PTR(f->etag));
    traffic_mark_ranges_bad(f->c->traffic);
    fetch_streams_stop(f);
    (void)err_set(&text, r, "%.400s; fetching %s in one stream", err_text(why, r),
                  f->mode == FETCH_WHOLE ? "all of the blob" : "the rest of the blob");
    f->o.on_trouble(f->o.arg, text.text);
}

/* Waits, and says so; or gives up. */
static void on_trouble(Fetch *f, int r, const Err *why, uint64_t after_usec) {
    Traffic *t = f->c->traffic;
    uint64_t wait = 0;
    Err text;

    if (f->tries > 0 && !traffic_wait(t, f->tries, after_usec, &wait)) {
        (void)err_set(&text, r, "%.400s; gave up after %llu s without a new byte", err_text(why, r),
                      (unsigned long long)(traffic_give_up_usec(t) / USEC_PER_SEC));
        fetch_fail(f, r, &text);
        return;
    }
    if (after_usec > 0)
        traffic_hold(t, wait);
    if (wait > 0 && fetch_rest(f, wait) < 0) {
        fetch_fail(f, r, why);
        return;
    }
    (void)err_set(&text, r, "%.400s; trying again in %.1f s", err_text(why, r),
                  (double)wait / (double)USEC_PER_SEC);
    f->o.on_trouble(f->o.arg, text.text);
}

static void note_rate(const FetchStream *s) {
    Fetch *f = s->fetch;
    uint64_t rate = per_second(s->fresh, fetch_stream_usec(s, now_usec()));

    if (rate >= f->rate / SLOW_FACTOR)
        f->slow_usec = 0;
    if (s->fresh >= RATE_PIECES * f->window.piece_bytes)
        f->rate = rate;
    else if (s->idle_usec == 0) /* what came in a pause came too fast */
        f->rate = MAX(f->rate - f->rate / RATE_FORGET, rate);
}

static void on_done(void *arg, int r, const Err *err) {
    FetchStream *s = arg;
    Fetch *f = s->fetch;
    uint64_t after_usec = registry_request_retry_usec(s->request), fresh = s->fresh;
    Err why = *err;

    if (r >= 0 && s->at < s->end)
        r = err_set(&why, -ECONNRESET, "the answer ended early");
    if (r >= 0)
        note_rate(s);
    s->request = NULL; /* gone after this callback */
    remove_stream(s);
    if (fresh > 0)
        f->tries = 0;
    if (r < 0 && !f->resting && (fresh < NO_WAIT_BYTES || after_usec > 0))
        f->tries++;
    if (registry_is_range_trouble(r))
        leave_ranges(f, r, &why);
    else if (retry_is_transient(r) && (!f->resting || after_usec > 0)) /* one of many: said once */
        on_trouble(f, r, &why, after_usec);
    else if (r < 0 && !retry_is_transient(r))
        fetch_fail(f, r, &why);
    fetch_pump(f);
}

static int start_stream(Fetch *f, const Extent *want, bool extra) {
    RegistryBlobHandlers handlers = { .on_head = on_head, .on_data = on_data, .on_done = on_done };
    RegistryBlob blob = { .digest = f->o.digest,
                          .size = f->o.size,
                          .begin = want->begin,
                          .end = want->end,
                          .probe = f->mode == FETCH_PROBING,
                          .etag = f->etag };
    FetchStream *s = xnew(FetchStream);

    *s = (FetchStream){ .fetch = f,
                        .begin = want->begin,
                        .at = want->begin,
                        .end = want->end,
                        .begun_usec = now_usec(),
                        .extra = extra };
    handlers.arg = s;
    f->streams[f->n_streams++] = s;
    f->n_requests++;
    return registry_get_blob(f->c->registry, &s->request, &blob, &handlers);
}

/* Starts what may be started, the lowest missing bytes first; for them the highest range gives its
 * connection up.  (More than are wanted run when the registry turned out to be near, or fewer are
 * tried: they end by themselves.) */
static void start_streams(Fetch *f) {
    Traffic *t = f->c->traffic;
    Extent want;

    while (!f->resting && !traffic_is_held(t) && fetch_choose_range(f, &want)) {
        unsigned max = fetch_is_ranged(f) ? MIN(f->ramp.wanted, (unsigned)FETCH_STREAMS_MAX) : 1;
        const FetchStream *lowest = outer_stream(f, true);
        bool extra = fetch_has_first(f);
        int r;

        if (f->n_streams >= max || !traffic_take(t, extra)) {
            if (!lowest || want.begin >= lowest->at || f->mode == FETCH_WHOLE)
                return;
            extra = detach_stream(outer_stream(f, false));
        }
        r = start_stream(f, &want, extra);
        if (r < 0) {
            Err err;
            fetch_fail(f, err_errnum(&err, r, "cannot ask for a blob"), &err);
            return;
        }
    }
}

/* Could it take a byte now? */
static bool can_go_on(const FetchStream *s) {
    const Fetch *f = s->fetch;
    uint64_t i = s->at / f->window.piece_bytes;
    const Piece *p = window_piece(&f->window, i);

    if (is_full(f) && i >= f->window.head && (!p || !p->buffer))
        return false;
    if (i <= f->window.head)
        return i < f->window.head || p->buffer || ring_buffers_free(f->c->ring) > 0;
    return p && (p->state != PIECE_MISSING || p->buffer ||
                 ring_buffers_free(f->c->ring) > f->c->reserve);
}

static void resume_streams(Fetch *f) {
    uint64_t now = now_usec();

    for (unsigned i = 0; i < f->n_streams; i++) {
        FetchStream *s = f->streams[i];

        if (s->paused_usec == 0 || !can_go_on(s))
            continue;
        if (!traffic_may_receive(f->c->traffic)) {
            f->throttled = true;
            continue;
        }
        s->idle_usec += now - s->paused_usec;
        s->paused_usec = 0;
        registry_request_resume(s->request);
    }
}

/* Does a connection that is dropped cost little, because the rest comes on another one, at once? */
static bool may_drop(const Fetch *f) {
    return fetch_is_ranged(f) && !f->resting && !traffic_is_held(f->c->traffic);
}

static uint64_t stream_rate(const FetchStream *s, uint64_t now) {
    return per_second(s->fresh, fetch_stream_usec(s, now));
}

static bool is_slow(const FetchStream *s, uint64_t now) {
    return s->fresh > 0 && fetch_stream_usec(s, now) >= SLOW_USEC &&
           stream_rate(s, now) < s->fetch->rate / SLOW_FACTOR;
}

/* Drops each connection that is much slower than others are, or were before; what it lacks is asked
 * for anew.  (One without a byte is the stall timeout's.)  When what came in place of such a one is
 * as slow, and none was fast meanwhile, it is the network that has become slower: that is the rate
 * from now on. */
static void drop_slow(Fetch *f) {
    uint64_t now = now_usec();

    for (unsigned i = f->n_streams; i-- > 0 && may_drop(f);) {
        FetchStream *s = f->streams[i];

        if (!is_slow(s, now))
            continue;
        if (f->slow_usec > 0 && s->begun_usec >= f->slow_usec) {
            f->rate = stream_rate(s, now);
            f->slow_usec = 0;
        } else {
            f->slow_usec = f->slow_usec > 0 ? f->slow_usec : now;
            remove_stream(s);
        }
    }
}

/* Is, or was since the last look, something else slower than the network? */
static bool is_ahead(const Fetch *f) {
    bool paused = false;

    for (unsigned i = 0; i < f->n_streams; i++)
        paused = paused || f->streams[i]->paused_usec > 0;
    return paused || f->hashing > RAMP_BACKLOG || f->reading > 0 || f->was_full || is_full(f);
}

static bool may_ramp(const Fetch *f) {
    return fetch_is_ranged(f) && f->n_streams > 0 && f->n_streams <= f->ramp.wanted &&
           !f->throttled;
}

/* So many wait for their first byte. */
static unsigned count_asking(const Fetch *f) {
    unsigned n = 0;

    for (unsigned i = 0; i < f->n_streams; i++)
        n += f->streams[i]->fresh == 0 && f->streams[i]->paused_usec == 0;
    return n;
}

static bool can_take(const Fetch *f) {
    return traffic_free_for(f->c->traffic, !fetch_has_first(f)) > 0;
}

/* One connection was asked for all the rest (fetch_range.c), and now more are wanted: when they are
 * to be had, it is dropped, and then all share that. */
static void share_long(Fetch *f) {
    FetchStream *s = f->n_streams == 1 && f->ramp.wanted > 1 ? f->streams[0] : NULL;

    if (!s || s->paused_usec > 0 || !may_ramp(f) || f->resting || traffic_is_held(f->c->traffic) ||
        !fetch_stream_is_long(s))
        return;
    if (!can_take(f)) {
        traffic_mark_hungry(f->c->traffic);
        return;
    }
    note_rate(s);
    remove_stream(s);
}

static void look(Fetch *f) {
    unsigned n_asking = count_asking(f);
    RampLook look = { .now_usec = now_usec(),
                      .received = f->received,
                      .hashed = f->hash_bytes,
                      .hash_usec = f->hash_usec,
                      .waited_usec = f->waited_usec,
                      .ahead = is_ahead(f),
                      .running = f->n_streams,
                      .asking = n_asking > 0,
                      .can_take = can_take(f),
                      .most = traffic_connections(f->c->traffic) };

    for (unsigned i = 0; i < f->n_streams; i++)
        look.waited_usec += fetch_stream_idle_usec(f->streams[i], look.now_usec);
    if (may_ramp(f) && n_asking < f->n_streams)
        ramp_look(&f->ramp, &look);
    else
        ramp_skip(&f->ramp, &look);
    share_long(f);
    f->was_full = f->throttled = false;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg) {
    Fetch *f = arg;

    (void)source;
    (void)usec;
    if (f->r < 0 || f->closed || f->finishing)
        return 0;
    look(f);
    drop_slow(f);
    fetch_file_keep(f);
    (void)!loop_timer_after(f->c->event, &f->tick,
                            may_ramp(f) && f->ramp.looks < FETCH_RAMP_LOOKS ? RAMP_USEC
                                                                            : WATCH_USEC,
                            on_tick, f); /* exists: setting cannot fail */
    fetch_pump(f);
    return 0;
}

/* Does the rest come on another connection, so that this one may be dropped? */
static bool can_break_off(const Fetch *f) {
    return fetch_is_ranged(f) || (f->mode == FETCH_PLAIN && traffic_ranges_are_good(f->c->traffic));
}

/* Fewer connections are allowed than before.  A stream that might have to begin anew ends first. */
static void obey(Fetch *f) {
    while (traffic_is_over(f->c->traffic) && can_break_off(f) && f->n_streams > 0)
        remove_stream(outer_stream(f, false));
}

void fetch_streams_pump(Fetch *f) {
    Err err;
    int r = 0;

    obey(f);
    resume_streams(f);
    start_streams(f);
    if ((f->mode == FETCH_RANGES || f->file.mapped) && !f->tick && f->r >= 0)
        r = loop_timer_after(f->c->event, &f->tick, RAMP_USEC, on_tick, f);
    if (r < 0)
        fetch_fail(f, err_errnum(&err, r, "cannot start a timer"), &err);
}
