/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_grpc_server: what a peer sends to a gRPC server, in pieces, until it hangs up. */
#include "proto/grpc_server.h"

#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECE = 16 << 10, TURNS = 64 };

static void handle_echo(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)arg;
    grpc_call_finish(call, request, n);
}

static void on_cancel(GrpcCall *call, void *arg) {
    (void)call;
    (*(size_t *)arg)--;
}

static void handle_keep(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n;
    (*(size_t *)arg)++;
    grpc_call_set_on_cancel(call, on_cancel, arg);
}

static void handle_count(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)arg;
    for (size_t i = 0; i < n; i++)
        (void)grpc_call_send(call, request, i);
    if (n % 2 > 0)
        grpc_call_finish(call, NULL, 0);
    else
        grpc_call_fail(call, GRPC_ABORTED, "even");
}

static void run(sd_event *event) {
    for (int i = 0; i < TURNS && sd_event_run(event, 0) > 0; i++)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t n_kept = 0;
    const GrpcMethod methods[] = {
        { "/t/Echo", false, handle_echo, NULL },
        { "/t/Keep", false, handle_keep, &n_kept },
        { "/t/Count", true, handle_count, NULL },
        { NULL, false, NULL, NULL },
    };
    sd_event *event = NULL;
    GrpcServer *server = NULL;
    int fds[2];

    if (sd_event_new(&event) < 0 ||
        grpc_server_new(&server,
                        &(GrpcServerOptions){ .event = event, .name = "fuzz", .methods = methods },
                        NULL) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0 ||
        grpc_server_adopt(server, fds[0], NULL) < 0)
        abort();
    while (size > 0) {
        ssize_t n = send(fds[1], data, MIN(size, (size_t)PIECE), MSG_NOSIGNAL);

        if (n <= 0)
            break; /* closed, or it reads no more */
        data += n;
        size -= (size_t)n;
        run(event);
    }
    (void)shutdown(fds[1], SHUT_WR);
    run(event);
    close(fds[1]);
    run(event);
    server = grpc_server_free(server);
    if (n_kept != 0)
        abort(); /* a call was lost without on_cancel */
    sd_event_unref(event);
    return 0;
}
