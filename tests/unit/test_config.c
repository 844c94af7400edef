/* SPDX-License-Identifier: Apache-2.0 */
/* test_config: defaults, the file, --set, the environment; every mistake; documents that agree with
 * the table. */
#include "agent/config.h"
#include "base/fs.h"
#include "tests/unit/test.h"

#include <fcntl.h>

static int load(Config **ret, TmpDir *dir, const char *text, const char *set, Err *err) {
    const char *path = tmpdir_join(dir, "config.yaml");
    ConfigSources sources = { .file = path, .sets = &set, .n_sets = set ? 1 : 0 };
    FILE *f = fopen(path, "we");

    ASSERT_TRUE(f);
    (void)fputs(text, f);
    (void)fclose(f);
    return config_load(ret, &sources, err);
}

TEST(config_defaults_are_those_of_the_design) {
    _cleanup_(config_freep) Config *c = NULL;
    Err err;

    (void)unsetenv("CSI_ENDPOINT");
    (void)setenv("NODE_NAME", "node-7", 1);
    ASSERT_OK(config_load(&c, &(ConfigSources){ 0 }, &err));
    ASSERT_STREQ(c->node, "node-7");
    ASSERT_STREQ(c->store_path, "/var/lib/modelcached");
    ASSERT_STREQ(c->csi_driver, "csi.modelcached.dev");
    ASSERT_STREQ(c->csi_endpoint, "/var/lib/kubelet/plugins/csi.modelcached.dev/csi.sock");
    ASSERT_EQ(c->csi_kubelet_dir.n, 1);
    ASSERT_STREQ(c->csi_kubelet_dir.items[0], "/var/lib/kubelet");
    ASSERT_EQ(c->pull_concurrent, 4);
    ASSERT_EQ(c->pull_connections, 8);
    ASSERT_EQ(c->pull_memory, MiB(128));
    ASSERT_EQ(c->pull_memory_total, MiB(512));
    ASSERT_STREQ(c->pull_io, "auto");
    ASSERT_EQ(c->pull_range_min, MiB(64));
    ASSERT_EQ(c->pull_give_up, 60 * USEC_PER_SEC);
    ASSERT_EQ(c->pull_background_bandwidth, 0);
    ASSERT_EQ(c->n_registries, 0);
    ASSERT_STREQ(c->log_level, "info");
}

TEST(config_reads_every_key_of_a_file) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(config_freep) Config *c = NULL;
    Err err = { "" };

    ASSERT_OK(load(&c, dir,
                   "node: n1\nstore: { path: /srv/models }\ncsi:\n  driver: d.example\n"
                   "  endpoint: unix:///run/x.sock\n  kubelet_dir: [/a, /b/c]\n"
                   "  registration_dir: ''\ncontrol: {socket: /run/c.sock}\n"
                   "pull: { concurrent: 2, connections: 3, memory: 64MiB, io: threads,\n"
                   "  range_min: 8MiB, stall_timeout: 10s, give_up: 2m, page_cache: true,\n"
                   "  background_bandwidth: 5MiB, memory_total: 40MiB }\n"
                   "credentials: { docker_config: /etc/d.json }\n"
                   "access: { check: never, lifetime: 24h, unreachable: allow }\nregistries:\n"
                   "  - { host: 'a:5000', plain_http: true, connections: 3 }\n"
                   "  - { host: b.example, ca_file: /etc/ca.pem, skip_verify: yes,\n"
                   "      range_min: 2MiB, access_check: always }\n"
                   "  - { host: c.example, range_min: 0 }\n"
                   "  - { host: d.example, range_min: default }\n"
                   "log: { level: debug, format: json }\n",
                   NULL, &err));
    ASSERT_STREQ(c->node, "n1");
    ASSERT_STREQ(c->store_path, "/srv/models");
    ASSERT_STREQ(c->csi_endpoint, "/run/x.sock");
    ASSERT_EQ(c->csi_kubelet_dir.n, 2);
    ASSERT_STREQ(c->csi_kubelet_dir.items[1], "/b/c");
    ASSERT_STREQ(c->csi_registration_dir, "");
    ASSERT_EQ(c->pull_memory, MiB(64));
    ASSERT_EQ(c->pull_memory_total, MiB(40));
    ASSERT_STREQ(c->pull_io, "threads");
    ASSERT_EQ(c->pull_range_min, MiB(8));
    ASSERT_EQ(c->pull_stall_timeout, 10 * USEC_PER_SEC);
    ASSERT_EQ(c->pull_give_up, 120 * USEC_PER_SEC);
    ASSERT_EQ(c->pull_background_bandwidth, MiB(5));
    ASSERT_TRUE(c->pull_page_cache);
    ASSERT_EQ(c->registries[0].connections, 3);
    ASSERT_EQ(c->n_registries, 4);
    ASSERT_TRUE(c->registries[0].plain_http && !c->registries[0].skip_verify);
    ASSERT_STREQ(c->registries[1].ca_file, "/etc/ca.pem");
    ASSERT_TRUE(c->registries[1].skip_verify);
    ASSERT_EQ(c->registries[0].range_min, CONFIG_SIZE_WORD);
    ASSERT_EQ(c->registries[1].range_min, MiB(2));
    ASSERT_EQ(c->registries[2].range_min, 0);
    ASSERT_EQ(c->registries[3].range_min, CONFIG_SIZE_WORD);
    ASSERT_STREQ(c->registries[0].access_check, "default");
    ASSERT_STREQ(c->registries[1].access_check, "always");
    ASSERT_STREQ(c->access_check, "never");
    ASSERT_EQ(c->access_lifetime, 86400 * USEC_PER_SEC);
    ASSERT_STREQ(c->access_unreachable, "allow");
    ASSERT_STREQ(c->log_format, "json");
}

TEST(config_an_empty_file_and_empty_sections_are_fine) {
    static const char *const files[] = {
        "", "# nothing\n", "---\n", "csi:\npull: {}\nregistries:\n", "registries: []\n", "~\n"
    };
    for (size_t i = 0; i < ELEMENTSOF(files); i++) {
        _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
        _cleanup_(config_freep) Config *c = NULL;
        Err err = { "" };
        if (load(&c, dir, files[i], NULL, &err) < 0)
            test_fail(__FILE__, __LINE__, "case %zu: %s", i, err.text);
    }
}

/* What is wrong, and the sentence behind the name of the file. */
static const struct {
    const char *text, *sentence;
} mistakes[] = {
    { "stroe: 1\n", ":1: stroe: is not a key, allowed: node, store, csi, control, metrics, pull, "
                    "credentials, access, registries, log" },
    { "pull:\n  # why\n  conns: 1\n",
      ":3: pull.conns: is not a key, allowed: concurrent, connections, memory, memory_total, " },
    { "pull: { concurrent: 0 }\n", ":1: pull.concurrent: \"0\" is out of range, allowed: 1 to 64" },
    { "pull: { concurrent: 65 }\n",
      ":1: pull.concurrent: \"65\" is out of range, allowed: 1 to 64" },
    { "pull: { concurrent: many }\n",
      ":1: pull.concurrent: \"many\" is not a number, allowed: 1 to 64" },
    { "pull: { concurrent: '4' }\n", ":1: pull.concurrent: is text in quotes, allowed: 1 to 64" },
    { "pull: { concurrent: [4] }\n", ":1: pull.concurrent: is a list, allowed: 1 to 64" },
    { "pull: { concurrent: {a: b} }\n", ":1: pull.concurrent: is a mapping, allowed: 1 to 64" },
    { "pull: { concurrent: }\n", ":1: pull.concurrent: has no value, allowed: 1 to 64" },
    { "pull: { memory: 1MiB }\n", ":1: pull.memory: \"1MiB\" is out of range, allowed: 16" },
    { "pull: { memory: 128MB }\n", ":1: pull.memory: \"128MB\" is not a size, allowed: 16" },
    { "pull: { memory: 101% }\n", ":1: pull.memory: \"101%\" is out of range, allowed: 16" },
    { "pull: { stall_timeout: soon }\n",
      ":1: pull.stall_timeout: \"soon\" is not a duration, allowed: 1 s to 1 h" },
    { "pull: { give_up: 10ms }\n", ":1: pull.give_up: \"10ms\" is out of range, allowed: 1 s" },
    { "registries: [ { host: a, connections: 65 } ]\n",
      ":1: registries[0].connections: \"65\" is out of range, allowed: 0 to 64" },
    { "registries: [ { host: a, range_min: never } ]\n",
      ":1: registries[0].range_min: \"never\" is not a size, allowed: default, or 0 B to 1 TiB, "
      "as" },
    { "registries: [ { host: a, range_min: 2TiB } ]\n",
      ":1: registries[0].range_min: \"2TiB\" is out of range, allowed: default, or 0 B to 1 TiB" },
    { "pull: { range_min: default }\n",
      ":1: pull.range_min: \"default\" is not a size, allowed: 0 B to 1 TiB, as" },
    { "access: { check: Never }\n",
      ":1: access.check: \"Never\" is unknown, allowed: always, ifNotGranted, never" },
    { "registries: [ { host: a, access_check: no } ]\n",
      ":1: registries[0].access_check: \"no\" is unknown, allowed: default, always, ifNotGranted" },
    { "pull: { io: magic }\n", ":1: pull.io: \"magic\" is unknown, allowed: auto, uring, threads" },
    { "node: a\n\nnode: b\n", ":3: node: is there twice, allowed: one; the other is in line 1" },
    { "pull: {io: auto}\npull: {}\n",
      ":2: pull: is there twice, allowed: one; the other is in line 1" },
    { "pull: 7\n",
      ":1: pull: is a single value, allowed: concurrent, connections, memory, memory_total, " },
    { "pull: [a]\n",
      ":1: pull: is a list, allowed: concurrent, connections, memory, memory_total, " },
    { "store: { path: models }\n",
      ":1: store.path: \"models\" is not a clean absolute path, allowed: an absolute path" },
    { "store: { path: /a/../b }\n", ":1: store.path: \"/a/../b\" is not a clean absolute path" },
    { "store: { path: '' }\n", ":1: store.path: \"\" is empty" },
    { "csi: { driver: Bad_Name }\n", ":1: csi.driver: \"Bad_Name\" is not a DNS name" },
    { "csi: { driver: a..b }\n", ":1: csi.driver: \"a..b\" is not a DNS name" },
    { "csi: { kubelet_dir: [] }\n", ":1: csi.kubelet_dir: is an empty list, allowed: an absolute" },
    { "csi: { kubelet_dir: [/a, [b]] }\n", ":1: csi.kubelet_dir: is a list, allowed: an absolute" },
    { "csi: { endpoint: tcp://x }\n",
      ":1: csi.endpoint: \"tcp://x\" is not a clean absolute path" },
    { "control: { socket: /a23456789012345678901234567890123456789012345678901234567890123456789012"
      "3456789012345678901234567890123456789 }\n",
      "is too long, allowed: an absolute path of at most 107 bytes" },
    { "node: \"a\\x01b\"\n", "has control characters" },
    { "node: \"a\\0b\"\n", ":1: node: has a NUL byte" },
    { "registries: a\n", ":1: registries: is a single value, allowed: a list of mappings" },
    { "registries: [a]\n",
      ":1: registries: is a single value, allowed: host, plain_http, ca_file, skip_verify" },
    { "registries:\n  - plain_http: true\n", ":2: registries: has an entry without host" },
    { "registries:\n  - host: a\n  - host: a\n", ":3: registries: has this host twice" },
    { "registries:\n  - host: a\n    hots: b\n",
      ":3: registries[0].hots: is not a key, allowed: host" },
    { "registries:\n  - host: a\n    host: b\n", ":3: registries[0].host: is there twice" },
    { "registries:\n  - host: http://a\n",
      ":2: registries[0].host: \"http://a\" is not a registry" },
    { "registries:\n  - host: a\n    plain_http: maybe\n",
      ":3: registries[0].plain_http: \"maybe\" is not a yes or no, allowed: true, false" },
    { "log: { level: loud }\n",
      ":1: log.level: \"loud\" is unknown, allowed: error, warn, info, debug" },
    { "- a\n", ":1: (file): is a list, allowed: node, store" },
    { "a: &x b\n", ":1: a: is not a key" },
    { "node: &x b\nstore: *x\n", ":2: *: is an alias, allowed: plain values" },
    { "? [a]\n: b\n", ":1: (file): has a key that is not text" },
    { "node: a\n---\nnode: b\n", ":2: (file): has a second document, allowed: one" },
    { "store: { path: \"/x\n", ": this is not YAML: " },
    { "node: a\n\tb: c\n", ": this is not YAML: " },
};

TEST(config_says_file_line_key_and_what_is_allowed) {
    for (size_t i = 0; i < ELEMENTSOF(mistakes); i++) {
        _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
        _cleanup_(config_freep) Config *c = NULL;
        Err err = { "" };
        int r = load(&c, dir, mistakes[i].text, NULL, &err);
        if (r != -EINVAL || c || !strstr(err.text, mistakes[i].sentence) ||
            !startswith(err.text, tmpdir_path(dir)))
            test_fail(__FILE__, __LINE__, "case %zu: %d: %s\nwant: %s", i, r, err.text,
                      mistakes[i].sentence);
    }
}

static const struct {
    const char *set, *sentence;
} bad_sets[] = {
    { "pull.concurrent", "--set: pull.concurrent: has no value, allowed: KEY=VALUE" },
    { "pull.what=1", "--set: pull.what: is not a key, allowed: those of modelcached --help" },
    { "pull.concurrent=x", "--set: pull.concurrent: \"x\" is not a number, allowed: 1 to 64" },
    { "registries[].host=x", "--set: registries[].host: is not a key" },
    { "registries.a.host=x", "--set: registries.a.host: is not a key, allowed: registries.HOST." },
    { "registries.plain_http=x", "--set: registries.plain_http: is not a key" },
    { "registries.a/b.plain_http=true", "\"a/b\" is not a registry's host" },
    { "registries.a.plain_http=7", "--set: registries.a.plain_http: \"7\" is not a yes or no" },
    { "csi.kubelet_dir=/a,b", "--set: csi.kubelet_dir: \"b\" is not a clean absolute path" },
};

TEST(config_set_refuses_mistakes) {
    for (size_t i = 0; i < ELEMENTSOF(bad_sets); i++) {
        _cleanup_(config_freep) Config *c = NULL;
        Err err = { "" };
        ConfigSources sources = { .sets = &bad_sets[i].set, .n_sets = 1 };
        ASSERT_ERR(config_load(&c, &sources, &err), -EINVAL);
        ASSERT_STRSTR(err.text, bad_sets[i].sentence);
    }
}

TEST(config_set_wins_over_the_file_and_makes_registries) {
    static const char *const sets[] = {
        "pull.concurrent=9",
        "csi.kubelet_dir=/x,/y",
        "registries.127.0.0.1:5000.plain_http=true",
        "registries.a.example.ca_file=/ca.pem",
        "registries.a.example.skip_verify=true",
        "registries.a.example.range_min=0",
        "registries.b.example.range_min=1MiB",
        "registries.b.example.range_min=default",
        "node=x=y",
        "pull.memory=2%",
    };
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(config_freep) Config *c = NULL, *one = NULL;
    ConfigSources sources = { .sets = sets, .n_sets = ELEMENTSOF(sets) };
    Err err = { "" };

    ASSERT_OK(load(&one, dir, "pull: { concurrent: 2 }\n", "pull.concurrent=3", &err));
    ASSERT_EQ(one->pull_concurrent, 3);
    ASSERT_OK(config_load(&c, &sources, &err));
    ASSERT_EQ(c->pull_concurrent, 9);
    ASSERT_EQ(c->csi_kubelet_dir.n, 2);
    ASSERT_STREQ(c->csi_kubelet_dir.items[1], "/y");
    ASSERT_EQ(c->n_registries, 3);
    ASSERT_STREQ(c->registries[0].host, "127.0.0.1:5000");
    ASSERT_TRUE(c->registries[0].plain_http);
    ASSERT_STREQ(c->registries[1].host, "a.example");
    ASSERT_TRUE(c->registries[1].skip_verify);
    ASSERT_EQ(c->registries[1].range_min, 0);
    ASSERT_EQ(c->registries[2].range_min, CONFIG_SIZE_WORD);
    ASSERT_STREQ(c->node, "x=y");
    ASSERT_TRUE(c->pull_memory >= MiB(16));
}

TEST(config_environment) {
    _cleanup_(config_freep) Config *c = NULL, *bad = NULL, *host = NULL;
    Err err = { "" };

    (void)setenv("CSI_ENDPOINT", "unix:///run/env.sock", 1);
    ASSERT_OK(config_load(&c, &(ConfigSources){ 0 }, &err));
    ASSERT_STREQ(c->csi_endpoint, "/run/env.sock");
    (void)setenv("CSI_ENDPOINT", "tcp://1.2.3.4:1", 1);
    ASSERT_ERR(config_load(&bad, &(ConfigSources){ 0 }, &err), -EINVAL);
    ASSERT_STRSTR(err.text, "$CSI_ENDPOINT: csi.endpoint: \"tcp://1.2.3.4:1\" is not");
    (void)unsetenv("CSI_ENDPOINT");
    (void)unsetenv("NODE_NAME");
    ASSERT_OK(config_load(&host, &(ConfigSources){ 0 }, &err));
    ASSERT_TRUE(*host->node);
}

TEST(config_wants_a_socket_each) {
    _cleanup_(config_freep) Config *c = NULL;
    const char *sets[] = { "csi.endpoint=unix:///run/one.sock", "control.socket=/run/one.sock" };
    Err err = { "" };

    ASSERT_ERR(config_load(&c, &(ConfigSources){ .sets = sets, .n_sets = 2 }, &err), -EINVAL);
    ASSERT_STREQ(err.text,
                 "csi.endpoint and control.socket are both /run/one.sock; they need a socket each");
    ASSERT_OK(config_load(&c, &(ConfigSources){ .sets = sets, .n_sets = 1 }, &err));
}

TEST(config_wants_memory_for_all_pulls) {
    _cleanup_(config_freep) Config *c = NULL;
    const char *sets[] = { "pull.concurrent=5", "pull.memory_total=40MiB", "pull.concurrent=6" };
    Err err = { "" };

    ASSERT_ERR(config_load(&c, &(ConfigSources){ .sets = sets, .n_sets = 3 }, &err), -EINVAL);
    ASSERT_STREQ(err.text, "pull.memory_total is 40 MiB; 6 pulls (pull.concurrent), and as many "
                           "in the background, need 48 MiB: raise it, or lower pull.concurrent");
    ASSERT_OK(config_load(&c, &(ConfigSources){ .sets = sets, .n_sets = 2 }, &err));
}

TEST(config_file_that_is_absent) {
    _cleanup_(config_freep) Config *c = NULL;
    Err err = { "" };

    ASSERT_ERR(config_load(&c, &(ConfigSources){ .file = "/nonexistent/c.yaml" }, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "/nonexistent/c.yaml");
    ASSERT_OK(config_load(
        &c, &(ConfigSources){ .file = "/nonexistent/c.yaml", .file_may_be_absent = true }, &err));
}

TEST(config_reload_sees_every_key_of_a_registry) {
    static const char *const keys[] = {
        "plain_http: true", "ca_file: /c.pem", "skip_verify: true",
        "connections: 2",   "range_min: 0",    "access_check: never"
    };
    for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
        _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
        _cleanup_(config_freep) Config *c = NULL, *fresh = NULL;
        _cleanup_free_ char *changed = NULL, *restart = NULL;
        _cleanup_free_ char *text = xasprintf("registries: [{host: a, %s}]\n", keys[i]);
        Err err = { "" };

        ASSERT_OK(load(&c, dir, "registries: [{host: a}]\n", NULL, &err));
        ASSERT_OK(load(&fresh, dir, text, NULL, &err));
        config_reload(c, fresh, &changed, &restart);
        ASSERT_STREQ(changed, "registries");
    }
}

TEST(config_reload_takes_what_is_live_and_names_the_rest) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(config_freep) Config *c = NULL, *fresh = NULL, *same = NULL;
    _cleanup_free_ char *changed = NULL, *restart = NULL, *changed2 = NULL, *restart2 = NULL;
    const char *text = "node: n\nstore: {path: /other}\npull: {concurrent: 1}\nlog: {level: warn}\n"
                       "registries: [{host: a}]\ncsi: {kubelet_dir: [/a, /b]}\n";
    Err err = { "" };

    ASSERT_OK(load(&c, dir, "node: n\n", NULL, &err));
    ASSERT_OK(load(&fresh, dir, text, NULL, &err));
    config_reload(c, fresh, &changed, &restart);
    ASSERT_STREQ(changed, "pull.concurrent, log.level, registries");
    ASSERT_STREQ(restart, "store.path, csi.kubelet_dir");
    ASSERT_EQ(c->pull_concurrent, 1);
    ASSERT_STREQ(c->log_level, "warn");
    ASSERT_STREQ(c->store_path, "/var/lib/modelcached");
    ASSERT_EQ(c->n_registries, 1);
    ASSERT_OK(load(&same, dir,
                   "node: n\npull: {concurrent: 1}\nlog: {level: warn}\n"
                   "registries: [{host: a}]\n",
                   NULL, &err));
    config_reload(c, same, &changed2, &restart2);
    ASSERT_STREQ(changed2, "");
    ASSERT_STREQ(restart2, "");
}

/* The page must hold exactly what the table gives: modelcached --print-docs markdown|man. */
static void check_page(const char *page, void (*write)(FILE *f)) {
    const char *root = getenv("MC_SRC");
    _cleanup_free_ char *want = NULL, *have = NULL;
    _cleanup_free_ char *path = xasprintf("%s/%s", root ? root : ".", page);
    size_t n;
    FILE *f = open_memstream(&want, &n);

    ASSERT_TRUE(f);
    write(f);
    (void)fclose(f);
    ASSERT_OK(fs_read_file(AT_FDCWD, path, MiB(1), &have, NULL, NULL));
    if (!strstr(have, want))
        test_fail(__FILE__, __LINE__,
                  "%s does not hold the table of keys; see modelcached --print-docs", page);
}

TEST(config_pages_agree_with_the_table) {
    check_page("docs/config.md", config_write_markdown);
    check_page("docs/man/modelcached-config.5", config_write_man);
}

TEST(config_help_names_every_key) {
    _cleanup_free_ char *help = NULL;
    size_t n_keys, n;
    const ConfigKey *keys = config_keys(&n_keys);
    FILE *f = open_memstream(&help, &n);

    ASSERT_TRUE(f);
    config_write_help(f);
    (void)fclose(f);
    for (size_t i = 0; i < n_keys; i++)
        ASSERT_STRSTR(help, keys[i].path);
}

TEST(config_example_is_the_default) {
    _cleanup_(config_freep) Config *example = NULL, *defaults = NULL;
    _cleanup_free_ char *changed = NULL, *restart = NULL;
    const char *root = getenv("MC_SRC");
    _cleanup_free_ char *path = xasprintf("%s/deploy/config.yaml", root ? root : ".");
    Err err = { "" };

    (void)setenv("NODE_NAME", "n", 1);
    ASSERT_OK(config_load(&example, &(ConfigSources){ .file = path }, &err));
    ASSERT_OK(config_load(&defaults, &(ConfigSources){ 0 }, &err));
    config_reload(defaults, example, &changed, &restart);
    ASSERT_STREQ(changed, "");
    ASSERT_STREQ(restart, "");
}
