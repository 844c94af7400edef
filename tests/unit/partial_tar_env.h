/* SPDX-License-Identifier: Apache-2.0 */
/* partial_tar_env: tar layers that were being unpacked, for the tests of cache/partial_tar. */
#pragma once

#include "cache/partial.h"
#include "cache/partial_tar.h"
#include "tests/unit/store_env.h"

/* B's files have the names of A's; C's have names of their own. */
#define TAG "00000000000000aa"
#define A   TAG "000000000000000000000000000000000000000000000000"
#define B   TAG "000000000000000000000000000000000000000000000001"
#define C   "00000000000000cc000000000000000000000000000000000000000000000000"
#define D   "00000000000000dd000000000000000000000000000000000000000000000000"

enum { FILES = 4 };

static inline Layer layer_of(const char *hex) {
    Layer layer = { .kind = LAYER_KIND_TAR };

    ASSERT_OK(parse_hex(hex, 2 * DIGEST_BYTES, layer.digest.bytes));
    return layer;
}

static inline const char *file_name(char buf[static 80], const char *hex, unsigned i) {
    (void)snprintf(buf, 80, "%.16s-%u", hex, i);
    return buf;
}
#define FILE_NAME(hex, i) file_name((char[80]){ "" }, (hex), (i))

static inline const char *with(char buf[static 80], const char *hex, int n, const char *suffix) {
    (void)snprintf(buf, 80, "%.*s%s", n, hex, suffix);
    return buf;
}
#define LIST(hex)       with((char[80]){ "" }, (hex), 16, "-entries")
#define CHECKPOINT(hex) with((char[80]){ "" }, (hex), 64, ".tar")

/* Every other file is executable, every third is to be gone on with. */
static inline mode_t mode_of(unsigned i) {
    return (i % 2 ? 0555 : 0444) | (i % 3 == 0 ? 0200 : 0);
}

/* What a worker has of a layer: content, the list, the checkpoint. */
static inline void put(int dir_fd, const char *hex, const char *checkpoint) {
    for (unsigned i = 0; i < FILES; i++) {
        env_write(dir_fd, FILE_NAME(hex, i), "content", 7);
        ASSERT_OK(fchmodat(dir_fd, FILE_NAME(hex, i), mode_of(i), 0));
    }
    env_write(dir_fd, LIST(hex), "list", 4);
    env_write(dir_fd, CHECKPOINT(hex), checkpoint, strlen(checkpoint));
}

static inline bool is_in(int dir_fd, const char *name) {
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Is it in partial/, with all that put() made? */
static inline bool is_kept(const Store *s, const char *hex) {
    _cleanup_close_ int fd =
        openat(s->partial_fd, ENV_KEPT(hex, ".tar"), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

    for (unsigned i = 0; i < FILES; i++)
        if (fd < 0 || !is_in(fd, FILE_NAME(hex, i)))
            return false;
    return is_in(fd, LIST(hex)) && is_in(fd, "checkpoint");
}

/* The directory in partial/ whose files move from or to that folder. */
static inline const char *moving(char buf[static 100], const char *hex, const char *ingest) {
    Digest folder;

    digest_of(&folder, ingest, strlen(ingest));
    (void)snprintf(buf, 100, "%s%.16s", ENV_KEPT(hex, ".of-"), DIGEST_HEX(&folder));
    return buf;
}
#define MOVING(hex, ingest) moving((char[100]){ "" }, (hex), (ingest))

static inline void assert_file(int dir_fd, const char *name, uid_t owner, mode_t mode) {
    struct stat st;

    ASSERT_OK(fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_TRUE(S_ISREG(st.st_mode));
    ASSERT_EQ(st.st_uid, owner);
    ASSERT_EQ(st.st_mode & 07777, mode);
}

static inline void assert_layer(int dir_fd, const char *hex, uid_t owner, const char *checkpoint) {
    for (unsigned i = 0; i < FILES; i++)
        assert_file(dir_fd, FILE_NAME(hex, i), owner, mode_of(i));
    assert_file(dir_fd, LIST(hex), owner, 0600);
    assert_file(dir_fd, checkpoint, owner, 0600);
}
