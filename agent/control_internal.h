/* SPDX-License-Identifier: Apache-2.0 */
/* control_internal: what the handlers of the control API share: calls, works in the pool, answers.
 */
#pragma once

#include "agent/control.h"
#include "proto/control.pb-c.h"
#include "proto/grpc_server.h"

/* A message on the heap, initialised; protobuf_c_message_free_unpacked(&m->base, NULL) frees it
 * with all in it, so every string in it is malloc()ed. */
#define CONTROL_NEW(Name, name)                                                       \
    ({                                                                                \
        Modelcached__Control__##Name *_message_ = xnew(Modelcached__Control__##Name); \
        modelcached__control__##name##__init(_message_);                              \
        _message_;                                                                    \
    })

/* A method's handler: it owns `request` (free with message_free()) and ends the call, now or later.
 */
typedef void (*ControlHandler)(Control *c, GrpcCall *call, ProtobufCMessage *request);

typedef struct ControlMethod {
    Control *control;
    const ProtobufCMessageDescriptor *request;
    ControlHandler handle;
} ControlMethod;

struct Control {
    ControlOptions o;
    GrpcServer *server;
    GrpcMethod *methods; /* with an end mark */
    ControlMethod *contexts;
    int64_t started_usec;
};

void message_free(ProtobufCMessage *m);
/* Unary: answers with `m` or, when it is too big, fails.  Ends the call. */
void control_answer(GrpcCall *call, const ProtobufCMessage *m);
/* Streaming: one message; returns what is queued. */
size_t control_send(GrpcCall *call, const ProtobufCMessage *m);
void control_fail(GrpcCall *call, int r, const Err *err);

/* A unary call whose answer is made by a thread of the pool. */
typedef struct ControlWork {
    Control *control; /* only on the loop while `call` is set */
    Store *store;
    GrpcCall *call;                              /* NULL: cancelled meanwhile */
    ProtobufCMessage *request, *answer;          /* owned */
    int (*run)(struct ControlWork *w, Err *err); /* in the pool: makes `answer` */
    void (*finish)(struct ControlWork *w); /* on the loop, before the answer goes; may be NULL */
} ControlWork;
void control_work_start(Control *c, GrpcCall *call, ProtobufCMessage *request,
                        int (*run)(ControlWork *w, Err *err), void (*finish)(ControlWork *w));

/* A platform as it is asked for, in the form the index has; "" stays "".  -EINVAL. */
int control_platform(char ret[static PLATFORM_TEXT_MAX], const char *text, Err *err) _must_check_;
/* What people name an artifact by: a reference, "sha256:…", or the unique beginning of a digest (6
 * hex digits at least) of a manifest or a subset.  A manifest of which only one subset is stored
 * stands for that; with several, 1 is returned, and the manifest's digest, which inspecting does
 * not know.  `platform`, as control_platform() gives it, chooses where a reference
 * stands for several; "": the node's, or else whichever is stored.
 * `*ret_reference` is the key in the index, or NULL when it was a digest; the caller frees it.
 * Blocks. Errors: -ENOENT; -EINVAL not unique, malformed. */
int control_find(Store *s, const char *text, const char *platform, Digest *ret,
                 char **ret_reference, Err *err) _must_check_;
/* -EINVAL, when control_find() gave 1 and one artifact is needed. */
int control_several(const char *text, Err *err) _must_check_;
Modelcached__Control__Artifact *control_artifact(const ArtifactInfo *a) _must_check_;
/* Volumes that show the artifact, or a subset of it (NULL: all).  Blocks. */
int control_volumes(Store *s, const Digest *manifest, Modelcached__Control__VolumeDetail ***ret,
                    size_t *ret_n, Err *err) _must_check_;
/* What a pull is at. */
Modelcached__Control__PullProgress *control_progress(const Flight *pull) _must_check_;

void control_pull(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_list(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_inspect(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_remove(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_prune(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_mount(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_unmount(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_verify(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_status(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_events(Control *c, GrpcCall *call, ProtobufCMessage *request);
void control_health(Control *c, GrpcCall *call, ProtobufCMessage *request);
