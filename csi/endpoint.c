/* SPDX-License-Identifier: Apache-2.0 */
/* endpoint: a socket of ours in a folder of the kubelet's, which stays. */
#include "csi/endpoint.h"

#include "base/fs.h"
#include "base/log.h"

#include <sys/inotify.h>

/* Between two tries.  It also keeps two who want one place from fighting for it at full speed. */
#define ENDPOINT_AGAIN_USEC USEC_PER_SEC

struct Endpoint {
    EndpointOptions options; /* its event: a reference */
    char *path, *directory;
    sd_event_source *watch; /* of the directory */
    sd_event_source *again; /* the next try; the next look where nothing can be watched */
    bool there;
    Err said; /* why it is not there */
};

static int on_change(sd_event_source *source, const struct inotify_event *event, void *userdata);
static int on_again(sd_event_source *source, uint64_t usec, void *userdata);

static void endpoint_arm(Endpoint *e) {
    int r = loop_timer_after(e->options.event, &e->again, ENDPOINT_AGAIN_USEC, on_again, e);

    if (r < 0)
        log_error("%s stays away until modelcached is restarted: %s", e->options.what,
                  strerror(-r));
}

/* A node's limit of inotify instances (128 a user) is soon reached: then there is no watch. */
static int endpoint_watch(Endpoint *e, Err *err) {
    int r = sd_event_add_inotify(e->options.event, &e->watch, e->directory,
                                 IN_ONLYDIR | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                     IN_DELETE_SELF | IN_MOVE_SELF,
                                 on_change, e);

    if (r == -EMFILE || r == -ENOSPC) {
        log_debug("cannot watch %s (%s): looking every second", e->directory, strerror(-r));
        return 0;
    }
    return r < 0 ? err_errnum(err, r, "cannot watch the directory %s", e->directory) : 0;
}

/* The directory is watched first: nothing that happens to the socket is missed. */
static int endpoint_try(Endpoint *e, Err *err) {
    const EndpointOptions *o = &e->options;
    int r = 0;

    if (o->after && !endpoint_is_there(o->after))
        return err_set(err, -ENOENT, "%s comes first", o->after->options.what);
    if (o->make_directory)
        r = fs_mkdir_for(e->path, 0750, err);
    if (r >= 0)
        r = endpoint_watch(e, err);
    if (r >= 0)
        r = grpc_server_listen(o->server, e->path, 0600, err);
    if (r < 0) {
        e->watch = sd_event_source_disable_unref(e->watch);
        return r;
    }
    e->there = true;
    if (!e->watch)
        endpoint_arm(e);
    return 0;
}

/* Says once what it waits for. */
static void endpoint_wait(Endpoint *e, const Err *why) {
    if (!streq(why->text, e->said.text))
        log_warn("%s is not there yet: %s; trying again every second", e->options.what, why->text);
    e->said = *why;
    endpoint_arm(e);
}

static void endpoint_look(Endpoint *e) {
    if (grpc_server_is_reachable(e->options.server))
        return;
    log_warn("%s was removed by somebody: %s; making it again", e->options.what, e->path);
    e->there = false;
    e->watch = sd_event_source_disable_unref(e->watch);
    grpc_server_unlisten(e->options.server);
    endpoint_arm(e);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata) {
    Endpoint *e = userdata;
    Err err = { "" };

    (void)source, (void)usec;
    if (e->there) {
        endpoint_arm(e);
        endpoint_look(e);
        return 0;
    }
    if (endpoint_try(e, &err) < 0) {
        endpoint_wait(e, &err);
        return 0;
    }
    e->said = (Err){ "" };
    log_info("%s is there: %s", e->options.what, e->path);
    return 0;
}

static int on_change(sd_event_source *source, const struct inotify_event *event, void *userdata) {
    (void)source, (void)event;
    endpoint_look(userdata);
    return 0;
}

int endpoint_new(Endpoint **ret, const EndpointOptions *options, Err *err) {
    _cleanup_(endpoint_freep) Endpoint *e = xnew(Endpoint);
    int r;

    e->options = *options;
    e->options.event = sd_event_ref(options->event);
    e->path = xstrdup(options->path);
    e->directory = xstrndup(e->path, (size_t)MAX(strrchr(e->path, '/') - e->path, 1)); /* "/" */
    /* Made now, because it needs a descriptor itself. */
    r = loop_timer_after(options->event, &e->again, UINT64_MAX, on_again, e);
    if (r < 0)
        return err_errnum(err, r, "make a timer for %s", options->what);
    r = endpoint_try(e, err);
    if (r == -ENOENT)
        endpoint_wait(e, err);
    else if (r < 0)
        return err_prefix(err, r, "%s", options->what);
    *ret = TAKE_PTR(e);
    return 0;
}

Endpoint *endpoint_free(Endpoint *e) {
    if (!e)
        return NULL;
    e->watch = sd_event_source_disable_unref(e->watch);
    e->again = sd_event_source_disable_unref(e->again);
    e->options.event = sd_event_unref(e->options.event);
    free(e->path);
    free(e->directory);
    free(e);
    return NULL;
}

bool endpoint_is_there(const Endpoint *e) {
    return e->there;
}
