/* SPDX-License-Identifier: Apache-2.0 */
/* test: the unit test harness: TEST() registers a test, ASSERT_*() end it, TmpDir gives it a
 * directory. */
#pragma once

#include "base/err.h"
#include "base/macro.h"

typedef struct TestCase {
    const char *name;
    void (*run)(void);
    struct TestCase *next;
} TestCase;

/* Appends `test` (static storage) to the program's list.  Called by TEST() before main(). */
void test_register(TestCase *test);

/* Defines and registers a test; tests run in the order of the file.  A test fails when it leaves a
 * file descriptor open.  `PROGRAM substring…` runs only the tests whose names contain one of the
 * substrings. */
#define TEST(test_name)                                                            \
    static void test_case_##test_name(void);                                       \
    __attribute__((__constructor__)) static void test_register_##test_name(void) { \
        static TestCase test = { #test_name, test_case_##test_name, NULL };        \
        test_register(&test);                                                      \
    }                                                                              \
    static void test_case_##test_name(void)

/* Leaves the test (directly, so that _cleanup_ works: use it in the body of TEST() only) as
 * skipped.  The program ends with 77 when every test was skipped. */
#define SKIP(reason)                             \
    do {                                         \
        test_skip(__FILE__, __LINE__, (reason)); \
        return;                                  \
    } while (0)

/* Each takes one expression, which may hold commas (compound literals), and prints what it got on
 * failure. */
#define ASSERT_OK(...) test_assert_ok((long long)(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define ASSERT_ERR(expr, want) \
    test_assert_err((long long)(expr), (want), #expr, #want, __FILE__, __LINE__)
#define ASSERT_EQ(a, b) \
    test_assert_eq((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)
#define ASSERT_NE(a, b) \
    test_assert_ne((long long)(a), (long long)(b), #a " != " #b, __FILE__, __LINE__)
#define ASSERT_TRUE(...)                                                \
    do {                                                                \
        if (!(__VA_ARGS__))                                             \
            test_fail(__FILE__, __LINE__, "%s is false", #__VA_ARGS__); \
    } while (0)
#define ASSERT_STREQ(a, b) test_assert_streq((a), (b), #a " == " #b, __FILE__, __LINE__)
/* The string `a` contains `b`; for sentences. */
#define ASSERT_STRSTR(a, b) test_assert_strstr((a), (b), #a, __FILE__, __LINE__)
#define ASSERT_MEMEQ(a, b, size) \
    test_assert_memeq((a), (b), (size), #a " == " #b, __FILE__, __LINE__)

_noreturn_ void test_fail(const char *file, int line, const char *format, ...) _printf_(3, 4);
void test_skip(const char *file, int line, const char *reason);
void test_assert_ok(long long r, const char *expr, const char *file, int line);
void test_assert_err(long long r, long long want, const char *expr, const char *name,
                     const char *file, int line);
void test_assert_eq(long long a, long long b, const char *expr, const char *file, int line);
void test_assert_ne(long long a, long long b, const char *expr, const char *file, int line);
void test_assert_streq(const char *a, const char *b, const char *expr, const char *file, int line);
void test_assert_strstr(const char *a, const char *b, const char *expr, const char *file, int line);
void test_assert_memeq(const void *a, const void *b, size_t size, const char *expr,
                       const char *file, int line);

/* A directory of the test's own under $TMPDIR or /tmp. */
typedef struct TmpDir TmpDir;
/* Never NULL: a test without a directory is a failed test. */
TmpDir *tmpdir_new(void) _must_check_;
/* Removes the directory and all that is in it.  NULL is fine; returns NULL. */
TmpDir *tmpdir_free(TmpDir *dir);
DEFINE_CLEANUP(TmpDir, tmpdir_free);
/* Absolute path; borrowed. */
const char *tmpdir_path(const TmpDir *dir);
/* O_RDONLY|O_DIRECTORY; borrowed. */
int tmpdir_fd(const TmpDir *dir);
/* How many entries the directory itself has. */
int tmpdir_count(const TmpDir *dir);
/* "<directory>/<name>"; freed with the directory. */
const char *tmpdir_join(TmpDir *dir, const char *name);
