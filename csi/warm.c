/* SPDX-License-Identifier: Apache-2.0 */
/* warm: reads the files of mounted volumes into the page cache, at the lowest priority. */
#include "csi/warm.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/parse.h"

#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define READ_BYTES  MiB(1)
#define CHECK_BYTES MiB(64) /* the memory is looked at again after so much */
#define PAUSE_USEC  (20 * USEC_PER_MSEC)
#define LOWEST_NICE 19

typedef struct WarmJob {
    Warmer *warmer;
    struct WarmJob *next;
    Volume volume;
    atomic_bool stopped;

    /* The thread's. */
    Store *store;
    uint64_t bytes_per_second;
    uint64_t (*room)(void);
    uint64_t begun_usec, bytes, total_bytes, checked_bytes, files;
    char *buffer;
} WarmJob;

struct Warmer {
    WarmerOptions o;
    Pool *pool;    /* one thread; made when it is needed */
    WarmJob *jobs; /* that wait or run */
};

void warmer_new(Warmer **ret, const WarmerOptions *options) {
    *ret = xnew(Warmer);
    (*ret)->o = *options;
    (*ret)->o.event = sd_event_ref(options->event);
}

Warmer *warmer_free(Warmer *w) {
    if (!w)
        return NULL;
    for (WarmJob *j = w->jobs; j; j = j->next)
        atomic_store(&j->stopped, true);
    (void)pool_free(w->pool); /* calls on_done() of each */
    (void)sd_event_unref(w->o.event);
    free(w);
    return NULL;
}

/* Of the thread alone; where the kernel refuses, it is as important as others. */
static void be_unimportant(void) {
    pid_t tid = (pid_t)syscall(SYS_gettid);

    (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
    (void)setpriority(PRIO_PROCESS, (id_t)tid, LOWEST_NICE);
}

static bool shows(const WarmJob *j, const LayerEntry *e) {
    const char *sub_path = j->volume.sub_path, *rest;

    rest = sub_path ? startswith(e->path, sub_path) : NULL;
    return e->type == ENTRY_TYPE_FILE && (!sub_path || (rest && *rest == '/'));
}

/* All of it has to fit, what was read already included: that is page cache, and counts as room. */
static int check_room(WarmJob *j, Err *err) {
    uint64_t room = j->room();

    j->checked_bytes = j->bytes;
    if (room >= j->total_bytes)
        return 0;
    return err_set(err, -ENOMEM, "all of it is %s, and the page cache may have %s",
                   FORMAT_BYTES(j->total_bytes), FORMAT_BYTES(room));
}

/* Waits while more was read than the rate allows. */
static void keep_rate(const WarmJob *j) {
    while (j->bytes_per_second > 0 && !atomic_load(&j->stopped)) {
        uint64_t due = j->begun_usec + (uint64_t)((double)j->bytes / (double)j->bytes_per_second *
                                                  (double)USEC_PER_SEC),
                 now = now_usec();

        if (now >= due)
            return;
        (void)usleep((useconds_t)MIN(due - now, PAUSE_USEC));
    }
}

static int read_file(WarmJob *j, int tree_fd, const LayerEntry *e, Err *err) {
    _cleanup_close_ int fd = fs_open_beneath(tree_fd, e->path, O_RDONLY, 0, err);
    ssize_t n = 1;
    int r = fd < 0 ? fd : 0;

    while (r >= 0 && n > 0 && !atomic_load(&j->stopped)) {
        n = read(fd, j->buffer, READ_BYTES);
        if (n < 0)
            return err_errno(err, "reading %.200s failed", e->path);
        j->bytes += (uint64_t)n;
        if (j->bytes - j->checked_bytes >= CHECK_BYTES)
            r = check_room(j, err);
        keep_rate(j);
    }
    j->files++;
    return r;
}

static int read_files(WarmJob *j, const LayerEntry *entries, size_t n, Err *err) {
    _cleanup_close_ int tree_fd = fs_open_beneath(
        store_trees_fd(j->store), DIGEST_HEX(&j->volume.manifest), O_PATH | O_DIRECTORY, 0, err);
    int r;

    if (tree_fd < 0)
        return tree_fd;
    for (size_t i = 0; i < n; i++)
        j->total_bytes += shows(j, &entries[i]) ? entries[i].size : 0;
    r = check_room(j, err);
    for (size_t i = 0; i < n && r >= 0 && !atomic_load(&j->stopped); i++)
        if (shows(j, &entries[i]))
            r = read_file(j, tree_fd, &entries[i], err);
    return r;
}

static int run_job(void *arg, Err *err) {
    _cleanup_free_ char *buffer = xcalloc(1, READ_BYTES);
    WarmJob *j = arg;
    LayerEntry *entries = NULL;
    size_t n = 0;
    int r = 0;

    if (atomic_load(&j->stopped))
        return 0;
    be_unimportant();
    j->buffer = buffer;
    j->begun_usec = now_usec();
    r = store_files(j->store, &j->volume.manifest, &entries, &n, err);
    if (r >= 0)
        r = read_files(j, entries, n, err);
    layer_entries_free(entries, n);
    return r;
}

static void tell(const WarmJob *j, int r, const Err *err) {
    const WarmerOptions *o = &j->warmer->o;
    _cleanup_free_ char *text = NULL;

    if (r >= 0)
        text = xasprintf("read %s of %s (%llu files) into the page cache in %s",
                         FORMAT_BYTES(j->bytes), j->volume.reference, (unsigned long long)j->files,
                         FORMAT_DURATION(now_usec() - j->begun_usec));
    else
        text = xasprintf("read %s of %s into the page cache, not more: %s", FORMAT_BYTES(j->bytes),
                         j->volume.reference, err_text(err, r));
    o->done(o->arg, &j->volume, r, text);
}

static void on_done(void *arg, int r, const Err *err) {
    WarmJob *j = arg, **link = &j->warmer->jobs;

    while (*link != j)
        link = &(*link)->next;
    *link = j->next;
    if (!atomic_load(&j->stopped))
        tell(j, r, err);
    volume_clear(&j->volume);
    free(j);
}

void warmer_add(Warmer *w, const Volume *v) {
    Err err = { "" };
    WarmJob *j;
    int r = w->pool ? 0 : pool_new(&w->pool, w->o.event, 1, &err);

    if (r < 0) { /* the volume is as good without it */
        log_warn("%s is not read into the page cache: %s", v->reference, err_text(&err, r));
        return;
    }
    j = xnew(WarmJob);
    *j = (WarmJob){ .warmer = w,
                    .next = w->jobs,
                    .volume = { .volume_id = xstrdup(v->volume_id),
                                .target = xstrdup(v->target),
                                .reference = xstrdup(v->reference),
                                .sub_path = xstrdup(v->sub_path),
                                .pod_namespace = xstrdup(v->pod_namespace),
                                .pod_name = xstrdup(v->pod_name),
                                .manifest = v->manifest },
                    .store = w->o.store,
                    .bytes_per_second = w->o.bytes_per_second,
                    .room = w->o.room };
    w->jobs = j;
    pool_submit(w->pool, run_job, on_done, j);
}

void warmer_stop(Warmer *w, const char *volume_id, const char *target) {
    for (WarmJob *j = w->jobs; j; j = j->next)
        if (streq(j->volume.volume_id, volume_id) && streq(j->volume.target, target))
            atomic_store(&j->stopped, true);
}
