/* SPDX-License-Identifier: Apache-2.0 */
/* ctl: what every command of cache-ctl shares: settings, exit codes, one call to the daemon. */
#pragma once

#include "base/err.h"
#include "proto/control.pb-c.h"

#include <getopt.h>

/* The exit codes that scripts build on; cache-ctl(1) lists them. */
typedef enum CtlExit {
    CTL_EXIT_DONE = 0,
    CTL_EXIT_FAILED = 1,
    CTL_EXIT_USAGE = 2,
    CTL_EXIT_UNREACHABLE = 3,
    CTL_EXIT_NOT_FOUND = 4,
    CTL_EXIT_NOT_ALLOWED = 5,
    CTL_EXIT_NO_SPACE = 6,
    CTL_EXIT_BAD_CONTENT = 7,
    CTL_EXIT_INTERRUPTED = 130,
} CtlExit;

#define CTL_SOCKET_DEFAULT "/run/modelcached/control.sock"

typedef struct Ctl {
    const char *socket; /* path of the control socket */
    bool json;          /* --output json */
    bool terminal;      /* standard output is a terminal: bars and colours are welcome */
} Ctl;

typedef struct CtlCommand {
    const char *name;
    const char *arguments;        /* "REFERENCE"; shown after the name */
    const char *summary;          /* one line */
    const char *help;             /* what it does and an example, for `cache-ctl NAME --help` */
    const struct option *options; /* of this command only, ends with an empty one; val counts from
                                     1000; may be NULL */
    int n_arguments_min, n_arguments_max;
    /* Takes one option; `arg` is shared by option() and run().  Returns 0 or a CtlExit after it
     * said why. */
    int (*option)(void *arg, int val, const char *value);
    CtlExit (*run)(const Ctl *ctl, void *arg, char **arguments, int n);
    void *arg;
} CtlCommand;

/* One file a command; main.c has the table. */
extern const CtlCommand ctl_pull, ctl_ls, ctl_inspect, ctl_rm, ctl_prune, ctl_mount, ctl_umount,
    ctl_verify, ctl_status, ctl_events, ctl_health;

typedef struct CtlCall {
    const char *method;              /* "Pull" of modelcached.control.Control */
    const ProtobufCMessage *request; /* borrowed */
    /* Each message of the answer; returns 0 or the CtlExit to end with. */
    CtlExit (*on_message)(void *arg, const uint8_t *message, size_t n);
    void (*on_end)(
        void *arg); /* before an error is printed: a progress bar ends its line here; may be NULL */
    const char *on_interrupt; /* a sentence for Ctrl-C: what goes on without us; may be NULL */
    void *arg;
} CtlCall;

/* Does the call to its end; an error was printed on standard error when this returns another than
 * CTL_EXIT_DONE. */
CtlExit ctl_call(const Ctl *ctl, const CtlCall *call);

/* Unpacks a message of the daemon or says that it is not understood; `Type` as protobuf-c writes
 * it, in lower case. */
#define CTL_UNPACK(type, message, n) modelcached__control__##type##__unpack(NULL, (n), (message))
CtlExit ctl_not_understood(void);
