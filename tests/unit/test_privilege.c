/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of base/privilege: of what /proc says, and of what a child gave up. */
#include "base/privilege.h"
#include "tests/unit/test.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static unsigned long long effective(void) {
    FILE *file = fopen("/proc/self/status", "re");
    unsigned long long mask = 0;
    char line[256];

    ASSERT_TRUE(file);
    while (fgets(line, sizeof(line), file))
        (void)sscanf(line, "CapEff: %llx", &mask);
    (void)fclose(file);
    return mask;
}

TEST(privilege_is_what_proc_says) {
    unsigned long long mask = effective();

    for (unsigned i = 0; i <= CAP_LAST_CAP; i++)
        ASSERT_EQ(privilege_has(i), mask >> i & 1);
}

TEST(privilege_that_was_given_up_is_gone) {
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

        _exit(syscall(SYS_capset, &header, none) == 0 && !privilege_has(CAP_SYS_NICE) &&
                      !privilege_has(CAP_SYSLOG)
                  ? 0
                  : 1);
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
}
