# Bytes between a connected socket and Python's memory; included by _fastsock.pyx, described in _fastsock.pyi.

import errno
import socket

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN as errno_EAGAIN
from libc.errno cimport EINTR as errno_EINTR
from libc.math cimport ceil
from libc.string cimport memcpy

from extras._fastsock_py import BULK_MAX_BYTES as _BULK_MAX_BYTES
from extras._fastsock_py import LARGE_BYTES as _LARGE_BYTES

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
    size_t fs_page_offset(const char *base)

BULK_MAX_BYTES = _BULK_MAX_BYTES
LARGE_BYTES = _LARGE_BYTES
cdef Py_ssize_t _bulk_max_bytes = BULK_MAX_BYTES
cdef Py_ssize_t _large_bytes = LARGE_BYTES
cdef enum:
    _FOR_EVER = -1
    _HEADER_MAX = 16  # "$", the digits of a length that is not above the maximum, "\r\n"
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


cdef object _wait(object sock, int events, double deadline):
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
        if ready == -errno_EINTR:
            PyErr_CheckSignals()
        elif ready < 0:
            raise OSError(-ready, os.strerror(-ready))
        elif deadline != _FOR_EVER and fs_monotonic_s() >= deadline:
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
    if not _wait(sock, FS_READABLE, seconds + fs_monotonic_s() if seconds > 0 else seconds):
        return None
    piece.iov_base = &byte
    piece.iov_len = 1
    moved = fs_transfer(_descriptor(sock), &piece, 1, False, True)
    if moved < 0 and moved != -errno_EAGAIN:
        raise OSError(-moved, os.strerror(-moved))
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


cdef int _send_rest(object sock, fs_piece *rest, Py_ssize_t count, double timeout_s) except -1:
    cdef Py_ssize_t first = 0, sent
    cdef double deadline = _FOR_EVER
    while True:
        while first < count and rest[first].iov_len == 0:
            first += 1
            deadline = _FOR_EVER  # each piece has the whole time, as if it were sent by itself
        if first == count:
            return 0
        sent = _move(sock, &rest[first], min(count - first, FS_PIECES_MAX), True, False, timeout_s, &deadline)
        while sent > 0 and sent >= <Py_ssize_t>rest[first].iov_len:
            sent -= rest[first].iov_len
            rest[first].iov_len = 0
            first += 1
            deadline = _FOR_EVER
        if sent > 0:
            rest[first].iov_base = <char *>rest[first].iov_base + sent
            rest[first].iov_len -= sent
            PyErr_CheckSignals()


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    cdef object _gets, _feed, _has_data, _not_enough, _encoding, _errors
    cdef bytearray _store
    cdef Py_ssize_t _offset, _size
    cdef bint _under_way, _busy
    cdef bytes _large
    cdef Py_ssize_t _missing, _trailer

    def __cinit__(self, *_, **__):
        self._busy = True  # nothing is received before __init__ has made the buffer

    def __init__(self, reader, not_enough, buffer_bytes, encoding, errors):
        if self._store is not None:
            raise RuntimeError("it is initialised already")
        self._gets, self._feed, self._has_data = reader.gets, reader.feed, reader.has_data
        self._not_enough, self._encoding, self._errors = not_enough, encoding, errors or "strict"
        self._size = max(int(buffer_bytes), 1)
        self._store = bytearray(self._size + 4096)
        self._offset = fs_page_offset(PyByteArray_AS_STRING(self._store))
        self._under_way = self._busy = False
        self._large = None
        self._missing = self._trailer = 0

    def has_data(self):
        return self._large is not None or self._has_data()

    def gets(self, decode=True):
        if self._large is not None:
            return self._take_large(decode)
        if not self._under_way and not self._has_data():
            return self._not_enough
        self._under_way = True
        reply = self._gets() if decode else self._gets(False)
        self._under_way = reply is self._not_enough
        return reply

    cdef object _take_large(self, bint decode):
        if self._missing or self._trailer:
            return self._not_enough
        data, self._large = self._large, None
        return data.decode(self._encoding, self._errors) if decode and self._encoding is not None else data

    def receive(self, sock, timeout_s):
        if self._busy:
            raise RuntimeError("this connection is being read already, by another thread or below a signal handler")
        self._busy = True
        try:
            return self._receive(sock, _seconds(timeout_s))
        finally:
            self._busy = False

    cdef bint _receive(self, object sock, double timeout_s) except -1:
        cdef char *store = PyByteArray_AS_STRING(self._store) + self._offset
        cdef fs_piece pieces[2]
        cdef fs_piece *used = &pieces[1]
        cdef double deadline = _FOR_EVER
        cdef Py_ssize_t got, into
        pieces[1].iov_base = store
        pieces[1].iov_len = self._size
        if self._large is not None and self._missing:
            pieces[0].iov_base = PyBytes_AS_STRING(self._large) + len(self._large) - self._missing
            pieces[0].iov_len = self._missing
            used = pieces
        got = _move(sock, used, 2 if used == pieces else 1, False, False, timeout_s, &deadline)
        if got == 0:
            return False
        into = min(got, self._missing)
        self._missing -= into
        self._handle(store, got - into)
        return True

    cdef int _handle(self, char *store, Py_ssize_t got) except -1:
        cdef Py_ssize_t at = 0, body
        if self._large is None and not self._under_way and store[0] == c"$" and not self._has_data():
            at = self._begin_large(store, got)
        if self._large is not None:
            body = min(got - at, self._missing)
            if body:
                memcpy(PyBytes_AS_STRING(self._large) + len(self._large) - self._missing, store + at, body)
                self._missing -= body
                at += body
            body = min(got - at, self._trailer)
            self._trailer -= body
            at += body
        if at < got:
            self._feed(self._store, self._offset + at, got - at)
        return 0

    cdef Py_ssize_t _begin_large(self, char *store, Py_ssize_t got) except -1:
        """Make room for the bulk string whose header begins ``store``, and return the header's length; 0: decline."""
        cdef Py_ssize_t at = 1, length = 0, end = min(got, _HEADER_MAX)
        if end > 1 and store[1] == c"0":  # no length as Redis writes it
            return 0
        while at < end and c"0" <= store[at] <= c"9":
            length = length * 10 + (store[at] - c"0")
            if length > _bulk_max_bytes:
                return 0
            at += 1
        if at + 2 > end or store[at] != c"\r" or store[at + 1] != c"\n" or length <= _large_bytes:
            return 0
        try:
            self._large = PyBytes_FromStringAndSize(NULL, length)
        except MemoryError:  # hiredis asks for it bit by bit, as it comes
            return 0
        self._missing = length
        self._trailer = 2
        return at + 2
