/* SPDX-License-Identifier: Apache-2.0 */
/* test_progress: a moving line on a terminal, one line a step elsewhere. */
#include "ctl/progress.h"
#include "tests/unit/test.h"

#include <fcntl.h>

/* What a progress shows for `steps`.  The caller frees. */
static char *shown(Progress p, const ProgressStep *steps, size_t n) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int saved = dup(STDOUT_FILENO);
    int fd = open(tmpdir_join(dir, "out"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    char *text = xnew_n(char, 8192);

    ASSERT_OK(saved);
    ASSERT_OK(fd);
    (void)fflush(stdout);
    ASSERT_OK(dup2(fd, STDOUT_FILENO));
    for (size_t i = 0; i < n; i++)
        progress_show(&p, &steps[i]);
    progress_end(&p);
    (void)fflush(stdout);
    ASSERT_OK(dup2(saved, STDOUT_FILENO));
    ASSERT_OK(pread(fd, text, 8191, 0));
    (void)close(saved);
    (void)close(fd);
    return text;
}

static size_t count(const char *text, char what) {
    size_t n = 0;

    for (; *text; text++)
        n += *text == what;
    return n;
}

TEST(progress_without_a_terminal_is_a_line_for_each_tenth_and_state) {
    const ProgressStep steps[] = {
        { "resolving", 0, 0, 0, NULL },
        { "resolving", 0, 0, 0, NULL },
        { "fetching", MiB(1), MiB(100), 0, NULL },
        { "fetching", MiB(2), MiB(100), 0, NULL },
        { "fetching", MiB(50), MiB(100), MiB(25), NULL },
        { "committing", MiB(100), MiB(100), MiB(25), NULL },
    };
    _cleanup_free_ char *text = shown((Progress){ .last_decile = -1 }, steps, ELEMENTSOF(steps));

    ASSERT_EQ(count(text, '\n'), 4);
    ASSERT_EQ(count(text, '\r'), 0);
    ASSERT_EQ(count(text, '\033'), 0);
    ASSERT_STRSTR(text, "resolving\nfetching: 1 % (");
    ASSERT_STRSTR(text, "fetching: 50 % (");
    ASSERT_STRSTR(text, "/s, 2 s left\n");
}

TEST(progress_without_a_terminal_says_once_what_is_waited_for) {
    const ProgressStep steps[] = {
        { "queued", 0, 0, 0, "waits for a turn" },
        { "queued", 0, 0, 0, "waits for a turn" },
        { "fetching", MiB(50), MiB(100), MiB(25), "layer 2 of 3: 503;\033 again in 4 s" },
        { "fetching", MiB(51), MiB(100), MiB(25), "layer 2 of 3: 503;\033 again in 4 s" },
        { "fetching", MiB(52), MiB(100), MiB(25), "" },
    };
    _cleanup_free_ char *text = shown((Progress){ .last_decile = -1 }, steps, ELEMENTSOF(steps));

    ASSERT_EQ(count(text, '\n'), 4);
    ASSERT_STRSTR(text, "queued\nqueued: waits for a turn\nfetching: 50 %");
    ASSERT_STRSTR(text, "2 s left\nfetching: layer 2 of 3: 503;? again in 4 s\n");
}

TEST(progress_on_a_terminal_stays_on_one_line_below_what_it_waits_for) {
    const ProgressStep steps[] = {
        { "fetching", MiB(50), MiB(100), MiB(25), NULL },
        { "fetching", MiB(50), MiB(100), MiB(25), "layer 2 waits" },
        { "fetching", MiB(50), MiB(100), 0, "registry says 503,\033 again in 4 s" },
    };
    _cleanup_free_ char *text =
        shown((Progress){ .terminal = true, .last_decile = -1 }, steps, ELEMENTSOF(steps));

    ASSERT_EQ(count(text, '\n'), 2);
    ASSERT_STRSTR(text, " 50 % of 100");
    ASSERT_STRSTR(text, "2 s left");
    ASSERT_STRSTR(text, "\r\033[Kfetching: layer 2 waits\n\r\033[Kfetching ");
    ASSERT_STRSTR(text, "503,? again in 4 s\n");
    ASSERT_STREQ(text + strlen(text) - 4, "\r\033[K"); /* progress_end() leaves an empty line */
}
