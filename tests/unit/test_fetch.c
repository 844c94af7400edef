/* SPDX-License-Identifier: Apache-2.0 */
/* test_fetch: one blob from a registry to a file or a feed. */
#include "tests/unit/fetch_env.h"
#include "tests/unit/small_disk.h"

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

/* With the map and the file there is no inode left either, which is not what the bytes lack. */
TEST(a_file_that_finds_no_space_says_of_what) {
    Fixture f;
    FetchOptions o;

    for (unsigned inodes = 2; inodes < 4; inodes++) {
        _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
        _cleanup_close_ int full = small_disk(dir, inodes);

        if (full < 0)
            SKIP("a mount namespace of its own is refused");
        fixture_open(&f, 300000);
        o = options(&f, MiB(65));
        o.dir_fd = full;
        ASSERT_ERR(run(&f, &o), -ENOSPC);
        ASSERT_STRSTR(f.err.text, inodes == 2 ? "bytes: no inodes are left on its file system"
                                              : "bytes: free space on its file system");
        fixture_close(&f);
    }
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

/* A small one becomes a file when it is there. */
TEST(a_blob_has_all_its_space_before_it_comes) {
    static const size_t sizes[] = { BUFFER_BYTES, BUFFER_BYTES + 1 };

    for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
        FetchOptions o;
        struct stat st;
        Fixture f;

        fixture_open(&f, sizes[i]);
        o = options(&f, sizes[i]);
        ASSERT_OK(fetch_new(&f.fetch, &o, &f.err));
        ASSERT_TRUE(!fetch_has_space(f.fetch));
        while (f.registry.n_requests == 0)
            ASSERT_OK(sd_event_run(f.event, 1000));
        ASSERT_EQ(fetch_bytes(f.fetch), 0);
        ASSERT_EQ(fetch_has_space(f.fetch), i == 1);
        ASSERT_EQ(fstatat(tmpdir_fd(f.dir), "blob", &st, 0), i == 1 ? 0 : -1);
        ASSERT_TRUE(i == 0 || st.st_size == (off_t)sizes[i]);
        f.fetch = fetch_free(f.fetch);
        fixture_close(&f);
    }
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
