# Commands as bytes for Redis (RESP); included by _fastsock.pyx, described in _fastsock.pyi.

from cpython.buffer cimport PyBUF_CONTIG_RO, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from extras._fastsock_py import CUTOFF_BYTES as _CUTOFF_BYTES

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

CUTOFF_BYTES = _CUTOFF_BYTES
cdef Py_ssize_t _cutoff_bytes = CUTOFF_BYTES
cdef enum:
    _HEAD_MAX = 24  # "*" or "$", the digits of a 64-bit number, "\r\n"
    _ROOM_AT_FIRST = 1024


cdef struct _Text:
    char *start
    Py_ssize_t used
    Py_ssize_t room
    char here[_ROOM_AT_FIRST]


cdef int _reserve(_Text *text, Py_ssize_t more) except -1:
    """Make room for ``more`` bytes."""
    cdef Py_ssize_t room
    cdef char *start
    if text.room - text.used >= more:
        return 0
    room = max(text.room * 2, text.used + more)
    start = <char *>PyMem_Realloc(NULL if text.start == text.here else text.start, room)
    if start == NULL:
        raise MemoryError()
    if text.start == text.here:
        memcpy(start, text.here, text.used)
    text.start = start
    text.room = room
    return 0


cdef int _add_head(_Text *text, char kind, Py_ssize_t number) except -1:
    """Add the line that says how many arguments follow, or bytes."""
    cdef char digits[_HEAD_MAX]
    cdef Py_ssize_t at = _HEAD_MAX
    _reserve(text, _HEAD_MAX)
    while True:
        at -= 1
        digits[at] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            break
    text.start[text.used] = kind
    memcpy(text.start + text.used + 1, &digits[at], _HEAD_MAX - at)
    text.used += 1 + _HEAD_MAX - at
    memcpy(text.start + text.used, b"\r\n", 2)
    text.used += 2
    return 0


cdef int _add(_Text *text, const char *data, Py_ssize_t size) except -1:
    """Add a small argument, with its length before it."""
    _add_head(text, c"$", size)
    _reserve(text, size + 2)
    memcpy(text.start + text.used, data, size)
    memcpy(text.start + text.used + size, b"\r\n", 2)
    text.used += size + 2
    return 0


cdef int _add_large(_Text *text, list pieces, object data, Py_ssize_t size) except -1:
    """Add an argument that is sent from where it is."""
    _add_head(text, c"$", size)
    pieces.append(PyBytes_FromStringAndSize(text.start, text.used))
    pieces.append(data)
    memcpy(text.start, b"\r\n", 2)
    text.used = 2
    return 0


cdef bint _is_one_word(const char *name, Py_ssize_t size, bint is_text):
    """Whether redis-py takes it for one argument: it splits text at white space, bytes at spaces."""
    cdef Py_ssize_t at
    for at in range(size):
        if name[at] == c" " or (is_text and c"\t" <= name[at] <= c"\r"):
            return False
    return size > 0 or not is_text


cdef int _add_argument(_Text *text, list pieces, object arg, bint is_name, object buffers) except -1:
    """Add one argument; return 0 if it is redis-py's to pack or to refuse."""
    cdef Py_ssize_t size
    cdef const char *data
    cdef char digits[_HEAD_MAX]
    cdef long long number
    cdef int overflow = 0
    cdef Py_buffer view
    kind = type(arg)
    if kind is str:
        data = PyUnicode_AsUTF8AndSize(arg, &size)
        if is_name and not _is_one_word(data, size, True):
            return 0
        if size > _cutoff_bytes:
            _add_large(text, pieces, PyBytes_FromStringAndSize(data, size), size)
        else:
            _add(text, data, size)
    elif kind is bytes:
        data = PyBytes_AS_STRING(arg)
        size = PyBytes_GET_SIZE(arg)
        if is_name and not _is_one_word(data, size, False):
            return 0
        if size > _cutoff_bytes:
            _add_large(text, pieces, arg, size)
        else:
            _add(text, data, size)
    elif is_name:
        return 0
    elif kind is int:
        number = PyLong_AsLongLongAndOverflow(arg, &overflow)
        if overflow:
            return _add_argument(text, pieces, str(arg), False, buffers)
        _add(text, digits, snprintf(digits, _HEAD_MAX, "%lld", number))
    elif kind is float:
        return _add_argument(text, pieces, repr(arg), False, buffers)
    elif kind in buffers:
        if kind is memoryview and not (arg.format == "B" and arg.ndim == 1 and arg.c_contiguous):
            return 0
        PyObject_GetBuffer(arg, &view, PyBUF_CONTIG_RO)
        try:
            if view.len > _cutoff_bytes:
                _add_large(text, pieces, arg, view.len)
            else:
                _add(text, <const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
    else:
        return 0
    return 1


cdef void _begin_text(_Text *text) noexcept:
    text.start = text.here
    text.used = 0
    text.room = _ROOM_AT_FIRST


cdef void _end_text(_Text *text) noexcept:
    if text.start != text.here:
        PyMem_Free(text.start)


cdef int _pack(_Text *text, list pieces, object args, object buffers) except -1:
    """Add one command; return 0 if it is redis-py's to pack or to refuse."""
    cdef Py_ssize_t number = 0, count
    try:
        count = len(args)
        _add_head(text, c"*", count)
        for arg in args:
            if not _add_argument(text, pieces, arg, number == 0, buffers):
                return 0
            number += 1
    except (TypeError, ValueError):  # lone surrogates, more digits than Python writes, what is no command
        return 0
    return number == count and count > 0


def pack_commands(commands, buffers):
    cdef _Text text
    cdef list pieces = []
    _begin_text(&text)
    try:
        for args in commands:
            if not _pack(&text, pieces, args, buffers):
                return None
        if text.used:
            pieces.append(PyBytes_FromStringAndSize(text.start, text.used))
        return pieces
    finally:
        _end_text(&text)
