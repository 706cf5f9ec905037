/* Waits for a socket, and moves bytes between it and several pieces of memory, in one system call each.
 *
 * poll(2), recvmsg(2), sendmsg(2); POSIX.1-2017. Every call returns what the system call does, or an errno value below
 * 0; nothing here allocates or touches Python, so all of it may run without the GIL. Where a system lacks them
 * (FS_TRANSFERS is 0: Windows), every call is refused with -ENOSYS.
 */
#ifndef FASTSOCK_TRANSFER_H
#define FASTSOCK_TRANSFER_H

#include <Python.h>
#include <stdint.h>

#include "sockopt.h"

#if defined(FS_WINSOCK)
#  define FS_TRANSFERS 0
#  define FS_PIECES_MAX 1
#  define FS_READABLE 1
#  define FS_WRITABLE 2
typedef struct { void *iov_base; size_t iov_len; } fs_piece;
#else
#  include <limits.h>
#  include <poll.h>
#  include <string.h>
#  include <sys/uio.h>
#  include <time.h>
#  define FS_TRANSFERS 1
#  if defined(IOV_MAX)
#    define FS_PIECES_MAX IOV_MAX
#  else
#    define FS_PIECES_MAX 16 /* _XOPEN_IOV_MAX: what every system takes */
#  endif
#  define FS_READABLE POLLIN
#  define FS_WRITABLE POLLOUT
typedef struct iovec fs_piece;
#endif

/* Windows and macOS lack it; Python has SIGPIPE ignored, so that it is for programs that embed Python only. */
#if !defined(MSG_NOSIGNAL)
#  define MSG_NOSIGNAL 0
#endif

/* Returns seconds since some moment, never set back: clock_gettime(CLOCK_MONOTONIC). */
static double fs_monotonic_s(void)
{
#if FS_TRANSFERS
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
#else
    return 0.0;
#endif
}

/* Waits until `fd` is ready for `events` or broken, at most `timeout_ms`; -1 is for ever. Returns 0 past that. */
static int fs_wait(fs_socket fd, int events, int timeout_ms)
{
#if FS_TRANSFERS
    struct pollfd one = {fd, (short)events, 0};
    int ready = poll(&one, 1, timeout_ms);
    return ready < 0 ? -errno : ready;
#else
    (void)fd; (void)events; (void)timeout_ms;
    return -ENOSYS;
#endif
}

/* Moves bytes to (`sending`) or from `count` pieces, 1 to FS_PIECES_MAX, and returns how many bytes. `peek`: leave
 * what is received in the socket. It never waits: -EAGAIN. */
static Py_ssize_t fs_transfer(fs_socket fd, fs_piece *pieces, Py_ssize_t count, int sending, int peek)
{
#if FS_TRANSFERS
    int flags = (sending ? MSG_NOSIGNAL : 0) | MSG_DONTWAIT | (peek ? MSG_PEEK : 0);
    ssize_t moved;
    if (count == 1) {
        moved = sending ? send(fd, pieces->iov_base, pieces->iov_len, flags)
                        : recv(fd, pieces->iov_base, pieces->iov_len, flags);
    } else {
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = pieces;
        message.msg_iovlen = count;
        moved = sending ? sendmsg(fd, &message, flags) : recvmsg(fd, &message, flags);
    }
    if (moved < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -(Py_ssize_t)errno; /* POSIX lets the two differ */
    return (Py_ssize_t)moved;
#else
    (void)fd; (void)pieces; (void)count; (void)sending; (void)peek;
    return -ENOSYS;
#endif
}

/* Sends the beginning of a large piece that follows a small one by itself, where that makes Linux copy the rest of it
 * several times as fast. Returns how many bytes were sent, 0 for none, or an errno value below 0.
 *
 * Linux copies by `rep movsb`, which crawls on some processors where the target is 1 to 31 bytes further into its page
 * than the source (glibc calls it Avoid_Short_Distance_REP_MOVSB). It copies what is sent into blocks of 32 KB, from the
 * first byte of one if nothing else is under way, so that this distance is the same from the first byte to the last: as
 * the line before a value is some 50 bytes long, and a large `bytes` begins 48 bytes into a page, it is the usual one. A
 * new block is begun where fewer than 32 bytes are left (skb_page_frag_refill), which makes the distance 31 bytes more.
 * With MSG_MORE the peer is not woken up for it, as long as there is room to send on.
 */
static Py_ssize_t fs_send_lead(fs_socket fd, const fs_piece *pieces, Py_ssize_t count)
{
#if FS_TRANSFERS && defined(__linux__)
    enum { BLOCK = 32 * 1024, LEFT = 31, LEAST = 2 * BLOCK, ROOM = 4 * BLOCK };
    struct msghdr message;
    fs_piece lead[2];
    size_t distance;
    int room = 0;
    socklen_t size = sizeof room;
    ssize_t sent;
    if (count < 2 || pieces[0].iov_len > 4096 || pieces[1].iov_len < LEAST)
        return 0;
    distance = (pieces[0].iov_len - (uintptr_t)pieces[1].iov_base) & 4095u;
    if (distance == 0 || distance > LEFT || getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, &size) != 0 || room < ROOM)
        return 0;
    lead[0] = pieces[0];
    lead[1].iov_base = pieces[1].iov_base;
    lead[1].iov_len = BLOCK - LEFT - pieces[0].iov_len;
    memset(&message, 0, sizeof message);
    message.msg_iov = lead;
    message.msg_iovlen = 2;
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE);
    return sent < 0 ? (errno == EWOULDBLOCK ? -EAGAIN : -(Py_ssize_t)errno) : (Py_ssize_t)sent;
#else
    (void)fd; (void)pieces; (void)count;
    return 0;
#endif
}

/* Returns how far into `base` the next page begins. A copy by `rep movsb` to or from an address a few bytes into a page
 * is many times slower on some processors. */
static size_t fs_page_offset(const char *base)
{
    return (size_t)(-(uintptr_t)base & 4095u);
}

#endif
