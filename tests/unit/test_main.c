/* SPDX-License-Identifier: Apache-2.0 */
/* test_main: runs the registered tests under cmocka and watches for leaked file descriptors. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <mntent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/unit/test.h"

enum { FDS_WATCHED = 1024, PATHS_MAX = 64, EXIT_ALL_SKIPPED = 77 };

struct TmpDir {
    TmpDir *next; /* in the list of those that are there */
    char *path;
    int fd;
    char *joined[PATHS_MAX];
    size_t n_joined;
};

/* Test program only: the list that TEST() fills before main(), and what the running test said. */
static struct {
    TestCase *first, *last;
    TmpDir *dirs; /* that are there */
    bool skipped;
    size_t n_run, n_skipped;
} tests;

void test_register(TestCase *test) {
    if (tests.last)
        tests.last->next = test;
    else
        tests.first = test;
    tests.last = test;
}

void test_fail(const char *file, int line, const char *format, ...) {
    va_list ap;
    char text[2048];

    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    print_error("%s\n", text);
    _fail(file, line);
    abort(); /* _fail() jumps out of the test */
}

void test_skip(const char *file, int line, const char *reason) {
    print_message("%s:%d: skipped: %s\n", file, line, reason);
    tests.skipped = true;
}

void test_assert_ok(long long r, const char *expr, const char *file, int line) {
    if (r < 0)
        test_fail(file, line, "%s = %lld (%s), want >= 0", expr, r, strerror((int)-r));
}

void test_assert_err(long long r, long long want, const char *expr, const char *name,
                     const char *file, int line) {
    if (r != want)
        test_fail(file, line, "%s = %lld (%s), want %s", expr, r,
                  r < 0 ? strerror((int)-r) : "no error", name);
}

void test_assert_eq(long long a, long long b, const char *expr, const char *file, int line) {
    if (a != b)
        test_fail(file, line, "%s: %lld (%#llx) != %lld (%#llx)", expr, a, a, b, b);
}

void test_assert_ne(long long a, long long b, const char *expr, const char *file, int line) {
    if (a == b)
        test_fail(file, line, "%s: both are %lld", expr, a);
}

void test_assert_streq(const char *a, const char *b, const char *expr, const char *file, int line) {
    if (!streq_ptr(a, b))
        test_fail(file, line, "%s:\n  \"%s\"\n  \"%s\"", expr, a ? a : "(NULL)", b ? b : "(NULL)");
}

void test_assert_strstr(const char *a, const char *b, const char *expr, const char *file,
                        int line) {
    if (!a || !strstr(a, b))
        test_fail(file, line, "%s: \"%s\" does not contain \"%s\"", expr, a ? a : "(NULL)", b);
}

void test_assert_memeq(const void *a, const void *b, size_t size, const char *expr,
                       const char *file, int line) {
    const unsigned char *x = a, *y = b;

    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            test_fail(file, line, "%s: byte %zu of %zu is %#x != %#x", expr, i, size, x[i], y[i]);
}

/* Marks the descriptors that are open now. */
static void fds_mark(bool open[FDS_WATCHED]) {
    for (int fd = 0; fd < FDS_WATCHED; fd++)
        open[fd] = fcntl(fd, F_GETFD) >= 0;
}

static void fds_compare(const bool before[FDS_WATCHED], const bool after[FDS_WATCHED]) {
    int leaked = 0;

    for (int fd = 0; fd < FDS_WATCHED; fd++) {
        char link[64], target[256] = "?";

        if (before[fd] || !after[fd])
            continue;
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        (void)!readlink(link, target, sizeof(target) - 1); /* only for the message below */
        print_error("leaked file descriptor %d: %s\n", fd, target);
        leaked++;
    }
    if (leaked > 0)
        test_fail(__FILE__, __LINE__, "%d file descriptors leaked", leaked);
}

/* For nftw(): makes directories writable on the way down, removes everything on the way up. */
static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int open_up(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)ftw;
    return type == FTW_D || type == FTW_DNR ? chmod(path, 0700) : 0;
}

/* What is left after a failure here shows in /tmp; a test has nothing better to do about it. */
static void remove_all(const char *path) {
    (void)nftw(path, open_up, 16, FTW_PHYS | FTW_MOUNT);
    (void)nftw(path, remove_entry, 16, FTW_PHYS | FTW_DEPTH | FTW_MOUNT);
}

static void run_case(void **state) {
    const TestCase *test = *state;
    bool before[FDS_WATCHED], after[FDS_WATCHED];

    fds_mark(before);
    tests.skipped = false;
    tests.n_run++;
    test->run();
    fds_mark(after);
    fds_compare(before, after);
    if (tests.skipped) {
        tests.n_skipped++;
        skip();
    }
}

static void unmount_beneath(const char *path) {
    FILE *mounts = setmntent("/proc/self/mounts", "re");

    for (const struct mntent *m; mounts && (m = getmntent(mounts));)
        if (startswith(m->mnt_dir, path))
            (void)umount2(m->mnt_dir, MNT_DETACH);
    if (mounts)
        (void)endmntent(mounts);
}

/* A failed test has jumped over its clean-up: its files and mounts go here.  What is in memory
 * stays, for threads that know nothing of the end. */
static int clean_up(void **state) {
    (void)state;
    for (; tests.dirs; tests.dirs = tests.dirs->next) {
        unmount_beneath(tests.dirs->path);
        remove_all(tests.dirs->path);
    }
    return 0;
}

static bool wanted(const TestCase *test, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strstr(test->name, argv[i]))
            return true;
    return argc < 2;
}

int main(int argc, char **argv) {
    struct CMUnitTest *cases = NULL;
    size_t n = 0, cap = 0;
    int failed;

    for (TestCase *test = tests.first; test; test = test->next) {
        if (!wanted(test, argc, argv))
            continue;
        ARRAY_GROW(cases, n, cap);
        cases[n++] = (struct CMUnitTest){ test->name, run_case, NULL, clean_up, test };
    }
    if (n == 0) {
        (void)fprintf(stderr, "no test to run\n");
        return EXIT_FAILURE;
    }
    failed = _cmocka_run_group_tests(program_invocation_short_name, cases, n, NULL, NULL);
    free(cases);
    if (failed == 0 && tests.n_skipped == tests.n_run)
        return EXIT_ALL_SKIPPED;
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

TmpDir *tmpdir_new(void) {
    const char *parent = getenv("TMPDIR");
    TmpDir *dir = xnew(TmpDir);

    dir->path = xasprintf("%s/mc-test-XXXXXX", isempty(parent) ? "/tmp" : parent);
    if (!mkdtemp(dir->path))
        test_fail(__FILE__, __LINE__, "mkdtemp %s: %s", dir->path, strerror(errno));
    dir->next = tests.dirs;
    tests.dirs = dir;
    dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->fd < 0)
        test_fail(__FILE__, __LINE__, "open %s: %s", dir->path, strerror(errno));
    return dir;
}

TmpDir *tmpdir_free(TmpDir *dir) {
    TmpDir **at = &tests.dirs;

    if (!dir)
        return NULL;
    safe_close(dir->fd);
    remove_all(dir->path);
    while (*at != dir)
        at = &(*at)->next;
    *at = dir->next;
    for (size_t i = 0; i < dir->n_joined; i++)
        free(dir->joined[i]);
    free(dir->path);
    free(dir);
    return NULL;
}

const char *tmpdir_path(const TmpDir *dir) {
    return dir->path;
}

int tmpdir_fd(const TmpDir *dir) {
    return dir->fd;
}

int tmpdir_count(const TmpDir *dir) {
    DIR *stream = opendir(dir->path);
    int n = 0;

    if (!stream)
        test_fail(__FILE__, __LINE__, "opendir %s: %s", dir->path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(stream));)
        n += !streq(entry->d_name, ".") && !streq(entry->d_name, "..");
    (void)closedir(stream);
    return n;
}

const char *tmpdir_join(TmpDir *dir, const char *name) {
    if (dir->n_joined == PATHS_MAX)
        test_fail(__FILE__, __LINE__, "more than %d paths", PATHS_MAX);
    return dir->joined[dir->n_joined++] = xasprintf("%s/%s", dir->path, name);
}
