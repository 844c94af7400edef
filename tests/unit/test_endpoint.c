/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of csi/endpoint.h: sockets that stay, whatever becomes of them and of their folders. */
#include "csi/endpoint.h"

#include "proto/unix_socket.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>

typedef struct Place {
    TmpDir *dir;
    sd_event *event;
    GrpcServer *server;
    Endpoint *endpoint;
    char *folder, *path;
} Place;

static const GrpcMethod no_methods[1];

static Place *place_free(Place *p) {
    p->endpoint = endpoint_free(p->endpoint);
    p->server = grpc_server_free(p->server);
    p->event = sd_event_unref(p->event);
    p->dir = tmpdir_free(p->dir);
    free(p->folder);
    free(p->path);
    free(p);
    return NULL;
}
DEFINE_CLEANUP(Place, place_free);

/* The folder of the socket is not there yet. */
static Place *place_new(void) {
    Place *p = xnew(Place);

    p->dir = tmpdir_new();
    ASSERT_OK(sd_event_new(&p->event));
    ASSERT_OK(grpc_server_new(
        &p->server, &(GrpcServerOptions){ .event = p->event, .name = "t", .methods = no_methods },
        NULL));
    p->folder = xasprintf("%s/folder", tmpdir_path(p->dir));
    p->path = xasprintf("%s/s", p->folder);
    return p;
}

static int place_begin(Place *p, bool make_directory, Err *err) {
    return endpoint_new(&p->endpoint,
                        &(EndpointOptions){ .event = p->event,
                                            .server = p->server,
                                            .path = p->path,
                                            .what = "the socket of the test",
                                            .make_directory = make_directory },
                        err);
}

static bool is_answered(const char *path) {
    int fd = unix_connect(path, NULL);

    return safe_close(fd < 0 ? -EBADF : fd) == -EBADF && fd >= 0;
}

/* Runs the loop until the endpoint is there, or is not; fails after 10 s. */
static void place_wait(const Place *p, bool there) {
    uint64_t end = now_usec() + 10 * USEC_PER_SEC;

    while (endpoint_is_there(p->endpoint) != there) {
        ASSERT_TRUE(now_usec() < end);
        ASSERT_OK(sd_event_run(p->event, USEC_PER_SEC / 10));
    }
    ASSERT_EQ(is_answered(p->path), there);
}

static size_t count_fds(void) {
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    ASSERT_TRUE(dir);
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n;
}

TEST(endpoint_waits_for_its_folder) {
    _cleanup_(place_freep) Place *p = place_new();
    struct stat st;
    Err err;

    ASSERT_OK(place_begin(p, false, &err));
    place_wait(p, false);
    ASSERT_OK(mkdir(p->folder, 0755));
    place_wait(p, true);
    ASSERT_OK(stat(p->path, &st));
    ASSERT_EQ(st.st_mode & 07777, 0600);
    p->endpoint = endpoint_free(p->endpoint);
    p->server = grpc_server_free(p->server);
    ASSERT_TRUE(access(p->path, F_OK) < 0);
}

TEST(endpoint_makes_its_own_folder_only) {
    _cleanup_(place_freep) Place *p = place_new();
    Err err;

    ASSERT_OK(place_begin(p, true, &err));
    place_wait(p, true);
    p->endpoint = endpoint_free(p->endpoint);
    grpc_server_unlisten(p->server);
    ASSERT_OK(rmdir(p->folder));
    free(p->path);
    p->path = xasprintf("%s/deeper/s", p->folder);
    ASSERT_OK(place_begin(p, true, &err));
    place_wait(p, false);
    ASSERT_TRUE(access(p->folder, F_OK) < 0);
}

TEST(endpoint_comes_again_when_it_is_removed) {
    _cleanup_(place_freep) Place *p = place_new();
    _cleanup_free_ char *aside = xasprintf("%s/aside", tmpdir_path(p->dir));
    size_t n;
    Err err;

    ASSERT_OK(place_begin(p, true, &err));
    place_wait(p, true);
    n = count_fds();
    for (int i = 0; i < 3; i++) {
        ASSERT_OK(i == 2 ? rename(p->folder, aside) : unlink(p->path));
        if (i == 1)
            ASSERT_OK(rmdir(p->folder));
        place_wait(p, false);
        place_wait(p, true);
    }
    ASSERT_TRUE(count_fds() <= n);
}

/* A name space of users of its own, in which no inotify can be had. */
static void without_inotify(void) {
    FILE *limit;

    ASSERT_OK(unshare(CLONE_NEWUSER));
    limit = fopen("/proc/sys/user/max_inotify_instances", "we");
    ASSERT_TRUE(limit && fputs("0", limit) >= 0 && fclose(limit) == 0);
    ASSERT_TRUE(inotify_init1(IN_CLOEXEC) < 0);
}

static void look_without_inotify(void) {
    _cleanup_(place_freep) Place *p = place_new();
    Err err;

    without_inotify();
    ASSERT_OK(place_begin(p, true, &err));
    place_wait(p, true);
    ASSERT_OK(unlink(p->path));
    place_wait(p, false);
    place_wait(p, true);
}

TEST(endpoint_looks_by_itself_where_nothing_can_be_watched) {
    pid_t pid = fork();
    int status;

    ASSERT_OK(pid);
    if (pid == 0) {
        look_without_inotify();
        _exit(EXIT_SUCCESS);
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
}

TEST(endpoint_leaves_the_place_to_another) {
    _cleanup_(place_freep) Place *p = place_new();
    _cleanup_(unix_listener_freep) UnixListener *other = NULL;
    Err err;

    ASSERT_OK(mkdir(p->folder, 0755));
    ASSERT_OK(unix_listener_new(&other, p->path, 0600, &err));
    ASSERT_ERR(place_begin(p, false, &err), -EADDRINUSE);
    ASSERT_STRSTR(err.text, "the socket of the test");
    other = unix_listener_free(other);
    ASSERT_OK(place_begin(p, false, &err));
    ASSERT_OK(unlink(p->path));
    ASSERT_OK(unix_listener_new(&other, p->path, 0600, &err));
    for (uint64_t end = now_usec() + 2 * USEC_PER_SEC; now_usec() < end;)
        ASSERT_OK(sd_event_run(p->event, USEC_PER_SEC / 10));
    ASSERT_TRUE(!endpoint_is_there(p->endpoint));
    ASSERT_TRUE(unix_listener_is_there(other));
    other = unix_listener_free(other);
    place_wait(p, true);
}

/* Moved over ours from another folder: nothing is deleted or moved away in ours. */
TEST(endpoint_notices_what_is_moved_into_its_place) {
    _cleanup_(place_freep) Place *p = place_new();
    _cleanup_free_ char *elsewhere = xasprintf("%s/s", tmpdir_path(p->dir));
    _cleanup_(unix_listener_freep) UnixListener *other = NULL;
    Err err;

    ASSERT_OK(place_begin(p, true, &err));
    place_wait(p, true);
    ASSERT_OK(unix_listener_new(&other, elsewhere, 0600, &err));
    ASSERT_OK(rename(elsewhere, p->path));
    for (uint64_t end = now_usec() + USEC_PER_SEC / 2; now_usec() < end;)
        ASSERT_OK(sd_event_run(p->event, USEC_PER_SEC / 10));
    ASSERT_TRUE(!endpoint_is_there(p->endpoint));
    other = unix_listener_free(other);
    place_wait(p, true);
}

TEST(endpoint_comes_after_another) {
    _cleanup_(place_freep) Place *first = place_new(), *second = place_new();
    Err err;

    ASSERT_OK(place_begin(first, false, &err));
    ASSERT_OK(endpoint_new(&second->endpoint,
                           &(EndpointOptions){ .event = second->event,
                                               .server = second->server,
                                               .path = second->path,
                                               .what = "the second socket",
                                               .make_directory = true,
                                               .after = first->endpoint },
                           &err));
    ASSERT_TRUE(!endpoint_is_there(second->endpoint));
    ASSERT_OK(mkdir(first->folder, 0755));
    place_wait(first, true);
    ASSERT_TRUE(!endpoint_is_there(second->endpoint));
    place_wait(second, true);
}
