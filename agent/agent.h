/* SPDX-License-Identifier: Apache-2.0 */
/* agent: the daemon: everything it is made of, in the order in which it starts and ends. */
#pragma once

#include "agent/config.h"
#include "base/loop.h"

typedef struct Agent Agent;

/* Opens the store, recovers volumes, serves the sockets.  Takes over `config`; `sources` (borrowed)
 * is read again on SIGHUP.  Errors: one sentence each, from the module that failed. */
int agent_new(Agent **ret, Config *config, const ConfigSources *sources, Err *err) _must_check_;
/* Runs until SIGTERM or SIGINT; all is ended when it returns. */
int agent_run(Agent *a, Err *err) _must_check_;
/* NULL is fine; returns NULL. */
Agent *agent_free(Agent *a);
DEFINE_CLEANUP(Agent, agent_free);
