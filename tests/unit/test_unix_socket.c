/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of proto/unix_socket.h: what is replaced, what is not, modes, long paths. */
#include "proto/unix_socket.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

TEST(unix_listener_gives_the_exact_mode_whatever_the_umask) {
    static const mode_t modes[] = { 0600, 0660, 0666 };
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "s");

    for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
        mode_t old = umask(0077);
        _cleanup_(unix_listener_freep) UnixListener *l = NULL;
        struct stat st;
        int r = unix_listener_new(&l, path, modes[i], NULL);

        (void)umask(old);
        ASSERT_OK(r);
        ASSERT_OK(lstat(path, &st));
        ASSERT_EQ(st.st_mode & 07777, modes[i]);
    }
    ASSERT_EQ(tmpdir_count(dir), 0);
}

TEST(unix_listener_replaces_a_stale_socket_only) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "s");
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    UnixListener *l = NULL, *second = NULL;
    Err err = { "" };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    ASSERT_OK(bind(fd, (struct sockaddr *)&sa, sizeof(sa)));
    safe_close(fd); /* stays in the file system and refuses */
    ASSERT_OK(unix_listener_new(&l, path, 0600, &err));
    ASSERT_ERR(unix_listener_new(&second, path, 0600, &err), -EADDRINUSE);
    ASSERT_STRSTR(err.text, "another process listens on");
    fd = unix_connect(path, &err); /* the first one still answers */
    ASSERT_OK(fd);
    safe_close(fd);
    unix_listener_free(l);

    fd = openat(tmpdir_fd(dir), "s", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_OK(fd);
    safe_close(fd);
    ASSERT_ERR(unix_listener_new(&second, path, 0600, &err), -EADDRINUSE);
    ASSERT_STRSTR(err.text, "not a socket");
    ASSERT_EQ(tmpdir_count(dir), 1);
}

TEST(unix_listener_free_leaves_the_socket_of_a_successor) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "s");
    UnixListener *l = NULL, *successor = NULL;

    ASSERT_OK(unix_listener_new(&l, path, 0600, NULL));
    ASSERT_OK(unlink(path));
    ASSERT_OK(unix_listener_new(&successor, path, 0600, NULL));
    unix_listener_free(l);
    ASSERT_EQ(tmpdir_count(dir), 1);
    unix_listener_free(successor);
    ASSERT_EQ(tmpdir_count(dir), 0);
    ASSERT_TRUE(!unix_listener_free(NULL));
}

TEST(unix_socket_paths_have_a_limit) {
    char path[110];
    UnixListener *l = NULL;
    Err err = { "" };

    memset(path, 'x', sizeof(path));
    memcpy(path, "/tmp/", 5);
    path[108] = '\0';
    ASSERT_ERR(unix_listener_new(&l, path, 0600, &err), -ENAMETOOLONG);
    ASSERT_STRSTR(err.text, "has 108 bytes and a socket's path can have 107");
    ASSERT_ERR(unix_connect(path, &err), -ENAMETOOLONG);
    ASSERT_ERR(unix_listener_new(&l, "", 0600, &err), -EINVAL);
    path[107] = '\0';
    ASSERT_OK(unix_listener_new(&l, path, 0600, &err));
    unix_listener_free(l);
    ASSERT_ERR(unix_listener_new(&l, "/nonexistent/s", 0600, &err), -ENOENT);
}

TEST(unix_connect_says_why_not) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "s");
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fds[2], listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    Err err = { "" };

    ASSERT_ERR(unix_connect(path, &err), -ENOENT);
    ASSERT_STRSTR(err.text, path);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    ASSERT_OK(bind(listening, (struct sockaddr *)&sa, sizeof(sa)));
    ASSERT_ERR(unix_connect(path, &err), -ECONNREFUSED);
    ASSERT_OK(listen(listening, 0));
    fds[0] = unix_connect(path, &err);
    ASSERT_OK(fds[0]);
    fds[1] = unix_connect(path, &err);
    ASSERT_ERR(fds[1], -ECONNREFUSED); /* the queue of one is full, and we do not block */
    ASSERT_STRSTR(err.text, "try again");
    safe_close(fds[0]);
    safe_close(listening);
}
