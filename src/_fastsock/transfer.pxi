# Bytes between a connected socket and Python's memory; included by _fastsock.pyx, described in _fastsock.pyi.

import errno
import socket

from cpython.buffer cimport PyBUF_SIMPLE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Malloc
from libc.errno cimport EAGAIN as errno_EAGAIN
from libc.errno cimport EINTR as errno_EINTR
from libc.math cimport ceil

cdef extern from "transfer.h" nogil:
    ctypedef struct fs_piece:
        void *iov_base
        size_t iov_len
    enum:
        FS_PIECES_MAX
        FS_READABLE
        FS_WRITABLE
    double fs_monotonic_s()
    int fs_wait(fs_socket fd, int events, int timeout_ms)
    Py_ssize_t fs_transfer(fs_socket fd, fs_piece *pieces, Py_ssize_t count, bint sending, bint peek)
    Py_ssize_t fs_send_lead(fs_socket fd, const fs_piece *pieces, Py_ssize_t count)

cdef enum:
    _FOR_EVER = -1
    _ON_STACK = 8
    _WAIT_MS = 500


cdef fs_socket _descriptor(object sock) except? -1:
    fd = sock.fileno()
    if fd < 0:  # poll(2) ignores it, and would wait
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return fd


cdef double _seconds(object timeout_s) except? -1.0:
    if timeout_s is None:
        return _FOR_EVER
    cdef double seconds = timeout_s
    if not seconds >= 0:
        raise ValueError("Timeout value out of range")
    return seconds


cdef bint _wait(object sock, int events, double deadline) except -1:
    """Return whether ``sock`` is ready before ``deadline``; signals are handled, and do not prolong the time."""
    cdef fs_socket fd
    cdef double left_ms
    cdef int ready
    while True:
        # Not for long at once: poll(2) of Linux sleeps on when the socket was closed by another thread and its number
        # given to a new one before it could look.
        fd = _descriptor(sock)
        left_ms = _WAIT_MS
        if deadline != _FOR_EVER:
            left_ms = max(0.0, min(left_ms, ceil((deadline - fs_monotonic_s()) * 1e3)))
        with nogil:
            ready = fs_wait(fd, events, <int>left_ms)
        if ready > 0:
            return True
        if ready < 0 and ready != -errno_EINTR:
            raise OSError(-ready, os.strerror(-ready))
        PyErr_CheckSignals()  # also where poll(2) was not interrupted: the system gives a signal to any thread
        if ready == 0 and deadline != _FOR_EVER and fs_monotonic_s() >= deadline:
            return False


cdef Py_ssize_t _move(
    object sock, fs_piece *pieces, Py_ssize_t count, bint sending, bint peek, double timeout_s, double *deadline
) except -1:
    """Move bytes as soon as that is possible, before ``deadline``, which is set when it is not at once."""
    cdef Py_ssize_t moved
    while True:
        # It never waits, and so may keep the GIL, which it must: another thread that closes the socket after its number
        # was asked for could have that number given to a new connection, whose bytes this would take, or add to.
        moved = fs_transfer(_descriptor(sock), pieces, count, sending, peek)
        if moved >= 0:
            return moved
        if moved == -errno_EINTR:
            PyErr_CheckSignals()
        elif moved != -errno_EAGAIN or timeout_s == 0:
            raise OSError(-moved, os.strerror(-moved))
        else:
            if timeout_s != _FOR_EVER and deadline[0] == _FOR_EVER:
                deadline[0] = fs_monotonic_s() + timeout_s
            if not _wait(sock, FS_WRITABLE if sending else FS_READABLE, deadline[0]):
                raise socket.timeout("timed out")


def wait_readable(sock, timeout_s):
    cdef double seconds = _seconds(timeout_s)
    cdef char byte
    cdef fs_piece piece
    cdef Py_ssize_t moved
    if seconds != 0 and not _wait(sock, FS_READABLE, seconds + fs_monotonic_s() if seconds > 0 else seconds):
        return None
    piece.iov_base = &byte
    piece.iov_len = 1
    moved = fs_transfer(_descriptor(sock), &piece, 1, False, True)
    if moved < 0 and moved != -errno_EAGAIN:
        raise OSError(-moved, os.strerror(-moved))
    if moved < 0 and seconds == 0:
        return None
    return moved != 0


def send_all(sock, pieces, timeout_s):
    cdef double seconds = _seconds(timeout_s)
    cdef tuple held = tuple(pieces)  # another thread may empty the caller's list
    cdef Py_ssize_t count = len(held), taken = 0, index = 0
    cdef Py_buffer views_here[_ON_STACK]
    cdef fs_piece rest_here[_ON_STACK]
    cdef Py_buffer *views = views_here
    cdef fs_piece *rest = rest_here
    if count > _ON_STACK:
        views = <Py_buffer *>PyMem_Malloc(count * sizeof(Py_buffer))
        rest = <fs_piece *>PyMem_Malloc(count * sizeof(fs_piece))
    try:
        if views == NULL or rest == NULL:
            raise MemoryError()
        while taken < count:
            PyObject_GetBuffer(held[taken], &views[taken], PyBUF_SIMPLE)
            rest[taken].iov_base = views[taken].buf
            rest[taken].iov_len = views[taken].len
            taken += 1
        _send_rest(sock, rest, count, seconds)
    finally:
        while index < taken:
            PyBuffer_Release(&views[index])
            index += 1
        if views != views_here:
            PyMem_Free(views)
        if rest != rest_here:
            PyMem_Free(rest)


def send_some(sock, bytes data not None):
    cdef fs_piece piece
    piece.iov_base = PyBytes_AS_STRING(data)
    piece.iov_len = PyBytes_GET_SIZE(data)
    return max(0, fs_transfer(_descriptor(sock), &piece, 1, True, False))


cdef Py_ssize_t _taken(Py_ssize_t sent) except -1:
    """Return how many bytes a first attempt at sending has sent; what is no error yet is another's to wait for."""
    if sent >= 0:
        return sent
    if sent != -errno_EAGAIN and sent != -errno_EINTR:
        raise OSError(-sent, os.strerror(-sent))
    return 0


cdef int _send_rest(object sock, fs_piece *rest, Py_ssize_t count, double timeout_s) except -1:
    cdef Py_ssize_t first = 0, sent = _taken(fs_send_lead(_descriptor(sock), rest, count)) if count > 1 else 0
    cdef double deadline = _FOR_EVER
    while True:
        while sent > 0 and sent >= <Py_ssize_t>rest[first].iov_len:
            sent -= rest[first].iov_len
            rest[first].iov_len = 0
            first += 1
            deadline = _FOR_EVER
        if sent > 0:
            rest[first].iov_base = <char *>rest[first].iov_base + sent
            rest[first].iov_len -= sent
            PyErr_CheckSignals()
        while first < count and rest[first].iov_len == 0:
            first += 1
            deadline = _FOR_EVER  # each piece has the whole time, as if it were sent by itself
        if first == count:
            return 0
        sent = _move(sock, &rest[first], min(count - first, FS_PIECES_MAX), True, False, timeout_s, &deadline)


cdef bint _is_quiet(fs_socket fd):
    """Return whether the peer has neither sent what nobody asked for nor closed the connection."""
    cdef char byte
    cdef fs_piece piece
    piece.iov_base = &byte
    piece.iov_len = 1
    return fs_transfer(fd, &piece, 1, False, True) == -errno_EAGAIN


cdef bint _tell(object sock, object args, object buffers, double seconds, fs_socket *fd) except -1:
    """Send one command; false, and nothing is sent, if it is redis-py's to pack or to refuse.

    ``fd`` becomes the number of ``sock``; nobody could run since it was asked for.
    """
    cdef _Text text
    cdef fs_piece piece
    cdef Py_ssize_t sent
    cdef list pieces = []
    _begin_text(&text)
    try:
        if not _pack(&text, pieces, args, buffers):
            return False
        if pieces:
            pieces.append(PyBytes_FromStringAndSize(text.start, text.used))
            send_all(sock, pieces, None if seconds == _FOR_EVER else seconds)
            fd[0] = _descriptor(sock)
            return True
        fd[0] = _descriptor(sock)
        piece.iov_base = text.start
        piece.iov_len = text.used
        sent = fs_transfer(fd[0], &piece, 1, True, False)
        if sent < text.used:
            sent = _taken(sent)
            piece.iov_base = text.start + sent
            piece.iov_len = text.used - sent
            _send_rest(sock, &piece, 1, seconds)
            fd[0] = _descriptor(sock)
        return True
    finally:
        _end_text(&text)


def send_command(sock, args, buffers, timeout_s):
    cdef double seconds = _seconds(timeout_s)
    cdef fs_socket fd
    return _tell(sock, args, buffers, seconds, &fd)
