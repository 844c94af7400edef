/* SPDX-License-Identifier: Apache-2.0 */
/* test_address: what is an address, and listening there. */
#include "agent/address.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static const struct {
    const char *text;
    int r, family;
} cases[] = {
    { "127.0.0.1:19753", 0, AF_INET },
    { "0.0.0.0:1", 0, AF_INET },
    { "[::1]:65535", 0, AF_INET6 },
    { "[::]:80", 0, AF_INET6 },
    { ":80", 0, AF_UNSPEC }, /* the kernel may lack IPv6 */
    { "", -EINVAL, 0 },
    { "80", -EINVAL, 0 },
    { "127.0.0.1", -EINVAL, 0 },
    { "127.0.0.1:", -EINVAL, 0 },
    { "127.0.0.1:0", -EINVAL, 0 },
    { "127.0.0.1:65536", -EINVAL, 0 },
    { "127.0.0.1:80x", -EINVAL, 0 },
    { "127.0.0.1:-1", -EINVAL, 0 },
    { "127.0.0:80", -EINVAL, 0 },
    { "::1:80", -EINVAL, 0 },
    { "[::1:80", -EINVAL, 0 },
    { "[]:80", -EINVAL, 0 },
    { "[127.0.0.1]:80", -EINVAL, 0 },
    { "localhost:80", -EINVAL, 0 },
    { "unix:/run/x", -EINVAL, 0 },
};

TEST(addresses) {
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Address a;
        int r = address_parse(&a, cases[i].text);

        if (r != cases[i].r)
            test_fail(__FILE__, __LINE__, "%s: %d", cases[i].text, r);
        if (r == 0 && cases[i].family != AF_UNSPEC)
            ASSERT_EQ(a.sa.sa_family, cases[i].family);
    }
}

static const struct {
    const char *a, *b;
    bool same;
} owners[] = {
    { "127.0.0.1:1", "127.0.0.1:2", true },
    { "127.0.0.1:1", "127.0.0.2:1", false },
    { "127.0.0.1:1", "[::ffff:127.0.0.1]:1", true },
    { "[::ffff:127.0.0.2]:1", "[::ffff:127.0.0.1]:1", false },
    { "[fd00::1:1]:1", "[fd00::2:1]:1", true }, /* of one network */
    { "[fd00:0:0:1::1]:1", "[fd00:0:0:2::1]:1", false },
    { "[::1]:1", "127.0.0.1:1", false },
};

TEST(who_owns_an_address) {
    for (size_t i = 0; i < ELEMENTSOF(owners); i++) {
        Address a, b;
        struct in6_addr of_a, of_b;

        ASSERT_OK(address_parse(&a, owners[i].a));
        ASSERT_OK(address_parse(&b, owners[i].b));
        address_owner(&of_a, &a.sa);
        address_owner(&of_b, &b.sa);
        if (IN6_ARE_ADDR_EQUAL(&of_a, &of_b) != owners[i].same)
            test_fail(__FILE__, __LINE__, "%s and %s", owners[i].a, owners[i].b);
    }
}

static in_port_t *port_of(Address *a) {
    return a->sa.sa_family == AF_INET6 ? &a->in6.sin6_port : &a->in.sin_port;
}

TEST(all_addresses_are_ipv4_as_well) {
    int fd, peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof(Address);
    Address a, client;

    ASSERT_OK(address_parse(&a, ":1"));
    *port_of(&a) = 0; /* one that is free */
    fd = address_listen(&a, 4);
    ASSERT_OK(fd);
    ASSERT_OK(getsockname(fd, &a.sa, &n));
    client = (Address){ .in = { .sin_family = AF_INET,
                                .sin_port = *port_of(&a),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
    ASSERT_OK(connect(peer, &client.sa, address_size(&client)));
    ASSERT_ERR(address_listen(&a, 4), -EADDRINUSE);
    (void)close(fd);
    (void)close(peer);
}
