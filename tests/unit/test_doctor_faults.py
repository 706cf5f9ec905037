"""``rasa-extras doctor`` finds every planted fault, says what to do, and shows no secret; a good set-up is quiet."""

from contextlib import ExitStack
from pathlib import Path
from typing import Iterator

import doctor_faults_others
import doctor_faults_server
import doctor_faults_way
import pytest
from doctor_fault import FAULTS
from doctor_place import GOOD, PASSWORD, Place, levels, report
from tls_proxy import Certificates

from extras.bench.server import RedisServer
from extras.cli.checks_acl import commands_of_store, rights_of

FILES = (doctor_faults_way, doctor_faults_server, doctor_faults_others)
"""Modules that have planted their faults as they were imported."""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with nothing wrong."""
    with RedisServer(tmp_path_factory.mktemp("ward"), GOOD) as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def place(
    ward: RedisServer, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)  # the checkout's own folder extras would be found to hide the package
    with ExitStack() as undo:
        yield Place(ward, tmp_path, certificates, monkeypatch, undo)


def test_there_are_many_faults() -> None:
    assert len(FAULTS) >= 40


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(name: str, place: Place, capsys: "pytest.CaptureFixture[str]") -> None:
    expected = FAULTS[name]
    planted = expected.plant(place)
    is_store = isinstance(planted, dict) and ("url" in planted or "type" in planted)
    code, findings, printed = report(place.write({"tracker_store": planted} if is_store else planted), capsys)
    found = [
        finding
        for finding in findings
        if finding["level"] == expected.level
        and finding["title"] == expected.title
        and expected.found in finding["found"]
    ]
    assert len(found) == 1, findings
    assert found[0]["way_out"]
    assert code == int(any(levels(findings, "failed")))
    assert "could not be carried out" not in printed
    assert not any(secret in printed for secret in ("hunter2", "hunter3", "Traceback"))


def test_nothing_is_found_where_nothing_is_wrong(place: Place, capsys: "pytest.CaptureFixture[str]") -> None:
    endpoints = {
        "tracker_store": place.store(**place.user("~bot:*", "+@all"), key_prefix="bot"),
        "event_broker": {"url": "127.0.0.1", "port": place.server.port},
        "lock_store": {"type": "redis", "url": "127.0.0.1", "port": place.server.port, "password": PASSWORD},
        "action_endpoint": doctor_faults_others.action(place, 200),
    }
    code, findings, printed = report(place.write(endpoints), capsys)
    assert [finding for finding in findings if finding["level"] in ("warning", "failed")] == []
    assert [finding["title"] for finding in findings if finding["level"] == "unseen"] == ["tracker store"]  # no Rasa
    assert code == 0
    assert "hunter2" not in printed
    assert place.root.keys("*") == []


def test_nothing_is_found_over_tls_with_a_client_certificate(
    place: Place, capsys: "pytest.CaptureFixture[str]"
) -> None:
    store = {**place.tls(client_needs_one=True), "ssl_certfile": place.certificates.client_both_file}
    code, findings, _ = report(place.write({"tracker_store": store}), capsys)
    assert list(levels(findings, "warning", "failed")) == []
    assert code == 0
    assert "certificate" in [finding["title"] for finding in findings]


def test_nothing_is_found_on_a_unix_socket(place: Place, capsys: "pytest.CaptureFixture[str]") -> None:
    store = place.store(url=f"unix://{place.server.unix_path}", port=...)
    code, findings, _ = report(place.write({"tracker_store": store}), capsys)
    assert list(levels(findings, "warning", "failed")) == []
    assert code == 0


def test_a_user_that_may_not_ask_for_its_rights_leaves_nothing_behind(
    place: Place, capsys: "pytest.CaptureFixture[str]"
) -> None:
    store = place.store(**place.user("~bot:*", "+@all", "-acl", "-info", "-config", "-time"), key_prefix="bot")
    code, findings, _ = report(place.write({"tracker_store": store}), capsys)
    assert list(levels(findings, "warning", "failed")) == []
    assert {"permissions", "conversation"} <= {finding["title"] for finding in levels(findings, "ok")}
    assert place.root.keys("*") == []
    assert code == 0


def test_a_user_with_the_rights_of_the_store_and_no_others_is_enough(
    place: Place, capsys: "pytest.CaptureFixture[str]"
) -> None:
    rights = {f"+{command[0].lower()}" for command in commands_of_store("key", "pattern")}
    store = place.store(**place.user("~bot:tracker:*", "+@connection", *sorted(rights)), key_prefix="bot")
    code, findings, _ = report(place.write({"tracker_store": store}), capsys)
    assert list(levels(findings, "failed")) == []
    assert {"permissions", "conversation"} <= {finding["title"] for finding in levels(findings, "ok")}
    assert place.root.keys("*") == []
    assert code == 0


def test_the_documented_rights_are_enough(place: Place, capsys: "pytest.CaptureFixture[str]") -> None:
    """Neither ``TYPE``, which only ``read_unprefixed_keys`` needs, nor ``PING`` is among them."""
    store = place.store(**place.user(*rights_of("bot")), key_prefix="bot")
    locks = {**store, "type": "extras.lockstore.ExtraRedisLockStore"}
    code, findings, _ = report(place.write({"tracker_store": store, "lock_store": locks}), capsys)
    assert list(levels(findings, "failed")) == []
    assert {"permissions", "conversation", "lock store"} <= {finding["title"] for finding in levels(findings, "ok")}
    assert code == 0
