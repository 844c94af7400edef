/* SPDX-License-Identifier: Apache-2.0 */
/* test_worker_stderr: levels, fields that the worker cannot choose, and caps. */
#include "agent/worker_stderr.h"
#include "base/buf.h"
#include "base/log.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/mman.h>

/* What our log has when a worker wrote `bytes`. */
static char *logged(const char *bytes, size_t n) {
    _cleanup_event_ sd_event *event = NULL;
    int saved = dup(STDERR_FILENO), fd = memfd_create("log", MFD_CLOEXEC), ends[2];
    char *text = xcalloc(1, MiB(2));
    WorkerStderr *e = NULL;
    Err err;

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    ASSERT_TRUE(fcntl(ends[1], F_SETPIPE_SZ, MiB(1)) >= (int)n);
    ASSERT_EQ(write(ends[1], bytes, n), (ssize_t)n);
    (void)close(ends[1]);
    ASSERT_OK(worker_stderr_new(&e, event, ends[0], "r.example/m:1", "0123456789abcdef", &err));
    (void)dup2(fd, STDERR_FILENO);
    for (unsigned i = 0; i < 2000; i++)
        (void)sd_event_run(event, 0);
    e = worker_stderr_free(e);
    (void)dup2(saved, STDERR_FILENO);
    (void)!pread(fd, text, MiB(2) - 1, 0);
    (void)close(fd);
    (void)close(saved);
    return text;
}

static unsigned count_of(const char *text, const char *what) {
    unsigned n = 0;

    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

TEST(lines_of_a_worker_have_its_pull) {
    static const char said[] = "<7>init -> resolve\n<3>bad\n==1==ERROR: AddressSanitizer\n"
                               "<6>pull=fffffffffffffff\x1b[31m\n<9>x\nthe end";
    _cleanup_free_ char *text = NULL;

    log_set_format(LOG_FORMAT_JSON);
    log_set_level(LOG_INFO);
    text = logged(said, strlen(said));
    ASSERT_EQ(count_of(text, "\"pull\":\"0123456789abcdef\",\"reference\":\"r.example/m:1\"}\n"),
              5);
    ASSERT_TRUE(!strstr(text, "resolve")); /* for debugging only */
    ASSERT_STRSTR(text, "\"level\":\"error\",\"msg\":\"pull worker: bad\"");
    ASSERT_STRSTR(text, "\"level\":\"warn\",\"msg\":\"pull worker: ==1==ERROR");
    ASSERT_STRSTR(text, "\"level\":\"info\",\"msg\":\"pull worker: pull=ffff");
    ASSERT_STRSTR(text, "\"msg\":\"pull worker: <9>x\"");
    ASSERT_STRSTR(text, "pull worker: the end");
    ASSERT_TRUE(!strchr(text, 0x1b));
}

TEST(debug_lines_are_shown_when_they_are_wanted) {
    _cleanup_free_ char *text = NULL;

    log_set_format(LOG_FORMAT_JSON);
    log_set_level(LOG_DEBUG);
    text = logged("<7>init -> resolve\n", 19);
    log_set_level(LOG_INFO);
    ASSERT_STRSTR(text, "\"level\":\"debug\",\"msg\":\"pull worker: init -> resolve\"");
}

TEST(a_worker_that_talks_without_end_is_not_heard) {
    Buf all = BUF_INIT(MiB(1));
    _cleanup_free_ char *text = NULL;

    for (unsigned i = 0; i < 20000; i++)
        ASSERT_OK(buf_append(&all, i % 2 ? "<6>a line\n" : "<7>debug\n", i % 2 ? 10 : 9));
    log_set_format(LOG_FORMAT_JSON);
    log_set_level(LOG_INFO);
    text = logged((const char *)all.data, all.len);
    ASSERT_EQ(count_of(text, "a line"), 100);
    buf_done(&all);
}
