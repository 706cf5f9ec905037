"""Every command of ``rasa-extras`` on one set-up, however its Redis is run."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import pytest

from extras.cli import conversations_tail
from extras.cli.conversations_show import SESSION_START
from extras.cli.locks import open_locks
from extras.cli.main import main
from extras.cli.redis_store import RedisStore, open_store
from extras.document import Known
from extras.outbox import Outbox, outbox_key
from extras.steps import run

NAMES = [f"sender-{number}" for number in range(12)]
"""In several slots of a cluster each of which another master has."""
ONE = "sender-3"
SAID = {"event": "user", "text": "hi", "timestamp": 1.0}
THEN = {"event": "bot", "text": "hello", "timestamp": 2.0}


class Tools:
    """The commands on a file of ``sections``. ``keys``: all keys of all servers and databases, by a stock client."""

    def __init__(
        self,
        folder: Path,
        sections: Dict[str, Any],
        keys: Callable[[], List[bytes]],
        capsys: "pytest.CaptureFixture[str]",
        secrets: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._path = folder / "endpoints.yml"
        self._path.write_text(json.dumps(sections))
        self._keys = keys
        self._capsys = capsys
        self._secrets = secrets

    def _printed(self) -> str:
        out, err = self._capsys.readouterr()
        assert not any(secret in out + err for secret in self._secrets)
        return out

    def command(self, *arguments: str) -> List[Any]:
        """Carry out one of ``conversations``, with JSON if there is ``--json``; return what each line says."""
        code = main(["conversations", arguments[0], str(self._path), *arguments[1:], "--json"])
        assert code == 0, (arguments, self._capsys.readouterr())
        return [json.loads(line) for line in self._printed().splitlines()]

    def conversations(self) -> None:
        """Carry out each of ``conversations``."""
        with ExitStack() as stack:
            store = open_store(str(self._path))
            stack.callback(store.close)
            for name in NAMES:
                document = json.dumps({"events": [SAID], "name": name, "user_id": "u1"})
                run(store.client, store.conversations.replace(name, document, 600))
                run(store.client, store.users.add("u1", name, None, 1.0))
            assert sorted(row["sender_id"] for row in self.command("list")) == sorted(NAMES)
            assert [row["events"] for row in self.command("show", ONE)] == [[SAID]]
            self._tail(store)
            copy = str(self._folder / "copy.jsonl")
            assert self.command("export", copy)[0]["exported"] == len(NAMES)
            self._delete(store)
            (counts,) = self.command("import", copy)
            assert (counts["imported"], counts["unchanged"]) == (1, len(NAMES) - 1)
            (found,) = self.command("stats")
            assert (found["conversations"], found["sampled"]) == (len(NAMES), len(NAMES))
            for name in NAMES:
                self.command("delete", name, "--yes")
            assert self._keys() == []

    def _tail(self, store: RedisStore) -> None:
        parser = argparse.ArgumentParser()
        conversations_tail.add_arguments(parser)
        parser.add_argument("--json", action="store_true")
        lines = ([ONE, "--json"], ["--all", "--json"])
        one, everyone = (conversations_tail.Follower(store, parser.parse_args(line)) for line in lines)
        assert (one.look(), everyone.look()) == (1, len(NAMES))
        assert json.loads(self._printed()) == SAID
        parsed = run(store.client, store.conversations.load_session(ONE, SESSION_START))
        assert parsed is not None
        assert parsed.known is not None
        addition = b", " + json.dumps(THEN).encode()
        added = run(store.client, store.conversations.append(ONE, parsed.known, addition, parsed.known.closing, 600))
        assert isinstance(added, Known)
        one.look()
        assert json.loads(self._printed()) == THEN
        everyone.look()
        assert json.loads(self._printed()) == {"sender_id": ONE, "event": THEN}

    def _delete(self, store: RedisStore) -> None:
        """Delete a conversation that has a key of each kind."""
        key = store.conversations.key(ONE)
        store.client.execute_command("RPUSH", outbox_key(key), "event")
        run(store.client, Outbox(store.conversations.prefix.encode(), 100).claim(key, "relay"))
        locks = open_locks(str(self._path))
        assert locks is not None
        for lock_key in (locks.prefix + ONE, locks.prefix + NAMES[1]):
            locks.client.execute_command("SET", lock_key, "{}", "PX", 60_000)
        mine = [name for name in self._keys() if ONE.encode() in name]
        kinds = ["document", "unpublished events", "outbox lease", "user index entry", "lock"]
        (dry,) = self.command("delete", ONE, "--dry-run")
        assert sorted(name for name in self._keys() if ONE.encode() in name) == sorted(mine)
        (receipt,) = self.command("delete", ONE, "--yes")
        assert [entry["what"] for entry in receipt["keys"]] == kinds
        assert (receipt["keys"], receipt["not_erased"]) == (dry["keys"], [])
        assert len(mine) == len(kinds) - 1  # the index is of a user
        assert not any(ONE.encode() in name for name in self._keys())
        member = store.client.execute_command("ZSCORE", store.users.key("u1"), ONE)
        assert member is None
        locks.client.execute_command("DEL", locks.prefix + NAMES[1])
        locks.close()

    def doctor(self) -> List[Any]:
        """Return what the doctor finds."""
        code = main(["doctor", str(self._path), "--json"])
        findings: List[Any] = json.loads(self._printed())["findings"]
        assert code == 0, [finding for finding in findings if finding["level"] == "failed"]
        return findings
