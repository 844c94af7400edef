/* SPDX-License-Identifier: Apache-2.0 */
/* backend: the pull policies by name. */
#include "csi/backend.h"

int pull_policy_parse(PullPolicy *ret, const char *text, Err *err) {
    static const struct {
        const char *name;
        PullPolicy policy;
    } policies[] = {
        { "Always", PULL_POLICY_ALWAYS },
        { "IfNotPresent", PULL_POLICY_IF_NOT_PRESENT },
        { "Never", PULL_POLICY_NEVER },
    };

    if (isempty(text)) {
        *ret = PULL_POLICY_DEFAULT;
        return 0;
    }
    for (size_t i = 0; i < ELEMENTSOF(policies); i++)
        if (streq(text, policies[i].name)) {
            *ret = policies[i].policy;
            return 0;
        }
    return err_set(err, -EINVAL,
                   "pullPolicy \"%.64s\" is not known; it is one of Always, IfNotPresent, Never",
                   text);
}
