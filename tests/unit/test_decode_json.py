"""The native JSON decoder and its Python twin give what ``json`` gives, refuse what it refuses, and leak nothing.

The oracle is ``json.JSONDecoder().raw_decode`` of the decoded text. Values are compared with types, signs and order.
"""

import gc
import json
import math
import random
import sys
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leaks import growth

from extras import _fastsock as native
from extras import _fastsock_py as python
from extras import fastsock
from extras.bench import shapes

RECORDED = shapes.RECORDED.encode()
LONG = {"events": shapes.conversation(shapes.Shape.parse("150/150"), shapes.recorded_events()), "name": "x"}

each_twin = pytest.mark.parametrize("twin", [native, python], ids=["native", "python"])

Outcome = Optional[Tuple[Any, int]]
"""A value and the offset after it; ``None``: refused."""


def oracle(data: bytes, start: int, in_array: bool) -> Outcome:
    """Return what ``json`` says."""
    try:
        text = "[" * in_array + data[start:].decode("utf-8")
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value, start - in_array + len(text[:end].encode())


def outcome(twin: Any, data: bytes, start: int, in_array: bool) -> Outcome:
    """Return what a decoder says."""
    try:
        value, end = twin.decode_json(data, start, in_array)
    except ValueError:
        return None
    assert type(end) is int
    return value, end


def difference(left: Any, right: Any) -> Optional[Tuple[Any, Any]]:
    """Return the first values in which two decoded ones differ, if they do."""
    todo = [(left, right)]
    while todo:
        left, right = todo.pop()
        if type(left) is not type(right):
            return left, right
        if isinstance(left, float):
            same = (math.isnan(left) and math.isnan(right)) or (
                left == right and math.copysign(1, left) == math.copysign(1, right)
            )
        elif isinstance(left, list):
            same = len(left) == len(right)
            todo += zip(left, right)
        elif isinstance(left, dict):
            same = list(left) == list(right) and all(type(name) is str for name in left)
            todo += zip(left.values(), right.values())
        else:
            same = left == right
        if not same:
            return left, right
    return None


def check(data: bytes, start: int = 0, in_array: bool = False) -> Outcome:
    """Decode with both twins, compare with ``json``, and return what that says."""
    expected = oracle(data, start, in_array)
    for twin in (native, python):
        found = outcome(twin, data, start, in_array)
        if expected is None or found is None:
            assert found is expected, (twin.IMPL, data, start, in_array)
        else:
            assert found[1] == expected[1], (twin.IMPL, data, start, in_array)
            assert difference(found[0], expected[0]) is None, (twin.IMPL, data, start, in_array)
    return expected


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """Record what the native decoder leaves to its twin."""
    calls: List[Any] = []

    def decode(*arguments: Any) -> Any:
        calls.append(arguments)
        return python.decode_json(*arguments)

    monkeypatch.setattr(native, "_decode_json_in_python", decode)
    return calls


GOOD = [
    *("null", "true", "false", "NaN", "Infinity", "-Infinity", "[]", "{}", '""', "[ ]", "{\n}", "[\t1\r,\n2 ]"),
    *("0", "-0", "1", "-1", "10", "9" * 18, "-" + "9" * 18, "9" * 19, "9" * 20, str(2**63), str(-(2**63)), "7" * 400),
    *("0.0", "-0.0", "0e0", "-0e7", "0E+1", "0e400", "0.0000e-400", "-0.0e99999999999999999999", "0.1", "0.1e1"),
    *("1e0", "1E5", "1e+5", "1e-5", "1.5", "-1.5", "1e22", "1e23", "1e308", "1.7976931348623157e308"),
    *("1E400", "-1E400", "1e-400", "5e-324", "2.4703282292062327e-324", "2.4703282292062328e-324"),
    *("2.2250738585072014e-308", "2.2250738585072011e-308", "9007199254740993.0", "9007199254740992e1"),
    *("9007199254740993e-1", "1e99999999999999999999", "1e-99999999999999999999", "0." + "0" * 50 + "1"),
    *(
        "0." + "0" * 1500 + "1e1501",
        "0." + "0" * 2000 + "1e1990",
        "0." + "0" * 10_015 + "1e1000000",
        "0." + "9" * 1200,
    ),
    *("1234567890123456789.0", "12345678901234567890.0", "0.1234567890123456789", "0.12345678901234567890"),
    *("1.2345678901234567e-11", "18446744073709551615e-1", "18446744073709551616e-1", "0.00000000000000000000001"),
    *("1700000000.1234567", "0.9999997615814209", "1.073422666308943e-07", "4.450147717014403e-308"),
    *('"a"', '"ab"', '"seven.."', '"eight..."', '"nine....."', '"\x7f"', '"' + "x" * 63 + '"', '"' + "x" * 65 + '"'),
    *(r'"\"\\\/\b\f\n\r\t"', r'"\u0041"', r'"\u00e4"', r'"\u00E4"', r'"\u20ac"', r'"\u0000"', r'"\\u0041"', r'"\\"'),
    *(r'"\ud83d\ude00"', r'"\uD83D\uDE00"', r'"\ud800"', r'"\udc00"', r'"\udc00\ud800"', r'"\ud800\ud800"'),
    *(r'"\ud83d\u0041"', r'"\ud83d\n\ude00"', r'"\ud83d\ud83d\ude00"', r'"\ud83d \ude00"', r'"\ud83dA"'),
    *('"ä"', '"€"', '"😀"', '"a😀b"', '"äöü' + "x" * 30 + '"', '"ä\\n€\\u20ac😀x"', '"x\\ny"', '"\\n😀"', '"\u2028"'),
    *('{"a": 1, "b": 2, "a": 3}', '{"": {"": {}}}', '{"a":1,"\\u0061":2}', '{"ä": 1, "b\\n": [{}, {}]}'),
    *('["a", "a", "b", "ab", "ab", "ba"]', '{"name": "name", "name ": "name "}', "[[[[1], 2], 3], 4]"),
]
"""Texts that ``json`` takes and the native decoder decodes itself."""

BAD = [
    *(
        "",
        " ",
        " 1",
        "\n[]",
        "\ufeff1",
        "nul",
        "nulL",
        "Nul",
        "tru",
        "fals",
        "Na",
        "nan",
        "Infinit",
        "-Infinit",
        "-NaN",
    ),
    *("+1", "-", "-a", ".5", "-.5", "e5", "'a'", "]", "}", ",", ":", '"', '"a', '"\\', '"\\"', "[", "{", "[1", "[1,"),
    *(
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "[1:2]",
        "[01]",
        "[1.]",
        "[1e]",
        "[1.e5]",
        "[.5]",
        "[+1]",
        "[-]",
        "[1_0]",
        "[0x1]",
    ),
    *("[1e+]", "[1E-]", "[--1]", "[1.2.3]", "[1e5.5]", "[tru]", "[NaNa]", "[truee]", "[0123456789012345678901]"),
    *('{"a"}', '{"a" 1}', '{"a":}', '{"a":1,}', '{"a":1 "b":2}', '{"a":1]', "{1:2}", "{a:1}", "{,}", '{"a":1', '{"a'),
    *(
        '{"a":',
        '{"a',
        '{"a"',
        '{"a":1,',
        '{"a":1,"b"',
        "{null: 1}",
        '{"a": 1, 2}',
        "{\x00}",
        "[\x00]",
        "[1\x00]",
        "\x00",
    ),
    *(
        '"\n"',
        '"\t"',
        '"\x00"',
        '"\x1f"',
        '"aaaaaaaaaaaaaaa\x01"',
        '"ä\x01"',
        '"\\a"',
        '"\\x41"',
        '"\\\x00"',
        "[\x0b1]",
    ),
    *(r'"\u"', r'"\u1"', r'"\u12"', r'"\u123"', r'"\u00zz"', r'"\u+123"', r'"\u 123"', r'"\U0041"', r'"\ud83d\u"'),
    *(r'"\ud83d\ude0"', r'"\ud83d\uzzzz"', r'"\u12g4"', r'"\u@@@@"', r'"\u`aaa"', r'"\uGggg"', "[\xa01]", "[\u20281]"),
]
"""Texts that ``json`` refuses."""

NO_UTF8 = [
    b"\xff",
    b"\x80",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xa0\xbd\xed\xb8\x80",
]
NO_UTF8 += [b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc3(", b"\xfe\xff"]

PREFIXES_OF_NUMBERS = [
    "01",
    "-01",
    "1.",
    "1.a",
    "1e",
    "1e+",
    "1.5e",
    "1.5e-x",
    "0x10",
    "1_000",
    "1.5_3",
    "00",
    "-0-",
    "1..2",
]
"""Texts that begin with a number and go on with what is none: that is where ``json`` stops, too."""


@pytest.mark.parametrize("text", GOOD, ids=lambda text: ascii(text)[:40])
def test_what_json_takes_is_decoded_natively(text: str, asked: List[Any]) -> None:
    data = text.encode()
    decoded = check(data)
    assert decoded is not None
    assert decoded[1] == len(data)
    for more in ("", " ", "x", "]", ", 1", "}\0", "ä", '"'):
        assert check(data + more.encode()) is not None
    for before, after in (("[", "]"), ('{"k": ', "}"), ("[[1, ", "], 2]"), ('{"a": [{"b":', " }\n]}")):
        assert check((before + text + after).encode()) is not None
    assert check(b"ab" + data + b"c", 2) is not None
    assert check(data + b", 2]" + data, 0, True) is not None
    assert check(b"\xff" + data + b",\n[7] ]" + data, 1, True) is not None
    assert asked == []


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text)[:40])
def test_what_json_refuses_is_refused(text: str) -> None:
    assert check(text.encode()) is None
    for before, after in (("[", "]"), ('{"k": ', "}"), ("[[1], ", ', "x"]'), ('["', '"]'), ("", '"'), ("", "]")):
        check((before + text + after).encode())
    for after in ("", "]", ", 1]", '"]'):
        check((text + after).encode(), 0, True)


@pytest.mark.parametrize("text", PREFIXES_OF_NUMBERS)
def test_a_number_ends_where_json_says(text: str, asked: List[Any]) -> None:
    decoded = check(text.encode())
    assert decoded is not None
    assert decoded[1] < len(text)
    assert asked == []
    assert check(f"[{text}]".encode()) is None
    assert check(f'{{"a":{text}}}'.encode()) is None


@pytest.mark.parametrize("wrong", NO_UTF8, ids=repr)
def test_what_is_no_utf8_is_refused_anywhere_after_the_start(wrong: bytes) -> None:
    for before, after in (
        (b"", b""),
        (b'"', b'"'),
        (b'"x\\n', b'"'),
        (b'"a long text in front ', b'\\n"'),
        (b"[1", b"]"),
    ):
        assert check(before + wrong + after) is None
    for before in (b"1", b"[]", b'{"a": "\xc3\xa4"}', b'"x" ' + b" " * 99):
        assert check(before + wrong) is None
        assert check(wrong + before, len(wrong)) is not None
    assert check(b'{"' + wrong + b'": 1}') is None


def test_digits_without_end_are_limited_as_json_limits_them() -> None:
    limited = hasattr(sys, "get_int_max_str_digits")
    assert (check(b"9" * 5000) is None) == limited
    assert (check(b"[-" + b"9" * 5000 + b"]") is None) == limited
    assert check(b"9" * 5000 + b".5") is not None


def test_floats_are_rounded_as_json_rounds_them(asked: List[Any]) -> None:
    draw = random.Random(17)
    texts = []
    for size in range(1, 25):
        for exponent in range(-45, 30):
            digits = str(draw.randrange(10 ** (size - 1), 10**size))
            texts += [f"{digits}e{exponent}", f"-{digits[0]}.{digits}e{exponent}"]
    for _ in range(3000):
        number = draw.uniform(0, 10) * 10.0 ** draw.randrange(-12, 10)
        texts.append(repr(number))
        # Half way between two doubles, and as near to that as 18 to 20 digits can be: what rounding gets wrong.
        middle = (2 * draw.randrange(2**52, 2**53) + 1) * 5 ** draw.randrange(0, 5)
        power = draw.randrange(-27, 3)
        texts += [f"{middle}e{power}", f"{middle + 1}e{power}", f"{middle - 1}e{power}"]
    for power in range(1, 28):  # exactly half way, in digits that fit 64 bits
        for odd in range(2**53 + 1, 2**53 + 41, 2):
            if odd * 5**power < 2**64:
                texts += [
                    f"{odd * 5**power}e-{power}",
                    f"{odd * 5**power + 1}e-{power}",
                    f"{odd * 5**power - 1}e-{power}",
                ]
    assert check(f"[{', '.join(texts)}]".encode()) is not None
    assert asked == []


def test_strings_of_every_length_end_where_they_end(asked: List[Any]) -> None:
    """Eight bytes are looked at at once: every special byte in every place among them."""
    for size in range(20):
        for special in ("", "\\n", "\\u00e4", "\\ud83d\\ude00", "ä", "€", "😀", "\x7f"):
            for place in range(size + 1):
                text = '"' + "x" * place + special + "y" * (size - place) + '"'
                for after in ("", "]", '"', "\\", "zzzzzzzz", "äääääääää"):
                    assert check((text + after).encode()) is not None
    assert asked == []
    for size in range(12):
        for place in range(size + 1):
            for special in ("\x00", "\x1f", "\n", "\\", "\\u12"):
                assert check(('"' + "x" * place + special + "y" * (size - place)).encode()) is None
                assert check(('"' + "x" * place + special).encode()) is None


def test_strings_that_hash_alike_are_not_confused(asked: List[Any]) -> None:
    draw = random.Random(3)
    names = [f"{'ab' * draw.randrange(1, 5)}{draw.randrange(9999)}{'cd' * draw.randrange(30)}" for _ in range(3000)]
    names += [f"12345678{middle}12345678" for middle in range(2000)]  # the same ends and often the same length
    for _ in range(2):
        names += draw.sample(names, 1000)
    assert check(json.dumps(names).encode()) is not None
    assert check(json.dumps([{name: name} for name in names]).encode()) is not None
    assert (
        check(("{" + ", ".join(f'"{name}": {number}' for number, name in enumerate(names)) + "}").encode()) is not None
    )
    assert asked == []


@pytest.mark.parametrize("depth", [10, 98, 99, 100, 101, 102, 150, 300])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}"), ('[{"a":[', "]}]")])
def test_nesting(depth: int, opening: str, closing: str, asked: List[Any]) -> None:
    data = (opening * depth + "1" + closing * depth).encode()
    assert check(data) is not None
    assert (asked == []) == (depth * opening.count("[") + depth * opening.count("{") <= 100)
    assert check(data + b"]", 0, True) is not None
    assert check((opening * depth + "1" + closing * (depth - 1)).encode()) is None
    wide = (f"[{', '.join([opening * 3 + '1' + closing * 3] * depth)}]").encode()
    assert check(wide) is not None


@each_twin
@pytest.mark.parametrize("depth", [20_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}"), ("[", ""), ('[{"a":', "")])
def test_nesting_beyond_what_python_can(twin: Any, depth: int, opening: str, closing: str) -> None:
    data = (opening * depth + "1" + closing * depth).encode()
    if oracle(data, 0, False) is None:  # newer Pythons take 20,000 on a large stack
        with pytest.raises(ValueError):  # noqa: PT011 - the message is json's or ours
            twin.decode_json(data, 0)


@each_twin
def test_arguments(twin: Any) -> None:
    assert twin.decode_json(b"12 34", 3) == (34, 5)
    assert twin.decode_json(data=b"1, 2]", start=0, in_array=True) == ([1, 2], 5)
    assert twin.decode_json(b"12", True) == (2, 2)
    for start in (-1, 3, 2, 2**31, 2**70, -(2**70)):
        with pytest.raises(ValueError):  # noqa: PT011
            twin.decode_json(b"12", start)

    class Bytes(bytes):
        pass

    for data in (Bytes(b"12"), bytearray(b"12"), memoryview(b"12"), "12", None):
        with pytest.raises(TypeError):
            twin.decode_json(data, 0)
    for place in ("0", 0.0, None):
        with pytest.raises(TypeError):
            twin.decode_json(b"12", place)


def test_selector() -> None:
    assert fastsock.decode_json(b" [1]", 1) == ([1], 4)
    assert fastsock.decode_json(b" 1] ", 1, in_array=True) == ([1], 3)


@pytest.mark.parametrize(
    "data",
    [
        RECORDED,
        json.dumps(LONG).encode(),
        json.dumps(LONG, indent=1, sort_keys=True).encode(),
        json.dumps(LONG, separators=(",", ":")).encode(),
    ],
    ids=["recorded", "long", "indented", "compact"],
)
def test_conversations(data: bytes, asked: List[Any]) -> None:
    decoded = check(data)
    assert decoded is not None
    assert decoded[1] == len(data)
    events = data.index(b"[")
    whole = check(data, events)
    assert whole is not None
    assert check(data, events + 1, True) == whole
    last = check(data, data.rindex(b'{"event'), True) if b'{"event' in data else whole
    assert last is not None
    assert last[1] == whole[1] or not last[0][0]["event"]
    assert asked == []


SAMPLE = (
    '{"events": [{"event": "user", "timestamp": 1795237611.8503811, "text": "h\\u00e9 \\ud83d\\ude00\\n", '
    '"x": [[0, 5], []], "metadata": {}, "confidence": -1.5e-07, "policy": null, '
    '"n": [NaN, -Infinity, true, false, 12345678901234567890]}, '
    '{"ä": "ö€😀\\t"}], "name": "x"}'
).encode()


def test_a_sample_truncated_at_every_byte() -> None:
    assert check(SAMPLE) is not None
    for size in range(len(SAMPLE)):
        assert check(SAMPLE[:size]) is None
    for start in range(len(SAMPLE) + 1):
        check(SAMPLE, start)
        check(SAMPLE, start, True)


def test_a_sample_with_every_byte_changed() -> None:
    for place in range(len(SAMPLE)):
        for byte in b'\x00 "\\]},.e1\x80\xff':
            check(SAMPLE[:place] + bytes([byte]) + SAMPLE[place + 1 :])


def mutated(draw: random.Random, data: bytes) -> bytes:
    """Return data with a byte flipped, a piece cut out, put in or doubled."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at, to = sorted(draw.randrange(len(changed) + 1) for _ in range(2))
        to = min(to, at + draw.choice([1, 1, 2, 9]))
        kind = draw.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at:to]
        elif kind == 2:
            changed[at:at] = draw.choice(
                [b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b" ", b"1", b"\xe2\x82\xac", b"\n"]
            )
        elif kind == 3:
            changed[at:to] = bytes(draw.randrange(256) for _ in range(to - at))
        else:
            changed[at:at] = changed[at:to]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_mutations(seed: int) -> None:
    draw = random.Random(seed)
    seeds = [SAMPLE, *(text.encode() for text in GOOD if 2 < len(text) < 99)]
    taken = 0
    for _ in range(2000):
        data = mutated(draw, draw.choice(seeds))
        taken += check(data, 0, draw.random() < 0.2) is not None
    assert 200 < taken < 1900


TEXTS = st.one_of(st.text(max_size=12), st.text(alphabet='abc"\\/\n\t\x00é€😀\ud83d\ude00 ', max_size=20))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.integers(-(10**30), 10**30))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
OPTIONS = st.sampled_from(
    [{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}, {"separators": ("\r,", "\t: ")}]
)
SETTINGS = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SETTINGS
@given(JSON, OPTIONS, st.integers(0, 2**30))
def test_any_json(value: Any, options: Dict[str, Any], seed: int) -> None:
    text = json.dumps(value, **options)
    data = text.encode("utf-8", "replace" if options.get("ensure_ascii", True) else "surrogatepass")
    decoded = check(data)
    if decoded is not None:
        assert decoded[1] == len(data)
        check(b"[" + data + b"]", 1, True)
    draw = random.Random(seed)
    for _ in range(2):
        check(mutated(draw, data))


@SETTINGS
@given(st.binary(max_size=40), st.booleans())
def test_any_bytes(data: bytes, in_array: bool) -> None:
    check(data, 0, in_array)


LEAKING = [
    SAMPLE,
    *(SAMPLE[:size] for size in range(1, len(SAMPLE), 23)),
    *(
        text.encode()
        for text in ('{"a": 1, "a": 2}', '{"long name": [1.5, "long text\\n"], "b": 1,}', "[[[[[x", '{"ab" 1}')
    ),
    *(
        text.encode()
        for text in ('{"a": "\\ud83d\\ude00", "bc": "ab\\x"}', '["abc", "abc", 1.5e300, 1e', "9" * 30, "[" * 120)
    ),
    *(b'["ab", "' + wrong + b'\\n"]' for wrong in NO_UTF8[:3]),
    *(b'{"\xc3\xa4\\n": ["\xe2\x82\xac"]}' + wrong for wrong in (b"", b"\xff")),
    b"9" * 5000,
]


@pytest.mark.parametrize("in_array", [False, True])
def test_no_path_leaves_memory_behind(in_array: bool) -> None:
    def call() -> None:
        for data in LEAKING:
            outcome(native, data, 0, in_array)

    assert growth(call, 60) <= 0


def test_no_reference_is_kept_or_lost() -> None:
    shared: List[Any] = [None, True, False, "", "a", RECORDED, SAMPLE, 1]
    text = b'[null, true, false, "", "a", 1, {"a": null, "": ["", "a", true]}, "abc", "abc"'
    gc.collect()  # what other tests have left would take its references to None with it
    before = [sys.getrefcount(each) for each in shared]
    for _ in range(500):
        for data in (text + b"]", text, text + b"}", SAMPLE, SAMPLE[:90]):
            outcome(native, data, 0, False)
            outcome(native, data, 0, True)
    native.decode_json(RECORDED, 0)
    after = [sys.getrefcount(each) for each in shared]
    assert all(abs(now - then) < 50 for now, then in zip(after, before))
    counted = []
    for twin in (native, python):
        value, end = twin.decode_json(b'{"abc": [[1.5], "d\\u00e4", "long", {"b": 1000}], "x": 123456}', 0)
        parts = [value, end, *value.values(), *value["abc"]]
        counted.append([sys.getrefcount(part) for part in parts])
    assert counted[0] == counted[1]


def test_out_of_memory_is_said_and_leaks_nothing() -> None:
    """Every allocation fails once, wherever the interpreter's own test module is there to make it."""
    testcapi = pytest.importorskip("_testcapi")
    decode = native.decode_json
    data = b'{"a": [1.5, "long text\\n", "\xe2\x82\xac\\n", "abc", 123456, [[], {}]], "n": 12345678901234567890}'
    expected = decode(data, 0)
    failures = 0

    def fail_each() -> None:
        nonlocal failures
        for number in range(1, 60):
            found = None
            testcapi.set_nomemory(number, number + 1)
            try:
                found = decode(data, 0)
            except MemoryError:
                pass
            finally:
                testcapi.remove_mem_hooks()
            if found is None:
                failures += 1
            else:
                assert found == expected

    fail_each()
    assert failures > 5
    assert growth(fail_each, 3) <= 0
