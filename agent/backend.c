/* SPDX-License-Identifier: Apache-2.0 */
/* backend: csi/backend.h on the puller and the history. */
#include "agent/backend.h"

static int ensure(void *arg, EnsureTicket **ret, const EnsureRequest *request, EnsureDone done,
                  void *done_arg, Err *err) {
    BackendParts *parts = arg;

    return puller_ensure(parts->puller, ret, request, done, done_arg, err);
}

static void add_event(void *arg, const StoreEvent *event) {
    BackendParts *parts = arg;

    event_log_add(parts->events, event);
}

static void published(void *arg, uint64_t usec, bool pulled) {
    BackendParts *parts = arg;

    metrics_observe(parts->metrics, METRIC_PUBLISH_DURATION,
                    METRIC_LABEL(pulled ? METRIC_FROM_PULL : METRIC_FROM_STORE), usec);
}

void backend_init(Backend *b, BackendParts *parts) {
    b->arg = parts;
    b->ensure = ensure;
    b->ticket_free = puller_ticket_free;
    b->ticket_progress = puller_ticket_text;
    b->ticket_pull = puller_ticket_pull_id;
    b->event = add_event;
    b->published = published;
}
