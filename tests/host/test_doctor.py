"""``rasa-extras doctor`` where Rasa is: the file is read as the host reads it, and our store is seen to load."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from extras.bench.server import RedisServer
from extras.cli.endpoints_file import read
from extras.cli.main import main

TEXT = """\
tracker_store: &store
  type: redis
  url: ${HOST}
  port: ${PORT}
  db: 5
  password: "${QUOTED}"
  client_name: 'x${QUOTED}'
  key_prefix: $HOST
  record_exp: 1.5
  use_ssl: false
  a: before ${HOST} after
  b: redis://:${HOST}@${HOST}:${PORT}/0
  c: |
    ${HOST}
  d: on
  e: 010
  f: ~
  socket_keepalive_options: {TCP_KEEPIDLE: 5}
  list:
  - ${HOST}
  - 1
lock_store:
  type: in_memory
empty:
"""


def rasas(path: Path) -> Any:
    """Return what the host's own reader makes of a file."""
    name = "rasa.shared.utils.yaml"  # since Rasa Pro 3.8
    try:
        reader = importlib.import_module(name)
    except ImportError:
        reader = importlib.import_module("rasa.shared.utils.io")
    return reader.read_config_file(str(path))


def test_the_file_is_read_as_rasa_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "redis.internal")
    monkeypatch.setenv("PORT", "6380")
    path = tmp_path / "endpoints.yml"
    path.write_text(TEXT, encoding="utf-8")
    assert read(path).sections == rasas(path)


def test_all_is_well_with_our_store(
    tmp_path: Path, server: RedisServer, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the sources' extras/ would hide what is installed
    store = {"type": "extras.trackerstore.ExtraRedisTrackerStore", "url": "127.0.0.1", "port": server.port}
    path = tmp_path / "endpoints.yml"
    path.write_text(json.dumps({"tracker_store": store}), encoding="utf-8")
    assert main(["doctor", str(path), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert ("ok", "tracker store") in [(finding["level"], finding["title"]) for finding in findings]
    assert [finding["title"] for finding in findings if finding["level"] != "ok"] == ["persistence"]
