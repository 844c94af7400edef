/* SPDX-License-Identifier: Apache-2.0 */
/* resume: the map beside a partial blob: which bytes of it were written. */
#include "oci/resume.h"

#include "base/fs.h"
#include "base/parse.h"

#include <endian.h>
#include <fcntl.h>

#define MAGIC       "MCRESUM1"
#define MAGIC_BYTES 8
#define SUM_AT      8
#define SUMMED_AT   40
#define SIZE_AT     48
#define DIGEST_AT   56
#define BOOT_AT     88
#define COUNTS_AT   104
#define EXTENTS_AT  112

static void put64(uint8_t *to, uint64_t n) {
    n = htole64(n);
    memcpy(to, &n, sizeof(n));
}

static uint64_t get64(const uint8_t *from) {
    uint64_t n;

    memcpy(&n, from, sizeof(n));
    return le64toh(n);
}

static void put32(uint8_t *to, size_t n) {
    uint32_t le = htole32((uint32_t)n);

    memcpy(to, &le, sizeof(le));
}

static uint32_t get32(const uint8_t *from) {
    uint32_t n;

    memcpy(&n, from, sizeof(n));
    return le32toh(n);
}

/* Writes up to `max` extents at number `at`; returns how many. */
static size_t put_extents(uint8_t *slot, size_t at, const Extents *e, size_t max) {
    size_t n = MIN(e->n, max);

    for (size_t i = 0; i < n; i++) {
        put64(slot + EXTENTS_AT + (at + i) * sizeof(Extent), e->items[i].begin);
        put64(slot + EXTENTS_AT + (at + i) * sizeof(Extent) + 8, e->items[i].end);
    }
    return n;
}

void resume_encode(const ResumeMap *m, uint8_t ret[static RESUME_SLOT_BYTES]) {
    size_t durable, others;
    Digest sum;

    memset(ret, 0, RESUME_SLOT_BYTES);
    memcpy(ret, MAGIC, MAGIC_BYTES);
    put64(ret + SUMMED_AT, m->sequence);
    put64(ret + SIZE_AT, m->size);
    memcpy(ret + DIGEST_AT, m->digest.bytes, DIGEST_BYTES);
    memcpy(ret + BOOT_AT, m->boot, RESUME_BOOT_BYTES);
    durable = put_extents(ret, 0, &m->durable, RESUME_EXTENTS / 2);
    others = put_extents(ret, durable, &m->written, RESUME_EXTENTS - durable);
    put32(ret + COUNTS_AT, durable);
    put32(ret + COUNTS_AT + 4, others);
    digest_of(&sum, ret + SUMMED_AT, RESUME_SLOT_BYTES - SUMMED_AT);
    memcpy(ret + SUM_AT, sum.bytes, DIGEST_BYTES);
}

static bool is_good(const ResumeMap *m, const uint8_t *slot) {
    Digest sum;

    if (memcmp(slot, MAGIC, MAGIC_BYTES) != 0 || get64(slot + SIZE_AT) != m->size ||
        memcmp(slot + DIGEST_AT, m->digest.bytes, DIGEST_BYTES) != 0)
        return false;
    digest_of(&sum, slot + SUMMED_AT, RESUME_SLOT_BYTES - SUMMED_AT);
    return memcmp(slot + SUM_AT, sum.bytes, DIGEST_BYTES) == 0;
}

static void take_slot(ResumeMap *m, const uint8_t *slot) {
    bool same_boot = memcmp(slot + BOOT_AT, m->boot, RESUME_BOOT_BYTES) == 0;
    size_t durable = MIN(get32(slot + COUNTS_AT), RESUME_EXTENTS);
    size_t others = MIN(get32(slot + COUNTS_AT + 4), RESUME_EXTENTS - durable);

    m->sequence = get64(slot + SUMMED_AT);
    for (size_t i = 0; i < durable + (same_boot ? others : 0); i++) {
        const uint8_t *extent = slot + EXTENTS_AT + i * sizeof(Extent);
        uint64_t begin = get64(extent), end = MIN(get64(extent + 8), m->size);

        extents_add(&m->written, begin, end);
        if (i < durable)
            extents_add(&m->durable, begin, end);
    }
}

int resume_decode(ResumeMap *m, const uint8_t *data, size_t n) {
    const uint8_t *best = NULL;

    for (size_t at = 0; at + RESUME_SLOT_BYTES <= MIN(n, (size_t)RESUME_MAP_BYTES);
         at += RESUME_SLOT_BYTES)
        if (is_good(m, data + at) &&
            (!best || get64(data + at + SUMMED_AT) > get64(best + SUMMED_AT)))
            best = data + at;
    if (!best)
        return -ENOENT;
    take_slot(m, best);
    return 0;
}

void resume_map_done(ResumeMap *m) {
    extents_done(&m->durable);
    extents_done(&m->written);
}

/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
void resume_boot_id(uint8_t ret[static RESUME_BOOT_BYTES]) {
    _cleanup_free_ char *text = NULL;
    char hex[2 * RESUME_BOOT_BYTES + 1] = "";
    size_t n = 0;

    memset(ret, 0, RESUME_BOOT_BYTES);
    if (fs_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 128, &text, NULL, NULL) < 0)
        return;
    for (const char *c = text; *c && n < 2 * RESUME_BOOT_BYTES; c++)
        if (*c != '-')
            hex[n++] = *c;
    if (parse_hex(hex, 2 * RESUME_BOOT_BYTES, ret) < 0)
        memset(ret, 0, RESUME_BOOT_BYTES);
}
