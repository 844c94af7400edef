/* SPDX-License-Identifier: Apache-2.0 */
/* store_env: what the tests of the store share: a store in a directory, pulls, artifacts, counts.
 */
#pragma once

#include "base/fs.h"
#include "base/parse.h"
#include "cache/store_internal.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define ENV_ORIGIN "r.example/model"
/* The pull with that folder, of ENV_ORIGIN. */
#define ENV_PULL(name) (&(const StorePull){ (name), ENV_ORIGIN })

/* Opens the store in the test's directory; a failure ends the test. */
static inline Store *env_open(TmpDir *dir) {
    Store *s = NULL;
    Err err = { "" };
    _cleanup_free_ char *path = xasprintf("%s/store", tmpdir_path(dir));
    int r = store_open(&s, path, &err);

    if (r < 0)
        test_fail(__FILE__, __LINE__, "store_open: %s", err_text(&err, r));
    return s;
}

/* Did a pull of `origin` bring the layer, and is all its content stored? */
static inline bool env_has_layer(Store *s, const char *origin, const Layer *layer) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t id;
    Err err = { "" };

    if (layer_lookup(ix, origin, layer, &id, &err) < 0)
        test_fail(__FILE__, __LINE__, "layer_lookup: %s", err.text);
    return id != 0;
}

/* The store needs root and a real file system. */
static inline const char *env_missing(TmpDir *dir) {
    struct statfs fs;

    if (geteuid() != 0)
        return "the store needs root";
    if (fstatfs(tmpdir_fd(dir), &fs) < 0 ||
        (fs.f_type != 0xef53 && fs.f_type != 0x58465342 && (uint32_t)fs.f_type != 0x9123683e))
        return "the test directory is not on ext4, xfs or btrfs: set TMPDIR";
    return NULL;
}

#define STORE_TEST_DIR(dir)                             \
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new(); \
    if (env_missing(dir))                               \
    SKIP(env_missing(dir))

static inline int env_ingest(Store *s, const char *pull) {
    int fd = -EBADF;
    Err err = { "" };
    int r = store_ingest_begin(s, pull, 0, 0, &fd, &err);

    if (r < 0)
        test_fail(__FILE__, __LINE__, "store_ingest_begin: %s", err_text(&err, r));
    return fd;
}

static inline void env_write(int dir_fd, const char *name, const char *text, size_t n) {
    _cleanup_close_ int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || fs_write_all(fd, text, n, NULL) < 0)
        test_fail(__FILE__, __LINE__, "cannot write %s: %s", name, strerror(errno));
}

/* An entry for a file whose content is `text`; with `ingest_fd` the file is written there, under
 * its path with '/' as '_'.  Strings are owned by the entry. */
static inline LayerEntry env_file(int ingest_fd, const char *path, const char *text) {
    LayerEntry e = { .type = ENTRY_TYPE_FILE, .size = strlen(text), .path = xstrdup(path) };

    digest_of(&e.digest, text, strlen(text));
    if (ingest_fd >= 0) {
        e.ingest = xstrdup(path);
        for (char *p = e.ingest; *p; p++)
            if (*p == '/')
                *p = '_';
        env_write(ingest_fd, e.ingest, text, strlen(text));
    }
    return e;
}

static inline LayerEntry env_entry(EntryType type, const char *path, const char *target) {
    return (LayerEntry){ .type = type, .path = xstrdup(path), .target = xstrdup(target) };
}

/* A tar layer is named by `name` alone here: nobody looks at its blob. */
static inline Layer env_tar(const char *name) {
    Layer layer = { .kind = LAYER_KIND_TAR, .size = 1, .media_type = xstrdup("application/x-tar") };

    digest_of(&layer.digest, name, strlen(name));
    return layer;
}

static inline Layer env_raw(const LayerEntry *e) {
    return (Layer){ .kind = LAYER_KIND_RAW,
                    .digest = e->digest,
                    .size = e->size,
                    .executable = e->executable,
                    .media_type = xstrdup("application/octet-stream"),
                    .path = xstrdup(e->path) };
}

/* A manifest of the layers, which it takes over; its bytes are `name`. */
static inline Manifest *env_manifest(const char *name, Layer *layers, size_t n) {
    Manifest *m = xnew(Manifest);

    m->bytes = (uint8_t *)xstrdup(name);
    m->n_bytes = strlen(name);
    digest_of(&m->digest, name, strlen(name));
    m->media_type = xstrdup("application/vnd.oci.image.manifest.v1+json");
    m->family = xstrdup("modelpack");
    m->layers = xnew_n(Layer, n);
    memcpy(m->layers, layers, n * sizeof(*layers));
    m->n_layers = n;
    return m;
}

/* Commits one layer alone. */
static inline int env_commit(Store *s, const StorePull *pull, const Layer *layer,
                             const LayerEntry *entries, size_t n, Err *err) {
    LayerCommit commit = { .layer = layer, .entries = entries, .n_entries = n };

    store_commit_layers(s, pull, &commit, 1);
    if (commit.r < 0)
        *err = commit.err;
    return commit.r;
}

/* Commits a manifest `name` of raw layers: n pairs of path and content. */
static inline Digest env_artifact(Store *s, const char *name, const char *const (*files)[2],
                                  size_t n) {
    Layer *layers = xnew_n(Layer, n);
    _cleanup_close_ int fd = env_ingest(s, name);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    Err err = { "" };
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n; i++) {
        LayerEntry *e = xnew(LayerEntry);

        *e = env_file(fd, files[i][0], files[i][1]);
        layers[i] = env_raw(e);
        r = env_commit(s, ENV_PULL(name), &layers[i], e, 1, &err);
        layer_entries_free(e, 1);
    }
    m = env_manifest(name, layers, n);
    free(layers);
    if (r >= 0)
        r = store_commit_manifest(s, m, ENV_ORIGIN, name, &err);
    if (r >= 0)
        r = store_ingest_end(s, name, &err);
    if (r < 0)
        test_fail(__FILE__, __LINE__, "artifact %s: %s", name, err_text(&err, r));
    return m->digest;
}

/* What a file of partial/ is called: by a key of the blob and of what the names of its pulls'
 * folders begin with: here, "r". */
static inline const char *env_kept(char buf[static 80], const char *hex, const char *suffix) {
    uint8_t text[2 + DIGEST_BYTES] = { 'r', 0 };
    Digest key;

    if (parse_hex(hex, 2 * DIGEST_BYTES, text + 2) < 0)
        test_fail(__FILE__, __LINE__, "%s is no digest", hex);
    digest_of(&key, text, sizeof(text));
    (void)snprintf(buf, 80, "%s%s", DIGEST_HEX(&key), suffix);
    return buf;
}
#define ENV_KEPT(hex, suffix) env_kept((char[80]){ "" }, (hex), (suffix))

/* How many files (with `directories`: directories as well) are beneath a directory of the store. */
static inline int env_count(const Store *s, const char *folder, bool directories) {
    _cleanup_free_ char *path = xasprintf("%s/%s", store_path(s), folder);
    DIR *dir = opendir(path);
    int n = 0;

    if (!dir)
        test_fail(__FILE__, __LINE__, "opendir %s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(dir));) {
        _cleanup_free_ char *sub = xasprintf("%s/%s", folder, entry->d_name);

        if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
            continue;
        if (entry->d_type == DT_DIR)
            n += (directories ? 1 : 0) + env_count(s, sub, directories);
        else
            n++;
    }
    (void)closedir(dir);
    return n;
}

/* Path of a file of an artifact's tree, or with `name` NULL of the tree; the caller frees. */
static inline char *env_tree_path(const Store *s, const Digest *d, const char *name) {
    return xasprintf("%s/trees/%s%s%s", store_path(s), DIGEST_HEX(d), name ? "/" : "",
                     name ? name : "");
}

/* Content of a file of an artifact's tree; the caller frees.  NULL: it is not there. */
static inline char *env_read(const Store *s, const Digest *d, const char *name) {
    _cleanup_free_ char *path = env_tree_path(s, d, name);
    char *text = NULL;

    return fs_read_file(AT_FDCWD, path, MiB(1), &text, NULL, NULL) < 0 ? NULL : text;
}

/* What must hold after every start: no leftovers, each row has its object with the right content
 * and each object its row, each complete manifest has its whole tree, and nothing else is there. */
static inline void env_check_invariants(Store *s) {
    StoreStats stats;
    ArtifactInfo *list;
    size_t n, trees = 0;
    Err err = { "" };

    ASSERT_EQ(env_count(s, "ingest", true), 0);
    ASSERT_EQ(env_count(s, "staging", true), 0);
    ASSERT_OK(store_stats(s, &stats, &err));
    ASSERT_EQ(env_count(s, "objects", false), stats.objects);
    ASSERT_EQ(store_verify(s, NULL, NULL, &err), 0);
    ASSERT_OK(store_list(s, &list, &n, &err));
    for (size_t i = 0; i < n; i++) {
        LayerEntry *files;
        size_t n_files;

        if (!list[i].complete)
            continue;
        trees++;
        ASSERT_OK(store_files(s, &list[i].digest, &files, &n_files, &err));
        for (size_t k = 0; k < n_files; k++) {
            _cleanup_free_ char *text = env_read(s, &list[i].digest, files[k].path);
            Digest d;

            if (files[k].type != ENTRY_TYPE_FILE)
                continue;
            ASSERT_TRUE(text != NULL);
            digest_of(&d, text, strlen(text));
            ASSERT_TRUE(digest_equal(&d, &files[k].digest));
        }
        trees += n_files;
        layer_entries_free(files, n_files);
    }
    artifact_info_array_free(list, n);
    ASSERT_EQ(env_count(s, "trees", true), trees);
}

/* In a child: from here on env_kill_at() sees its system calls. */
static inline void env_trace_me(void) {
    (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    (void)raise(SIGSTOP);
}

/* Kills the child, which has called env_trace_me(), before its `n`th stop at a system call.  False:
 * it had ended by itself before. */
static inline bool env_kill_at(pid_t pid, unsigned n) {
    int status = 0;

    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    for (unsigned i = 0; i < n && WIFSTOPPED(status); i++) {
        ASSERT_OK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL));
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
    }
    if (!WIFSTOPPED(status)) {
        ASSERT_EQ(status, 0); /* it succeeded */
        return false;
    }
    ASSERT_OK(kill(pid, SIGKILL));
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    return true;
}
