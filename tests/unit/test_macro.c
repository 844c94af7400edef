/* SPDX-License-Identifier: Apache-2.0 */
/* test_macro: ownership, strings and allocation of small objects. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/wait.h>

TEST(take_leaves_an_empty_variable) {
    _cleanup_free_ char *a = xstrdup("x"), *b = TAKE_PTR(a);
    int fd = 7, got = TAKE_FD(fd);

    ASSERT_TRUE(a == NULL);
    ASSERT_STREQ(b, "x");
    ASSERT_EQ(got, 7);
    ASSERT_EQ(fd, -EBADF);
}

TEST(min_and_max_nest_and_evaluate_once) {
    int n = 0;

    ASSERT_EQ(MIN(MAX(MIN(3, 5), 4), 9), 4);
    ASSERT_EQ(MAX(n++, -1), 0);
    ASSERT_EQ(n, 1);
}

TEST(string_helpers) {
    const char *s = "sha256:abc";

    ASSERT_STREQ(startswith(s, "sha256:"), "abc");
    ASSERT_TRUE(startswith(s, "sha512:") == NULL);
    ASSERT_STREQ(endswith(s, "abc"), "abc");
    ASSERT_TRUE(endswith("c", "abc") == NULL);
    ASSERT_TRUE(streq_ptr(NULL, NULL));
    ASSERT_TRUE(!streq_ptr(NULL, "a"));
    ASSERT_TRUE(streq_ptr("a", "a"));
    ASSERT_TRUE(isempty(NULL));
    ASSERT_TRUE(isempty(""));
    ASSERT_TRUE(!isempty("a"));
}

TEST(allocation_gives_zeroed_memory_also_for_nothing) {
    _cleanup_free_ int *one = xnew(int), *none = xnew_n(int, 0);
    _cleanup_free_ char *cut = xstrndup("abcdef", 3), *made = xasprintf("%d-%s", 4, "x");

    ASSERT_EQ(*one, 0);
    ASSERT_TRUE(none != NULL);
    ASSERT_STREQ(cut, "abc");
    ASSERT_STREQ(made, "4-x");
    ASSERT_TRUE(xstrdup(NULL) == NULL);
}

TEST(array_grow_keeps_what_is_there) {
    _cleanup_free_ int *a = NULL;
    size_t n = 0, cap = 0;

    for (int i = 0; i < 100; i++) {
        ARRAY_GROW(a, n, cap);
        a[n++] = i;
    }
    for (int i = 0; i < 100; i++)
        ASSERT_EQ(a[i], i);
}

TEST(free_and_strdup_takes_its_own_string) {
    _cleanup_free_ char *s = xstrdup("one two");

    xfree_and_strdup(&s, s + 4);
    ASSERT_STREQ(s, "two");
    xfree_and_strdup(&s, NULL);
    ASSERT_TRUE(s == NULL);
}

TEST(close_keeps_errno) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    ASSERT_OK(fd);
    errno = ENOSPC;
    ASSERT_EQ(safe_close(fd), -EBADF);
    ASSERT_EQ(safe_close(-EBADF), -EBADF);
    ASSERT_EQ(errno, ENOSPC);
}

TEST(a_size_that_overflows_ends_the_process) {
    int status;
    pid_t pid = fork();

    ASSERT_OK(pid);
    if (pid == 0) {
        (void)close(STDERR_FILENO);
        (void)!xrealloc(NULL, SIZE_MAX / 2, 4);
        _exit(0);
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}
