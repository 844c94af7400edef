/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of agent/flight_work: what a pull is given of what is stored, and of what came in part. */
#include "agent/flight_work.h"

#include "tests/unit/small_disk.h"
#include "tests/unit/store_env.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define BLOB "00000000000000aa000000000000000000000000000000000000000000000000"

/* The folder of a pull that ended early, with both kinds of partial layers of that digest. */
static void interrupt(Store *s) {
    static const char *const names[] = { BLOB ".part", BLOB ".map", BLOB ".tar",
                                         "00000000000000aa-entries", "00000000000000aa-0" };
    _cleanup_close_ int fd = env_ingest(s, "r-one");
    FlightFreed freed;
    Err err = { "" };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        env_write(fd, names[i], "x", 1);
    ASSERT_OK(flight_failed(s, "r-one", -ECONNRESET, false, &freed, &err));
    ASSERT_EQ(env_count(s, "ingest", true), 0);
}

TEST(flight_look_up_gives_what_came_in_part) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    static const struct {
        LayerKind kind;
        bool fetch;
        int given, left;
    } cases[] = {
        { LAYER_KIND_RAW, false, 0, 5 },
        { LAYER_KIND_TAR, false, 0, 5 },
        { LAYER_KIND_RAW, true, 2, 3 },
        { LAYER_KIND_TAR, true, 3, 2 },
    };
    Layer layer = { 0 };
    Err err = { "" };

    ASSERT_OK(parse_hex(BLOB, 2 * DIGEST_BYTES, layer.digest.bytes));
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        uint64_t claimed = 1, all, left;
        _cleanup_close_ int fd = -EBADF;

        interrupt(s);
        ASSERT_OK(store_partial_bytes(s, &all, &err));
        fd = env_ingest(s, "r-two");
        layer.kind = cases[i].kind;
        ASSERT_EQ(flight_look_up(s, ENV_PULL("r-two"), "id", &layer,
                                 cases[i].fetch ? &claimed : NULL, &err),
                  0);
        ASSERT_OK(store_partial_bytes(s, &left, &err));
        if (cases[i].fetch)
            ASSERT_EQ(claimed + left, all);
        ASSERT_EQ(env_count(s, "ingest", false), cases[i].given);
        ASSERT_EQ(env_count(s, "partial", false), cases[i].left);
        ASSERT_OK(store_ingest_end(s, "r-two", &err));
    }
}

/* The store's folders are of a file system that has one inode, for its root. */
TEST(flight_says_when_inodes_are_missing) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int full = small_disk(dir, 1);
    Err err = { "it failed" };
    int fd;

    if (full < 0)
        SKIP("a mount namespace of its own is refused");
    ASSERT_ERR(flight_explain_space(s, -ENOSPC, &err), -ENOSPC);
    ASSERT_STREQ(err.text, "it failed");
    ASSERT_OK(dup3(full, s->ingest_fd, O_CLOEXEC));
    ASSERT_OK(dup3(full, s->trees_fd, O_CLOEXEC));
    ASSERT_ERR(flight_explain_space(s, -EIO, &err), -EIO);
    ASSERT_STREQ(err.text, "it failed");
    ASSERT_ERR(flight_make_folder(s, "r-one", &fd, &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "No space left on device: no inodes are left on its file system");
}

TEST(flight_folder_takes_the_inodes_of_what_came_in_part) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int full = small_disk(dir, 24), partial = -EBADF, fd = -EBADF;
    Err err = { "" };
    int file = 0;

    if (full < 0)
        SKIP("a mount namespace of its own is refused");
    ASSERT_OK(mkdirat(full, "partial", 0700));
    partial = openat(full, "partial", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_OK(dup3(partial, s->partial_fd, O_CLOEXEC));
    ASSERT_OK(dup3(full, s->ingest_fd, O_CLOEXEC));
    ASSERT_OK(dup3(full, s->trees_fd, O_CLOEXEC));
    interrupt(s);
    for (unsigned i = 0; file >= 0; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "empty%u", i);
        (void)safe_close(file);
        file = openat(full, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    ASSERT_EQ(errno, ENOSPC);
    ASSERT_OK(flight_make_folder(s, "r-two", &fd, &err));
}

typedef struct Quota {
    Store *s;
    bool refused; /* a filter of system calls */
    int r;
    Err err;
} Quota;

/* In a thread of its own, in which no directory can be made from now on. */
static void *make_folder_beyond_quota(void *arg) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdirat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDQUOT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = ELEMENTSOF(code), .filter = code };
    Quota *q = arg;
    int fd;

    q->refused = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                 prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0;
    q->r = q->refused ? 0 : flight_make_folder(q->s, "r-two", &fd, &q->err);
    return NULL;
}

TEST(flight_folder_beyond_a_quota_takes_the_space_of_what_came_in_part) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Quota q = { .s = s };
    pthread_t thread;

    interrupt(s);
    ASSERT_EQ(env_count(s, "partial", false), 5);
    ASSERT_EQ(pthread_create(&thread, NULL, make_folder_beyond_quota, &q), 0);
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    if (q.refused)
        SKIP("filters of system calls are refused here");
    ASSERT_ERR(q.r, -ENOSPC);
    ASSERT_STRSTR(q.err.text, "ingest/r-two failed: Disk quota exceeded");
    ASSERT_EQ(env_count(s, "partial", false), 0);
}
