# Replies of one connection, received and parsed; included by _fastsock.pyx, described in _fastsock.pyi.

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.string cimport memchr

from extras._fastsock_py import BULK_MAX_BYTES as _BULK_MAX_BYTES
from extras._fastsock_py import LARGE_BYTES as _LARGE_BYTES
from extras._fastsock_py import PUSH as _PUSH

cdef extern from "transfer.h" nogil:
    size_t fs_page_offset(const char *base)

cdef extern from "resp.h" nogil:
    enum:
        FS_REPLY_CUT
        FS_REPLY_DEPTH
        FS_REPLY_ELEMENTS
    int fs_reply_number(const char **at, const char *end, long long *number)
    Py_ssize_t fs_reply_size(const char *start, const char *end, int depth, long long bulk_max)

BULK_MAX_BYTES = _BULK_MAX_BYTES
LARGE_BYTES = _LARGE_BYTES
PUSH = _PUSH
cdef object _push = PUSH
cdef Py_ssize_t _bulk_max_bytes = BULK_MAX_BYTES
cdef Py_ssize_t _large_bytes = LARGE_BYTES
cdef enum:
    _CUTS_MAX = 8  # the longer it takes to come, the better it is with hiredis, which does not begin anew each time


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    cdef object _gets, _feed, _has_data, _not_enough, _encoding, _errors
    cdef bytearray _store
    cdef object _view
    cdef Py_ssize_t _offset, _size
    cdef Py_ssize_t _from, _to  # what was received and is not parsed yet, nor with hiredis
    cdef int _cuts
    cdef bint _under_way, _busy
    cdef bytes _large
    cdef Py_ssize_t _missing, _trailer
    cdef readonly bint was_sent

    def __cinit__(self, *_, **__):
        self._busy = True  # nothing is received before __init__ has made the buffer

    def __init__(self, reader, not_enough, buffer_bytes, encoding, errors):
        if self._store is not None:
            raise RuntimeError("it is initialised already")
        self._gets, self._feed, self._has_data = reader.gets, reader.feed, reader.has_data
        self._not_enough, self._encoding, self._errors = not_enough, encoding, errors or "strict"
        self._size = max(int(buffer_bytes), 1)
        self._store = bytearray()
        PyByteArray_Resize(self._store, self._size + 4096)  # not cleared, so that what is never used takes no memory
        self._offset = fs_page_offset(PyByteArray_AS_STRING(self._store))
        self._view = memoryview(self._store)[self._offset : self._offset + self._size]
        self._under_way = self._busy = False
        self._large = None
        self._missing = self._trailer = 0
        self._from = self._to = 0

    def has_data(self):
        return self._large is not None or self._from < self._to or self._under_way or self._has_data()

    def gets(self, decode=True):
        return self._next(decode)

    cdef object _next(self, bint decode):
        cdef Py_ssize_t size
        cdef const char *start
        cdef const char *end
        if self._large is not None:
            return self._take_large(decode)
        if self._from < self._to:
            start = PyByteArray_AS_STRING(self._store) + self._offset + self._from
            end = start + self._to - self._from
            size = fs_reply_size(start, end, FS_REPLY_DEPTH, _bulk_max_bytes)
            if size > 0:
                try:
                    reply = self._made(&start, end, FS_REPLY_DEPTH, decode)
                except Exception:
                    pass  # hiredis fails in the same way
                else:
                    self._from += size
                    self._cuts = 0
                    return reply
            elif size == FS_REPLY_CUT and (self._begin_large(start, end) or self._cuts < _CUTS_MAX):
                return self._not_enough
            self._hand_on()
        if not self._under_way and not self._has_data():
            return self._not_enough
        self._under_way = True
        try:
            reply = self._gets() if decode else self._gets(False)
        except UnicodeDecodeError:  # hiredis has passed over what it could not decode
            self._under_way = False
            raise
        self._under_way = reply is self._not_enough
        return reply

    cdef object _made(self, const char **at, const char *end, int depth, bint decode):
        """Make the reply at ``at``, which is whole and well-formed, and move ``at`` behind it.

        All is looked at once more: a codec of the user's may have let somebody receive meanwhile.
        """
        cdef const char *text = at[0] + 1
        cdef const char *stop
        cdef char kind = at[0][0] if at[0] < end else 0
        cdef long long number = 0
        cdef Py_ssize_t index
        if kind == c"+":
            stop = <const char *>memchr(text, c"\r", end - text)
            if stop == NULL:
                raise ValueError()
            at[0] = stop + 2
            return self._text(text, stop - text, decode)
        if kind == c"_":
            at[0] += 3
            return None
        at[0] = text
        if fs_reply_number(at, end, &number) != 1:
            raise ValueError()
        if kind == c":":
            return number
        if number < 0:
            return None
        if kind == c"$":
            text = at[0]
            if number > end - text - 2:
                raise ValueError()
            at[0] += number + 2
            return self._text(text, number, decode)
        if kind != c"*" or number > FS_REPLY_ELEMENTS or depth == 0:
            raise ValueError()
        replies = PyList_New(number)
        for index in range(number):
            reply = self._made(at, end, depth - 1, decode)
            Py_INCREF(reply)
            PyList_SET_ITEM(replies, index, reply)
        return replies

    cdef object _text(self, const char *text, Py_ssize_t size, bint decode):
        if decode and self._encoding is not None:
            return PyBytes_FromStringAndSize(text, size).decode(self._encoding, self._errors)
        return PyBytes_FromStringAndSize(text, size)

    cdef object _take_large(self, bint decode):
        if self._missing or self._trailer:
            return self._not_enough
        data, self._large = self._large, None
        return data.decode(self._encoding, self._errors) if decode and self._encoding is not None else data

    cdef int _hand_on(self) except -1:
        """Let hiredis have what is not parsed yet."""
        cdef Py_ssize_t begin = self._from, size = self._to - self._from
        self._from = self._to = self._cuts = 0
        if size > 0:
            self._feed(self._store, self._offset + begin, size)
        return 0

    def receive(self, sock, timeout_s):
        self._begin()
        try:
            return self._receive(sock, _seconds(timeout_s), _FOR_EVER)
        finally:
            self._busy = False

    def reply(self, sock, timeout_s):
        cdef double seconds = _seconds(timeout_s)
        self._begin()
        try:
            reply = self._next(True)
            return self._awaited(sock, _descriptor(sock), seconds, True) if reply is self._not_enough else reply
        finally:
            self._busy = False

    def replies(self, sock, Py_ssize_t count, timeout_s):
        cdef double seconds = _seconds(timeout_s)
        cdef list found = []
        self._begin()
        try:
            while len(found) < count:
                reply = self._next(True)
                if reply is self._not_enough:
                    reply = self._awaited(sock, _descriptor(sock), seconds, not found)
                found.append(reply)
                if type(reply) is _push:
                    break
            return found
        finally:
            self._busy = False

    def is_quiet(self, sock):
        return not self._busy and not self.has_data() and _is_quiet(_descriptor(sock))

    def ask(self, sock, args, buffers):
        cdef fs_socket fd
        cdef double seconds
        if self._busy:
            return NotImplemented
        self.was_sent = False  # not before: it is the other call's until then
        if self._under_way or self._large is not None or self._from < self._to or self._has_data():
            return NotImplemented
        self._busy = True
        try:
            if not _is_quiet(_descriptor(sock)):
                return NotImplemented
            seconds = _seconds(sock.gettimeout())
            if not _tell(sock, args, buffers, seconds, &fd):
                return NotImplemented
            self.was_sent = True
            return self._awaited(sock, fd, seconds, True)
        finally:
            self._busy = False

    cdef object _awaited(self, object sock, fs_socket fd, double seconds, bint is_first):
        """Receive until the next reply is whole, and return it.

        ``fd``: of ``sock``, and nobody could run since it was asked for. ``is_first``: nothing can have come yet.
        """
        cdef double deadline = _FOR_EVER
        cdef int ready, wait_ms
        if is_first and seconds != 0:
            deadline = fs_monotonic_s() + seconds if seconds > 0 else seconds
            wait_ms = _WAIT_MS if seconds == _FOR_EVER else <int>min(<double>_WAIT_MS, ceil(seconds * 1e3))
            with nogil:
                ready = fs_wait(fd, FS_READABLE, wait_ms)
            if ready <= 0:
                PyErr_CheckSignals()
                if not _wait(sock, FS_READABLE, deadline):
                    raise socket.timeout("timed out")
        while True:
            if not self._receive(sock, seconds, deadline):
                raise ConnectionAbortedError()
            reply = self._next(True)
            if reply is not self._not_enough:
                return reply
            deadline = _FOR_EVER

    cdef int _begin(self) except -1:
        if self._busy:
            raise RuntimeError("this connection is being read already, by another thread or below a signal handler")
        self._busy = True
        return 0

    cdef bint _receive(self, object sock, double timeout_s, double deadline) except -1:
        cdef char *store = PyByteArray_AS_STRING(self._store) + self._offset
        cdef fs_piece pieces[2]
        cdef fs_piece *used = &pieces[1]
        cdef Py_ssize_t begin, got, into
        self._make_room()
        begin = self._to
        pieces[1].iov_base = store + begin
        pieces[1].iov_len = self._size - begin
        if self._large is not None and self._missing:
            pieces[0].iov_base = PyBytes_AS_STRING(self._large) + len(self._large) - self._missing
            pieces[0].iov_len = self._missing
            used = pieces
        got = _move(sock, used, 2 if used == pieces else 1, False, False, timeout_s, &deadline)
        if got == 0:
            return False
        into = 0
        if used == pieces:
            into = min(got, self._missing)
            self._missing -= into
        if self._to != begin:  # another thread has parsed meanwhile
            self._hand_on()
            self._from = begin
        self._to = begin + got - into
        self._settle(store)
        return True

    cdef int _make_room(self) except -1:
        if self._from < self._to:
            self._cuts += 1
            if self._to == self._size or self._cuts > _CUTS_MAX:
                self._hand_on()
        if self._from == self._to:
            self._from = self._to = 0
        return 0

    def room(self, size_hint=-1):
        self._begin()
        try:
            self._make_room()
            return self._view[self._to :] if self._to else self._view
        finally:
            self._busy = False

    def received(self, Py_ssize_t size):
        self._begin()
        try:
            if not 0 <= size <= self._size - self._to:
                raise ValueError(f"{size} bytes are not what room() has")
            self._to += size
            self._settle(PyByteArray_AS_STRING(self._store) + self._offset)
        finally:
            self._busy = False

    cdef int _settle(self, char *store) except -1:
        """Give a large string, and hiredis, what was received for them."""
        cdef Py_ssize_t size
        if self._large is not None:
            size = min(self._to - self._from, self._missing)
            if size:
                memcpy(PyBytes_AS_STRING(self._large) + len(self._large) - self._missing, store + self._from, size)
                self._missing -= size
                self._from += size
            size = min(self._to - self._from, self._trailer)
            self._trailer -= size
            self._from += size
        elif self._under_way or self._has_data():
            self._hand_on()
        return 0

    cdef bint _begin_large(self, const char *start, const char *end) except -1:
        """Make room for the large string that begins at ``start``, and take what is there of it."""
        cdef long long length = 0
        if start[0] != c"$":
            return False
        start += 1
        if fs_reply_number(&start, end, &length) != 1 or not _large_bytes < length <= _bulk_max_bytes:
            return False
        try:
            self._large = PyBytes_FromStringAndSize(NULL, length)
        except MemoryError:  # hiredis asks for it bit by bit, as it comes
            return False
        self._missing = length
        self._trailer = 2
        self._from = self._to - (end - start)
        self._cuts = 0
        self._settle(PyByteArray_AS_STRING(self._store) + self._offset)
        return True
