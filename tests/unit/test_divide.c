/* SPDX-License-Identifier: Apache-2.0 */
/* test_divide: who gets how many transfers, and buffers. */
#include "agent/divide.h"

#include "tests/unit/test.h"

#define CLAIMS_MAX 6
#define IDLE       1024 /* it is not over, but waits */

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
        divide_among(&(DivideNode){ .connections = cases[i].node_max,
                                    .pulls = CLAIMS_MAX,
                                    .first = MiB(1),
                                    .memory = GiB(1) },
                     claims, n);
        for (size_t k = 0; k < n; k++) {
            got[k] = (char)('0' + claims[k].given);
            full[k] = "-nrm"[claims[k].lack];
        }
        if (!streq(got, cases[i].want) || !streq(full, cases[i].full))
            test_fail(__FILE__, __LINE__, "%s: %s %s instead of %s %s", cases[i].name, got, full,
                      cases[i].want, cases[i].full);
    }
}

static const struct {
    const char *name;
    unsigned total, over, pulls; /* MiB, also of another pull, which is over; pulls that may run */
    const char *claims; /* in capitals when somebody waits; of x, a registry with one connection */
    unsigned has[CLAIMS_MAX], want[CLAIMS_MAX]; /* MiB */
    const char *lacks; /* 'r' its registry, 'n' the node's connections, 'm' memory */
} memories[] = {
    { "nobody", 64, 0, 2, "", { 0 }, { 0 }, "" },
    { "one", 512, 0, 8, "A", { 0 }, { 108 }, "-" },
    { "one, and enough for another", 96, 0, 2, "A", { 0 }, { 76 }, "-" },
    { "the part of one in the background", 512, 0, 8, "a", { 0 }, { 64 }, "-" },
    { "all that may be waited for", 512, 0, 8, "AAAA", { 0 }, { 108, 108, 108, 108 }, "----" },
    { "one of many that may run", 512, 0, 128, "A", { 0 }, { 108 }, "-" },
    { "equally", 160, 0, 4, "AA", { 0 }, { 60, 60 }, "--" },
    { "the least first", 160, 0, 4, "AA", { 90, 0 }, { 90, 30 }, "--" },
    { "the wanted one before", 96, 0, 4, "aA", { 0 }, { 12, 60 }, "--" },
    { "nothing is taken away", 96, 0, 2, "aA", { 70, 0 }, { 70, 26 }, "--" },
    { "one that waits for a connection", 96, 0, 2, "Xx", { 0 }, { 76, 0 }, "-r" },
    { "and has some", 112, 0, 2, "xXA", { 30, 0, 0 }, { 30, 41, 41 }, "r--" },
    { "little for many", 36, 0, 8, "AAAAAA", { 0 }, { 6, 6, 5, 5, 5, 5 }, "------" },
    { "one that is over", 96, 60, 2, "A", { 0 }, { 36 }, "-" },
    { "too little beside it: the wanted one", 96, 70, 2, "aA", { 0 }, { 0, 26 }, "m-" },
    { "more than there is, after a reload", 32, 40, 2, "AA", { 20, 0 }, { 20, 0 }, "-m" },
    { "nothing beside it", 96, 90, 2, "A", { 0 }, { 0 }, "m" },
    { "nothing beside one that waits for this one", 96, IDLE + 90, 2, "A", { 0 }, { 20 }, "-" },
    { "the wanted one of these", 96, IDLE + 90, 2, "aAA", { 0 }, { 0, 20, 0 }, "m-m" },
    { "not beside one that ends", 32, IDLE + 20, 4, "AA", { 12, 0 }, { 12, 0 }, "-m" },
    { "a connection that it has no use for", 64, 0, 8, "xX", { 64, 0 }, { 64, 0 }, "-m" },
    { "one that others have", 192, 0, 2, "aaaAA", { 64, 64, 64 }, { 64, 64, 64 }, "--nmm" },
};

TEST(the_first_buffers_are_no_more_than_half_a_part) {
    ASSERT_EQ(divide_first(MiB(512), 8, MiB(108)), MiB(20));
    ASSERT_EQ(divide_first(MiB(512), 8, MiB(16)), MiB(16));
    ASSERT_EQ(divide_first(MiB(512), 128, MiB(108)), MiB(2));
    ASSERT_EQ(divide_first(MiB(50), 4, MiB(108)), MiB(6));
}

/* What one that lacks memory cannot use, another one has. */
TEST(buffers_are_enough_for_each_and_never_more_than_there_are) {
    for (size_t i = 0; i < ELEMENTSOF(memories); i++) {
        DivideNode node = { .connections = 2,
                            .pulls = memories[i].pulls,
                            .first =
                                divide_first(MiB(memories[i].total), memories[i].pulls, MiB(108)),
                            .memory = MiB(memories[i].total),
                            .taken = MiB(memories[i].over % IDLE),
                            .takers = memories[i].over > 0 };
        DivideClaim claims[CLAIMS_MAX + 1] = { 0 };
        size_t n = strlen(memories[i].claims);

        node.idle = memories[i].over > IDLE ? node.taken : 0;
        if (!strchr(memories[i].lacks, 'n'))
            node.connections = 8;
        for (size_t k = 0; k < n; k++) {
            char who = memories[i].claims[k];
            bool is_x = (who | 0x20) == 'x';

            claims[k] = (DivideClaim){ .registry = is_x ? "x.example" : "a.example",
                                       .registry_max = is_x,
                                       .wanted = who != 'a' && who != 'x',
                                       .has_some = memories[i].has[k] != 0,
                                       .memory_max = MiB(108),
                                       .memory = MiB(memories[i].has[k]) };
            node.taken += claims[k].memory;
            node.takers += claims[k].memory > 0;
        }
        divide_among(&node, claims, n);
        for (size_t k = 0; k < n; k++)
            if (claims[k].memory != MiB(memories[i].want[k]) ||
                "-nrm"[claims[k].lack] != memories[i].lacks[k] ||
                (claims[k].given > 0) != (claims[k].lack == DIVIDE_LACKS_NOTHING))
                test_fail(__FILE__, __LINE__, "%s: %zu has %llu bytes, lacks %d", memories[i].name,
                          k, (unsigned long long)claims[k].memory, claims[k].lack);
    }
}
