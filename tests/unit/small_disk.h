/* SPDX-License-Identifier: Apache-2.0 */
/* small_disk: a file system that is soon full, for the tests of what is said then. */
#pragma once

#include "tests/unit/test.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* The root of a file system of 64 MiB and so many inodes, gone when it is closed; -EBADF: mounting
 * is refused. */
static inline int small_disk(TmpDir *dir, unsigned inodes) {
    const char *path = tmpdir_join(dir, "full");
    _cleanup_free_ char *options = xasprintf("size=64m,nr_inodes=%u", inodes);
    int fd;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -EBADF;
    ASSERT_OK(mkdir(path, 0700));
    ASSERT_OK(mount("none", path, "tmpfs", 0, options));
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_OK(umount2(path, MNT_DETACH));
    return fd;
}
