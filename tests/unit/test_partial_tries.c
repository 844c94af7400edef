/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/partial_tries: what is kept of a layer, given to pulls that get no further. */
#include "cache/partial_tries.h"

#include "tests/unit/partial_tar_env.h"

#include <time.h>

static const LayerKind kinds[] = { LAYER_KIND_RAW, LAYER_KIND_TAR };

/* How a pull ends that was given the layer. */
typedef enum End {
    DIED,
    DAEMON_DIED,
    SAID_WHY,
    GOT_FURTHER,
    BEGAN_ANEW,
} End;

static const char *notes(LayerKind kind) {
    return kind == LAYER_KIND_TAR ? A ".tar" : A ".map";
}

static Layer layer_of_kind(LayerKind kind) {
    Layer layer = layer_of(A);

    layer.kind = kind;
    return layer;
}

/* In a store that is new. */
static void keep_first(Store *s, LayerKind kind) {
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    Err err = { "" };

    if (kind == LAYER_KIND_TAR)
        put(fd, A, "state");
    else {
        env_write(fd, A ".part", "half", 4);
        env_write(fd, A ".map", "map", 3);
    }
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

static int claim(Store *s, LayerKind kind, Err *err) {
    const Layer layer = layer_of_kind(kind);
    uint64_t bytes;

    safe_close(env_ingest(s, "r-p"));
    return store_partial_claim(s, "r-p", &layer, &bytes, err);
}

/* What a worker does with the notes.  It is long after they were written last. */
static void write_notes(Store *s, LayerKind kind, End end) {
    const struct timespec later[2] = { { .tv_sec = time(NULL) + 100 },
                                       { .tv_sec = time(NULL) + 100 } };
    _cleanup_close_ int fd = openat(s->ingest_fd, "r-p", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (end == BEGAN_ANEW)
        ASSERT_OK(unlinkat(fd, notes(kind), 0));
    env_write(fd, notes(kind), "more", 4);
    if (end == GOT_FURTHER)
        ASSERT_OK(utimensat(fd, notes(kind), later, 0));
}

/* One pull; returns the store, which may have been opened again. */
static Store *pull(Store *s, TmpDir *dir, LayerKind kind, End end) {
    Err err = { "" };

    if (claim(s, kind, &err) != 1)
        test_fail(__FILE__, __LINE__, "it was not given: %s", err.text);
    if (end == GOT_FURTHER || end == BEGAN_ANEW)
        write_notes(s, kind, end);
    if (end == DAEMON_DIED) {
        store_close(s);
        return env_open(dir);
    }
    ASSERT_OK(store_partial_keep(s, "r-p", end != SAID_WHY, &err));
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
    return s;
}

/* The next pull gets nothing, and is told; the one after that has nothing to be told. */
static void assert_goes(Store *s, LayerKind kind) {
    const Layer layer = layer_of_kind(kind);
    uint64_t bytes;
    Err err = { "" };

    ASSERT_ERR(claim(s, kind, &err), -ESTALE);
    ASSERT_STRSTR(err.text, DIGEST_STR(&layer.digest));
    ASSERT_STRSTR(err.text, "begins anew");
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_EQ(env_count(s, "ingest", false), 0);
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, 0);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
    ASSERT_EQ(claim(s, kind, &err), 0);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

TEST(partial_tries_in_vain_are_counted_whoever_dies) {
    for (size_t i = 0; i < 2 * ELEMENTSOF(kinds); i++) {
        STORE_TEST_DIR(dir);
        Store *s = env_open(dir);
        LayerKind kind = kinds[i / 2];

        keep_first(s, kind);
        for (unsigned n = 0; n < PARTIAL_TRIES; n++)
            s = pull(s, dir, kind, i % 2 ? DAEMON_DIED : DIED);
        assert_goes(s, kind);
        store_close(s);
    }
}

TEST(partial_tries_begin_again_when_one_got_further) {
    static const End ends[] = { GOT_FURTHER, BEGAN_ANEW };

    for (size_t i = 0; i < ELEMENTSOF(ends) * ELEMENTSOF(kinds); i++) {
        STORE_TEST_DIR(dir);
        Store *s = env_open(dir);
        LayerKind kind = kinds[i / 2];

        keep_first(s, kind);
        for (unsigned n = 0; n < PARTIAL_TRIES - 1; n++)
            s = pull(s, dir, kind, DIED);
        s = pull(s, dir, kind, ends[i % 2]);
        for (unsigned n = 0; n < PARTIAL_TRIES; n++)
            s = pull(s, dir, kind, DIED);
        assert_goes(s, kind);
        store_close(s);
    }
}

TEST(partial_tries_of_pulls_that_say_why_are_not_counted) {
    for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
        STORE_TEST_DIR(dir);
        Store *s = env_open(dir);

        keep_first(s, kinds[i]);
        for (unsigned n = 0; n < PARTIAL_TRIES; n++) {
            for (unsigned k = 0; k <= PARTIAL_TRIES; k++)
                s = pull(s, dir, kinds[i], SAID_WHY);
            s = pull(s, dir, kinds[i], DIED);
        }
        assert_goes(s, kinds[i]);
        store_close(s);
    }
}
