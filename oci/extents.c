/* SPDX-License-Identifier: Apache-2.0 */
/* extents: a set of byte ranges, sorted and merged. */
#include "oci/extents.h"

void extents_add(Extents *e, uint64_t begin, uint64_t end) {
    size_t from = 0, to;

    if (begin >= end)
        return;
    while (from < e->n && e->items[from].end < begin)
        from++;
    for (to = from; to < e->n && e->items[to].begin <= end; to++) { /* those it touches */
        begin = MIN(begin, e->items[to].begin);
        end = MAX(end, e->items[to].end);
    }
    if (to == from) {
        ARRAY_GROW(e->items, e->n, e->cap);
        memmove(&e->items[from + 1], &e->items[from], (e->n - from) * sizeof(*e->items));
        e->n++;
    } else {
        memmove(&e->items[from + 1], &e->items[to], (e->n - to) * sizeof(*e->items));
        e->n -= to - from - 1;
    }
    e->items[from] = (Extent){ begin, end };
}

bool extents_cover(const Extents *e, uint64_t begin, uint64_t end) {
    for (size_t i = 0; i < e->n; i++)
        if (e->items[i].begin <= begin && end <= e->items[i].end)
            return true;
    return begin >= end;
}

uint64_t extents_run(const Extents *e, uint64_t begin, uint64_t end) {
    for (size_t i = 0; i < e->n; i++)
        if (e->items[i].begin <= begin && begin < e->items[i].end)
            return MIN(e->items[i].end, end) - begin;
    return 0;
}

void extents_clip(Extents *e, uint64_t end) {
    while (e->n > 0 && e->items[e->n - 1].begin >= end)
        e->n--;
    if (e->n > 0)
        e->items[e->n - 1].end = MIN(e->items[e->n - 1].end, end);
}

uint64_t extents_bytes(const Extents *e) {
    uint64_t bytes = 0;

    for (size_t i = 0; i < e->n; i++)
        bytes += e->items[i].end - e->items[i].begin;
    return bytes;
}

void extents_copy(Extents *to, const Extents *from) {
    to->n = 0;
    for (size_t i = 0; i < from->n; i++) {
        ARRAY_GROW(to->items, to->n, to->cap);
        to->items[to->n++] = from->items[i];
    }
}

void extents_done(Extents *e) {
    free(e->items);
    *e = (Extents){ 0 };
}
