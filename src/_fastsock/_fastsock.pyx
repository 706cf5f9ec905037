# cython: language_level=3, binding=True, autotestdict=False
"""Native socket calls, RESP and JSON: extras.fastsock picks this module where it is built.

Its twin is extras/_fastsock_py.py, its description extras/_fastsock.pyi; the systems' differences are in sockopt.h
and transfer.h, the decoder in json_decode.h, commands as bytes in packing.pxi, sending and receiving in transfer.pxi,
replies in reader.pxi and resp.h.
"""

import operator
import os

from extras._fastsock_py import decode_json as _decode_json_in_python

cdef extern from "sockopt.h" nogil:
    ctypedef int fs_socket
    ctypedef struct fs_option:
        const char *name
        int optname
        int write_only
    enum:
        FS_KEEPALIVE
        FS_IDLE
        FS_INTERVAL
        FS_COUNT
        FS_USER_TIMEOUT
        FS_MEANINGS
    const fs_option fs_options[]
    int fs_set(fs_socket fd, int meaning, int value)
    int fs_get(fs_socket fd, int meaning, long long *value)
    int fs_set_idle_interval(fs_socket fd, int idle_s, int interval_s)

cdef extern from "json_decode.h":
    object fs_json_decode(bytes data, Py_ssize_t start, bint in_array)

cdef extern from *:
    const char *FASTSOCK_VERSION  # setup.py gives it


IMPL = "native"
VERSION = (<bytes>FASTSOCK_VERSION).decode("ascii")

cdef tuple _MEANINGS = ("enabled", "idle_s", "interval_s", "count", "user_timeout_ms")

cdef str _name_of(int meaning):
    if fs_options[meaning].name == NULL:
        return _MEANINGS[meaning]
    return (<bytes>fs_options[meaning].name).decode("ascii")


cdef dict _spelling():
    return {
        _MEANINGS[meaning]: (_name_of(meaning), fs_options[meaning].optname)
        for meaning in range(FS_MEANINGS)
        if fs_options[meaning].name != NULL
    }


SPELLING = _spelling()


cdef object _failed(int code, int meaning, object value):
    name = _name_of(meaning)
    call = f"getsockopt({name})" if value is None else f"setsockopt({name}={value})"
    return OSError(code, f"{call}: {os.strerror(code)}")


cdef int _c_int(str name, object value) except? -1:
    value = operator.index(value)  # Cython would cut 5.5 to 5
    try:
        return value
    except OverflowError:
        raise OverflowError(f"{name}={value} does not fit the C int that setsockopt takes") from None


def set_keepalive(fd, enabled, idle_s, interval_s, count, user_timeout_ms):
    asked = (1 if enabled else 0, idle_s, interval_s, count, user_timeout_ms)
    cdef fs_socket sock
    cdef int values[FS_MEANINGS]
    cdef bint given[FS_MEANINGS]
    cdef int meaning, code
    for meaning in range(FS_MEANINGS):
        given[meaning] = asked[meaning] is not None
        values[meaning] = _c_int(_name_of(meaning), asked[meaning]) if given[meaning] else 0
    sock = _c_int("fd", fd)
    for meaning in range(FS_MEANINGS):
        if not given[meaning]:
            continue
        if fs_options[meaning].write_only:
            if meaning != FS_INTERVAL or not given[FS_IDLE]:
                continue
            with nogil:
                code = fs_set_idle_interval(sock, values[FS_IDLE], values[FS_INTERVAL])
        else:
            with nogil:
                code = fs_set(sock, meaning, values[meaning])
        if code != 0:
            raise _failed(code, meaning, asked[meaning])


def get_keepalive(fd):
    cdef fs_socket sock = _c_int("fd", fd)
    cdef long long values[FS_MEANINGS]
    cdef int meaning, code
    result = []
    for meaning in range(FS_MEANINGS):
        if fs_options[meaning].name == NULL or fs_options[meaning].write_only:
            result.append(None)
            continue
        with nogil:
            code = fs_get(sock, meaning, &values[meaning])
        if code != 0:
            raise _failed(code, meaning, None)
        result.append(bool(values[meaning]) if meaning == FS_KEEPALIVE else values[meaning])
    return tuple(result)


def decode_json(data, start, in_array=False):
    cdef Py_ssize_t at = -1
    if type(data) is bytes:
        start = operator.index(start)
        if 0 <= start <= len(data):
            at = start
    decoded = fs_json_decode(data, at, in_array) if at >= 0 else None
    # What is unusual or wrong is Python's to decode or refuse.
    return _decode_json_in_python(data, start, in_array) if decoded is None else decoded


include "packing.pxi"
include "transfer.pxi"
include "reader.pxi"
