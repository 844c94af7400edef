/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of csi/warm: what is read, and when it is not. */
#include "csi/warm.h"
#include "tests/unit/store_env.h"

#include <sys/mman.h>

#define FILE_BYTES MiB(3)

typedef struct WarmEnv {
    Store *store;
    sd_event *event;
    Warmer *warmer;
    Digest artifact;
    unsigned n_done;
    int r;
    char sentence[512];
} WarmEnv;

static uint64_t room = UINT64_MAX;
static unsigned room_asked, room_shrinks; /* after so many times there is none */

static uint64_t fake_room(void) {
    return room_shrinks > 0 && ++room_asked > room_shrinks ? 0 : room;
}

static void on_done(void *arg, const Volume *volume, int r, const char *sentence) {
    WarmEnv *e = arg;

    ASSERT_STREQ(volume->reference, "r");
    e->n_done++;
    e->r = r;
    (void)snprintf(e->sentence, sizeof(e->sentence), "%s", sentence);
}

static void warm_env_init(WarmEnv *e, TmpDir *dir, uint64_t bytes_per_second) {
    _cleanup_free_ char *one = xcalloc(1, FILE_BYTES + 1), *two = xcalloc(1, FILE_BYTES + 1);
    const char *files[][2] = { { "a/one", one }, { "ab", "small" }, { "two", two } };

    memset(one, '1', FILE_BYTES);
    memset(two, '2', FILE_BYTES);
    room = UINT64_MAX;
    room_asked = room_shrinks = 0;
    *e = (WarmEnv){ .store = env_open(dir) };
    ASSERT_OK(sd_event_new(&e->event));
    e->artifact = env_artifact(e->store, "m", files, ELEMENTSOF(files));
    warmer_new(&e->warmer, &(WarmerOptions){ .event = e->event,
                                             .store = e->store,
                                             .bytes_per_second = bytes_per_second,
                                             .room = fake_room,
                                             .done = on_done,
                                             .arg = e });
}

static void warm_env_done(WarmEnv *e) {
    (void)warmer_free(e->warmer);
    (void)store_close(e->store);
    (void)sd_event_unref(e->event);
}

static void add(WarmEnv *e, const char *id, const char *sub_path) {
    const Volume v = { .volume_id = (char *)id,
                       .target = (char *)"/t",
                       .reference = (char *)"r",
                       .sub_path = (char *)sub_path,
                       .manifest = e->artifact };

    warmer_add(e->warmer, &v);
}

static void wait_done(WarmEnv *e, unsigned n) {
    for (int i = 0; e->n_done < n && i < 2000; i++)
        ASSERT_OK(sd_event_run(e->event, 10000));
    ASSERT_EQ(e->n_done, n);
}

/* Pages of the file that are in memory; with `drop` they are dropped first. */
static size_t resident(WarmEnv *e, const char *name, bool drop) {
    _cleanup_free_ char *path = env_tree_path(e->store, &e->artifact, name);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    unsigned char pages[FILE_BYTES / 4096];
    size_t n = 0;
    void *map;

    ASSERT_TRUE(fd >= 0);
    if (drop)
        ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_TRUE(map != MAP_FAILED);
    ASSERT_OK(mincore(map, FILE_BYTES, pages));
    for (size_t i = 0; i < ELEMENTSOF(pages); i++)
        n += pages[i] & 1;
    ASSERT_OK(munmap(map, FILE_BYTES));
    return n;
}

TEST(warm_reads_what_the_volume_shows) {
    STORE_TEST_DIR(dir);
    WarmEnv e;

    warm_env_init(&e, dir, 0);
    ASSERT_EQ(resident(&e, "a/one", true), 0);
    ASSERT_EQ(resident(&e, "two", true), 0);
    add(&e, "v", "a");
    ASSERT_EQ(e.n_done, 0); /* it returns at once */
    wait_done(&e, 1);
    ASSERT_OK(e.r);
    ASSERT_STRSTR(e.sentence, "read 3 MiB of r (1 files) into the page cache in ");
    ASSERT_EQ(resident(&e, "a/one", false), FILE_BYTES / 4096);
    ASSERT_EQ(resident(&e, "two", false), 0);
    add(&e, "v", NULL);
    add(&e, "w", NULL);
    wait_done(&e, 3);
    ASSERT_STRSTR(e.sentence, "(3 files)");
    ASSERT_EQ(resident(&e, "two", false), FILE_BYTES / 4096);
    warm_env_done(&e);
}

TEST(warm_leaves_when_memory_is_short) {
    STORE_TEST_DIR(dir);
    WarmEnv e;

    warm_env_init(&e, dir, 0);
    (void)resident(&e, "a/one", true);
    room = 2 * FILE_BYTES;
    add(&e, "v", NULL);
    wait_done(&e, 1);
    ASSERT_ERR(e.r, -ENOMEM);
    ASSERT_STRSTR(e.sentence, "read 0 B of r into the page cache, not more: all of it is 6 MiB");
    ASSERT_EQ(resident(&e, "a/one", false), 0);
    room = 2 * FILE_BYTES + 5;
    add(&e, "v", NULL);
    wait_done(&e, 2);
    ASSERT_OK(e.r);
    warm_env_done(&e);
}

TEST(warm_looks_at_the_memory_again) {
    STORE_TEST_DIR(dir);
    const char *files[1][2] = { { "large", NULL } };
    _cleanup_free_ char *large = xcalloc(1, MiB(70) + 1);
    WarmEnv e;

    warm_env_init(&e, dir, 0);
    memset(large, 'x', MiB(70));
    files[0][1] = large;
    e.artifact = env_artifact(e.store, "large", files, 1);
    room_shrinks = 1;
    add(&e, "v", NULL);
    wait_done(&e, 1);
    ASSERT_ERR(e.r, -ENOMEM);
    ASSERT_STRSTR(e.sentence, "read 64 MiB of r into the page cache, not more");
    warm_env_done(&e);
}

TEST(warm_keeps_the_rate_and_stops) {
    STORE_TEST_DIR(dir);
    WarmEnv e;
    uint64_t begun;

    warm_env_init(&e, dir, MiB(20));
    begun = now_usec();
    add(&e, "v", "a");
    wait_done(&e, 1);
    ASSERT_TRUE(now_usec() - begun >= 140 * USEC_PER_MSEC); /* 3 MiB at 20 MiB/s */
    warm_env_done(&e);
}

TEST(warm_stops_for_what_is_unpublished) {
    STORE_TEST_DIR(dir);
    uint64_t begun = now_usec();
    WarmEnv e;

    warm_env_init(&e, dir, 1000);
    add(&e, "v", NULL);
    add(&e, "w", NULL);
    ASSERT_OK(sd_event_run(e.event, 50000));
    warmer_stop(e.warmer, "v", "/other");
    warmer_stop(e.warmer, "w", "/t");
    warmer_stop(e.warmer, "v", "/t");
    ASSERT_OK(sd_event_run(e.event, 200000));
    warm_env_done(&e); /* waits for none of them: at that rate it would be an hour */
    ASSERT_EQ(e.n_done, 0);
    ASSERT_TRUE(now_usec() - begun < 20 * USEC_PER_SEC);
}
