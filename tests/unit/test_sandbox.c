/* SPDX-License-Identifier: Apache-2.0 */
/* test_sandbox: a confined child tries what an attacker would; and each feature's absence is told.
 */
#include "oci/sandbox.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define WORKER_UID 61234

typedef struct Attempt {
    const char *name;
    bool (*refused)(int dir_fd); /* in the child; errno tells why */
    unsigned needs;              /* features (bit set) of which one is enough */
} Attempt;

#define F(feature) (1U << SANDBOX_##feature)

static bool cannot_open(int at, const char *path, int flags) {
    int fd = openat(at, path, flags | O_CLOEXEC, 0600);

    if (fd >= 0)
        (void)close(fd);
    return fd < 0 && (errno == EACCES || errno == EPERM);
}
static bool read_shadow(int dir_fd) {
    (void)dir_fd;
    return cannot_open(AT_FDCWD, "/etc/shadow", O_RDONLY);
}
static bool read_passwd(int dir_fd) {
    (void)dir_fd;
    return cannot_open(AT_FDCWD, "/etc/passwd", O_RDONLY);
}
static bool list_parent(int dir_fd) {
    return cannot_open(dir_fd, "..", O_RDONLY | O_DIRECTORY);
}
static bool write_beside(int dir_fd) {
    return cannot_open(dir_fd, "../beside", O_WRONLY | O_CREAT);
}
static bool write_tmp(int dir_fd) {
    (void)dir_fd;
    return cannot_open(AT_FDCWD, "/tmp/modelcached-sandbox-test", O_WRONLY | O_CREAT);
}
static bool make_directory(int dir_fd) {
    return mkdirat(dir_fd, "d", 0700) < 0;
}
static bool make_symlink(int dir_fd) {
    return symlinkat("/etc", dir_fd, "l") < 0;
}
static bool link_outside(int dir_fd) {
    return linkat(AT_FDCWD, "/etc/passwd", dir_fd, "l", 0) < 0;
}
static bool unix_socket(int dir_fd) {
    (void)dir_fd;
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}
/* A pair of datagram sockets needs no socket(2), and sendto(2) sends to any path. */
static bool datagram_pair(int dir_fd) {
    int pair[2];

    (void)dir_fd;
    return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0 &&
           socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 &&
           socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) >= 0;
}
static bool packet_socket(int dir_fd) {
    (void)dir_fd;
    return socket(AF_INET, SOCK_RAW, 1) < 0 && socket(AF_PACKET, SOCK_RAW, 0) < 0;
}
static bool execute(int dir_fd) {
    char *argv[] = { (char *)(uintptr_t) "true", NULL };

    (void)dir_fd;
    (void)execv("/bin/true", argv);
    return errno == EPERM || errno == EACCES;
}
static bool kill_parent(int dir_fd) {
    (void)dir_fd;
    return kill(getppid(), 0) < 0;
}
static bool trace_parent(int dir_fd) {
    (void)dir_fd;
    return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) < 0;
}
static bool read_parent(int dir_fd) {
    char a, b;
    struct iovec local = { &a, 1 }, remote = { &b, 1 };

    (void)dir_fd;
    return syscall(SYS_process_vm_readv, getppid(), &local, 1, &remote, 1, 0) < 0;
}
static bool new_uring(int dir_fd) {
    struct io_uring_params p = { 0 };

    (void)dir_fd;
    return syscall(SYS_io_uring_setup, 4, &p) < 0 && errno == EPERM;
}
static bool mount_something(int dir_fd) {
    (void)dir_fd;
    return mount("none", "/mnt", "tmpfs", 0, NULL) < 0;
}
static bool new_namespace(int dir_fd) {
    (void)dir_fd;
    return unshare(CLONE_NEWUSER) < 0;
}
static bool fork_process(int dir_fd) {
    (void)dir_fd;
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0 && syscall(SYS_clone3, NULL, 0) < 0 &&
           errno == ENOSYS;
}
static bool become_root(int dir_fd) {
    (void)dir_fd;
    return setresuid(0, 0, 0) < 0;
}
static bool map_code(int dir_fd) {
    (void)dir_fd;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
           MAP_FAILED;
}
static bool push_input(int dir_fd) {
    (void)dir_fd;
    return ioctl(0, 0x5412 /* TIOCSTI */, "x") < 0 && errno == EPERM;
}

static bool register_anything(int dir_fd) {
    (void)dir_fd;
    return syscall(SYS_io_uring_register, -1, IORING_REGISTER_BUFFERS2, NULL, 0) < 0 &&
           errno == EPERM;
}

static const Attempt attempts[] = {
    { "read /etc/shadow", read_shadow, F(UID) | F(LANDLOCK) | F(CAPABILITIES) },
    { "read /etc/passwd", read_passwd, F(LANDLOCK) },
    { "open ..", list_parent, F(LANDLOCK) },
    { "write ../beside", write_beside, F(LANDLOCK) | F(UID) },
    { "write to /tmp", write_tmp, F(LANDLOCK) },
    { "mkdir", make_directory, F(LANDLOCK) | F(SECCOMP) },
    { "symlink", make_symlink, F(LANDLOCK) | F(SECCOMP) },
    { "link /etc/passwd", link_outside, F(LANDLOCK) | F(SECCOMP) },
    { "unix socket", unix_socket, F(SECCOMP) },
    { "pair of datagram sockets", datagram_pair, F(SECCOMP) },
    { "raw sockets", packet_socket, F(SECCOMP) | F(CAPABILITIES) },
    { "execve", execute, F(SECCOMP) | F(LANDLOCK) },
    { "kill the parent", kill_parent, F(SECCOMP) | F(UID) },
    { "ptrace the parent", trace_parent, F(SECCOMP) | F(UID) },
    { "read the parent's memory", read_parent, F(SECCOMP) | F(UID) },
    { "io_uring_setup", new_uring, F(SECCOMP) },
    { "io_uring_register", register_anything, F(SECCOMP) },
    { "mount", mount_something, F(SECCOMP) | F(CAPABILITIES) },
    { "unshare", new_namespace, F(SECCOMP) },
    { "fork", fork_process, F(SECCOMP) },
    { "setresuid(0)", become_root, F(SECCOMP) | F(CAPABILITIES) },
    { "map executable memory", map_code, F(SECCOMP) },
    { "TIOCSTI", push_input, F(SECCOMP) },
};

static void *write_file(void *arg) {
    int fd = openat(*(int *)arg, "mine", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = fd >= 0 && write(fd, "x", 1) == 1 && ftruncate(fd, 0) == 0 &&
                fallocate(fd, 0, 0, 4096) == 0 && fstatfs(fd, &(struct statfs){ 0 }) == 0;

    (void)safe_close(fd);
    good = good && unlinkat(*(int *)arg, "mine", 0) == 0;
    return good ? arg : NULL;
}

/* What a pull needs goes on: threads, files of its own, the network. */
static const char *what_fails(int dir_fd) {
    pthread_t thread;
    void *result = NULL;
    struct rlimit files, size;
    int fds[2], fd;

    if (syscall(SYS_io_uring_register, -1, IORING_REGISTER_BUFFERS_UPDATE, NULL, 0) < 0 &&
        errno == EPERM) /* any other error: there is no ring behind -1 */
        return "more buffers for the ring";
    if (pthread_create(&thread, NULL, write_file, &dir_fd) != 0)
        return "a thread";
    if (pthread_join(thread, &result) != 0 || !result)
        return "a file in the folder";
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return "a TCP socket";
    (void)close(fd);
    fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno != EAFNOSUPPORT)
        return "a UDP socket";
    (void)safe_close(fd);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return "a socketpair";
    (void)close(fds[0]);
    (void)close(fds[1]);
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_max > 1024 ||
        getrlimit(RLIMIT_FSIZE, &size) < 0 || size.rlim_max != MiB(1))
        return "limits of files";
    fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return "reading /etc/resolv.conf";
    (void)safe_close(fd);
    return NULL;
}

static bool no_capabilities(void) {
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, caps) < 0)
        return errno == EPERM; /* the filter does not even let us ask */
    return (caps[0].permitted | caps[1].permitted | caps[0].inheritable | caps[1].inheritable) == 0;
}

/* The child: returns its exit code, having said on stderr what went wrong. */
static int child(int dir_fd, unsigned absent) {
    SandboxState state[SANDBOX_FEATURE_COUNT];
    unsigned active = 0;
    const char *fails;
    int bad = 0;
    Err err;

    SandboxOptions options = { dir_fd, MiB(1), absent };

    if (sandbox_enter(&options, state, &err) < 0) {
        (void)fprintf(stderr, "sandbox_enter: %s\n", err.text);
        return 1;
    }
    for (unsigned i = 0; i < SANDBOX_FEATURE_COUNT; i++) {
        active |= state[i].active ? 1U << i : 0;
        if ((absent & 1U << i) && (state[i].active || !*state[i].detail))
            bad = 1;
        if (!state[i].active && !*state[i].detail)
            bad = 1;
    }
    for (size_t i = 0; i < ELEMENTSOF(attempts); i++) {
        if (!(attempts[i].needs & active) || absent)
            continue;
        if (!attempts[i].refused(dir_fd)) {
            (void)fprintf(stderr, "not refused: %s (%s)\n", attempts[i].name, strerror(errno));
            bad = 1;
        }
    }
    if ((active & F(CAPABILITIES)) && !no_capabilities())
        bad = 1;
    if ((active & F(SECCOMP)) == 0 && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        bad = 1;
    fails = what_fails(dir_fd);
    if (fails) {
        (void)fprintf(stderr, "refused, with features %#x absent: %s (%s)\n", absent, fails,
                      strerror(errno));
        bad = 1;
    }
    return bad;
}

static void run(unsigned absent) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = -EBADF;
    int status;
    pid_t pid;

    ASSERT_OK(mkdirat(tmpdir_fd(dir), "pull", 0700));
    fd = openat(tmpdir_fd(dir), "pull", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_OK(fd);
    if (geteuid() == 0 && !(absent & F(UID))) /* root without capabilities writes to its own only */
        ASSERT_OK(fchown(fd, WORKER_UID, WORKER_UID));
    pid = fork();
    ASSERT_TRUE(pid >= 0);
    if (pid == 0)
        _exit(child(fd, absent));
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
    ASSERT_EQ(faccessat(tmpdir_fd(dir), "beside", F_OK, 0), -1);
}

TEST(a_confined_process_can_do_nothing_but_pull) {
    run(0);
}

TEST(each_feature_may_be_absent_and_says_so) {
    for (unsigned i = 0; i < SANDBOX_FEATURE_COUNT; i++)
        run(1U << i);
    run((1U << SANDBOX_FEATURE_COUNT) - 1);
}

TEST(a_folder_that_is_none_is_an_error) {
    SandboxState state[SANDBOX_FEATURE_COUNT];
    int status;
    pid_t pid = fork();

    ASSERT_TRUE(pid >= 0);
    if (pid == 0) {
        Err err;
        int r = sandbox_enter(&(SandboxOptions){ .dir_fd = -1 }, state, &err);
        _exit(r == -EBADF && strstr(err.text, "folder") ? 0 : 1);
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
}
