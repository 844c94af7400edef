/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox: what confines the pull worker before it hears a word from a registry. */
#include "oci/sandbox_internal.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* PR_CAP_AMBIENT_RAISE off, root without powers, and no way back (capabilities(7)). */
#define SECURE_BITS                                                   \
    (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED | \
     SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

#define FILES_MAX 1024

const char *sandbox_feature_name(SandboxFeature feature) {
    static const char *const names[SANDBOX_FEATURE_COUNT] = {
        [SANDBOX_CAPABILITIES] = "capabilities", [SANDBOX_UID] = "uid",
        [SANDBOX_NO_NEW_PRIVS] = "no_new_privs", [SANDBOX_LANDLOCK] = "landlock",
        [SANDBOX_SECCOMP] = "seccomp",
    };

    return names[feature];
}

static bool has(const SandboxOptions *o, SandboxFeature feature, SandboxState *ret) {
    *ret = (SandboxState){ 0 };
    if (o->absent & 1U << feature)
        (void)snprintf(ret->detail, sizeof(ret->detail), "left out");
    return !(o->absent & 1U << feature);
}

/* Before the user changes: this needs CAP_SETPCAP, which an unprivileged start does not have. */
static bool empty_bounding_set(void) {
    bool dropped = true;

    for (int cap = 0; cap <= 63; cap++)
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            dropped = false;
    return prctl(PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) >= 0 && dropped;
}

static int drop_capabilities(bool bounded, SandboxState *ret, Err *err) {
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0,
                0); /* empty with the permitted set */
    if (syscall(SYS_capset, &header, none) < 0)
        return err_errno(err, "the pull worker cannot drop its capabilities");
    ret->active = true;
    if (!bounded)
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "none; the bounding set stays: not started as root");
    return 0;
}

static int change_user(int dir_fd, SandboxState *ret, Err *err) {
    struct stat st;

    if (fstat(dir_fd, &st) < 0)
        return err_errno(err, "the pull worker has no folder to write to");
    ret->active = geteuid() != 0;
    if (!ret->active && st.st_uid != 0) {
        if (setgroups(0, NULL) < 0 || setresgid(st.st_gid, st.st_gid, st.st_gid) < 0 ||
            setresuid(st.st_uid, st.st_uid, st.st_uid) < 0)
            return err_errno(err, "the pull worker cannot become user %u", (unsigned)st.st_uid);
        ret->active = true;
    }
    if (ret->active)
        (void)snprintf(ret->detail, sizeof(ret->detail), "%u", (unsigned)geteuid());
    else
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "root, as the pull's folder belongs to it");
    return 0;
}

/* After the user changed, which resets both (prctl(2)). */
static int hide(Err *err) {
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }) < 0)
        return err_errno(err, "the pull worker cannot hide its memory");
    return 0;
}

/* Limits that were lower already stay. */
static int lower_limit(int what, rlim_t max, Err *err) {
    struct rlimit old;

    if (getrlimit((__rlimit_resource_t)what, &old) < 0)
        return err_errno(err, "the pull worker cannot read its limits");
    if (old.rlim_max < max)
        max = old.rlim_max;
    if (setrlimit((__rlimit_resource_t)what, &(struct rlimit){ max, max }) < 0)
        return err_errno(err, "the pull worker cannot limit itself");
    return 0;
}

static int limit_resources(const SandboxOptions *o, Err *err) {
    int r = lower_limit(RLIMIT_NOFILE, FILES_MAX, err);

    if (r >= 0 && o->file_max_bytes > 0)
        r = lower_limit(RLIMIT_FSIZE, o->file_max_bytes, err);
    return r;
}

int sandbox_enter(const SandboxOptions *options, SandboxState ret[static SANDBOX_FEATURE_COUNT],
                  Err *err) {
    bool drop = has(options, SANDBOX_CAPABILITIES, &ret[SANDBOX_CAPABILITIES]);
    bool bounded = drop && empty_bounding_set();
    int r;

    if (has(options, SANDBOX_UID, &ret[SANDBOX_UID])) {
        r = change_user(options->dir_fd, &ret[SANDBOX_UID], err);
        if (r < 0)
            return r;
    }
    if (drop) {
        r = drop_capabilities(bounded, &ret[SANDBOX_CAPABILITIES], err);
        if (r < 0)
            return r;
    }
    r = hide(err);
    if (r >= 0)
        r = limit_resources(options, err);
    if (r < 0)
        return r;
    if (has(options, SANDBOX_NO_NEW_PRIVS, &ret[SANDBOX_NO_NEW_PRIVS])) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            return err_errno(err, "the pull worker cannot set no_new_privs");
        ret[SANDBOX_NO_NEW_PRIVS].active = true;
    }
    if (has(options, SANDBOX_LANDLOCK, &ret[SANDBOX_LANDLOCK]))
        sandbox_landlock(options->dir_fd, &ret[SANDBOX_LANDLOCK]);
    if (has(options, SANDBOX_SECCOMP, &ret[SANDBOX_SECCOMP]))
        sandbox_seccomp(&ret[SANDBOX_SECCOMP]);
    return 0;
}
