/* SPDX-License-Identifier: Apache-2.0 */
/* test_resume: maps that are whole, torn, garbage, of another boot, another blob. */
#include "oci/resume.h"

#include "tests/unit/test.h"

#define SIZE MiB(100)

typedef struct Fixture {
    uint8_t data[RESUME_MAP_BYTES];
    Digest digest;
} Fixture;

/* Slot `sequence` with [0, n) written, and [0, durable) made durable. */
static void put(Fixture *f, uint64_t sequence, uint64_t n, uint64_t durable, uint8_t boot) {
    ResumeMap m = { .digest = f->digest, .size = SIZE, .sequence = sequence };

    memset(m.boot, boot, sizeof(m.boot));
    extents_add(&m.written, 0, n);
    extents_add(&m.durable, 0, durable);
    resume_encode(&m, f->data + sequence % 2 * RESUME_SLOT_BYTES);
    resume_map_done(&m);
}

/* Bytes of the written set, or < 0. */
static int64_t get(const Fixture *f, size_t n, uint8_t boot) {
    ResumeMap m = { .digest = f->digest, .size = SIZE };
    int64_t bytes;
    int r;

    memset(m.boot, boot, sizeof(m.boot));
    r = resume_decode(&m, f->data, n);
    bytes = r < 0 ? r : (int64_t)extents_bytes(&m.written);
    resume_map_done(&m);
    return bytes;
}

static void init(Fixture *f) {
    memset(f, 0, sizeof(*f));
    digest_of(&f->digest, "x", 1);
}

TEST(the_newest_whole_slot_counts) {
    Fixture f;

    init(&f);
    ASSERT_ERR(get(&f, sizeof(f.data), 1), -ENOENT);
    put(&f, 7, 5000, 0, 1);
    ASSERT_EQ(get(&f, sizeof(f.data), 1), 5000);
    put(&f, 8, 9000, 0, 1);
    ASSERT_EQ(get(&f, sizeof(f.data), 1), 9000);
    ASSERT_EQ(get(&f, RESUME_SLOT_BYTES, 1), 9000);
    ASSERT_ERR(get(&f, RESUME_SLOT_BYTES - 1, 1), -ENOENT);
    ASSERT_ERR(get(&f, 0, 1), -ENOENT);
}

TEST(any_torn_slot_gives_the_other) {
    Fixture f;

    for (size_t at = 0; at < RESUME_SLOT_BYTES; at += 61) {
        init(&f);
        put(&f, 7, 5000, 0, 1);
        put(&f, 8, 9000, 0, 1);
        f.data[at] ^= 0x10;
        ASSERT_EQ(get(&f, sizeof(f.data), 1), 5000);
        f.data[RESUME_SLOT_BYTES + at] ^= 0x10;
        ASSERT_ERR(get(&f, sizeof(f.data), 1), -ENOENT);
    }
}

TEST(after_another_boot_only_what_is_durable_counts) {
    Fixture f;

    init(&f);
    put(&f, 1, 9000, 4096, 1);
    ASSERT_EQ(get(&f, sizeof(f.data), 1), 9000);
    ASSERT_EQ(get(&f, sizeof(f.data), 2), 4096);
}

TEST(a_map_of_another_blob_is_none) {
    Fixture f;

    init(&f);
    put(&f, 1, 9000, 4096, 1);
    digest_of(&f.digest, "y", 1);
    ASSERT_ERR(get(&f, sizeof(f.data), 1), -ENOENT);
}

TEST(more_extents_than_fit_are_left_out) {
    ResumeMap m = { .size = SIZE }, got = { .size = SIZE };
    uint8_t slot[RESUME_SLOT_BYTES];

    for (uint64_t i = 0; i < 400; i++) {
        extents_add(&m.written, i * 10000, i * 10000 + 5000);
        extents_add(&m.durable, i * 10000, i * 10000 + 1000);
    }
    resume_encode(&m, slot);
    ASSERT_OK(resume_decode(&got, slot, sizeof(slot)));
    ASSERT_EQ(got.durable.n, RESUME_EXTENTS / 2);
    ASSERT_TRUE(got.written.n >= RESUME_EXTENTS / 2 && got.written.n <= RESUME_EXTENTS);
    for (size_t i = 0; i < got.written.n; i++)
        ASSERT_TRUE(
            extents_cover(&m.written, got.written.items[i].begin, got.written.items[i].end));
    resume_map_done(&m);
    resume_map_done(&got);
}

TEST(the_boot_id_stays_the_same) {
    uint8_t a[RESUME_BOOT_BYTES], b[RESUME_BOOT_BYTES], zero[RESUME_BOOT_BYTES] = { 0 };

    resume_boot_id(a);
    resume_boot_id(b);
    ASSERT_MEMEQ(a, b, sizeof(a));
    ASSERT_TRUE(memcmp(a, zero, sizeof(a)) != 0);
}
