"""Chooses, as a plugin of pytest, which of the native module's unit tests run under the sanitizers, and says why."""

from typing import Any, Dict, List

LEFT_OUT = {
    "test_transfer.py::TestConnection::": "a server, and redis-py above the same native calls",
    "test_transfer.py::TestPacking::": "packing is Python",
    "test_transfer.py::TestLeaks::": "counts blocks of Python's own arenas, which are switched off",
    "test_transfer.py::TestSignals::test_connection_is_closed": "redis-py above the same native calls",
    "test_transfer.py::TestReader::test_huge_length": "measures memory, which the sanitizers need more of",
    "test_decode_json.py::test_no_path_leaves": "counts blocks of Python's own arenas, which are switched off",
    "test_decode_json.py::test_any_": "random texts: the fuzzer's, under the same sanitizers",
    "test_fastsock.py::TestLeaks::": "counts blocks of Python's own arenas, which are switched off",
    "test_fastsock.py::TestSelector::": "which module is imported, in processes of their own",
}

_left_out: Dict[str, List[str]] = {}


def _reason(item: Any) -> str:
    for start, reason in LEFT_OUT.items():
        if start in item.nodeid:
            return reason
    parameters = getattr(item, "callspec", None)
    if parameters is not None and any(getattr(value, "IMPL", "") == "python" for value in parameters.params.values()):
        return "of the Python twin"
    return ""


def pytest_collection_modifyitems(config: Any, items: List[Any]) -> None:
    """Take out what does not belong here."""
    kept = []
    for item in items:
        reason = _reason(item)
        if reason:
            _left_out.setdefault(reason, []).append(item)
        else:
            kept.append(item)
    config.hook.pytest_deselected(items=[item for left in _left_out.values() for item in left])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many were taken out, and why."""
    for reason, items in _left_out.items():
        terminalreporter.write_line(f"{len(items):4} left out: {reason}")
