/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of csi/volume_work: the order in which records and mounts come and go, which a crash at any
 * point must not make wrong.  This program's umount2() looks, and can fail. */
#include "csi/volume_work.h"

#include "tests/unit/csi_env.h"

#include <sys/syscall.h>

static struct {
    Store *store; /* NULL: nobody looks */
    unsigned calls;
    size_t records; /* there were, at the last call */
    bool fails;
} watch;

/* In the place of the C library's. */
int umount2(const char *path, int flags) {
    Volume *list = NULL;

    if (watch.store) {
        watch.calls++;
        ASSERT_OK(store_volume_list(watch.store, &list, &watch.records, NULL));
        volume_array_free(list, watch.records);
        if (watch.fails) {
            errno = EIO;
            return -1;
        }
    }
    return (int)syscall(SYS_umount2, path, flags);
}

#define NEED_ROOT()     \
    if (geteuid() != 0) \
    SKIP("needs root to mount")

static Volume volume_of(const Env *env, char *target) {
    return (Volume){ .volume_id = (char *)"v",
                     .target = target,
                     .reference = (char *)REFERENCE,
                     .parameters = (char *)"p",
                     .manifest = env->manifest };
}

/* The inode that is seen at a path. */
static ino_t inode(const char *path) {
    struct stat st;

    ASSERT_OK(stat(path, &st));
    return st.st_ino;
}

/* A mount of a tree of the store at the target, and no record; the tree it shows is another one
 * than that of the artifact. */
static void make_leftover(Env *env, const Volume *v) {
    _cleanup_free_ char *db = xasprintf("%s/index.db", env->store_path);
    _cleanup_free_ char *log = xasprintf("%s-wal", db);
    Err err;

    ASSERT_OK(volume_mount(env->store, env->backend.mount_method, v, false, &err));
    env_stop(env);
    ASSERT_OK(unlink(db));
    (void)unlink(log); /* closing may have removed it */
    env_start(env);
    env_artifact(env);
}

TEST(volume_is_recorded_before_a_leftover_goes) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *target = xasprintf("%s/t", env->kubelet);
    Volume v = volume_of(env, target);
    ino_t old;
    Err err;

    make_leftover(env, &v);
    old = inode(target);
    watch = (__typeof__(watch)){ .store = env->store };
    ASSERT_OK(volume_mount(env->store, env->backend.mount_method, &v, false, &err));
    ASSERT_EQ(watch.calls, 1);
    ASSERT_EQ(watch.records, 1);
    ASSERT_NE(inode(target), old);
    watch = (__typeof__(watch)){ .store = env->store };
    ASSERT_EQ(volume_unmount(env->store, &(VolumeKey){ "v", target }, &err), 1);
    ASSERT_EQ(watch.records, 1); /* and goes after the mount */
    watch.store = NULL;
}

TEST(volume_keeps_a_leftover_that_cannot_go) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *target = xasprintf("%s/t", env->kubelet);
    Volume v = volume_of(env, target);
    Volume *list = NULL;
    size_t n = 1;
    ino_t old;
    Err err;

    make_leftover(env, &v);
    old = inode(target);
    watch = (__typeof__(watch)){ .store = env->store, .fails = true };
    ASSERT_ERR(volume_mount(env->store, env->backend.mount_method, &v, false, &err), -EIO);
    watch.store = NULL;
    ASSERT_EQ(inode(target), old);
    ASSERT_OK(store_volume_list(env->store, &list, &n, &err));
    volume_array_free(list, n);
    ASSERT_EQ(n, 0);
}

/* The state that a crash between record and mount leaves. */
TEST(volume_takes_the_place_of_a_leftover_after_a_crash) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *target = xasprintf("%s/t", env->kubelet);
    Volume v = volume_of(env, target), other = volume_of(env, target);
    VolumesFound found;
    VolumeLook look;
    Digest manifest;
    ino_t old;
    Err err;

    make_leftover(env, &v);
    old = inode(target);
    ASSERT_OK(store_volume_add(env->store, &v, &err));
    ASSERT_OK(volumes_recover(env->volumes, &found, &err));
    ASSERT_EQ(found.unmounted, 1);
    ASSERT_EQ(inode(target), old); /* the pod keeps what it has */
    ASSERT_OK(volume_look(env->store, &v, &look, &manifest, &err));
    ASSERT_EQ(look, VOLUME_LOOK_RECORDED);
    other.volume_id = (char *)"other"; /* it is not another volume's to replace */
    ASSERT_ERR(volume_mount(env->store, env->backend.mount_method, &other, false, &err), -EBUSY);
    ASSERT_EQ(inode(target), old);
    ASSERT_OK(volume_mount(env->store, env->backend.mount_method, &v, false, &err));
    ASSERT_NE(inode(target), old);
    ASSERT_OK(volume_look(env->store, &v, &look, &manifest, &err));
    ASSERT_EQ(look, VOLUME_LOOK_MOUNTED);
    ASSERT_EQ(volume_unmount(env->store, &(VolumeKey){ "v", target }, &err), 1);
    ASSERT_TRUE(access(target, F_OK) < 0);
}
