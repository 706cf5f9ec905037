/* Reads and sets a socket's TCP liveness options by meaning, on every system.
 *
 * The differences between systems are found by feature macro, never by the system's name:
 *   idle          TCP_KEEPIDLE   (Linux tcp(7), FreeBSD tcp(4), Windows SDK 10.0.16299 and later),
 *                 TCP_KEEPALIVE  (macOS tcp(4): the same thing under another name)
 *   interval      TCP_KEEPINTVL
 *   count         TCP_KEEPCNT
 *   user timeout  TCP_USER_TIMEOUT (Linux tcp(7), RFC 5482; milliseconds),
 *                 TCP_RXT_CONNDROPTIME (macOS netinet/tcp.h; seconds)
 *   both of the first two at once, write-only: SIO_KEEPALIVE_VALS (older Windows SDKs, mstcpip.h)
 *
 * Every call returns 0 or an errno value; nothing here allocates or touches Python, so all of it may run
 * without the GIL.
 */
#ifndef FASTSOCK_SOCKOPT_H
#define FASTSOCK_SOCKOPT_H

#include <errno.h>
#include <stddef.h>

#if defined(__has_include)
#  if !__has_include(<netinet/tcp.h>)
#    define FS_WINSOCK 1
#  endif
#elif defined(_MSC_VER)
#  define FS_WINSOCK 1
#endif

#if defined(FS_WINSOCK)
#  include <winsock2.h>
#  include <ws2tcpip.h>
#  include <mstcpip.h>
typedef SOCKET fs_socket;
typedef int fs_socklen;
#  define FS_SOCKERR() fs_winsock_errno(WSAGetLastError())
#else
#  include <sys/types.h>
#  include <sys/socket.h>
#  include <netinet/in.h>
#  include <netinet/tcp.h>
typedef int fs_socket;
typedef socklen_t fs_socklen;
#  define FS_SOCKERR() errno
#endif

/* What an option means; the order is that of fs_options below. */
enum fs_meaning { FS_KEEPALIVE, FS_IDLE, FS_INTERVAL, FS_COUNT, FS_USER_TIMEOUT, FS_MEANINGS };

/* How one meaning is spelt here. `unit` converts: kernel value = value / unit, rounded up. A NULL name means
 * that this system has no such option; `write_only` that it cannot be read back. */
typedef struct {
    const char *name;
    int level;
    int optname;
    int unit;
    int write_only;
} fs_option;

#define FS_ABSENT {NULL, 0, 0, 1, 0}

static const fs_option fs_options[FS_MEANINGS] = {
    {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1, 0},

#if defined(TCP_KEEPIDLE)
    {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 1, 0},
#elif defined(SIO_KEEPALIVE_VALS)
    {"SIO_KEEPALIVE_VALS", 0, 0, 1, 1},
#elif defined(TCP_KEEPALIVE)
    {"TCP_KEEPALIVE", IPPROTO_TCP, TCP_KEEPALIVE, 1, 0},
#else
    FS_ABSENT,
#endif

#if defined(TCP_KEEPINTVL)
    {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 1, 0},
#elif defined(SIO_KEEPALIVE_VALS)
    {"SIO_KEEPALIVE_VALS", 0, 0, 1, 1},
#else
    FS_ABSENT,
#endif

#if defined(TCP_KEEPCNT)
    {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 1, 0},
#else
    FS_ABSENT,
#endif

#if defined(TCP_USER_TIMEOUT)
    {"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 1, 0},
#elif defined(TCP_RXT_CONNDROPTIME)
    {"TCP_RXT_CONNDROPTIME", IPPROTO_TCP, TCP_RXT_CONNDROPTIME, 1000, 0},
#else
    FS_ABSENT,
#endif
};

#if defined(FS_WINSOCK)
/* WSAGetLastError() values that setsockopt(2) can give, as the errno Python's OSError maps to subclasses. */
static int fs_winsock_errno(int wsa_error)
{
    switch (wsa_error) {
    case WSAENOTSOCK: return ENOTSOCK;
    case WSAEINVAL: return EINVAL;
    case WSAENOPROTOOPT: return ENOPROTOOPT;
    case WSAEFAULT: return EFAULT;
    case WSAENETDOWN: return ENETDOWN;
    default: return EIO;
    }
}
#endif

/* Sets the option that carries `meaning` to `value`. ENOPROTOOPT: this system has none. */
static int fs_set(fs_socket fd, int meaning, int value)
{
    const fs_option *option = &fs_options[meaning];
    int kernel_value;

    if (option->name == NULL || option->write_only)
        return ENOPROTOOPT;
    kernel_value = value / option->unit + (value % option->unit > 0);
    if (setsockopt(fd, option->level, option->optname, (const char *)&kernel_value, sizeof kernel_value) != 0)
        return FS_SOCKERR();
    return 0;
}

/* Reads the option that carries `meaning` into `*value`. ENOPROTOOPT: absent here, or write-only. */
static int fs_get(fs_socket fd, int meaning, long long *value)
{
    const fs_option *option = &fs_options[meaning];
    int kernel_value = 0;
    fs_socklen size = sizeof kernel_value;

    if (option->name == NULL || option->write_only)
        return ENOPROTOOPT;
    if (getsockopt(fd, option->level, option->optname, (char *)&kernel_value, &size) != 0)
        return FS_SOCKERR();
    /* BSD kernels answer a set boolean with the option's own bit, not with 1. */
    *value = meaning == FS_KEEPALIVE ? kernel_value != 0 : (long long)kernel_value * option->unit;
    return 0;
}

/* Turns keepalive on with idle and interval in one call where they cannot be set one by one
 * (SIO_KEEPALIVE_VALS; both in seconds). ENOPROTOOPT everywhere else. */
static int fs_set_idle_interval(fs_socket fd, int idle_s, int interval_s)
{
#if defined(SIO_KEEPALIVE_VALS)
    struct tcp_keepalive vals;
    DWORD returned = 0;
    vals.onoff = 1;
    vals.keepalivetime = (ULONG)idle_s * 1000;
    vals.keepaliveinterval = (ULONG)interval_s * 1000;
    if (WSAIoctl(fd, SIO_KEEPALIVE_VALS, &vals, sizeof vals, NULL, 0, &returned, NULL, NULL) != 0)
        return FS_SOCKERR();
    return 0;
#else
    (void)fd; (void)idle_s; (void)interval_s;
    return ENOPROTOOPT;
#endif
}

#endif
