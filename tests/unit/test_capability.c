/* SPDX-License-Identifier: Apache-2.0 */
/* test_capability: access types, modes and mount flags. */
#include "csi/capability.h"

#include "tests/unit/test.h"

typedef struct Input {
    int access_type, mode;
    const char *flags[3];
} Input;

static int check(const Input *in, Capability *ret, Err *err) {
    Csi__V1__VolumeCapability c = CSI__V1__VOLUME_CAPABILITY__INIT;
    Csi__V1__VolumeCapability__BlockVolume block = CSI__V1__VOLUME_CAPABILITY__BLOCK_VOLUME__INIT;
    Csi__V1__VolumeCapability__MountVolume mount = CSI__V1__VOLUME_CAPABILITY__MOUNT_VOLUME__INIT;
    Csi__V1__VolumeCapability__AccessMode mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__INIT;

    mount.mount_flags = (char **)(uintptr_t)in->flags;
    while (mount.n_mount_flags < ELEMENTSOF(in->flags) && in->flags[mount.n_mount_flags])
        mount.n_mount_flags++;
    c.access_type_case = (Csi__V1__VolumeCapability__AccessTypeCase)in->access_type;
    if (in->access_type == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK)
        c.block = &block;
    else if (in->access_type == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT)
        c.mount = &mount;
    mode.mode = (Csi__V1__VolumeCapability__AccessMode__Mode)in->mode;
    c.access_mode = in->mode < 0 ? NULL : &mode;
    return capability_check(&c, false, ret, err);
}

#define MOUNT CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT
#define BLOCK CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK

TEST(capability_check_table) {
    static const struct {
        Input in;
        const char *error; /* NULL: fine */
        bool multi_node, noexec;
    } cases[] = {
        { { MOUNT, 1, { NULL } }, NULL, false, false },
        { { MOUNT, 2, { NULL } }, NULL, false, false },
        { { MOUNT, 3, { NULL } }, NULL, true, false },
        { { MOUNT, 6, { NULL } }, NULL, false, false },
        { { MOUNT, 7, { NULL } }, NULL, false, false },
        { { MOUNT, 1, { "ro", "noexec", "noatime" } }, NULL, false, true },
        { { MOUNT, 4, { NULL } }, "MULTI_NODE_SINGLE_WRITER", false, false },
        { { MOUNT, 5, { NULL } }, "MULTI_NODE_MULTI_WRITER", false, false },
        { { MOUNT, 0, { NULL } }, "access mode", false, false },
        { { MOUNT, 8, { NULL } }, "access mode", false, false },
        { { MOUNT, -1, { NULL } }, "access mode", false, false },
        { { BLOCK, 1, { NULL } }, "block", false, false },
        { { 0, 1, { NULL } }, "access type", false, false },
        { { MOUNT, 1, { "rw" } }, "\"rw\" cannot be had", false, false },
        { { MOUNT, 1, { "ro", "exec" } }, "possible are", false, false },
        { { MOUNT, 1, { "context=hunter2" } }, "\"context\"", false, false },
        { { MOUNT, 1, { "ro,noexec" } }, "\"ro\"", false, false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Capability c = { 0 };
        Err err;
        int r = check(&cases[i].in, &c, &err);

        if (cases[i].error) {
            ASSERT_ERR(r, -EINVAL);
            ASSERT_STRSTR(err.text, cases[i].error);
            ASSERT_TRUE(!strstr(err.text, "hunter2"));
            continue;
        }
        ASSERT_OK(r);
        ASSERT_EQ(c.multi_node, cases[i].multi_node);
        ASSERT_EQ(c.noexec, cases[i].noexec);
        free(c.text);
    }
}

TEST(capability_missing) {
    Capability c;
    Err err;

    ASSERT_ERR(capability_check(NULL, false, &c, &err), -EINVAL);
    ASSERT_STRSTR(err.text, "missing");
}
