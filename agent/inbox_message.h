/* SPDX-License-Identifier: Apache-2.0 */
/* inbox_message: single messages of a worker: parsed with a cap on memory, checked, copied into our
 * own types. */
#pragma once

#include "agent/inbox.h"
#include "proto/worker.pb-c.h"

/* Parsing may take this much more than the message has bytes, before it counts as an attack on our
 * memory. */
int inbox_unpack(const uint8_t *data, size_t n, Modelcached__Worker__FromWorker **ret, Err *err)
    _must_check_;
void inbox_release(Modelcached__Worker__FromWorker *m);

/* All: -EPROTO with a sentence. */
int inbox_take_hello(const Modelcached__Worker__Hello *m, FeatureList *ret, Err *err) _must_check_;
int inbox_take_resolved(const Modelcached__Worker__Resolved *m, Manifest **ret,
                        IndexChain **ret_index, Err *err) _must_check_;
/* Adds the length of its strings to `*bytes`. */
int inbox_take_entry(const Modelcached__Worker__Entry *m, LayerEntry *ret, uint64_t *bytes,
                     Err *err) _must_check_;
