"""DynamoDB (moto's server) and MongoDB (mongomock, in this process) of a test's own."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Optional
from urllib.request import urlopen

import pytest

from extras.bench.server import START_S, free_port

REQUIRED = "RASA_EXTRAS_NOTHING_MISSING"
"""Set in CI: there a database that is missing fails the tests, elsewhere it skips them."""


def missing(what: str) -> None:
    """Skip a test, or fail it where nothing may be missing."""
    (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(f"{what} is not installed here")


class Dynamo:
    """moto's server, which speaks DynamoDB's protocol; boto3 finds it by ``AWS_ENDPOINT_URL``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "moto.log"
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def environment(self) -> Dict[str, str]:
        """What is in the environment of a Rasa that is to use it."""
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL": self.url, "AWS_MAX_ATTEMPTS": "2", "NO_PROXY": "127.0.0.1"}

    def start(self) -> "Dynamo":
        program = Path(__file__).with_name("moto_by_key.py")
        with self._log.open("wb") as log:
            command = [sys.executable, "-W", "ignore", str(program), "-H", "127.0.0.1", "-p", str(self.port)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 2 * START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                    return self
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"moto's server did not start\n{self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it keeps nothing, and would wait for connections that are idle
            self._process.wait(60)


def put_mongomock_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the host's MongoDB store clients of mongomock, which share their databases.

    What is written goes through the BSON of pymongo, as on the way to a server, which refuses what MongoDB cannot keep.
    Conversations are found by an index of their sender ids, which the host has made; mongomock would look at all.
    """
    import bson
    import mongomock
    import pymongo
    import pymongo.database

    server = mongomock.store.ServerStore()
    update_one = mongomock.collection.Collection.update_one

    def update_one_by_bson(self: Any, filter: Any, update: Any, **options: Any) -> Any:
        return update_one(self, filter, bson.decode(bson.encode(update)), **options)

    iterate = mongomock.collection.Collection._iter_documents
    indexes: Dict[int, Dict[Any, Any]] = {}

    def iterate_by_index(self: Any, filter: Any) -> Any:
        if list(filter) != ["sender_id"] or not isinstance(filter["sender_id"], str):
            return iterate(self, filter)
        index, documents = indexes.setdefault(id(self._store), {}), self._store._documents
        for key in itertools.islice(reversed(documents), len(documents) - len(index)):  # the newest: none is deleted
            index[documents[key].get("sender_id")] = key
        found = index.get(filter["sender_id"])
        return iter([] if found is None else [documents[found]])

    monkeypatch.setattr(mongomock.collection.Collection, "_iter_documents", iterate_by_index)

    def client(*place: Any, **options: Any) -> Any:
        return mongomock.MongoClient(*place, _store=server, **options)

    monkeypatch.setattr(mongomock.collection.Collection, "update_one", update_one_by_bson)
    monkeypatch.setattr(pymongo, "MongoClient", client)
    monkeypatch.setattr(pymongo.database, "Database", lambda client, name: client[name])
