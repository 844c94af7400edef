/* SPDX-License-Identifier: Apache-2.0 */
/* address: where a TCP socket listens, as the configuration says it. */
#include "agent/address.h"
#include "base/parse.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static bool has_ipv6(void) {
    _cleanup_close_ int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return fd >= 0;
}

/* `host` without brackets; "" is all. */
static int set_host(Address *a, const char *host, in_port_t port) {
    *a = (Address){ .in = { .sin_family = AF_INET, .sin_port = htons(port) } };
    if (inet_pton(AF_INET, host, &a->in.sin_addr) == 1)
        return 0;
    if (isempty(host) && !has_ipv6())
        return 0; /* 0.0.0.0 */
    *a = (Address){ .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) } };
    return isempty(host) || inet_pton(AF_INET6, host, &a->in6.sin6_addr) == 1 ? 0 : -EINVAL;
}

int address_parse(Address *ret, const char *text) {
    bool brackets = text[0] == '[';
    const char *colon = strrchr(text, ':');
    _cleanup_free_ char *host = NULL;
    uint64_t port;
    size_t n;

    if (!colon || parse_u64(colon + 1, &port) < 0 || port < 1 || port > 65535)
        return -EINVAL;
    n = (size_t)(colon - text);
    if (brackets && (n < 3 || text[n - 1] != ']'))
        return -EINVAL;
    host = brackets ? xstrndup(text + 1, n - 2) : xstrndup(text, n);
    if (brackets != (strchr(host, ':') != NULL)) /* which colon is that of the port? */
        return -EINVAL;
    return set_host(ret, host, (in_port_t)port);
}

socklen_t address_size(const Address *a) {
    return a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);
}

void address_owner(struct in6_addr *ret, const struct sockaddr *a) {
    Address of = { .sa.sa_family = a->sa_family };

    *ret = (struct in6_addr){ 0 };
    memcpy(&of, a, address_size(&of));
    if (a->sa_family != AF_INET6) {
        ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
        memcpy(&ret->s6_addr[12], &of.in.sin_addr, sizeof(of.in.sin_addr));
    } else {
        bool mapped = IN6_IS_ADDR_V4MAPPED(&of.in6.sin6_addr);
        memcpy(ret, &of.in6.sin6_addr, mapped ? sizeof(*ret) : sizeof(*ret) / 2);
    }
}

int address_listen(const Address *a, int backlog) {
    const int on = 1, off = 0;
    _cleanup_close_ int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    /* A daemon that was restarted does not wait for old connections; [::] is IPv4, too. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (a->sa.sa_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0) ||
        bind(fd, &a->sa, address_size(a)) < 0 || listen(fd, backlog) < 0)
        return -errno;
    return TAKE_FD(fd);
}
