/* SPDX-License-Identifier: Apache-2.0 */
/* call: one call to the daemon, to its end, and what its status means for the exit code. */
#include "base/loop.h"
#include "ctl/ctl.h"
#include "proto/grpc_client.h"

#include <signal.h>

#define SILENCE_SECONDS 15

typedef struct Running {
    const Ctl *ctl;
    const CtlCall *call;
    sd_event *event;
    CtlExit exit;
} Running;

static CtlExit exit_of_code(GrpcCode code) {
    switch (code) {
    case GRPC_OK:
        return CTL_EXIT_DONE;
    case GRPC_INVALID_ARGUMENT:
        return CTL_EXIT_USAGE;
    case GRPC_NOT_FOUND:
        return CTL_EXIT_NOT_FOUND;
    case GRPC_PERMISSION_DENIED:
    case GRPC_UNAUTHENTICATED:
        return CTL_EXIT_NOT_ALLOWED;
    case GRPC_RESOURCE_EXHAUSTED:
        return CTL_EXIT_NO_SPACE;
    case GRPC_DATA_LOSS:
        return CTL_EXIT_BAD_CONTENT;
    default:
        return CTL_EXIT_FAILED;
    }
}

static void end(Running *r, CtlExit how) {
    r->exit = how;
    if (r->call->on_end)
        r->call->on_end(r->call->arg);
    (void)sd_event_exit(r->event, 0); /* fails only for a loop that has ended */
}

static void on_message(void *arg, const uint8_t *message, size_t n) {
    Running *r = arg;
    CtlExit how = r->call->on_message(r->call->arg, message, n);

    if (how != CTL_EXIT_DONE && r->exit == CTL_EXIT_DONE)
        end(r, how);
}

static void on_end(void *arg, GrpcCode code, const char *text) {
    Running *r = arg;

    if (r->exit != CTL_EXIT_DONE) /* ended by us, and it was said why */
        return;
    end(r, exit_of_code(code));
    if (code != GRPC_OK)
        fprintf(stderr, "cache-ctl: %s\n", isempty(text) ? status_name(code) : text);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *arg) {
    Running *r = arg;

    (void)source;
    (void)info;
    end(r, CTL_EXIT_INTERRUPTED);
    if (r->call->on_interrupt)
        fprintf(stderr, "cache-ctl: %s\n", r->call->on_interrupt);
    return 0;
}

static void on_silent(void *arg) {
    Running *r = arg;

    end(r, CTL_EXIT_UNREACHABLE);
    fprintf(
        stderr,
        "cache-ctl: modelcached at %s does not answer: nothing came for %d s; is it stopped, or "
        "the node overloaded?  Look at: systemctl status modelcached\n",
        r->ctl->socket, SILENCE_SECONDS);
}

static int watch_signals(sd_event *event, Running *r) {
    sigset_t set;

    (void)sigemptyset(&set); /* these three cannot fail with valid arguments */
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    return sd_event_add_signal(event, NULL, SIGINT, on_signal, r);
}

static CtlExit unreachable(const Ctl *ctl, int r, const Err *err) {
    fprintf(stderr, "cache-ctl: cannot reach modelcached at %s: %s; %s\n", ctl->socket,
            err_text(err, r),
            r == -EACCES ? "run it as root" : "is the daemon running, and is this its --socket?");
    return r == -EACCES ? CTL_EXIT_NOT_ALLOWED : CTL_EXIT_UNREACHABLE;
}

CtlExit ctl_call(const Ctl *ctl, const CtlCall *call) {
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(grpc_client_freep) GrpcClient *client = NULL;
    _cleanup_free_ char *path = xasprintf("/modelcached.control.Control/%s", call->method);
    size_t n = protobuf_c_message_get_packed_size(call->request);
    _cleanup_free_ uint8_t *packed = xnew_n(uint8_t, n);
    GrpcClientRequest request = { .path = path, .message = packed, .n = n };
    Running running = { .ctl = ctl, .call = call };
    GrpcClientHandlers handlers = { on_message, on_end, &running };
    Err err = { "" };
    int r;

    (void)protobuf_c_message_pack(call->request, packed); /* always `n` bytes */
    r = sd_event_new(&event);
    if (r < 0)
        return unreachable(ctl, r, NULL);
    running.event = event;
    r = watch_signals(event, &running);
    if (r >= 0)
        r = grpc_client_new(&client, event, ctl->socket, &err);
    if (r >= 0)
        r = grpc_client_watch(client, SILENCE_SECONDS * USEC_PER_SEC, on_silent, &running);
    if (r >= 0)
        r = grpc_client_call(client, NULL, &request, &handlers);
    if (r >= 0)
        r = sd_event_loop(event);
    if (r < 0)
        return unreachable(ctl, r, &err);
    return running.exit;
}

CtlExit ctl_not_understood(void) {
    fprintf(stderr, "cache-ctl: the daemon's answer is not understood; are cache-ctl and "
                    "modelcached of one version?\n");
    return CTL_EXIT_FAILED;
}
