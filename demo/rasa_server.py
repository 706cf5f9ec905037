"""The whole of Rasa, for the demo and the tests: the assistant of ``rasa init``, trained, and ``rasa run``."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional

from extras.bench.server import free_port

OURS = """\
tracker_store:
  type: extras.trackerstore.ExtraRedisTrackerStore
  url: 127.0.0.1
  port: {port}
  client_name: rasa
  socket_keepalive: true
  socket_keepalive_options: {{TCP_KEEPIDLE: 5, TCP_KEEPINTVL: 5, TCP_KEEPCNT: 3}}
lock_store:
  type: extras.lockstore.ExtraRedisLockStore
  url: 127.0.0.1
  port: {port}
"""

STOCK = """\
tracker_store:
  type: redis
  url: 127.0.0.1
  port: {port}
"""


def _program() -> str:
    return str(Path(sys.executable).with_name("rasa"))


def _sources(assistant: Path) -> Dict[Path, bytes]:
    """Return what an assistant is trained from."""
    return {
        path.relative_to(assistant): path.read_bytes()
        for path in assistant.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.relative_to(assistant).parts[0] not in (".rasa", "models")
    }


def trained(folder: Path, assistant: Path, configuration: Optional[str] = None) -> Path:
    """Train a copy of an assistant in ``folder``, unless that was done before; return the folder.

    ``configuration`` takes the place of its ``config.yml``. Raises ``RuntimeError`` with what ``rasa train`` printed.
    """
    files = _sources(assistant)
    if configuration is not None:
        files[Path("config.yml")] = configuration.encode()
    if _sources(folder) != files or not list(folder.glob("models/*.tar.gz")):
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "RASA_TELEMETRY_ENABLED": "false"}
        done = subprocess.run(
            [_program(), "train"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"rasa train ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return folder


def train(folder: Path) -> Path:
    """Make and train the assistant of ``rasa init`` in ``folder``, unless that was done before."""
    if not list(folder.glob("models/*.tar.gz")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with (folder / "train.log").open("wb") as log:
            subprocess.run([_program(), "init", "--no-prompt"], cwd=folder, stdout=log, stderr=log, check=True)
    return folder


class RasaServer:
    """A ``rasa run --enable-api`` process, with our stores or Rasa's own; ``log`` is what it printed."""

    def __init__(self, assistant: Path, folder: Path, redis_port: int, endpoint: str = OURS) -> None:
        self.port = free_port()
        self.log = folder / f"rasa-{self.port}.log"
        endpoints = folder / "endpoints.yml"
        endpoints.write_text(endpoint.format(port=redis_port))
        command = [_program(), "run", "--enable-api", "--port", str(self.port), "--interface", "127.0.0.1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--endpoints", str(endpoints)],
                cwd=assistant,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONWARNINGS": "ignore", "SQLALCHEMY_SILENCE_UBER_WARNING": "1"},
            )
        deadline = time.monotonic() + 300
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"rasa run did not start:\n{self.log.read_text()}")
            time.sleep(0.5)

    def _is_ready(self) -> bool:
        try:
            return bool(self.get("status").get("model_file"))
        except OSError:
            return False

    def get(self, path: str, body: Optional[Any] = None) -> Any:
        """Ask over HTTP; with a body, POST it."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def say(self, text: str, sender: str = "alice") -> List[str]:
        """Send a message; return what the bot says."""
        replies = self.get("webhooks/rest/webhook", {"sender": sender, "message": text})
        return [reply["text"] for reply in replies if "text" in reply]

    def said(self) -> List[str]:
        """Return all that alice has said so far, by the server's own tracker."""
        tracker = self.get("conversations/alice/tracker?include_events=ALL")
        return [event["text"] for event in tracker["events"] if event["event"] == "user"]

    def stop(self) -> None:
        """Stop the server."""
        self.process.terminate()
        self.process.wait(120)
