/* SPDX-License-Identifier: Apache-2.0 */
/* history: the last events of the store, for `cache-ctl events`. */
#include "cache/store_internal.h"

enum { HISTORY_EVENTS_MAX = 10000 };

void store_event_clear(StoreEvent *e) {
    free(e->type);
    free(e->text);
    free(e->reference);
    free(e->digest);
    free(e->volume_id);
    free(e->pull);
    free(e->pod_namespace);
    free(e->pod_name);
    *e = (StoreEvent){ 0 };
}

void store_event_copy(StoreEvent *ret, const StoreEvent *e) {
    *ret = (StoreEvent){
        .id = e->id,
        .time_usec = e->time_usec,
        .type = xstrdup(e->type),
        .text = xstrdup(e->text ? e->text : ""),
        .reference = xstrdup(e->reference),
        .digest = xstrdup(e->digest),
        .volume_id = xstrdup(e->volume_id),
        .pull = xstrdup(e->pull),
        .pod_namespace = xstrdup(e->pod_namespace),
        .pod_name = xstrdup(e->pod_name),
    };
}

static bool is_wanted(const char *want, const char *have) {
    return isempty(want) || (have && streq(want, have));
}

bool event_filter_matches(const EventFilter *f, const StoreEvent *e) {
    return is_wanted(f->pull, e->pull) && is_wanted(f->pod_namespace, e->pod_namespace) &&
           is_wanted(f->pod_name, e->pod_name);
}

void store_event_array_free(StoreEvent *e, size_t n) {
    for (size_t i = 0; i < n; i++)
        store_event_clear(&e[i]);
    free(e);
}

int store_event_add(Store *s, const StoreEvent *e, uint64_t *ret_id, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t id = 0;
    int r = index_begin(ix, false, err); /* no operation waits for its own history to be durable */

    if (r >= 0)
        r = index_run(ix, err,
                      "INSERT INTO events (time_usec, type, reference, digest, volume_id, text,"
                      " pull, pod_namespace, pod_name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                      "itttttttt", e->time_usec ? e->time_usec : (int64_t)now_realtime_usec(),
                      e->type, e->reference, e->digest, e->volume_id, e->text, e->pull,
                      e->pod_namespace, e->pod_name);
    if (r >= 0) {
        id = index_last_id(ix);
        r = index_run(ix, err, "DELETE FROM events WHERE id <= ?", "i", id - HISTORY_EVENTS_MAX);
    }
    if (r >= 0)
        r = index_commit(ix, err);
    if (r < 0)
        return r;
    if (ret_id)
        *ret_id = (uint64_t)id;
    return 0;
}

int store_event_list(Store *s, const EventFilter *filter, unsigned last, StoreEvent **ret,
                     size_t *ret_n, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    StoreEvent *list = NULL;
    size_t n = 0, cap = 0;
    int r = index_query(
        ix, &q, err,
        "SELECT * FROM (SELECT id, time_usec, type, reference, digest, volume_id, text, pull,"
        " pod_namespace, pod_name FROM events WHERE (?1 = '' OR pull = ?1)"
        " AND (?2 = '' OR pod_namespace = ?2) AND (?3 = '' OR pod_name = ?3)"
        " ORDER BY id DESC LIMIT ?4) ORDER BY id",
        "ttti", filter->pull ? filter->pull : "",
        filter->pod_namespace ? filter->pod_namespace : "",
        filter->pod_name ? filter->pod_name : "", (int64_t)last);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ARRAY_GROW(list, n, cap);
        list[n++] = (StoreEvent){
            .id = (uint64_t)index_int(q, 0),
            .time_usec = index_int(q, 1),
            .type = index_text(q, 2),
            .reference = index_text(q, 3),
            .digest = index_text(q, 4),
            .volume_id = index_text(q, 5),
            .text = index_text(q, 6),
            .pull = index_text(q, 7),
            .pod_namespace = index_text(q, 8),
            .pod_name = index_text(q, 9),
        };
    }
    if (r < 0) {
        store_event_array_free(list, n);
        return r;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}
