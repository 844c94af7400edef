/* SPDX-License-Identifier: Apache-2.0 */
/* grant: who a registry let pull from which repository, for the modules of the store; store.h has
 * the rest. */
#pragma once

#include "cache/store_internal.h"

/* At the start: reads the key that fingerprints are hashed with, or makes one. */
int grant_open(Store *s, Err *err) _must_check_;
/* Within a transaction that removed manifests: drops what is about repositories that have nothing
 * here any more. */
int grant_sweep(Index *ix, Err *err) _must_check_;
