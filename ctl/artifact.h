/* SPDX-License-Identifier: Apache-2.0 */
/* artifact: what several commands share: messages as JSON, the option --platform. */
#pragma once

#include "base/json.h"
#include "proto/control.pb-c.h"

#include <getopt.h>

json_t *artifact_json(const Modelcached__Control__Artifact *a);
/* "queued", "resolving", …: constant. */
const char *pull_state_name(Modelcached__Control__PullState state);
json_t *volumes_json(Modelcached__Control__VolumeDetail *const *volumes, size_t n);
/* A table of volumes on standard output; nothing when there is none. */
void volumes_table(Modelcached__Control__VolumeDetail *const *volumes, size_t n);

/* The option --platform of commands that have no other; their `arg` is a const char *. */
extern const struct option platform_options[];
int platform_option(void *arg, int val, const char *value);
