/* SPDX-License-Identifier: Apache-2.0 */
/* volume_recover: matches the records of volumes with what is mounted, at start. */
#include "csi/target.h"
#include "csi/volume_internal.h"

/* What is the matter with one record?  `mounted`: see volume_is_mounted(). */
static bool must_drop(const Volume *v, int mounted) {
    _cleanup_close_ int fd = -EBADF;
    int r;

    if (mounted != 0)
        return false;
    if (startswith(v->volume_id, VOLUME_ID_CONTROL))
        return true; /* Made by hand, and unmounted by hand or a reboot: nobody publishes it again.
                      */
    r = target_open_existing(v->target, &fd, NULL);
    return r == -ENOENT || r == -ENOTDIR;
}

/* Notes one record: there, not mounted, or (1) to be dropped. */
static int recover_one(Volumes *v, const Volume *record, VolumesFound *found) {
    Err why = { "" };
    const VolumeSubject subject = { .volume = record };
    int mounted = volume_is_mounted(v->backend->store, record, &why);

    if (mounted > 0) {
        found->mounted++;
        return 0;
    }
    if (must_drop(record, mounted))
        return 1;
    found->unmounted++;
    volumes_event(v, &subject, "volume.unmounted",
                  "the volume at %s is recorded but not mounted%s%s; it is mounted when it is "
                  "published again",
                  record->target, mounted < 0 ? ": " : "", mounted < 0 ? why.text : "");
    return 0;
}

/* All at once: after a reboot it may be every one that was there, and each would wait for the disk.
 */
static int drop(Volumes *v, const Volume *list, size_t n, VolumesFound *found, Err *err) {
    Err why = { "" };
    int r = n > 0 ? store_volumes_remove(v->backend->store, list, n, &why) : 0;

    if (r < 0 && r != -ENOSPC) /* all others can do without */
        return err_set(err, r, "%s", why.text);
    for (size_t i = 0; i < n; i++)
        if (r < 0)
            volumes_event(v, &(VolumeSubject){ .volume = &list[i] }, "volume.drop-failed",
                          "the volume at %s is gone, but its record stays until the next start: %s",
                          list[i].target, why.text);
        else
            volumes_event(v, &(VolumeSubject){ .volume = &list[i] }, "volume.dropped",
                          "the volume at %s is gone; its record was dropped", list[i].target);
    found->dropped += r < 0 ? 0 : (unsigned)n;
    return 0;
}

static int recover_recorded(Volumes *v, const Volume *volumes, size_t n, VolumesFound *found,
                            Err *err) {
    _cleanup_free_ Volume *gone = xnew_n(Volume, n); /* copies that own nothing */
    size_t n_gone = 0;

    for (size_t i = 0; i < n; i++)
        if (recover_one(v, &volumes[i], found) > 0)
            gone[n_gone++] = volumes[i];
    return drop(v, gone, n_gone, found, err);
}

static bool is_recorded(const Volume *volumes, size_t n, const char *target) {
    for (size_t i = 0; i < n; i++)
        if (streq(volumes[i].target, target))
            return true;
    return false;
}

static int recover_foreign(Volumes *v, const Volume *volumes, size_t n, VolumesFound *found,
                           Err *err) {
    _cleanup_(shown_done) Shown shown = { 0 };
    int r = shown_read(&shown, v->backend->store, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < shown.n; i++) {
        const char *target = shown.list[i].target;

        if (!volume_mount_is_ours(v->backend->store, &shown, i) || is_recorded(volumes, n, target))
            continue;
        found->foreign++;
        volumes_event(
            v, &(VolumeSubject){ 0 }, "volume.unknown",
            "%s shows content of the store, and no volume is recorded there; it keeps what "
            "it shows until it is unpublished or published again",
            target);
    }
    return 0;
}

int volumes_recover(Volumes *v, VolumesFound *ret, Err *err) {
    VolumesFound found = { 0 };
    Volume *volumes = NULL;
    size_t n = 0;
    int r = store_volume_list(v->backend->store, &volumes, &n, err);

    if (r >= 0)
        r = recover_recorded(v, volumes, n, &found, err);
    if (r >= 0)
        r = recover_foreign(v, volumes, n, &found, err);
    volume_array_free(volumes, n);
    if (r < 0)
        return err_prefix(err, r, "match the recorded volumes with the mounts");
    *ret = found;
    return 0;
}
