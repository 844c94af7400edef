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

static int recover_one(Volumes *v, const Volume *record, VolumesFound *found, Err *err) {
    Store *s = v->backend->store;
    Err why = { "" };
    int mounted = volume_is_mounted(s, record, &why);

    if (mounted > 0) {
        found->mounted++;
        return 0;
    }
    if (must_drop(record, mounted)) {
        int r = store_volume_remove(s, record->volume_id, record->target, &why);

        if (r == -ENOSPC) { /* all others can do without */
            volumes_event(v, record, "volume.drop-failed",
                          "the volume at %s is gone, but its record stays until the next start: "
                          "%s",
                          record->target, why.text);
            return 0;
        }
        if (r < 0)
            return err_set(err, r, "%s", why.text);
        found->dropped++;
        volumes_event(v, record, "volume.dropped",
                      "the volume at %s is gone; its record was dropped", record->target);
        return 0;
    }
    found->unmounted++;
    volumes_event(v, record, "volume.unmounted",
                  "the volume at %s is recorded but not mounted%s%s; it is mounted when it is "
                  "published again",
                  record->target, mounted < 0 ? ": " : "", mounted < 0 ? why.text : "");
    return 0;
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
            v, NULL, "volume.unknown",
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

    for (size_t i = 0; i < n && r >= 0; i++)
        r = recover_one(v, &volumes[i], &found, err);
    if (r >= 0)
        r = recover_foreign(v, volumes, n, &found, err);
    volume_array_free(volumes, n);
    if (r < 0)
        return err_prefix(err, r, "match the recorded volumes with the mounts");
    *ret = found;
    return 0;
}
