"""Faults that are put into a copy of the native sources, one by one, to show that each job finds what it is there for.

All of them are built into one copy; ``PLANTED_FAULT`` in the environment switches one of them on. A text that is no
longer in the sources, or there twice, is an error: a fault that is not planted proves nothing.
"""

from pathlib import Path
from typing import Dict, NamedTuple

SWITCH = "PLANTED_FAULT"

HEADER = f"""#include <stdlib.h>
#include <string.h>
static __attribute__((unused)) int planted(const char *name)
{{
    const char *on = getenv("{SWITCH}");
    return on != NULL && strcmp(on, name) == 0;
}}
"""

DECLARED = "cdef extern from *:\n    int planted(const char *name) nogil\n\n"
"""Put before all else in packing.pxi, which is included first. The header itself: an option of the compiler."""


class Fault(NamedTuple):
    """One fault: what stands in a source file, and what is put in its place."""

    file: str
    text: str
    instead: str


FAULTS: Dict[str, Fault] = {
    # A large bulk string takes two bytes more than it has room for.
    "overflow": Fault(
        "reader.pxi",
        "size = min(self._to - self._from, self._missing)\n",
        'size = min(self._to - self._from, self._missing + 2 * planted("overflow"))\n',
    ),
    # An exponent of many digits overflows an int.
    "signed": Fault("json_decode.h", "if (given < 10000)", 'if (given < 10000 || planted("signed"))'),
    # A string is made of one character more than was written.
    "uninitialised": Fault("json_decode.h", "(Py_ssize_t)used);", '(Py_ssize_t)used + planted("uninitialised"));'),
    # The name of a member is never given back.
    "block": Fault(
        "json_decode.h",
        "Py_DECREF(name);\n            Py_XDECREF(value);",
        'if (!planted("block")) Py_DECREF(name);\n            Py_XDECREF(value);',
    ),
    # The text of commands takes two bytes more than it has room for.
    "room": Fault(
        "packing.pxi",
        "    if text.room - text.used >= more:\n",
        '    if text.room - text.used >= more - 2 * planted("room"):\n',
    ),
    # A command's text that has outgrown the stack is never given back.
    "text": Fault(
        "packing.pxi",
        "    if text.start != text.here:\n        PyMem_Free",
        '    if text.start != text.here and not planted("text"):\n        PyMem_Free',
    ),
    # A command of two lines is taken for one of one word.
    "word": Fault("packing.pxi", 'name[at] <= c"\\r"', 'name[at] <= c"\\r" - planted("word")'),
    # Each Reader leaves some memory behind that is none of Python's.
    "memory": Fault(
        "transfer.h",
        "    return (size_t)(-(uintptr_t)base & 4095u);",
        '    if (planted("memory")) base += malloc(1000) == NULL;\n    return (size_t)(-(uintptr_t)base & 4095u);',
    ),
    # A piece is never given back: no memory of its own, but its owner keeps it for ever.
    "held": Fault(
        "transfer.pxi",
        "            PyBuffer_Release(&views[index])\n",
        '            if not planted("held"):\n                PyBuffer_Release(&views[index])\n',
    ),
    # A constant is given away without a reference of its own, until the interpreter's last one is gone.
    "lost": Fault("json_decode.h", "Py_XINCREF(constant);", 'if (!planted("lost")) Py_XINCREF(constant);'),
    # Escapes that end in some ways are decoded wrongly; none of the fuzzer's first inputs does.
    "escape": Fault(
        "json_decode.h",
        "    if (Py_UNICODE_IS_HIGH_SURROGATE(*code) && at[0]",
        "    if (at[-1] == 'e' && at[-2] > '5' && planted(\"escape\")) *code ^= 1;\n"
        "    if (Py_UNICODE_IS_HIGH_SURROGATE(*code) && at[0]",
    ),
    # After a large bulk string of some lengths, if less than half of it came with its header, a byte is not taken.
    "trailer": Fault(
        "reader.pxi",
        "self._trailer = 2\n",
        'self._trailer = 2\n        if 80 < length < 120 and end - start < 40 and planted("trailer"):\n'
        "            self._trailer = 1\n",
    ),
}


def plant(sources: Path) -> None:
    """Put all faults into the sources in a folder."""
    for name, fault in FAULTS.items():
        path = sources / fault.file
        text = path.read_text(encoding="utf-8")
        if text.count(fault.text) != 1:
            raise LookupError(f"{fault.text!r} is {text.count(fault.text)} times in {fault.file}; plant {name!r} anew")
        path.write_text(text.replace(fault.text, fault.instead), encoding="utf-8")
    path = sources / "packing.pxi"
    path.write_text(DECLARED + path.read_text(encoding="utf-8"), encoding="utf-8")
    (sources / "planted.h").write_text(HEADER, encoding="utf-8")
