/* SPDX-License-Identifier: Apache-2.0 */
/* test_window: what is asked for next, and how the window moves. */
#include "oci/window.h"

#include "tests/unit/test.h"

#define PIECE 4096U

static bool claim(const Window *w, const Extent *taken, size_t n, unsigned max, uint64_t begin,
                  uint64_t end) {
    Extent got;

    return window_claim(w, taken, n, max, &got) && got.begin == begin && got.end == end;
}

TEST(claims_are_lowest_first_and_stay_in_the_window) {
    Extent taken[2] = { { 0, 2 * PIECE }, { 3 * PIECE, 4 * PIECE } }, got;
    Window w;

    window_init(&w, 10 * PIECE + 5, PIECE, 6, NULL);
    ASSERT_EQ(w.n_pieces, 11);
    ASSERT_TRUE(claim(&w, NULL, 0, 2, 0, 2 * PIECE));
    ASSERT_TRUE(claim(&w, NULL, 0, 100, 0, 6 * PIECE));
    ASSERT_TRUE(claim(&w, taken, 1, 100, 2 * PIECE, 6 * PIECE));
    ASSERT_TRUE(claim(&w, taken, 2, 100, 2 * PIECE, 3 * PIECE));
    taken[0] = (Extent){ 0, 6 * PIECE };
    ASSERT_TRUE(!window_claim(&w, taken, 1, 100, &got));
    for (int i = 0; i < 9; i++)
        window_advance(&w);
    ASSERT_TRUE(claim(&w, NULL, 0, 100, 9 * PIECE, 10 * PIECE + 5));
    ASSERT_EQ(window_length(&w, 10), 5);
    window_advance(&w);
    window_advance(&w);
    ASSERT_TRUE(!window_claim(&w, NULL, 0, 100, &got));
    ASSERT_TRUE(!window_piece(&w, 11));
    window_done(&w);
}

TEST(a_window_becomes_wider) {
    Extents disk = { 0 };
    Extent got;
    Window w;

    extents_add(&disk, 7 * PIECE, 8 * PIECE);
    window_init(&w, 10 * PIECE + 5, PIECE, 3, &disk);
    for (unsigned i = 0; i < 4; i++)
        window_advance(&w);
    window_piece(&w, 5)->kept = 55;
    window_piece(&w, 6)->kept = 66;
    window_widen(&w, 2); /* never narrower */
    ASSERT_EQ(w.span, 3);
    window_widen(&w, 5);
    ASSERT_EQ(w.span, 5);
    ASSERT_EQ(window_piece(&w, 5)->kept, 55);
    ASSERT_EQ(window_piece(&w, 6)->kept, 66);
    ASSERT_EQ(window_piece(&w, 7)->state, PIECE_DISK);
    ASSERT_TRUE(claim(&w, NULL, 0, 100, 4 * PIECE, 7 * PIECE));
    ASSERT_TRUE(!window_piece(&w, 9));
    window_widen(&w, 100);
    ASSERT_EQ(w.span, 11);
    ASSERT_EQ(window_piece(&w, 4)->state, PIECE_MISSING);
    ASSERT_EQ(window_piece(&w, 10)->kept, 0);
    for (unsigned i = 0; i < 7; i++)
        window_advance(&w);
    window_widen(&w, 200);
    ASSERT_TRUE(!window_claim(&w, NULL, 0, 100, &got));
    window_done(&w);
}

TEST(pieces_that_are_not_needed_are_skipped) {
    Extent got;
    Window w;

    for (uint64_t skip = 0; skip <= 11; skip++) {
        window_init(&w, 10 * PIECE + 5, PIECE, 4, NULL);
        window_skip(&w, skip);
        ASSERT_EQ(w.head, skip);
        ASSERT_TRUE(skip == 11 ? !window_claim(&w, NULL, 0, 100, &got)
                               : claim(&w, NULL, 0, 1, skip * PIECE,
                                       MIN((skip + 1) * PIECE, 10 * PIECE + 5)));
        window_done(&w);
    }
}

TEST(a_piece_goes_on_at_its_byte) {
    RingBuffer buffer = { .len = 100, .refs = 2 };
    Window w;

    window_init(&w, 4 * PIECE, PIECE, 4, NULL);
    window_piece(&w, 1)->buffer = &buffer;
    ASSERT_TRUE(claim(&w, NULL, 0, 100, 0, PIECE)); /* the next one begins elsewhere */
    window_piece(&w, 0)->state = PIECE_FULL;
    ASSERT_TRUE(claim(&w, NULL, 0, 100, PIECE + 100, 4 * PIECE));
    window_piece(&w, 1)->buffer = NULL;
    window_done(&w);
}

TEST(what_is_on_disk_is_not_asked_for) {
    Extents disk = { 0 };
    Window w;

    extents_add(&disk, 0, PIECE);
    extents_add(&disk, 2 * PIECE, 3 * PIECE + 7); /* less than a block more */
    extents_add(&disk, 5 * PIECE, 5 * PIECE + 9); /* the end of the blob */
    window_init(&w, 5 * PIECE + 9, PIECE, 3, &disk);
    ASSERT_EQ(disk.n, 0);
    ASSERT_EQ(window_piece(&w, 0)->state, PIECE_DISK);
    ASSERT_EQ(window_piece(&w, 2)->kept, PIECE);
    ASSERT_TRUE(claim(&w, NULL, 0, 100, PIECE, 2 * PIECE));
    window_advance(&w);
    window_advance(&w);
    window_advance(&w);
    ASSERT_EQ(window_piece(&w, 3)->state, PIECE_MISSING);
    ASSERT_EQ(window_piece(&w, 5)->state, PIECE_DISK);
    ASSERT_EQ(window_piece(&w, 5)->kept, 9);
    ASSERT_TRUE(claim(&w, NULL, 0, 100, 3 * PIECE, 5 * PIECE));
    window_done(&w);
}

TEST(an_empty_blob_has_no_pieces) {
    Extent got;
    Window w;

    window_init(&w, 0, PIECE, 8, NULL);
    ASSERT_EQ(w.n_pieces, 0);
    ASSERT_TRUE(!window_claim(&w, NULL, 0, 1, &got) && !window_piece(&w, 0));
    window_done(&w);
}
