/* SPDX-License-Identifier: Apache-2.0 */
/* test_volume: publish, unpublish, joining, cancelling, recovery, with a real store and real
 * mounts. */
#include "csi/volume.h"

#include "tests/unit/csi_env.h"

#include <dirent.h>

typedef struct Outcome {
    bool done;
    int r;
    unsigned n;
    Err err;
} Outcome;

static void on_done(void *arg, int r, const Err *err) {
    Outcome *o = arg;

    o->done = true;
    o->n++;
    o->r = r;
    if (r < 0)
        o->err = *err;
}

/* What a test publishes; zero is the plain case. */
typedef struct Ask {
    const char *id, *name, *sub_path, *capability, *pod;
    bool multi_node, exec, noexec;
} Ask;

static char *target_of(const Env *env, const Ask *ask) {
    return xasprintf("%s/%s", env->kubelet, ask->name ? ask->name : "mount");
}

static int ask_publish(Env *env, const Ask *ask, VolumeTicket **ret, Outcome *o, Err *err) {
    _cleanup_free_ char *target = target_of(env, ask);
    _cleanup_(params_done) Params params = { .exec = ask->exec };
    VolumePublishRequest q = {
        .key = { ask->id ? ask->id : "v1", target },
        .params = &params,
        .capability = ask->capability,
        .multi_node = ask->multi_node,
        .noexec = ask->noexec,
    };

    ASSERT_OK(reference_parse(&params.reference, REFERENCE, err));
    params.sub_path = xstrdup(ask->sub_path);
    params.pod_name = xstrdup(ask->pod);
    params.pod_namespace = xstrdup(ask->pod ? "prod" : NULL);
    return volume_publish(env->volumes, ret, &q, on_done, o, err);
}

/* Publishes and waits. */
static int publish(Env *env, const Ask *ask, Err *ret_err) {
    _cleanup_(volume_ticket_freep) VolumeTicket *t = NULL;
    Outcome o = { .err = { "" } };
    int r = ask_publish(env, ask, &t, &o, ret_err);

    if (r < 0)
        return r;
    ASSERT_TRUE(!o.done);
    env_run_until(env, &o.done);
    ASSERT_EQ(o.n, 1);
    *ret_err = o.err;
    return o.r;
}

static int ask_unpublish(Env *env, const Ask *ask, VolumeTicket **ret, Outcome *o, Err *err) {
    _cleanup_free_ char *target = target_of(env, ask);

    return volume_unpublish(env->volumes, ret, &(VolumeKey){ ask->id ? ask->id : "v1", target },
                            on_done, o, err);
}

static int unpublish(Env *env, const Ask *ask, Err *ret_err) {
    _cleanup_(volume_ticket_freep) VolumeTicket *t = NULL;
    Outcome o = { .err = { "" } };
    int r = ask_unpublish(env, ask, &t, &o, ret_err);

    if (r < 0)
        return r;
    env_run_until(env, &o.done);
    *ret_err = o.err;
    return o.r;
}

static unsigned n_volumes(Env *env) {
    Volume *v = NULL;
    size_t n = 0;

    ASSERT_OK(store_volume_list(env->store, &v, &n, NULL));
    volume_array_free(v, n);
    return (unsigned)n;
}

static char *in_kubelet(const Env *env, const char *name) {
    return xasprintf("%s/%s", env->kubelet, name);
}

static void assert_state(Env *env, const char *name, bool mounted, unsigned records) {
    _cleanup_free_ char *target = in_kubelet(env, name);

    ASSERT_EQ(is_mounted(target), mounted);
    if (!mounted)
        ASSERT_TRUE(access(target, F_OK) < 0 && errno == ENOENT);
    ASSERT_EQ(n_volumes(env), records);
}

#define NEED_ROOT()     \
    if (geteuid() != 0) \
    SKIP("needs root to mount")

TEST(publish_shows_the_artifact_read_only_and_unpublish_takes_all_away) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *file = in_kubelet(env, "mount/weights/model.safetensors");
    _cleanup_free_ char *new_file = in_kubelet(env, "mount/new");
    char content[16] = "";
    int fd;
    Err err;

    ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    assert_state(env, "mount", true, 1);
    ASSERT_STRSTR(env->last_event, "volume.published: published ");
    fd = open(file, O_RDONLY | O_CLOEXEC);
    ASSERT_OK(fd);
    ASSERT_EQ(read(fd, content, sizeof(content)), 8);
    (void)close(fd);
    ASSERT_STREQ(content, "tensors\n");
    ASSERT_TRUE(open(new_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EROFS);

    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    assert_state(env, "mount", false, 0);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    ASSERT_EQ(env->n_events, 2);
}

TEST(publish_again_table) {
    NEED_ROOT();
    static const struct {
        Ask first, second;
        int want;
    } cases[] = {
        { { 0 }, { 0 }, 0 },
        { { 0 }, { .sub_path = "weights" }, -EEXIST },
        { { 0 }, { .capability = "readonly=1\n" }, -EEXIST },
        { { 0 }, { .name = "other" }, -EBUSY },
        { { .multi_node = true }, { .name = "other", .multi_node = true }, 0 },
        { { .multi_node = true }, { .name = "other" }, -EBUSY },
        { { 0 }, { .id = "v2" }, -EBUSY },
        { { 0 }, { .id = "v2", .name = "other" }, 0 },
    };
    _cleanup_(env_freep) Env *env = env_new();

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Err err;

        ASSERT_OK(publish(env, &cases[i].first, &err));
        ASSERT_EQ(publish(env, &cases[i].second, &err), cases[i].want);
        ASSERT_OK(unpublish(env, &cases[i].second, &err));
        ASSERT_OK(unpublish(env, &cases[i].first, &err));
        assert_state(env, "mount", false, 0);
        assert_state(env, "other", false, 0);
    }
}

TEST(publish_ten_times_asks_once) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    Err err;

    for (int i = 0; i < 10; i++)
        ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    ASSERT_EQ(env->n_ensures, 1);
    ASSERT_EQ(env->n_events, 1);
    assert_state(env, "mount", true, 1);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
}

TEST(sub_paths) {
    NEED_ROOT();
    static const struct {
        const char *sub_path, *error;
        int want;
    } cases[] = {
        { "weights", NULL, 0 },
        { "nothing", "no directory \"nothing\"", -ENOENT },
        { "config.json/x", "no directory", -ENOENT },
        { "config.json", "is a file", -EINVAL },
    };
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *file = in_kubelet(env, "mount/model.safetensors");

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Err err;
        Ask ask = { .sub_path = cases[i].sub_path };

        ASSERT_EQ(publish(env, &ask, &err), cases[i].want);
        if (cases[i].want == 0) {
            ASSERT_OK(access(file, R_OK));
            ASSERT_OK(unpublish(env, &ask, &err));
        } else
            ASSERT_STRSTR(err.text, cases[i].error);
        assert_state(env, "mount", false, 0);
    }
}

TEST(events_say_whose_volume_it_is_and_which_pull_brought_it) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    const Ask ask = { .pod = "web-0" }, other = { .id = "v2", .name = "other" };
    Err err;

    ASSERT_OK(publish(env, &ask, &err));
    ASSERT_STREQ(env->asker, "v1 prod/web-0");
    ASSERT_STREQ(env->said.type, "volume.published");
    ASSERT_STREQ(env->said.pull, "0123456789abcdef");
    ASSERT_STREQ(env->said.pod_namespace, "prod");
    ASSERT_STREQ(env->said.pod_name, "web-0");
    ASSERT_STRSTR(env->said.text, " for pod prod/web-0 in ");
    ASSERT_EQ(env->n_published, 1);
    ASSERT_EQ(env->n_pulled, 1);
    ASSERT_OK(publish(env, &ask, &err)); /* is there already: nothing is said, nothing counted */
    ASSERT_EQ(env->n_published, 1);
    env_stop(env);
    env_start(env);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err)); /* the kubelet does not say it then */
    ASSERT_STREQ(env->said.type, "volume.unpublished");
    ASSERT_STREQ(env->said.pod_namespace, "prod");
    ASSERT_STREQ(env->said.pod_name, "web-0");
    env->fails = -ENOENT;
    ASSERT_ERR(publish(env, &other, &err), -ENOENT);
    ASSERT_STREQ(env->asker, "v2 -/-");
    ASSERT_STREQ(env->said.type, "volume.failed");
    ASSERT_STREQ(env->said.pull, "0123456789abcdef");
    ASSERT_STREQ(env->said.pod_name, NULL);
    ASSERT_EQ(env->n_published, 1);
}

TEST(failures_leave_nothing) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    Err err;

    env->fails = -ENOENT;
    ASSERT_ERR(publish(env, &(Ask){ 0 }, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "no such artifact");
    ASSERT_STRSTR(env->last_event, "volume.failed: cannot publish");
    env->fails = 0;
    env->answer = ANSWER_REFUSE;
    ASSERT_ERR(publish(env, &(Ask){ 0 }, &err), -EACCES);
    env->answer = ANSWER_AT_ONCE;
    ASSERT_ERR(publish(env, &(Ask){ .name = "no/parent" }, &err), -EINVAL);
    ASSERT_ERR(publish(env, &(Ask){ .id = "a\nb" }, &err), -EINVAL);
    env->backend.mount_method = (MountMethod)99;
    ASSERT_TRUE(publish(env, &(Ask){ 0 }, &err) < 0);
    assert_state(env, "mount", false, 0);
    ASSERT_TRUE(!env->tickets);
}

TEST(retry_joins_what_goes_on) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_(volume_ticket_freep) VolumeTicket *a = NULL, *b = NULL, *c = NULL;
    Outcome first = { 0 }, second = { 0 };
    char progress[200];
    Err err;

    env->answer = ANSWER_LATER;
    ASSERT_OK(ask_publish(env, &(Ask){ 0 }, &a, &first, &err));
    env_wait_ticket(env);
    ASSERT_OK(ask_publish(env, &(Ask){ 0 }, &b, &second, &err));
    ASSERT_ERR(ask_publish(env, &(Ask){ .sub_path = "weights" }, &c, &second, &err), -EINPROGRESS);
    ASSERT_ERR(ask_publish(env, &(Ask){ .id = "v2" }, &c, &second, &err), -EINPROGRESS);
    volume_ticket_progress(b, progress, sizeof(progress));
    ASSERT_STRSTR(progress, "23 %");
    a = volume_ticket_free(a); /* its RPC ended */
    ASSERT_EQ(env->n_ensures, 1);
    env_answer(env);
    env_run_until(env, &second.done);
    ASSERT_OK(second.r);
    ASSERT_TRUE(!first.done);
    assert_state(env, "mount", true, 1);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
}

TEST(nobody_waits_any_more) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    VolumeTicket *t = NULL;
    Outcome o = { 0 };
    Err err;

    env->answer = ANSWER_LATER;
    ASSERT_OK(ask_publish(env, &(Ask){ 0 }, &t, &o, &err));
    env_wait_ticket(env);
    (void)volume_ticket_free(t);
    ASSERT_TRUE(!env->tickets); /* the backend's pull goes on without it */
    env->answer = ANSWER_AT_ONCE;
    ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    ASSERT_TRUE(!o.done);
}

TEST(unpublish_ends_a_publish_that_waits) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_(volume_ticket_freep) VolumeTicket *t = NULL;
    Outcome o = { 0 };
    Err err;

    env->answer = ANSWER_LATER;
    ASSERT_OK(ask_publish(env, &(Ask){ 0 }, &t, &o, &err));
    env_wait_ticket(env);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    ASSERT_TRUE(o.done);
    ASSERT_EQ(o.r, -ECANCELED);
    ASSERT_TRUE(!env->tickets);
    assert_state(env, "mount", false, 0);
}

TEST(unpublish_waits_for_a_mount_that_is_made) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    Err err;

    for (int rounds = 0; rounds < 8; rounds++) {
        _cleanup_(volume_ticket_freep) VolumeTicket *p = NULL, *u = NULL, *u2 = NULL, *q = NULL;
        Outcome published = { 0 }, unpublished = { 0 }, again = { 0 };

        ASSERT_OK(ask_publish(env, &(Ask){ 0 }, &p, &published, &err));
        for (int i = 0; i < rounds; i++)
            ASSERT_OK(sd_event_run(env->event, 50));
        if (published.done)
            break;
        ASSERT_OK(ask_unpublish(env, &(Ask){ 0 }, &u, &unpublished, &err));
        if (!unpublished.done)
            ASSERT_OK(ask_unpublish(env, &(Ask){ 0 }, &u2, &again, &err));
        ASSERT_ERR(ask_publish(env, &(Ask){ 0 }, &q, &again, &err), -EINPROGRESS);
        env_run_until(env, &unpublished.done);
        ASSERT_OK(unpublished.r);
        ASSERT_TRUE(published.done && again.done);
        ASSERT_TRUE(published.r == 0 || published.r == -ECANCELED);
        assert_state(env, "mount", false, 0);
    }
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
}

TEST(free_with_operations_in_every_state) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    VolumeTicket *t[4] = { NULL };
    Outcome o = { 0 };
    Err err;

    env->answer = ANSWER_LATER;
    ASSERT_OK(ask_publish(env, &(Ask){ 0 }, &t[0], &o, &err));
    env_wait_ticket(env);
    ASSERT_OK(ask_publish(env, &(Ask){ .id = "v2", .name = "b" }, &t[1], &o, &err));
    ASSERT_ERR(ask_unpublish(env, &(Ask){ .id = "v3", .name = "b" }, &t[2], &o, &err),
               -EINPROGRESS);
    ASSERT_OK(ask_unpublish(env, &(Ask){ .id = "v2", .name = "b" }, &t[2], &o, &err));
    ASSERT_OK(ask_unpublish(env, &(Ask){ .id = "v3", .name = "c" }, &t[3], &o, &err));
    env->volumes = volumes_free(env->volumes);
    env->pool = pool_free(env->pool);
    ASSERT_TRUE(!o.done);
    for (size_t i = 0; i < ELEMENTSOF(t); i++)
        (void)volume_ticket_free(t[i]);
}

TEST(unpublish_leaves_what_is_not_ours) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *full = in_kubelet(env, "full"), *file = in_kubelet(env, "full/file");
    _cleanup_free_ char *foreign = in_kubelet(env, "foreign");
    Err err;

    ASSERT_OK(mkdir(full, 0700));
    ASSERT_OK(mkdir(foreign, 0700));
    ASSERT_OK(mknod(file, S_IFREG | 0600, 0));
    ASSERT_OK(mount("none", foreign, "tmpfs", 0, "size=4k"));
    ASSERT_OK(unpublish(env, &(Ask){ .name = "full" }, &err));
    ASSERT_OK(access(file, F_OK));
    ASSERT_ERR(unpublish(env, &(Ask){ .name = "foreign" }, &err), -EBUSY);
    ASSERT_TRUE(is_mounted(foreign));
    ASSERT_ERR(publish(env, &(Ask){ .name = "full" }, &err), -EBUSY);
    ASSERT_ERR(publish(env, &(Ask){ .name = "foreign" }, &err), -EBUSY);
    /* Another volume's mount is no business of v2. */
    ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    ASSERT_OK(unpublish(env, &(Ask){ .id = "v2" }, &err));
    assert_state(env, "mount", true, 1);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
}

TEST(unpublish_takes_a_mount_whose_record_was_lost) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *target = in_kubelet(env, "mount");
    Err err;

    ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    ASSERT_OK(store_volume_remove(env->store, "v1", target, &err));
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    assert_state(env, "mount", false, 0);
}

TEST(recover_matches_records_with_mounts) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *b = in_kubelet(env, "b"), *c = in_kubelet(env, "c"),
                        *d = in_kubelet(env, "d");
    _cleanup_free_ char *e = in_kubelet(env, "e");
    VolumesFound found;
    Err err;

    ASSERT_OK(publish(env, &(Ask){ .id = "a", .name = "a" }, &err));
    ASSERT_OK(publish(env, &(Ask){ .id = "b", .name = "b" }, &err));
    ASSERT_OK(publish(env, &(Ask){ .id = "c", .name = "c", .pod = "web-0" }, &err));
    ASSERT_OK(publish(env, &(Ask){ .id = VOLUME_ID_CONTROL "d", .name = "d" }, &err));
    ASSERT_OK(publish(env, &(Ask){ .id = "e", .name = "e" }, &err));
    ASSERT_OK(umount2(b, MNT_DETACH)); /* a reboot */
    ASSERT_OK(umount2(c, MNT_DETACH));
    ASSERT_OK(rmdir(c)); /* the pod is gone */
    ASSERT_OK(umount2(d, MNT_DETACH));
    ASSERT_OK(store_volume_remove(env->store, "e", e, &err));
    env_stop(env);
    env_start(env);
    ASSERT_OK(volumes_recover(env->volumes, &found, &err));
    ASSERT_EQ(found.mounted, 1);
    ASSERT_EQ(found.unmounted, 1);
    ASSERT_EQ(found.dropped, 2);
    ASSERT_EQ(found.foreign, 1);
    ASSERT_EQ(n_volumes(env), 2);
    /* The kubelet publishes again; the artifact is there without asking for it. */
    env->n_ensures = 0;
    ASSERT_OK(publish(env, &(Ask){ .id = "b", .name = "b" }, &err));
    ASSERT_EQ(env->n_ensures, 0);
    ASSERT_TRUE(is_mounted(b));
    ASSERT_OK(unpublish(env, &(Ask){ .id = "a", .name = "a" }, &err));
    ASSERT_OK(unpublish(env, &(Ask){ .id = "b", .name = "b" }, &err));
    ASSERT_OK(unpublish(env, &(Ask){ .id = "e", .name = "e" }, &err));
    ASSERT_EQ(n_volumes(env), 0);
}

TEST(stats) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *target = in_kubelet(env, "mount");
    VolumeKey key = { "v1", target };
    VolumeStats s;
    Err err;

    ASSERT_ERR(volume_stats(env->store, &key, &s, &err), -ENOENT);
    ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    ASSERT_OK(volume_stats(env->store, &key, &s, &err));
    ASSERT_TRUE(s.mounted);
    ASSERT_EQ(s.bytes, 11);
    ASSERT_EQ(s.files, 2);
    free(s.condition);
    ASSERT_OK(umount2(target, MNT_DETACH));
    ASSERT_OK(volume_stats(env->store, &key, &s, &err));
    ASSERT_TRUE(!s.mounted);
    ASSERT_STRSTR(s.condition, "not mounted");
    free(s.condition);
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
}

TEST(warm_publish_is_fast) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    uint64_t best = UINT64_MAX;
    Err err;

    for (int i = 0; i < 20; i++) {
        uint64_t begin = now_usec();

        ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
        best = MIN(best, now_usec() - begin);
        ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    }
    (void)printf("best of 20 warm publishes: %llu us\n", (unsigned long long)best);
    ASSERT_TRUE(
        best <
        100 * USEC_PER_MSEC); /* with sanitizers and busy neighbours; bench/ has the real one */
}

TEST(unpublish_takes_away_only_mounts_of_ours) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    _cleanup_free_ char *target = in_kubelet(env, "mount");
    Err err;

    ASSERT_OK(publish(env, &(Ask){ 0 }, &err));
    ASSERT_OK(mount("none", target, "tmpfs", 0, "size=4k")); /* on top of the volume */
    ASSERT_ERR(unpublish(env, &(Ask){ 0 }, &err), -EBUSY);
    ASSERT_STRSTR(err.text, "no volume of this driver");
    ASSERT_OK(umount(target));
    ASSERT_TRUE(is_mounted(target)); /* ours is still there */
    ASSERT_OK(umount(target));
    ASSERT_OK(mount("none", target, "tmpfs", 0, "size=4k")); /* in the place of the volume */
    ASSERT_ERR(unpublish(env, &(Ask){ 0 }, &err), -EBUSY);
    ASSERT_TRUE(is_mounted(target));
    ASSERT_OK(umount(target));
    ASSERT_OK(unpublish(env, &(Ask){ 0 }, &err));
    assert_state(env, "mount", false, 0);
}

/* The index is gone, the mounts and the pods behind them are not. */
static void lose_index(Env *env) {
    _cleanup_free_ char *db = xasprintf("%s/index.db", env->store_path),
                        *wal = xasprintf("%s/index.db-wal", env->store_path);

    env_stop(env);
    ASSERT_OK(unlink(db));
    (void)unlink(wal); /* a clean end takes it away */
    env_start(env);
}

static void assert_shows(const Env *env, const char *name) {
    _cleanup_free_ char *file = xasprintf("%s/%s/weights/model.safetensors", env->kubelet, name);
    char content[16] = "";
    _cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC);

    ASSERT_OK(fd);
    ASSERT_EQ(read(fd, content, sizeof(content) - 1), 8);
    ASSERT_STREQ(content, "tensors\n");
}

static unsigned n_trees(const Env *env) {
    _cleanup_free_ char *path = xasprintf("%s/trees", env->store_path);
    DIR *dir = opendir(path);
    unsigned n = 0;

    ASSERT_TRUE(dir);
    for (const struct dirent *e; (e = readdir(dir));)
        n += !streq(e->d_name, ".") && !streq(e->d_name, "..");
    (void)closedir(dir);
    return n;
}

TEST(a_lost_index_takes_nothing_from_mounted_volumes) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    VolumesFound found;
    Err err;

    ASSERT_OK(publish(env, &(Ask){ .id = "a", .name = "a" }, &err));
    ASSERT_OK(publish(env, &(Ask){ .id = "b", .name = "b", .sub_path = "weights" }, &err));
    lose_index(env);
    ASSERT_TRUE(store_recovered(env->store)->index_made);
    ASSERT_EQ(store_recovered(env->store)->objects_removed, 2);
    ASSERT_EQ(store_recovered(env->store)->trees_kept, 1);
    ASSERT_OK(volumes_recover(env->volumes, &found, &err));
    ASSERT_EQ(found.foreign, 2);
    assert_shows(env, "a");
    /* Pulled again: the old mounts keep their tree, whatever becomes of the new one. */
    env_artifact(env);
    assert_shows(env, "a");
    ASSERT_EQ(n_trees(env), 2);
    ASSERT_OK(store_remove(env->store, REFERENCE, NULL, NULL, NULL, &err));
    ASSERT_OK(store_prune(env->store, NULL, &err));
    assert_shows(env, "a");
    /* The kubelet publishes one again, and deletes the pod of the other. */
    env_artifact(env);
    ASSERT_OK(publish(env, &(Ask){ .id = "a", .name = "a" }, &err));
    assert_state(env, "a", true, 1);
    assert_shows(env, "a");
    ASSERT_EQ(n_trees(env), 2); /* b's is still there */
    ASSERT_OK(unpublish(env, &(Ask){ .id = "b", .name = "b" }, &err));
    assert_state(env, "b", false, 1);
    ASSERT_EQ(n_trees(env), 1);
    ASSERT_OK(unpublish(env, &(Ask){ .id = "a", .name = "a" }, &err));
    assert_state(env, "a", false, 0);
}

TEST(nothing_is_mounted_in_the_store) {
    NEED_ROOT();
    _cleanup_(env_freep) Env *env = env_new();
    static const char *const folders[] = { "", "/ingest", "/staging", "/partial", "/objects/00" };
    Err err;

    for (size_t i = 0; i < ELEMENTSOF(folders); i++) {
        _cleanup_free_ char *target = xasprintf("%s%s", env->store_path, folders[i]);
        _cleanup_(params_done) Params params = { 0 };
        _cleanup_(volume_ticket_freep) VolumeTicket *t = NULL;
        VolumePublishRequest q = { .key = { "v1", target }, .params = &params };
        Outcome o = { 0 };

        ASSERT_OK(reference_parse(&params.reference, REFERENCE, &err));
        ASSERT_ERR(volume_publish(env->volumes, &t, &q, on_done, &o, &err), -EINVAL);
        ASSERT_STRSTR(err.text, "lies in the store");
        ASSERT_TRUE(!is_mounted(target));
    }
}
