/* SPDX-License-Identifier: Apache-2.0 */
/* unix_socket: stream sockets in the file system: listen without a race, connect without blocking.
 */
#include "proto/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

struct UnixListener {
    int fd;
    char *path; /* NULL until it is bound: what is at the path is ours from then on */
    dev_t dev;
    ino_t ino;
};

static int address_set(struct sockaddr_un *sa, const char *path, Err *err) {
    *sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (isempty(path))
        return err_set(err, -EINVAL, "the path of a socket is empty");
    if (strlen(path) >= sizeof(sa->sun_path))
        return err_set(err, -ENAMETOOLONG,
                       "the path of the socket %s has %zu bytes and a socket's path can have %zu; "
                       "choose a shorter one",
                       path, strlen(path), sizeof(sa->sun_path) - 1);
    memcpy(sa->sun_path, path, strlen(path));
    return 0;
}

static int socket_new(Err *err) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd < 0 ? err_errno(err, "make a socket") : fd;
}

/* Returns 0 when the path is free to bind. */
static int remove_stale(const struct sockaddr_un *sa, Err *err) {
    _cleanup_close_ int fd = -EBADF;
    struct stat st;

    if (lstat(sa->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : err_errno(err, "look for the socket %s", sa->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EADDRINUSE,
                       "%s exists and is not a socket; remove it or choose another path",
                       sa->sun_path);
    fd = socket_new(err);
    if (fd < 0)
        return fd;
    if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) >= 0 || errno == EAGAIN)
        return err_set(err, -EADDRINUSE,
                       "another process listens on %s; stop it or choose another path",
                       sa->sun_path);
    if (errno != ECONNREFUSED && errno != ENOENT)
        return err_errno(err, "see whether anybody listens on %s", sa->sun_path);
    if (unlink(sa->sun_path) < 0 && errno != ENOENT)
        return err_errno(err, "remove the old socket %s", sa->sun_path);
    return 0;
}

int unix_listener_new(UnixListener **ret, const char *path, mode_t mode, Err *err) {
    _cleanup_(unix_listener_freep) UnixListener *l = xnew(UnixListener);
    struct sockaddr_un sa;
    struct stat st;
    int r;

    l->fd = -EBADF;
    r = address_set(&sa, path, err);
    if (r < 0)
        return r;
    r = remove_stale(&sa, err);
    if (r < 0)
        return r;
    l->fd = socket_new(err);
    if (l->fd < 0)
        return l->fd;
    /* Linux makes the file with the mode of the unbound socket less the umask; chmod() then only
     * adds. */
    if (fchmod(l->fd, mode) < 0)
        return err_errno(err, "set the mode of the socket %s", path);
    if (bind(l->fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
        return err_errno(err, "make the socket %s", path);
    l->path = xstrdup(path);
    if (lstat(path, &st) < 0)
        return err_errno(err, "look at the socket %s", path);
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    if ((st.st_mode & 07777) != mode && chmod(path, mode) < 0)
        return err_errno(err, "set the mode of the socket %s", path);
    if (listen(l->fd, SOMAXCONN) < 0)
        return err_errno(err, "listen on %s", path);
    *ret = TAKE_PTR(l);
    return 0;
}

bool unix_listener_is_there(const UnixListener *l) {
    struct stat st;

    return lstat(l->path, &st) >= 0 && st.st_dev == l->dev && st.st_ino == l->ino;
}

UnixListener *unix_listener_free(UnixListener *l) {
    if (!l)
        return NULL;
    if (l->path && unix_listener_is_there(l))
        (void)unlink(
            l->path); /* A socket that stays behind refuses and is replaced at the next start. */
    free(l->path);
    l->fd = safe_close(l->fd);
    free(l);
    return NULL;
}

int unix_listener_fd(const UnixListener *l) {
    return l->fd;
}

int unix_connect(const char *path, Err *err) {
    _cleanup_close_ int fd = -EBADF;
    struct sockaddr_un sa;
    int r;

    r = address_set(&sa, path, err);
    if (r < 0)
        return r;
    fd = socket_new(err);
    if (fd < 0)
        return fd;
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
        if (errno == EAGAIN)
            return err_set(err, -ECONNREFUSED,
                           "connect to %s: too many connections wait there; try again later", path);
        return err_errno(err, "connect to %s", path);
    }
    return TAKE_FD(fd);
}
