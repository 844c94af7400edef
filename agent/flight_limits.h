/* SPDX-License-Identifier: Apache-2.0 */
/* flight_limits: what each pull that runs may use: connections, bandwidth, memory. */
#pragma once

#include "agent/flight.h"

/* Divides what the options give among all that run, oldest first, and tells them.  `workers`
 * are those of the context that they share. */
void flight_limits_set(Flight *const running[], size_t n, const PullOptions *o,
                       const FlightWorkers *workers);
