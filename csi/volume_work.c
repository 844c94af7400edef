/* SPDX-License-Identifier: Apache-2.0 */
/* volume_work: what volumes do in pool threads: records, directories, mounts. */
#include "csi/volume_work.h"

#include "base/fs.h"
#include "base/log.h"
#include "csi/target.h"

#include <fcntl.h>
#include <sys/stat.h>

static int open_sub_path(int tree_fd, const char *sub_path, Err *err) {
    Err ignored = { "" };
    struct stat st;
    int fd = fs_open_beneath(tree_fd, sub_path, O_PATH, 0, &ignored);

    if (fd == -ENOENT || fd == -ENOTDIR)
        return err_set(err, -ENOENT, "the artifact has no directory \"%.200s\" (subPath)",
                       sub_path);
    if (fd == -ELOOP || fd == -EXDEV)
        return err_set(err, -EINVAL,
                       "subPath \"%.200s\" passes a symlink; name the directory itself", sub_path);
    if (fd < 0)
        return err_set(err, fd, "%s", ignored.text);
    if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode)) {
        (void)safe_close(fd);
        return err_set(
            err, -EINVAL,
            "subPath \"%.200s\" is a file, a volume shows a directory; use the directory "
            "that holds it, and subPath of the pod's volumeMount for the file",
            sub_path);
    }
    return fd;
}

int volume_open_tree(Store *s, const Volume *v, int *ret_fd, Err *err) {
    _cleanup_close_ int tree = -EBADF;
    int fd;

    tree =
        fs_open_beneath(store_trees_fd(s), DIGEST_HEX(&v->manifest), O_PATH | O_DIRECTORY, 0, err);
    if (tree < 0)
        return tree == -ENOENT
                   ? err_set(err, -ESTALE, "the tree of %s is not in the store any more",
                             DIGEST_STR(&v->manifest))
                   : tree;
    fd = v->sub_path ? open_sub_path(tree, v->sub_path, err) : TAKE_FD(tree);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

int volume_is_mounted(Store *s, const Volume *v, Err *err) {
    _cleanup_close_ int target = -EBADF, tree = -EBADF;
    int r = target_open_existing(v->target, &target, err);

    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
        return 0;
    if (r >= 0)
        r = volume_open_tree(s, v, &tree, err);
    if (r == -ESTALE || r == -ENOENT)
        return 0;
    if (r >= 0)
        r = mount_shows(target, tree, err);
    return r == -EEXIST ? err_set(err, -EBUSY, "something else is mounted on %s", v->target) : r;
}

/* The device is asked of the files: mountinfo's is another one on btrfs. */
static bool is_same_device(const Store *s, const char *target) {
    _cleanup_close_ int fd = -EBADF;
    struct stat a, b;
    Err ignored = { "" };

    return target_open_existing(target, &fd, &ignored) >= 0 && fstat(fd, &a) >= 0 &&
           fstat(store_trees_fd(s), &b) >= 0 && a.st_dev == b.st_dev;
}

bool volume_mount_is_ours(const Store *s, const Shown *shown, size_t i) {
    return shown_is_tree(shown, i) && is_same_device(s, shown->list[i].target);
}

/* 1: a tree of ours is on top of `target`; 0: nothing is mounted there; -EBUSY something else is.
 */
static int mounted_by_us(Store *s, const char *target, Err *err) {
    _cleanup_(shown_done) Shown shown = { 0 };
    int r = shown_read(&shown, s, err), found = 0;

    if (r < 0)
        return r;
    for (size_t i = 0; i < shown.n; i++)
        if (streq(shown.list[i].target, target))
            found = volume_mount_is_ours(s, &shown, i) ? 1 : -EBUSY;
    return found == -EBUSY
               ? err_set(err, -EBUSY,
                         "what is mounted on %s is no volume of this driver; it is left "
                         "alone",
                         target)
               : found;
}

static int look_recorded(Store *s, const Volume *want, const Volume *have, VolumeLook *ret,
                         Err *err) {
    _cleanup_close_ int tree = -EBADF;
    Err ignored = { "" };
    int r;

    if (!streq_ptr(want->parameters, have->parameters))
        return err_set(err, -EEXIST,
                       "the volume is published at %s with other attributes (%.150s); unpublish it "
                       "first",
                       have->target, have->reference);
    r = volume_is_mounted(s, have, err);
    if (r == -EBUSY && mounted_by_us(s, have->target, &ignored) > 0)
        r = 0; /* what was to be replaced is still there: a crash came between */
    if (r < 0)
        return r;
    if (r > 0) {
        *ret = VOLUME_LOOK_MOUNTED;
        return 0;
    }
    r = volume_open_tree(s, have, &tree, err);
    if (r < 0 && r != -ESTALE)
        return r;
    *ret = r < 0 ? VOLUME_LOOK_STALE : VOLUME_LOOK_RECORDED;
    return 0;
}

static int busy_elsewhere(const Volume *have, Err *err) {
    return err_set(err, -EBUSY,
                   "the volume is published at %s, and its access mode allows one target; use "
                   "ReadOnlyMany for several pods",
                   have->target);
}

int volume_look(Store *s, const Volume *want, VolumeLook *ret, Digest *ret_manifest, Err *err) {
    _cleanup_(volume_clear) Volume have = { 0 };
    int r = store_volume_get(s, want->volume_id, want->target, &have, err);

    if (r >= 0) {
        *ret_manifest = have.manifest;
        return look_recorded(s, want, &have, ret, err);
    }
    if (r != -ENOENT)
        return r;
    r = store_volume_get(s, want->volume_id, NULL, &have, err);
    if (r >= 0 && !(want->multi_node && have.multi_node))
        return busy_elsewhere(&have, err);
    if (r < 0 && r != -ENOENT)
        return r;
    *ret = VOLUME_LOOK_ABSENT;
    return 0;
}

static int volume_record(Store *s, const Volume *v, bool replaces, Err *err) {
    int r = replaces ? store_volume_remove(s, v->volume_id, v->target, err) : 0;

    if (r >= 0)
        r = store_volume_add(s, v, err);
    if (r == -ENOENT)
        return err_set(err, -EAGAIN,
                       "%.200s was removed from the store meanwhile; the next try brings it again",
                       v->reference);
    return r;
}

/* Takes our mounts off the target, down to what is none of ours, which is -EBUSY.  1: there was
 * one. */
static int detach_ours(Store *s, const char *target, Err *err) {
    int n = 0, r;

    while ((r = mounted_by_us(s, target, err)) > 0) {
        r = mount_detach(target, err);
        if (r <= 0)
            break;
        n = 1;
    }
    return r < 0 ? r : n;
}

/* 1 when a record of another volume names the target, else 0. */
static int is_target_of_another(Store *s, const VolumeKey *key, Err *err) {
    Volume *volumes = NULL;
    size_t n = 0;
    int r = store_volume_list(s, &volumes, &n, err), found = 0;

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        found |=
            streq(volumes[i].target, key->target) && !streq(volumes[i].volume_id, key->volume_id);
    volume_array_free(volumes, n);
    return found;
}

/* The same for mounts without a record, which an index that was lost, or a crash, left; and trees
 * that only they showed go with them. */
static int detach_unknown(Store *s, const char *target, Err *err) {
    Err ignored = { "" };
    int r = detach_ours(s, target, err);

    if (r > 0 && store_sweep_trees(s, &ignored) < 0) /* the next start tries again */
        log_debug("cannot remove old trees: %s", ignored.text);
    return r;
}

/* Is what is mounted on the volume's target such a one, whose place it may take? */
static bool is_leftover(Store *s, const Volume *v) {
    Err ignored = { "" };

    return is_target_of_another(s, &(VolumeKey){ v->volume_id, v->target }, &ignored) == 0 &&
           mounted_by_us(s, v->target, &ignored) > 0;
}

/* Opens what is shown and where; both must be right before anything is written.  A leftover on the
 * target stays until the volume is recorded: then `ret_target` stays closed. */
static int volume_open_ends(Store *s, const Volume *v, int *ret_tree, Target *ret_target,
                            Err *err) {
    int r = volume_open_tree(s, v, ret_tree, err);

    if (r < 0)
        return r == -ESTALE ? -EAGAIN : r;
    r = target_open(ret_target, v->target, err);
    return r == -EBUSY && is_leftover(s, v) ? 0 : r;
}

/* EINVAL and the like of the kernel are not the caller's fault; EPERM is the administrator's. */
static int volume_mount_at(Store *s, MountMethod method, const Volume *v, int tree_fd,
                           int target_fd, Err *err) {
    MountRequest request = { .tree_fd = tree_fd,
                             .target_fd = target_fd,
                             .staging_fd = store_staging_fd(s),
                             .exec = v->exec };
    int r = mount_tree(method, &request, err);

    return r < 0 ? err_prefix(err, r == -EPERM ? r : -EIO, "cannot mount on %.200s", v->target) : 0;
}

/* The record keeps the tree from now on; but it may have been removed, and another one made in its
 * place, between opening it and recording. */
static int check_tree_lives(const Volume *v, int tree_fd, Err *err) {
    struct stat st;

    if (fstat(tree_fd, &st) < 0)
        return err_errno(err, "cannot look at the tree of %s", DIGEST_STR(&v->manifest));
    if (st.st_nlink == 0)
        return err_set(err, -EAGAIN, "the tree of %s was just replaced; the next try finds it",
                       DIGEST_STR(&v->manifest));
    return 0;
}

/* The volume is recorded.  A leftover goes now, so that a crash leaves either it or the record of
 * what takes its place; workloads keep what they have open. */
static int volume_show(Store *s, MountMethod method, const Volume *v, int tree_fd, Target *target,
                       Err *err) {
    int r = check_tree_lives(v, tree_fd, err);

    if (r >= 0 && target->fd < 0) {
        r = detach_unknown(s, v->target, err);
        if (r >= 0)
            r = target_open(target, v->target, err);
    }
    return r < 0 ? r : volume_mount_at(s, method, v, tree_fd, target->fd, err);
}

int volume_mount(Store *s, MountMethod method, const Volume *v, bool replaces, Err *err) {
    _cleanup_(target_done) Target target = TARGET_INIT;
    _cleanup_close_ int tree = -EBADF;
    Err ignored = { "" };
    int r = volume_open_ends(s, v, &tree, &target, err);

    if (r < 0)
        return r;
    r = volume_record(s, v, replaces, err);
    if (r >= 0) {
        r = volume_show(s, method, v, tree, &target, err);
        if (r < 0 && store_volume_remove(s, v->volume_id, v->target, &ignored) < 0)
            log_debug("cannot take the record of %s back: %s", v->volume_id, ignored.text);
    }
    if (r < 0)
        target_undo(&target);
    return r;
}

/* Mounted by `cache-ctl mount`, on a directory that was there before. */
static bool is_by_hand(const VolumeKey *key) {
    return startswith(key->volume_id, VOLUME_ID_CONTROL);
}

/* Without a record: takes away what a crash or a lost index left behind. */
static int volume_unmount_unknown(Store *s, const VolumeKey *key, Err *err) {
    int r = is_target_of_another(s, key, err), mounted;

    if (r != 0)
        return r < 0 ? r : 0;
    mounted = detach_unknown(s, key->target, err);
    if (mounted < 0)
        return mounted;
    r = is_by_hand(key) ? 0 : target_remove(key->target, err);
    return r == -EBUSY && mounted == 0 ? 0 : r < 0 ? r : mounted;
}

int volume_unmount(Store *s, const VolumeKey *key, Err *err) {
    _cleanup_(volume_clear) Volume have = { 0 };
    Err ignored = { "" };
    int r = store_volume_get(s, key->volume_id, key->target, &have, err);

    if (r == -ENOENT)
        return volume_unmount_unknown(s, key, err);
    if (r >= 0)
        r = detach_ours(s, key->target, err);
    if (r >= 0 &&
        !is_by_hand(key)) /* the kubelet wants the target gone; a person's directory stays */
        r = target_remove(key->target, err);
    if (r < 0)
        return r;
    if (store_touch(s, &have.manifest, &ignored) < 0) /* It was in use until now; LRU order only. */
        log_debug("cannot note the use of %s: %s", DIGEST_STR(&have.manifest), ignored.text);
    r = store_volume_remove(s, key->volume_id, key->target, err);
    return r < 0 ? r : 1;
}

int volume_stats(Store *s, const VolumeKey *key, VolumeStats *ret, Err *err) {
    _cleanup_(volume_clear) Volume have = { 0 };
    ArtifactInfo info = { 0 };
    Err why = { "" };
    int r = store_volume_get(s, key->volume_id, key->target, &have, err), mounted;

    if (r >= 0)
        r = store_inspect(s, &have.manifest, &info, err);
    if (r == -ENOENT)
        return err_set(err, r, "volume %.200s is not published at %.200s", key->volume_id,
                       key->target);
    if (r < 0)
        return r;
    mounted = volume_is_mounted(s, &have, &why);
    *ret = (VolumeStats){ .bytes = info.bytes, .files = info.files, .mounted = mounted > 0 };
    if (mounted > 0)
        ret->condition = xasprintf("mounted: %s", have.reference);
    else
        ret->condition = xasprintf("%s is not mounted at %s%s%s; delete the pod, or publish again",
                                   have.reference, have.target, mounted < 0 ? ": " : "",
                                   mounted < 0 ? why.text : "");
    artifact_info_clear(&info);
    return 0;
}
