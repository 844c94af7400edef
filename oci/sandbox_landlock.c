/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_landlock: of all files the worker sees its folder, and what name resolution reads
 * (landlock(7)). */
#include "oci/sandbox_internal.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Newer than the headers of Debian 12; numbers of include/uapi/linux/landlock.h, Linux 6.18. */
#define FS_REFER            (1ULL << 13) /* ABI 2 */
#define FS_TRUNCATE         (1ULL << 14) /* ABI 3 */
#define FS_IOCTL_DEV        (1ULL << 15) /* ABI 5 */
#define NET_BIND_TCP        (1ULL << 0)  /* ABI 4 */
#define SCOPE_ABSTRACT_UNIX (1ULL << 0)  /* ABI 6 */
#define SCOPE_SIGNAL        (1ULL << 1)  /* ABI 6 */
#define FS_ABI_1            ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

/* struct landlock_ruleset_attr of ABI 6; older kernels want the unknown fields to be zero. */
typedef struct Ruleset {
    uint64_t fs, net, scoped;
} Ruleset;

static const char *const readable[] = {
    "/etc/resolv.conf", "/etc/hosts",    "/etc/nsswitch.conf",   "/etc/host.conf",
    "/etc/gai.conf",    "/etc/services", "/run/systemd/resolve",
};

static Ruleset ruleset_of(int abi) {
    Ruleset set = { .fs = FS_ABI_1 };

    if (abi >= 2)
        set.fs |= FS_REFER;
    if (abi >= 3)
        set.fs |= FS_TRUNCATE;
    if (abi >= 4)
        set.net = NET_BIND_TCP;
    if (abi >= 5)
        set.fs |= FS_IOCTL_DEV;
    if (abi >= 6)
        set.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
    return set;
}

static int allow(int ruleset, int fd, uint64_t access) {
    struct landlock_path_beneath_attr rule = { .allowed_access = access, .parent_fd = fd };

    return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

/* A file that is not there cannot be read anyway. */
static void allow_reading(int ruleset, const char *path) {
    _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
    uint64_t access = LANDLOCK_ACCESS_FS_READ_FILE;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return;
    if (S_ISDIR(st.st_mode))
        access |= LANDLOCK_ACCESS_FS_READ_DIR;
    (void)allow(ruleset, fd, access); /* without it names are not resolved, and the pull says so */
}

void sandbox_landlock(int dir_fd, SandboxState *ret) {
    uint64_t folder = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                      LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                      LANDLOCK_ACCESS_FS_REMOVE_FILE | FS_TRUNCATE;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    _cleanup_close_ int ruleset = -EBADF;
    Ruleset set;

    if (abi < 1) {
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "the kernel has no Landlock (Linux 5.13, lsm=landlock): %s",
                       strerror(errno));
        return;
    }
    set = ruleset_of((int)abi);
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &set, sizeof(set), 0);
    if (ruleset < 0 || allow(ruleset, dir_fd, folder & set.fs) < 0) {
        (void)snprintf(ret->detail, sizeof(ret->detail), "cannot make the rules: %s",
                       strerror(errno));
        return;
    }
    for (size_t i = 0; i < ELEMENTSOF(readable); i++)
        allow_reading(ruleset, readable[i]);
    ret->active = syscall(SYS_landlock_restrict_self, ruleset, 0) >= 0;
    if (ret->active)
        (void)snprintf(ret->detail, sizeof(ret->detail), "ABI %ld", abi);
    else
        (void)snprintf(ret->detail, sizeof(ret->detail), "refused: %s", strerror(errno));
}
