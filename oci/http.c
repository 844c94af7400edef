/* SPDX-License-Identifier: Apache-2.0 */
/* http: libcurl's multi interface on the event loop: one request, one answer; no redirects, no
 * retries, no authentication. */
#include "oci/http_internal.h"

#include <netdb.h>

#define CONNECTIONS_DEFAULT   8
#define CONNECTIONS_SPARE     2 /* for manifests and tokens while blobs use up the others */
#define STALL_SECONDS_DEFAULT 30

static void http_run(Http *h);

/* All calls of libcurl that may call us back are between these. */
static void enter(Http *h) {
    h->in_curl++;
}
static void leave(Http *h) {
    h->in_curl--;
}

static void schedule_work(Http *h) {
    (void)sd_event_source_set_enabled(h->work,
                                      SD_EVENT_ONESHOT); /* cannot fail: the source is ours */
}

static int on_io(_unused_ sd_event_source *s, int fd, uint32_t revents, void *arg) {
    Http *h = arg;
    /* An error is read, too: recv(2) says which; for CURL_CSELECT_ERR alone libcurl (7.88) has only
     * "select/poll returned error". */
    int mask = (revents & (EPOLLIN | EPOLLHUP | EPOLLERR) ? CURL_CSELECT_IN : 0) |
               (revents & EPOLLOUT ? CURL_CSELECT_OUT : 0);
    int running = 0;

    enter(h);
    (void)curl_multi_socket_action(h->multi, fd, mask,
                                   &running); /* what failed is told by the transfers */
    leave(h);
    http_run(h);
    return 0;
}

static int on_timer(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *arg) {
    Http *h = arg;
    int running = 0;

    enter(h);
    (void)curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running); /* as above */
    leave(h);
    http_run(h);
    return 0;
}

static int on_work(_unused_ sd_event_source *s, void *arg) {
    http_run(arg);
    return 0;
}

static int socket_callback(_unused_ CURL *easy, curl_socket_t fd, int what, void *arg,
                           void *socket_arg) {
    sd_event_source *source = socket_arg;
    Http *h = arg;
    uint32_t events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) |
                      (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);

    if (what == CURL_POLL_REMOVE) {
        sd_event_source_disable_unref(source);
        (void)curl_multi_assign(h->multi, fd, NULL);
        return 0;
    }
    if (source)
        return sd_event_source_set_io_events(source, events) < 0 ? -1 : 0;
    if (sd_event_add_io(h->event, &source, fd, events, on_io, h) < 0)
        return -1;
    (void)curl_multi_assign(h->multi, fd, source);
    return 0;
}

static int timer_callback(_unused_ CURLM *multi, long timeout_msec, void *arg) {
    Http *h = arg;

    if (timeout_msec < 0) {
        if (h->timer)
            (void)sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
        return 0;
    }
    return loop_timer_after(h->event, &h->timer, (uint64_t)timeout_msec * USEC_PER_MSEC, on_timer,
                            h) < 0
               ? -1
               : 0;
}

/* Makes libc read its resolver configuration and load its modules while files can still be opened.
 */
static void warm_resolver(void) {
    struct addrinfo *list = NULL;

    if (getaddrinfo("localhost", NULL, NULL, &list) == 0)
        freeaddrinfo(list);
}

static bool environment_has_proxy(void) {
    static const char *const names[] = { "https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy",
                                         "ALL_PROXY" };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        if (!isempty(getenv(names[i])))
            return true;
    return false;
}

static int setup_multi(Http *h, unsigned max_connections, Err *err) {
    long max = (long)(max_connections ? max_connections : CONNECTIONS_DEFAULT) + CONNECTIONS_SPARE;

    h->multi = curl_multi_init();
    if (!h->multi ||
        curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, socket_callback) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, timer_callback) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, max) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, max) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING) != CURLM_OK)
        return err_set(err, -EIO, "libcurl could not be set up");
    return 0;
}

int http_load(Err *err) {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(err, -EIO, "libcurl could not be set up");
    warm_resolver();
    return 0;
}

int http_new(Http **ret, const HttpOptions *options, Err *err) {
    _cleanup_(http_freep) Http *h = NULL;
    int r = http_load(err);

    if (r < 0) {
        (void)trust_free(options->trust);
        return r;
    }
    h = xnew(Http);
    h->event = sd_event_ref(options->event);
    h->trust = options->trust;
    h->user_agent = xstrdup(options->user_agent ? options->user_agent : "modelcached");
    h->stall_seconds = options->stall_seconds ? options->stall_seconds : STALL_SECONDS_DEFAULT;
    h->has_proxy = environment_has_proxy();
    r = sd_event_add_defer(h->event, &h->work, on_work, h);
    if (r >= 0)
        r = sd_event_source_set_enabled(h->work, SD_EVENT_OFF);
    if (r < 0)
        return err_errnum(err, r, "event loop");
    r = setup_multi(h, options->max_connections, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(h);
    return 0;
}

static void unlink_transfer(HttpTransfer *t) {
    if (t->prev)
        t->prev->next = t->next;
    else
        t->http->transfers = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->next = t->prev = NULL;
}

/* Takes it away from libcurl, which must not be running. */
static void withdraw(HttpTransfer *t) {
    Http *h = t->http;

    if (t->added) {
        enter(h);
        (void)curl_multi_remove_handle(
            h->multi, t->easy); /* cannot fail: it was added, and libcurl is not running */
        leave(h);
        t->added = false;
    }
}

static void drop(HttpTransfer *t) {
    withdraw(t);
    unlink_transfer(t);
    transfer_destroy(t);
}

Http *http_free(Http *h) {
    if (!h)
        return NULL;
    for (HttpTransfer *t = h->transfers; t; t = t->next)
        t->dead = true;
    h->dying = true;
    if (h->in_curl > 0 || h->in_run > 0) { /* the end of http_run() comes back here */
        schedule_work(h);
        return NULL;
    }
    while (h->transfers)
        drop(h->transfers);
    if (h->multi) {
        enter(h);
        (void)curl_multi_cleanup(h->multi);
        leave(h);
    }
    sd_event_source_disable_unref(h->timer);
    sd_event_source_disable_unref(h->work);
    sd_event_unref(h->event);
    (void)trust_free(h->trust);
    free(h->user_agent);
    free(h);
    curl_global_cleanup();
    return NULL;
}

int http_start(Http *h, HttpTransfer **ret, const HttpRequest *request, Err *err) {
    HttpTransfer *t = xnew(HttpTransfer);
    int r;

    t->http = h;
    t->handlers = request->handlers;
    t->may_reach = h->has_proxy ? ADDRESS_SPECIAL : request->may_reach;
    r = transfer_setup(t, request, err);
    if (r < 0) {
        transfer_destroy(t);
        return r;
    }
    t->next = h->transfers;
    if (t->next)
        t->next->prev = t;
    h->transfers = t;
    schedule_work(h);
    *ret = t;
    return 0;
}

void http_resume(HttpTransfer *t) {
    t->wants_resume = true; /* before the pause: http_run() sees it right after */
    if (t->paused)
        schedule_work(t->http);
}

HttpTransfer *http_transfer_free(HttpTransfer *t) {
    if (!t || t->finishing)
        return NULL;
    t->dead = true;
    if (t->http->in_curl > 0 || t->http->in_run > 0)
        schedule_work(t->http);
    else
        drop(t);
    return NULL;
}

static void fail(HttpTransfer *t, CURLcode code) {
    t->finished = true;
    t->code = code;
}

/* One of the things that had to wait.  Returns whether there was one: the list may be another one
 * then. */
static bool do_one(Http *h) {
    for (HttpTransfer *t = h->transfers; t; t = t->next) {
        if (t->dead) {
            drop(t);
            return true;
        }
        if (t->finished || (t->added && !(t->paused && t->wants_resume)))
            continue;
        enter(h);
        if (!t->added) {
            t->added = curl_multi_add_handle(h->multi, t->easy) == CURLM_OK;
            if (!t->added)
                fail(t, CURLE_FAILED_INIT);
        } else {
            CURLcode code;
            t->paused = t->wants_resume = false;
            code = curl_easy_pause(t->easy, CURLPAUSE_CONT);
            if (code != CURLE_OK)
                fail(t, code);
        }
        leave(h);
        return true;
    }
    return false;
}

static void collect_finished(Http *h) {
    const CURLMsg *message;
    int left = 0;

    while ((message = curl_multi_info_read(h->multi, &left))) {
        HttpTransfer *t = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        if (!t->finished)
            fail(t, message->data.result);
    }
}

/* Tells one owner that its transfer has ended.  Returns whether there was one. */
static bool finish_one(Http *h) {
    for (HttpTransfer *t = h->transfers; t; t = t->next) {
        Err err = { 0 };
        int r;
        if (!t->finished || t->dead)
            continue;
        r = transfer_result(t, &err);
        withdraw(t);
        unlink_transfer(t);
        t->finishing = true;
        t->handlers.on_done(t->handlers.arg, t, r, &err);
        transfer_destroy(t);
        return true;
    }
    return false;
}

/* All that follows a run of libcurl; the only place that calls on_done. */
static void http_run(Http *h) {
    if (h->in_curl > 0 || h->in_run > 0)
        return;
    h->in_run++;
    while (!h->dying) {
        collect_finished(h);
        if (!do_one(h) && !finish_one(h))
            break;
    }
    h->in_run--;
    if (h->dying)
        (void)http_free(h);
}
