/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_seccomp: the system calls that a pull needs, and with which arguments; all others fail
 * with EPERM.
 *
 * They fail rather than kill, because libraries try newer calls first and go on without them. */
#include "oci/sandbox_internal.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41 /* glibc names its mappings */
#endif
#define SOCKET_TYPE_MASK 0xf /* beside SOCK_CLOEXEC and SOCK_NONBLOCK */

/* Whatever the arguments. */
static const char *const plain[] = {
    /* bytes */
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "lseek",
    "close",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "syncfs",
    "dup",
    "dup3",
    "pipe2",
    /* names: Landlock says which */
    "open",
    "openat",
    "openat2",
    "unlink",
    "unlinkat",
    "fstat",
    "fstatfs",
    "newfstatat",
    "stat",
    "lstat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getcwd",
    /* memory and threads */
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "futex",
    "futex_waitv",
    "sched_yield",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "rseq",
    "membarrier",
    "exit",
    "exit_group",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "sigaltstack",
    "restart_syscall",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getcpu",
    "sysinfo",
    "uname",
    "getrandom",
    "getrusage",
    /* time and waiting */
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "time",
    "times",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "timerfd_gettime",
    "signalfd4",
    /* the network */
    "connect",
    "bind",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "shutdown",
    /* the ring that exists; none can be made */
    "io_uring_enter",
};

typedef struct Rule {
    const char *name;
    unsigned n;
    struct scmp_arg_cmp args[3];
} Rule;

/* 32-bit comparisons: the kernel ignores the upper halves of int arguments. */
#define IS(arg, value) \
    { (arg), SCMP_CMP_MASKED_EQ, 0xffffffffU, (value) }
#define BITS(arg, mask, value) \
    { (arg), SCMP_CMP_MASKED_EQ, (mask), (value) }

static const Rule rules[] = {
    { "clone", 1, { BITS(0, CLONE_THREAD, CLONE_THREAD) } },
    { "mmap", 1, { BITS(2, PROT_EXEC, 0) } },
    { "mprotect", 1, { BITS(2, PROT_EXEC, 0) } },
    { "socket", 2, { IS(0, AF_INET), BITS(1, SOCKET_TYPE_MASK, SOCK_STREAM) } },
    { "socket", 2, { IS(0, AF_INET), BITS(1, SOCKET_TYPE_MASK, SOCK_DGRAM) } },
    { "socket", 2, { IS(0, AF_INET6), BITS(1, SOCKET_TYPE_MASK, SOCK_STREAM) } },
    { "socket", 2, { IS(0, AF_INET6), BITS(1, SOCKET_TYPE_MASK, SOCK_DGRAM) } },
    { "socket",
      2,
      { IS(0, AF_NETLINK), IS(2, NETLINK_ROUTE) } }, /* getaddrinfo(3) looks at our addresses */
    /* libcurl wakes itself with one; of a pair of datagram sockets, one could send to any path. */
    { "socketpair", 2, { IS(0, AF_UNIX), BITS(1, SOCKET_TYPE_MASK, SOCK_STREAM) } },
    { "prlimit64", 2, { IS(0, 0), BITS(2, UINT64_MAX, 0) } },              /* reads our own */
    { "io_uring_register", 1, { IS(1, IORING_REGISTER_BUFFERS_UPDATE) } }, /* more of its buffers */
    { "prctl", 1, { IS(0, PR_SET_NAME) } },
    { "prctl", 1, { IS(0, PR_SET_VMA) } },
    { "ioctl", 1, { IS(1, FIONBIO) } },
    { "ioctl", 1, { IS(1, FIONREAD) } },
    { "ioctl", 1, { IS(1, TCGETS) } },
    { "fcntl", 1, { IS(1, F_GETFD) } },
    { "fcntl", 1, { IS(1, F_SETFD) } },
    { "fcntl", 1, { IS(1, F_GETFL) } },
    { "fcntl", 1, { IS(1, F_SETFL) } },
    { "fcntl", 1, { IS(1, F_DUPFD_CLOEXEC) } },
};

static int allow_plain(scmp_filter_ctx filter) {
    for (size_t i = 0; i < ELEMENTSOF(plain); i++) {
        int nr = seccomp_syscall_resolve_name(plain[i]), r;

        if (nr == __NR_SCMP_ERROR) /* this architecture or libseccomp does not know it */
            continue;
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, nr, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

static int allow_with_arguments(scmp_filter_ctx filter) {
    for (size_t i = 0; i < ELEMENTSOF(rules); i++) {
        const Rule *rule = &rules[i];
        int nr = seccomp_syscall_resolve_name(rule->name), r;

        if (nr == __NR_SCMP_ERROR)
            continue;
        r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, nr, rule->n, rule->args);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill(scmp_filter_ctx filter) {
    /* abort(3) and pthread_kill(3) on ourselves; nobody else gets a signal. */
    struct scmp_arg_cmp self = IS(0, (scmp_datum_t)getpid());
    int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

    if (r >= 0)
        r = allow_plain(filter);
    if (r >= 0)
        r = allow_with_arguments(filter);
    if (r >= 0)
        r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
    /* Its flags are behind a pointer; glibc takes clone(2) instead. */
    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (r >= 0)
        r = seccomp_load(filter);
    return r;
}

void sandbox_seccomp(SandboxState *ret) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = filter ? fill(filter) : -ENOMEM;

    ret->active = r >= 0;
    if (r < 0)
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "the kernel refuses the filter (CONFIG_SECCOMP_FILTER): %s", strerror(-r));
    seccomp_release(filter);
}
