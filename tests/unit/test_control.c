/* SPDX-License-Identifier: Apache-2.0 */
/* test_control: every method over a real socket, with a real store and fake workers. */
#include "agent/backend.h"
#include "agent/control.h"
#include "proto/control.pb-c.h"
#include "proto/grpc_client.h"
#include "tests/unit/agent_env.h"

typedef struct ControlEnv {
    AgentEnv e;
    BackendParts parts;
    Backend backend;
    Volumes *volumes;
    FeatureList features;
    Health health;
    Control *control;
    GrpcClient *client;
    char *set;
} ControlEnv;

static void control_env_init(ControlEnv *c, TmpDir *dir) {
    ControlOptions options;
    const char *why = NULL;
    Err err = { "" };

    *c = (ControlEnv){ 0 };
    c->set = xasprintf("control.socket=%s/run/control.sock", tmpdir_path(dir));
    agent_env_init(&c->e, dir, c->set);
    c->parts = (BackendParts){ c->e.puller, c->e.events, c->e.metrics };
    c->health.metrics_address = "";
    c->backend = (Backend){ .loop = c->e.event,
                            .store = c->e.store,
                            .pool = c->e.pool,
                            .node = "n",
                            .mount_method = mount_method_probe(store_trees_fd(c->e.store), &why) };
    backend_init(&c->backend, &c->parts);
    ASSERT_OK(volumes_new(&c->volumes, &c->backend, &err));
    c->features.items = xnew(Feature);
    c->features.items[0] = (Feature){ xstrdup("seccomp"), true, xstrdup("fine") };
    c->features.n = 1;
    options = (ControlOptions){ .event = c->e.event,
                                .backend = &c->backend,
                                .checks = c->e.pool,
                                .puller = c->e.puller,
                                .volumes = c->volumes,
                                .events = c->e.events,
                                .config = c->e.config,
                                .features = &c->features,
                                .health = &c->health,
                                .metrics = c->e.metrics,
                                .mount_detail = "because" };
    ASSERT_OK(control_new(&c->control, &options, &err));
    ASSERT_OK(grpc_client_new(&c->client, c->e.event, c->e.config->control_socket, &err));
}

static void control_env_done(ControlEnv *c) {
    (void)grpc_client_free(c->client);
    (void)control_free(c->control);
    (void)volumes_free(c->volumes);
    agent_env_done(&c->e);
    feature_list_done(&c->features);
    free(c->set);
}

/* A daemon's control socket and a client of it, for one test; `dir` is its directory. */
#define CONTROL_ENV(env, dir)                           \
    STORE_TEST_DIR(dir);                                \
    _cleanup_(control_env_done) ControlEnv env = { 0 }; \
    control_env_init(&env, dir)

/* One call and what came of it. */
typedef struct Call {
    const ProtobufCMessageDescriptor *type;
    ProtobufCMessage *last;
    unsigned n, ended;
    GrpcCode code;
    char text[600];
} Call;

static void on_message(void *arg, const uint8_t *message, size_t n) {
    Call *c = arg;

    if (c->last)
        protobuf_c_message_free_unpacked(c->last, NULL);
    c->last = protobuf_c_message_unpack(c->type, NULL, n, message);
    c->n++;
}

static void on_end(void *arg, GrpcCode code, const char *text) {
    Call *c = arg;

    c->ended = 1;
    c->code = code;
    (void)snprintf(c->text, sizeof(c->text), "%s", text ? text : "");
}

static void call_done(Call *c) {
    if (c->last)
        protobuf_c_message_free_unpacked(c->last, NULL);
}

static GrpcClientCall *begin(ControlEnv *env, Call *c, const char *method,
                             const ProtobufCMessage *request) {
    _cleanup_free_ char *path = xasprintf("/modelcached.control.Control/%s", method);
    _cleanup_free_ uint8_t *bytes =
        xnew_n(uint8_t, protobuf_c_message_get_packed_size(request) + 1);
    GrpcClientRequest q = { path, bytes, protobuf_c_message_pack(request, bytes), 0 };
    GrpcClientCall *call = NULL;

    ASSERT_OK(
        grpc_client_call(env->client, &call, &q, &(GrpcClientHandlers){ on_message, on_end, c }));
    return call;
}

static void call(ControlEnv *env, Call *c, const char *method, const ProtobufCMessage *request) {
    (void)begin(env, c, method, request);
    agent_env_wait(&env->e, &c->ended, 1);
}

#define REQUEST(NAME, type, TYPE) \
    Modelcached__Control__##type NAME = MODELCACHED__CONTROL__##TYPE##__INIT
#define CALL(NAME, answer) \
    _cleanup_(call_done) Call NAME = { .type = &modelcached__control__##answer##__descriptor }

static void pull(ControlEnv *env, const char *reference) {
    REQUEST(q, PullRequest, PULL_REQUEST);
    CALL(c, pull_progress);

    q.reference = (char *)reference;
    call(env, &c, "Pull", &q.base);
    if (c.code != GRPC_OK)
        test_fail(__FILE__, __LINE__, "%s", c.text);
}

TEST(control_pull_streams_to_the_end) {
    CONTROL_ENV(env, dir);
    REQUEST(q, PullRequest, PULL_REQUEST);
    CALL(c, pull_progress);
    CALL(again, pull_progress);
    const Modelcached__Control__PullProgress *p;

    q.reference = (char *)"r.example/slow:1";
    call(&env, &c, "Pull", &q.base);
    ASSERT_EQ(c.code, GRPC_OK);
    ASSERT_TRUE(c.n >= 2);
    p = (void *)c.last;
    ASSERT_EQ(p->state, MODELCACHED__CONTROL__PULL_STATE__PULL_DONE);
    ASSERT_EQ(p->bytes_total, 36);
    ASSERT_EQ(p->bytes_done, 36);
    ASSERT_EQ(p->bytes_cached, 23);
    ASSERT_EQ(p->n_layers, 3);
    ASSERT_EQ(p->layers_done, 3);
    ASSERT_TRUE(p->layers[2]->cached && p->layers[2]->done);
    ASSERT_STRSTR(p->digest, "sha256:");
    call(&env, &again, "Pull", &q.base);
    p = (void *)again.last;
    ASSERT_EQ(p->state, MODELCACHED__CONTROL__PULL_STATE__PULL_DONE);
    ASSERT_EQ(p->bytes_cached, 36);
}

static const struct {
    const char *reference, *policy, *user;
    GrpcCode code;
    const char *sentence;
} bad_pulls[] = {
    { "r.example/absent:1", "", "", GRPC_NOT_FOUND, "no such tag" },
    { "r.example/x:1", "Never", "", GRPC_NOT_FOUND, "the pull policy is Never" },
    { "r.example/x:1", "Sometimes", "", GRPC_INVALID_ARGUMENT, "Always, IfNotPresent, Never" },
    { "R.example/X Y", "", "", GRPC_INVALID_ARGUMENT, "holds a blank" },
    { "r.example/x:1", "", "a:b", GRPC_INVALID_ARGUMENT, "" },
    { "r.example/huge:1", "", "", GRPC_RESOURCE_EXHAUSTED, "needs 32 TiB" },
    { "r.example/exit:1", "", "", GRPC_INTERNAL, "exit code 7" },
};

TEST(control_pull_failures) {
    CONTROL_ENV(env, dir);

    for (size_t i = 0; i < ELEMENTSOF(bad_pulls); i++) {
        REQUEST(q, PullRequest, PULL_REQUEST);
        CALL(c, pull_progress);
        q.reference = (char *)bad_pulls[i].reference;
        q.policy = (char *)bad_pulls[i].policy;
        q.username = (char *)bad_pulls[i].user;
        call(&env, &c, "Pull", &q.base);
        /* A pull that failed never says that it is done. */
        ASSERT_TRUE(!c.last ||
                    ((const Modelcached__Control__PullProgress *)(void *)c.last)->state !=
                        MODELCACHED__CONTROL__PULL_STATE__PULL_DONE);
        if (c.code != bad_pulls[i].code || !strstr(c.text, bad_pulls[i].sentence))
            test_fail(__FILE__, __LINE__, "case %zu: %s: %s", i, status_name(c.code), c.text);
    }
}

TEST(control_pull_goes_on_when_the_client_leaves) {
    CONTROL_ENV(env, dir);
    REQUEST(q, PullRequest, PULL_REQUEST);
    CALL(c, pull_progress);
    GrpcClientCall *running;

    q.reference = (char *)"r.example/slow:1";
    running = begin(&env, &c, "Pull", &q.base);
    agent_env_wait(&env.e, &c.n, 1);
    (void)grpc_client_call_cancel(running);
    while (puller_count(env.e.puller) > 0)
        (void)sd_event_run(env.e.event, 10 * USEC_PER_MSEC);
    q.policy = (char *)"Never";
    call(&env, &c, "Pull", &q.base);
    ASSERT_EQ(c.code, GRPC_OK);
}

TEST(control_list_inspect_remove) {
    CONTROL_ENV(env, dir);
    REQUEST(list, ListRequest, LIST_REQUEST);
    REQUEST(inspect, InspectRequest, INSPECT_REQUEST);
    REQUEST(remove, RemoveRequest, REMOVE_REQUEST);
    CALL(l, list_response);
    CALL(i, inspect_response);
    CALL(by_digest, inspect_response);
    CALL(by_prefix, inspect_response);
    CALL(r, remove_response);
    CALL(gone, inspect_response);
    const Modelcached__Control__ListResponse *lp;
    const Modelcached__Control__InspectResponse *ip;
    _cleanup_free_ char *digest = NULL, *prefix = NULL;

    pull(&env, "r.example/plain:1");
    call(&env, &l, "List", &list.base);
    lp = (void *)l.last;
    ASSERT_EQ(lp->n_artifacts, 1);
    ASSERT_STREQ(lp->artifacts[0]->references[0], "r.example/plain:1");
    ASSERT_STREQ(lp->artifacts[0]->family, "modelpack");
    ASSERT_EQ(lp->artifacts[0]->files, 3);
    digest = xstrdup(lp->artifacts[0]->digest);
    prefix = xstrndup(digest, strlen("sha256:") + 8);

    inspect.reference = (char *)"r.example/plain:1";
    call(&env, &i, "Inspect", &inspect.base);
    ip = (void *)i.last;
    ASSERT_EQ(ip->n_layers, 3);
    ASSERT_STREQ(ip->layers[0]->kind, "raw");
    ASSERT_EQ(ip->n_files, 3);
    ASSERT_STREQ(ip->files[0]->path, "config.json");
    ASSERT_STREQ(ip->manifest, FAKE_MANIFEST("plain"));
    inspect.reference = digest;
    call(&env, &by_digest, "Inspect", &inspect.base);
    ASSERT_EQ(by_digest.code, GRPC_OK);
    inspect.reference = prefix;
    call(&env, &by_prefix, "Inspect", &inspect.base);
    ASSERT_EQ(by_prefix.code, GRPC_OK);

    remove.reference = prefix + strlen("sha256:");
    call(&env, &r, "Remove", &remove.base);
    ASSERT_EQ(r.code, GRPC_OK);
    ASSERT_STREQ(((const Modelcached__Control__RemoveResponse *)(void *)r.last)->digest, digest);
    ASSERT_EQ(((const Modelcached__Control__RemoveResponse *)(void *)r.last)->bytes_freed, 36);
    call(&env, &gone, "Inspect", &inspect.base);
    ASSERT_EQ(gone.code, GRPC_NOT_FOUND);
}

TEST(control_inspect_errors) {
    CONTROL_ENV(env, dir);
    static const struct {
        const char *reference;
        GrpcCode code;
    } cases[] = { { "r.example/none:1", GRPC_NOT_FOUND }, { "sha256:ab", GRPC_INVALID_ARGUMENT },
                  { "sha256:abcdef12", GRPC_NOT_FOUND },  { "sha256:XYZ", GRPC_INVALID_ARGUMENT },
                  { "", GRPC_INVALID_ARGUMENT },          { "abcdef12", GRPC_NOT_FOUND } };

    for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
        REQUEST(q, InspectRequest, INSPECT_REQUEST);
        CALL(c, inspect_response);
        q.reference = (char *)cases[k].reference;
        call(&env, &c, "Inspect", &q.base);
        if (c.code != cases[k].code || !c.text[0])
            test_fail(__FILE__, __LINE__, "%s: %s: %s", q.reference, status_name(c.code), c.text);
    }
}

TEST(control_mount_and_unmount) {
    CONTROL_ENV(env, dir);
    REQUEST(m, MountRequest, MOUNT_REQUEST);
    REQUEST(u, UnmountRequest, UNMOUNT_REQUEST);
    CALL(mounted, mount_response);
    CALL(unmounted, unmount_response);
    CALL(twice, unmount_response);
    CALL(relative, mount_response);
    CALL(up, mount_response);
    _cleanup_free_ char *file = NULL;

    if (env.backend.mount_method != MOUNT_METHOD_NONE) {
        pull(&env, "r.example/plain:1");
        m.reference = (char *)"r.example/plain:1";
        u.directory = m.directory = (char *)tmpdir_join(dir, "mnt");
        ASSERT_EQ(mkdir(m.directory, 0755), 0);
        call(&env, &mounted, "Mount", &m.base);
        if (mounted.code != GRPC_OK)
            test_fail(__FILE__, __LINE__, "%s", mounted.text);
        file = xasprintf("%s/model.bin", m.directory);
        ASSERT_EQ(access(file, R_OK), 0);
        call(&env, &unmounted, "Unmount", &u.base);
        ASSERT_EQ(unmounted.code, GRPC_OK);
        ASSERT_NE(access(file, R_OK), 0);
    }
    u.directory = (char *)"/nonexistent";
    call(&env, &twice, "Unmount", &u.base);
    ASSERT_EQ(twice.code, GRPC_NOT_FOUND);
    m.directory = (char *)"mnt";
    call(&env, &relative, "Mount", &m.base);
    ASSERT_EQ(relative.code, GRPC_INVALID_ARGUMENT);
    m.directory = (char *)"/mnt";
    m.reference = (char *)"r.example/plain:1";
    m.sub_path = (char *)"../x";
    call(&env, &up, "Mount", &m.base);
    ASSERT_EQ(up.code, GRPC_INVALID_ARGUMENT);
}

/* Replaces what the object of `text` holds. */
static void spoil(ControlEnv *env, const char *text) {
    _cleanup_free_ char *path = NULL;
    Digest digest;
    FILE *f;

    digest_of(&digest, text, strlen(text));
    path = xasprintf("%s/objects/%.2s/%s", store_path(env->e.store), DIGEST_HEX(&digest),
                     DIGEST_HEX(&digest) + 2);
    f = fopen(path, "r+e");
    ASSERT_TRUE(f);
    (void)fputc('!', f);
    (void)fclose(f);
}

/* List, Inspect and Status agree on an artifact that lost content. */
static void assert_incomplete(ControlEnv *env) {
    REQUEST(list, ListRequest, LIST_REQUEST);
    REQUEST(inspect, InspectRequest, INSPECT_REQUEST);
    REQUEST(status, StatusRequest, STATUS_REQUEST);
    CALL(l, list_response);
    CALL(i, inspect_response);
    CALL(s, status_response);
    const Modelcached__Control__StatusResponse *sp;

    call(env, &l, "List", &list.base);
    ASSERT_TRUE(
        ((const Modelcached__Control__ListResponse *)(void *)l.last)->artifacts[0]->incomplete);
    inspect.reference = (char *)"r.example/plain:1";
    call(env, &i, "Inspect", &inspect.base);
    ASSERT_EQ(i.code, GRPC_OK);
    ASSERT_TRUE(
        ((const Modelcached__Control__InspectResponse *)(void *)i.last)->artifact->incomplete);
    call(env, &s, "Status", &status.base);
    sp = (void *)s.last;
    ASSERT_EQ(sp->artifacts, 1);
    ASSERT_EQ(sp->artifacts_incomplete, 1);
}

TEST(control_verify_finds_what_is_bad) {
    CONTROL_ENV(env, dir);
    REQUEST(q, VerifyRequest, VERIFY_REQUEST);
    CALL(good, verify_progress);
    CALL(bad, verify_progress);
    CALL(unknown, verify_progress);

    pull(&env, "r.example/plain:1");
    call(&env, &good, "Verify", &q.base);
    ASSERT_EQ(good.code, GRPC_OK);
    ASSERT_EQ(((const Modelcached__Control__VerifyProgress *)(void *)good.last)->objects_done, 2);
    spoil(&env, fake_content(0));
    call(&env, &bad, "Verify", &q.base);
    ASSERT_EQ(bad.code, GRPC_DATA_LOSS);
    ASSERT_EQ(((const Modelcached__Control__VerifyProgress *)(void *)bad.last)->n_bad, 1);
    assert_incomplete(&env);
    q.reference = (char *)"r.example/none:1";
    call(&env, &unknown, "Verify", &q.base);
    ASSERT_EQ(unknown.code, GRPC_NOT_FOUND);
}

TEST(control_status_tells_all) {
    CONTROL_ENV(env, dir);
    REQUEST(q, StatusRequest, STATUS_REQUEST);
    CALL(c, status_response);
    const Modelcached__Control__StatusResponse *s;

    pull(&env, "r.example/plain:1");
    call(&env, &c, "Status", &q.base);
    ASSERT_EQ(c.code, GRPC_OK);
    s = (void *)c.last;
    ASSERT_EQ(s->artifacts, 1);
    ASSERT_EQ(s->store_bytes, 36);
    ASSERT_STREQ(s->features[0]->detail, "fine");
    ASSERT_STRSTR(s->mount_detail, ": because");
    ASSERT_STREQ(s->driver, "csi.modelcached.dev");
    ASSERT_EQ(s->n_pulls, 0);
    ASSERT_TRUE(!s->ready);
    ASSERT_STREQ(s->not_ready, "the daemon is starting");
    ASSERT_STREQ(s->registration, "waiting");
    ASSERT_STREQ(s->metrics_address, "");
}

TEST(control_prune_drops_what_an_interrupted_pull_left) {
    CONTROL_ENV(env, dir);
    REQUEST(p, PullRequest, PULL_REQUEST);
    REQUEST(q, StatusRequest, STATUS_REQUEST);
    REQUEST(prune, PruneRequest, PRUNE_REQUEST);
    CALL(pulled, pull_progress);
    CALL(before, status_response);
    CALL(pruned, prune_response);
    CALL(after, status_response);
    const Modelcached__Control__StatusResponse *s;

    p.reference = (char *)"r.example/half:1";
    call(&env, &pulled, "Pull", &p.base);
    ASSERT_EQ(pulled.code, GRPC_UNAVAILABLE);
    call(&env, &before, "Status", &q.base);
    s = (void *)before.last;
    ASSERT_EQ(s->partial_layers, 1);
    ASSERT_TRUE(s->partial_bytes > 0);
    call(&env, &pruned, "Prune", &prune.base);
    ASSERT_EQ(pruned.code, GRPC_OK);
    ASSERT_TRUE(((const Modelcached__Control__PruneResponse *)(void *)pruned.last)->bytes_freed >=
                s->partial_bytes);
    call(&env, &after, "Status", &q.base);
    s = (void *)after.last;
    ASSERT_EQ(s->partial_layers, 0);
    ASSERT_EQ(s->partial_bytes, 0);
    ASSERT_EQ(s->objects, 0);
}

TEST(control_health_says_why_not) {
    CONTROL_ENV(env, dir);
    REQUEST(q, HealthRequest, HEALTH_REQUEST);
    CALL(first, health_response);
    CALL(last, health_response);

    call(&env, &first, "Health", &q.base);
    ASSERT_EQ(first.code, GRPC_OK);
    ASSERT_TRUE(!((Modelcached__Control__HealthResponse *)first.last)->ready);
    ASSERT_STREQ(((Modelcached__Control__HealthResponse *)first.last)->not_ready,
                 "the daemon is starting");
    env.health.stopping = true;
    call(&env, &last, "Health", &q.base);
    ASSERT_STREQ(((Modelcached__Control__HealthResponse *)last.last)->not_ready,
                 "the daemon is ending");
}

TEST(control_events_of_one_pull) {
    CONTROL_ENV(env, dir);
    REQUEST(q, EventsRequest, EVENTS_REQUEST);
    CALL(all, event);
    CALL(one, event);
    CALL(none, event);
    _cleanup_free_ char *id = NULL;

    pull(&env, "r.example/plain:1");
    pull(&env, "r.example/other:1");
    for (unsigned i = 0; i < 10; i++)
        (void)sd_event_run(env.e.event, 10 * USEC_PER_MSEC);
    call(&env, &all, "Events", &q.base);
    ASSERT_EQ(all.n, 4);
    id = xstrdup(((Modelcached__Control__Event *)all.last)->pull);
    q.pull = id;
    call(&env, &one, "Events", &q.base);
    ASSERT_EQ(one.n, 2);
    ASSERT_STREQ(((Modelcached__Control__Event *)one.last)->reference, "r.example/other:1");
    q.pod_name = (char *)"nobody";
    call(&env, &none, "Events", &q.base);
    ASSERT_EQ(none.n, 0);
}

TEST(control_events_follow) {
    CONTROL_ENV(env, dir);
    REQUEST(q, EventsRequest, EVENTS_REQUEST);
    CALL(old, event);
    CALL(follow, event);
    GrpcClientCall *following;

    pull(&env, "r.example/plain:1");
    for (unsigned i = 0; i < 10; i++)
        (void)sd_event_run(env.e.event, 10 * USEC_PER_MSEC);
    call(&env, &old, "Events", &q.base);
    ASSERT_EQ(old.n, 2);
    ASSERT_STREQ(((const Modelcached__Control__Event *)(void *)old.last)->type, "pull.done");
    q.follow = true;
    q.last = 1;
    following = begin(&env, &follow, "Events", &q.base);
    agent_env_wait(&env.e, &follow.n, 1);
    pull(&env, "r.example/other:1");
    agent_env_wait(&env.e, &follow.n, 3);
    ASSERT_STREQ(((const Modelcached__Control__Event *)(void *)follow.last)->reference,
                 "r.example/other:1");
    (void)grpc_client_call_cancel(following);
}

TEST(control_socket_has_its_mode) {
    CONTROL_ENV(env, dir);
    struct stat st;

    ASSERT_EQ(stat(env.e.config->control_socket, &st), 0);
    ASSERT_EQ(st.st_mode & 0777, 0660);
    ASSERT_EQ(stat(tmpdir_join(dir, "run"), &st), 0);
    ASSERT_EQ(st.st_mode & 0777, 0755);
}
