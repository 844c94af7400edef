/* SPDX-License-Identifier: Apache-2.0 */
/* test_pull_options: the files that the configuration names for pulls. */
#include "agent/pull_options.h"
#include "base/fs.h"
#include "tests/unit/test.h"

#include <fcntl.h>

static void put(TmpDir *dir, const char *name, const char *text) {
    ASSERT_OK(fs_write_file_durably(tmpdir_fd(dir), name, text, strlen(text), 0600, NULL));
}

static int make(PullOptions **ret, const char *const *sets, size_t n, Err *err) {
    _cleanup_(config_freep) Config *c = NULL;
    ConfigSources sources = { .sets = sets, .n_sets = n };
    int r = config_load(&c, &sources, err);

    return r < 0 ? r : pull_options_new(ret, c, err);
}

TEST(pull_options_reads_what_is_named) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(pull_options_unrefp) PullOptions *o = NULL, *second = NULL;
    _cleanup_free_ char *ca = xasprintf("registries.a:1.ca_file=%s/ca.pem", tmpdir_path(dir));
    _cleanup_free_ char *docker =
        xasprintf("credentials.docker_config=%s/docker.json", tmpdir_path(dir));
    const char *const sets[] = { ca, docker, "pull.io=threads", "registries.b.plain_http=true" };
    const Credential *c;
    Err err = { "" };

    put(dir, "ca.pem", "PEM");
    put(dir, "docker.json", "{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}");
    ASSERT_OK(make(&o, sets, ELEMENTSOF(sets), &err));
    ASSERT_EQ(o->n_registries, 2);
    ASSERT_STREQ(o->registries[0].ca_pem, "PEM");
    ASSERT_EQ(o->registries[0].ca_bytes, 3);
    ASSERT_TRUE(o->registries[1].plain_http && !o->registries[1].ca_pem);
    ASSERT_EQ(o->io, MODELCACHED__WORKER__IO_MODE__IO_THREADS);
    c = credential_find(&o->credentials, "r.example", "x");
    ASSERT_TRUE(c);
    ASSERT_STREQ(c->password, "p");
    second = pull_options_ref(o);
}

TEST(pull_options_tls) {
    static const struct {
        const char *sets[2];
        size_t n;
        bool likely;
    } cases[] = {
        { { NULL }, 0, true },
        { { "registries.a.plain_http=true" }, 1, false },
        { { "registries.a.skip_verify=true" }, 1, false },
        { { "registries.a.connections=2" }, 1, true },
        { { "registries.a.plain_http=true", "registries.b.connections=2" }, 2, true },
        { { "registries.a.plain_http=true", "registries.b.plain_http=true" }, 2, false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(pull_options_unrefp) PullOptions *o = NULL;
        Err err = { "" };

        ASSERT_OK(make(&o, cases[i].sets, cases[i].n, &err));
        ASSERT_EQ(pull_options_tls_is_likely(o), cases[i].likely);
    }
}

TEST(pull_options_are_the_registrys_or_the_nodes) {
    static const char *const sets[] = { "access.check=always",
                                        "pull.range_min=3MiB",
                                        "access.unreachable=allow",
                                        "access.lifetime=2h",
                                        "registries.a.example.plain_http=true",
                                        "registries.docker.io.access_check=never",
                                        "registries.docker.io.range_min=0",
                                        "registries.b.access_check=ifNotGranted",
                                        "registries.b.range_min=1MiB" };
    static const struct {
        const char *reference;
        AccessCheck check;
        uint64_t range_min;
    } cases[] = { { "a.example/x", ACCESS_CHECK_ALWAYS, MiB(3) },
                  { "b.example/x", ACCESS_CHECK_ALWAYS, MiB(3) },
                  { "b:5000/x", ACCESS_CHECK_ALWAYS, MiB(3) },
                  { "busybox", ACCESS_CHECK_NEVER, 0 },
                  { "index.docker.io/library/busybox", ACCESS_CHECK_NEVER, 0 } };
    _cleanup_(pull_options_unrefp) PullOptions *o = NULL;
    Err err = { "" };

    ASSERT_OK(make(&o, sets, ELEMENTSOF(sets), &err));
    ASSERT_TRUE(o->access_open);
    ASSERT_EQ(o->access_lifetime_usec, 7200 * USEC_PER_SEC);
    ASSERT_EQ(o->registries[2].access_check, ACCESS_CHECK_IF_NOT_GRANTED);
    ASSERT_EQ(o->registries[2].range_min_bytes, MiB(1));
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(reference_freep) Reference *reference = NULL;

        ASSERT_OK(reference_parse(&reference, cases[i].reference, &err));
        if (pull_options_access_check(o, reference) != cases[i].check ||
            pull_options_range_min(o, reference) != cases[i].range_min)
            test_fail(__FILE__, __LINE__, "%s", cases[i].reference);
    }
}

static const struct {
    const char *content, *set;
    int r;
    const char *sentence;
} mistakes[] = {
    { NULL, "credentials.docker_config=/nonexistent", -ENOENT, "credentials.docker_config: " },
    { NULL, "registries.a.ca_file=/nonexistent", -ENOENT, "ca_file of registry a: " },
    { "secret", "credentials.docker_config=%s/file", -EPROTO, "credentials.docker_config: " },
};

TEST(pull_options_mistakes) {
    for (size_t i = 0; i < ELEMENTSOF(mistakes); i++) {
        _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
        _cleanup_(pull_options_unrefp) PullOptions *o = NULL;
        _cleanup_free_ char *own = xasprintf("credentials.docker_config=%s/file", tmpdir_path(dir));
        const char *set = mistakes[i].content ? own : mistakes[i].set;
        Err err = { "" };
        if (mistakes[i].content)
            put(dir, "file", mistakes[i].content);
        ASSERT_ERR(make(&o, &set, 1, &err), mistakes[i].r);
        ASSERT_STRSTR(err.text, mistakes[i].sentence);
        ASSERT_TRUE(!strstr(err.text, "secret"));
    }
}
