/* SPDX-License-Identifier: Apache-2.0 */
/* csi_env: a real store with one artifact, a pool, a fake backend: for the tests of volumes and of
 * the CSI server. */
#pragma once

#include "csi/volume.h"

#include "base/fs.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define ORIGIN    "r.example/team/model"
#define REFERENCE ORIGIN ":v1"

/* How the fake backend answers. */
typedef enum Answer {
    ANSWER_AT_ONCE, /* before ensure() returns */
    ANSWER_LATER,   /* when the test calls env_answer() */
    ANSWER_REFUSE,  /* ensure() itself fails */
} Answer;

typedef struct Env {
    TmpDir *dir;
    sd_event *event;
    Pool *pool;
    Store *store;
    Backend backend;
    Volumes *volumes;
    Digest manifest;
    char *store_path, *kubelet; /* kubelet: where targets lie */

    Answer answer;
    int fails; /* answers with this errno */
    EnsureTicket *tickets;
    unsigned n_ensures, n_events, n_published, n_pulled;
    char last_event[700];
    StoreEvent said; /* the last one */
    char asker[300]; /* of the last ensure: "volume namespace/pod" */
} Env;

struct EnsureTicket {
    Env *env;
    EnsureDone done;
    void *arg;
    EnsureTicket *next;
};

_unused_ static EnsureTicket *env_ticket_free(EnsureTicket *t) {
    if (!t)
        return NULL;
    for (EnsureTicket **p = &t->env->tickets; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    free(t);
    return NULL;
}

_unused_ static void env_call_done(Env *env, EnsureDone done, void *arg) {
    Err err = { "" };

    if (env->fails)
        (void)err_set(&err, env->fails, "the fake registry has no such artifact");
    done(arg, env->fails, &err, env->fails ? NULL : &env->manifest);
}

/* Answers the oldest waiting ticket. */
_unused_ static void env_answer(Env *env) {
    EnsureTicket *t = env->tickets;

    ASSERT_TRUE(t);
    while (t->next)
        t = t->next;
    env_call_done(env, t->done, t->arg);
}

_unused_ static int env_ensure(void *arg, EnsureTicket **ret, const EnsureRequest *request,
                               EnsureDone done, void *done_arg, Err *err) {
    Env *env = arg;
    EnsureTicket *t;

    ASSERT_TRUE(request->reference);
    env->n_ensures++;
    (void)snprintf(env->asker, sizeof(env->asker), "%s %s/%s", request->asker.volume_id,
                   request->asker.pod_namespace ? request->asker.pod_namespace : "-",
                   request->asker.pod_name ? request->asker.pod_name : "-");
    if (env->answer == ANSWER_REFUSE)
        return err_set(err, -EACCES, "the fake backend refuses");
    t = xnew(EnsureTicket);
    *t = (EnsureTicket){ .env = env, .done = done, .arg = done_arg, .next = env->tickets };
    env->tickets = *ret = t;
    if (env->answer == ANSWER_AT_ONCE)
        env_call_done(env, done, done_arg);
    return 0;
}

_unused_ static void env_progress(const EnsureTicket *t, char *buf, size_t n) {
    ASSERT_TRUE(t->env);
    (void)snprintf(buf, n, "3.2 of 14.0 GiB (23 %%), 412 MiB/s, about 27 s left");
}

_unused_ static const char *env_pull(const EnsureTicket *t) {
    ASSERT_TRUE(t->env);
    return "0123456789abcdef";
}

_unused_ static void env_published(void *arg, uint64_t usec, bool pulled) {
    Env *env = arg;

    ASSERT_TRUE(usec < 60 * USEC_PER_SEC);
    env->n_published++;
    env->n_pulled += pulled;
}

_unused_ static void env_event(void *arg, const StoreEvent *event) {
    Env *env = arg;

    env->n_events++;
    store_event_clear(&env->said);
    store_event_copy(&env->said, event);
    (void)snprintf(env->last_event, sizeof(env->last_event), "%s: %s", event->type, event->text);
}

/* One raw layer `content` as the file `path`. */
_unused_ static void env_layer(Env *env, Layer *layer, const char *path, const char *content) {
    LayerEntry entry = { .type = ENTRY_TYPE_FILE, .size = strlen(content) };
    LayerCommit commit = { .layer = layer, .entries = &entry, .n_entries = 1 };
    int dir = -EBADF, fd;
    Err err;

    *layer = (Layer){ .kind = LAYER_KIND_RAW, .size = strlen(content) };
    digest_of(&layer->digest, content, strlen(content));
    layer->media_type = xstrdup("application/vnd.cncf.model.weight.v1.raw");
    layer->path = xstrdup(path);
    entry.digest = layer->digest;
    entry.path = layer->path;
    entry.ingest = (char[]){ "file" };
    ASSERT_OK(store_ingest_begin(env->store, "pull", 0, 0, &dir, &err));
    fd = openat(dir, "file", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ASSERT_OK(fd);
    ASSERT_EQ(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    (void)close(fd);
    (void)close(dir);
    store_commit_layers(env->store, &(const StorePull){ "pull", ORIGIN }, &commit, 1);
    ASSERT_OK(commit.r);
}

_unused_ static void env_artifact(Env *env) {
    static const char bytes[] = "{\"schemaVersion\":2}";
    _cleanup_(manifest_freep) Manifest *m = xnew(Manifest);
    Err err;

    m->layers = xnew_n(Layer, 2);
    m->n_layers = 2;
    env_layer(env, &m->layers[0], "config.json", "{}\n");
    ASSERT_OK(store_ingest_end(env->store, "pull", &err));
    env_layer(env, &m->layers[1], "weights/model.safetensors", "tensors\n");
    m->bytes = (uint8_t *)xstrdup(bytes);
    m->n_bytes = strlen(bytes);
    digest_of(&m->digest, bytes, m->n_bytes);
    m->media_type = xstrdup("application/vnd.oci.image.manifest.v1+json");
    m->family = xstrdup("modelpack");
    ASSERT_OK(store_commit_manifest(env->store, m, ORIGIN, REFERENCE, &err));
    ASSERT_OK(store_ingest_end(env->store, "pull", &err));
    env->manifest = m->digest;
}

_unused_ static void env_start(Env *env) {
    const char *why;
    Err err;

    if (store_open(&env->store, env->store_path, &err) < 0)
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_OK(pool_new(&env->pool, env->event, 4, &err));
    env->backend = (Backend){
        .loop = env->event,
        .store = env->store,
        .pool = env->pool,
        .mount_method = mount_method_probe(store_trees_fd(env->store), &why),
        .node = "node-1",
        .arg = env,
        .ensure = env_ensure,
        .ticket_free = env_ticket_free,
        .ticket_progress = env_progress,
        .ticket_pull = env_pull,
        .published = env_published,
        .event = env_event,
    };
    ASSERT_OK(volumes_new(&env->volumes, &env->backend, &err));
}

/* The daemon dies; mounts stay. */
_unused_ static void env_stop(Env *env) {
    env->volumes = volumes_free(env->volumes);
    env->pool = pool_free(env->pool);
    env->store = store_close(env->store);
}

_unused_ static Env *env_new(void) {
    Env *env = xnew(Env);

    env->dir = tmpdir_new();
    env->store_path = xasprintf("%s/store", tmpdir_path(env->dir));
    env->kubelet = xasprintf("%s/kubelet", tmpdir_path(env->dir));
    ASSERT_OK(mkdir(env->store_path, 0700));
    ASSERT_OK(mkdir(env->kubelet, 0750));
    ASSERT_OK(sd_event_new(&env->event));
    env_start(env);
    env_artifact(env);
    return env;
}

/* Unmounts whatever a failed test left. */
_unused_ static Env *env_free(Env *env) {
    MountInfo *mounts = NULL;
    size_t n = 0;

    env_stop(env);
    if (mount_list(&mounts, &n, NULL) >= 0)
        for (size_t i = 0; i < n; i++)
            if (path_is_beneath(mounts[i].target, env->kubelet))
                (void)umount2(mounts[i].target, MNT_DETACH);
    mount_info_free(mounts, n);
    env->event = sd_event_unref(env->event);
    env->dir = tmpdir_free(env->dir);
    free(env->store_path);
    free(env->kubelet);
    store_event_clear(&env->said);
    free(env);
    return NULL;
}
DEFINE_CLEANUP(Env, env_free);

_unused_ static void env_run_until(const Env *env, const bool *flag) {
    uint64_t end = now_usec() + 20 * USEC_PER_SEC;

    while (!*flag) {
        ASSERT_OK(sd_event_run(env->event, 100 * USEC_PER_MSEC));
        ASSERT_TRUE(now_usec() < end);
    }
}

/* Waits until somebody asks the backend. */
_unused_ static void env_wait_ticket(const Env *env) {
    uint64_t end = now_usec() + 20 * USEC_PER_SEC;

    while (!env->tickets) {
        ASSERT_OK(sd_event_run(env->event, 100 * USEC_PER_MSEC));
        ASSERT_TRUE(now_usec() < end);
    }
}

/* Lets the pool's works end and their answers come. */
_unused_ static void env_settle(const Env *env) {
    for (int i = 0; i < 20; i++)
        ASSERT_OK(sd_event_run(env->event, 5 * USEC_PER_MSEC));
}

_unused_ static bool is_mounted(const char *path) {
    struct statx sx;

    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &sx) == 0 &&
           (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}
