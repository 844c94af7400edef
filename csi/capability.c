/* SPDX-License-Identifier: Apache-2.0 */
/* capability: which access types, access modes and mount flags of CSI a read-only volume can have.
 */
#include "csi/capability.h"

/* Flags that change nothing for a mount that is ro,nosuid,nodev anyway, and noexec, the first. */
static const char *const mount_flags[] = { "noexec",   "ro",         "nosuid",
                                           "nodev",    "noatime",    "nodiratime",
                                           "relatime", "norelatime", "defaults" };
#define FLAG_NOEXEC 1U

static const char *const mode_names[] = {
    "UNKNOWN",
    "SINGLE_NODE_WRITER",
    "SINGLE_NODE_READER_ONLY",
    "MULTI_NODE_READER_ONLY",
    "MULTI_NODE_SINGLE_WRITER",
    "MULTI_NODE_MULTI_WRITER",
    "SINGLE_NODE_SINGLE_WRITER",
    "SINGLE_NODE_MULTI_WRITER",
};

static int check_mode(const Csi__V1__VolumeCapability *c, int *ret, Err *err) {
    int mode = c->access_mode ? (int)c->access_mode->mode : 0;

    if (mode <= 0 || mode >= (int)ELEMENTSOF(mode_names))
        return err_set(err, -EINVAL,
                       "the volume capability has no access mode that is known (it is %d)", mode);
    if (mode == CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_SINGLE_WRITER ||
        mode == CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_MULTI_WRITER)
        return err_set(
            err, -EINVAL,
            "access mode %s needs writing on several nodes, and the volume is read-only; "
            "use ReadOnlyMany (MULTI_NODE_READER_ONLY)",
            mode_names[mode]);
    *ret = mode;
    return 0;
}

/* Only the name of an option is repeated: what follows '=' may be a secret. */
static int refuse_flag(const char *flag, Err *err) {
    int n = (int)strspn(flag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    char known[160] = "";

    /* context=, fscontext= and the like belong to a whole file system. */
    if (n >= 7 && startswith(flag + n - 7, "context="))
        return err_set(
            err, -EINVAL,
            "the mount flag \"%.*s\" has no effect on a volume, which shows files of the "
            "store with their labels: leave it out, and see store.selinux_label",
            MIN(n, 32), flag);

    for (size_t i = 0; i < ELEMENTSOF(mount_flags); i++) {
        if (i > 0)
            strcat(known, ", ");
        strcat(known, mount_flags[i]);
    }
    return err_set(err, -EINVAL, "the mount flag \"%.*s\" cannot be had; possible are %s",
                   MIN(n, 32), flag, known);
}

static int check_flag(const char *flag, unsigned *flags, Err *err) {
    for (unsigned i = 0; i < ELEMENTSOF(mount_flags); i++)
        if (streq(flag, mount_flags[i])) {
            *flags |= 1U << i;
            return 0;
        }
    return refuse_flag(flag, err);
}

int capability_check(const Csi__V1__VolumeCapability *c, bool readonly, Capability *ret, Err *err) {
    unsigned flags = 0;
    int mode = 0, r;

    if (!c)
        return err_set(err, -EINVAL, "the volume capability is missing");
    if (c->access_type_case == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK)
        return err_set(err, -EINVAL,
                       "a block volume was asked for; artifacts are directories: use volumeMode "
                       "Filesystem");
    if (c->access_type_case != CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT || !c->mount)
        return err_set(err, -EINVAL, "the volume capability has no access type; use mount");
    r = check_mode(c, &mode, err);
    for (size_t i = 0; i < c->mount->n_mount_flags && r >= 0; i++)
        r = check_flag(c->mount->mount_flags[i], &flags, err);
    if (r < 0)
        return r;
    *ret = (Capability){
        .multi_node = mode == CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_READER_ONLY,
        .noexec = flags & FLAG_NOEXEC,
        .text = xasprintf("mode=%s\nreadonly=%d\nflags=%x\n", mode_names[mode], readonly, flags),
    };
    return 0;
}
