/* SPDX-License-Identifier: Apache-2.0 */
/* test_divide: who gets how many transfers. */
#include "agent/divide.h"

#include "tests/unit/test.h"

#define CLAIMS_MAX 6

static const struct {
    const char *name;
    unsigned node_max;
    const char *claims; /* a letter each: a registry, in capitals when somebody waits */
    unsigned a_max;     /* of registry a */
    const char *want;   /* a digit each */
    const char *full;   /* of those without any: 'r' the registry, 'n' the node */
    const char *has;    /* by now, a digit each; "": nothing */
} cases[] = {
    { "nobody", 8, "", 0, "", "", "" },
    { "one", 8, "A", 0, "8", "-", "" },
    { "a rest is for the oldest", 8, "AAB", 0, "332", "---", "" },
    { "one for each in the background", 8, "aAbB", 0, "1313", "----", "" },
    { "all are in the background", 8, "aab", 0, "332", "---", "" },
    { "fewer than pulls: the oldest", 2, "AAAA", 0, "1100", "--nn", "" },
    { "the wanted ones before", 2, "aAaA", 0, "0101", "n-n-", "" },
    { "fewer of a registry than pulls", 8, "AAAA", 1, "1000", "-rrr", "" },
    { "the wanted one of a registry before", 8, "aA", 1, "01", "r-", "" },
    { "what a registry cannot have is for others", 8, "AAAB", 2, "1106", "--r-", "" },
    { "and for its background", 8, "aAaB", 3, "1115", "----", "" },
    { "both limits", 1, "BAA", 1, "100", "-nn", "" },
    { "a registry's limit and the node's", 2, "AABB", 1, "1010", "-r-n", "" },
    { "who has one keeps it", 1, "AAA", 0, "010", "n-n", "010" },
    { "not one that nobody waits for", 1, "aA", 0, "01", "n-", "10" },
    { "one is enough to keep", 2, "AAA", 0, "110", "--n", "020" },
    { "a rest, too", 8, "AAB", 0, "233", "---", "044" },
};

TEST(limits_hold_whatever_the_number_of_pulls) {
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        DivideClaim claims[CLAIMS_MAX + 1] = { 0 };
        char got[CLAIMS_MAX + 1] = "", full[CLAIMS_MAX + 1] = "";
        size_t n = strlen(cases[i].claims);

        for (size_t k = 0; k < n; k++) {
            bool is_a = (cases[i].claims[k] | 0x20) == 'a';
            claims[k] =
                (DivideClaim){ .registry = is_a ? "a.example" : "b.example",
                               .registry_max = is_a ? cases[i].a_max : 0,
                               .wanted = cases[i].claims[k] < 'a',
                               .has_some = k < strlen(cases[i].has) && cases[i].has[k] > '0' };
        }
        divide_among(cases[i].node_max, claims, n);
        for (size_t k = 0; k < n; k++) {
            got[k] = (char)('0' + claims[k].given);
            full[k] = claims[k].given > 0 ? '-' : claims[k].registry_is_full ? 'r' : 'n';
        }
        if (!streq(got, cases[i].want) || !streq(full, cases[i].full))
            test_fail(__FILE__, __LINE__, "%s: %s %s instead of %s %s", cases[i].name, got, full,
                      cases[i].want, cases[i].full);
    }
}
