"""What the stack is for, and what must not be possible in it, each seen and said."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, Callable, Dict, List, Optional

import redis
from make_secrets import EXCHANGE

from here.stack import Stack
from here.talk import Person, action_server_says, ports_in_use, turns

WORKERS = ("rasa-1", "rasa-2")
SOON_S = 60
"""Within this comes what takes a second or two on a machine that is not busy."""
AGAIN = """
import pika, sys
place = pika.URLParameters(sys.argv[1])
place.credentials = pika.PlainCredentials("rasa", sys.argv[2])
connection = pika.BlockingConnection(place)
channel = connection.channel()
for line in sys.stdin.buffer:
    channel.basic_publish(sys.argv[3], "", line.strip())
connection.close()
"""
"""Publishes the lines that it is given, in the consumer's environment."""


def need(what: str, is_so: object) -> None:
    """Raise ``RuntimeError`` if something is not so."""
    if not is_so:
        raise RuntimeError(f"not so: {what}")


def until(what: str, is_so: Callable[[], object], limit_s: float = SOON_S) -> float:
    """Wait until something is so; return how long that took. Raises ``RuntimeError`` if it does not become so."""
    began_at = time.monotonic()
    while not is_so():
        need(f"{what}, within {limit_s:g} s", time.monotonic() - began_at < limit_s)
        time.sleep(0.05)
    return time.monotonic() - began_at


class Checks:
    """One conversation, and what is done to the stack meanwhile."""

    def __init__(self, stack: Stack, secrets: Path) -> None:
        self._stack = stack
        self._secrets = secrets
        self._alice = Person(stack.port("nginx", 8443), secrets / "tls_certificate", "alice")
        self._names = {f"127.0.0.1:{stack.port(name, 5005)}": name for name in WORKERS}

    def all(self) -> None:
        """Carry out all, in this order. Raises ``RuntimeError`` at the first that is not as it should be."""
        self._both_packages_are_used()
        self._a_conversation_over_both_workers()
        self._nothing_but_channels()
        self._actions_are_for_rasa_alone()
        self._rights_in_redis()
        self._stack.kill("events")
        say("the consumer of events is killed; they wait in RabbitMQ")
        self._a_worker_dies_in_a_turn()
        self._stack.start("events")
        self._events_are_in_postgresql()
        self._the_doctor_is_content()
        self._logs_have_no_surprises()

    def _secret(self, name: str) -> str:
        return (self._secrets / name).read_text()

    def _both_packages_are_used(self) -> None:
        """Look which file of the native module each worker has loaded."""
        site = self._stack.service("rasa-2").path("/app/site")
        for name, is_unpacked in (("rasa-1", False), ("rasa-2", True)):
            maps = Path(f"/proc/{self._stack.processes[name].pid}/maps").read_text()
            loaded = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/extras/_fastsock" in line}
            need(f"{name} has loaded one native module: {loaded}", len(loaded) == 1)
            need(f"{loaded} is the one of {name}", loaded.pop().startswith(str(site)) == is_unpacked)
        say("rasa-1 has the package installed, rasa-2 unpacked in a folder; the native part is loaded in both")

    def _served_by(self) -> List[str]:
        """Return who has answered the turns so far."""
        log = turns(self._stack.log("nginx"))
        return [self._names[asked[-1]] for status, asked in log if status == 200]

    def _says(self, text: str, answers: str) -> None:
        count = len(self._served_by())
        found = self._alice.says(text)
        until("the turn is in nginx's log", lambda: len(self._served_by()) > count)
        say(f"alice: {text}  ({self._served_by()[-1]}: {' '.join(found)})")
        need(f"{text!r} is answered {answers!r}: {found}", found == [answers])

    def _a_conversation_over_both_workers(self) -> None:
        self._says("hello", "Good day! Tea?")
        for cup in range(1, 5):
            self._says("tea please", f"Cup {cup} is on its way.")
        need("both workers answered", set(self._served_by()) == set(WORKERS))

    def _nothing_but_channels(self) -> None:
        hidden = ["/", "/webhooks/rest/", "/status", "/model", "/conversations/alice/tracker", "/webhook", "/health"]
        found = {path: self._alice.asked("GET", path)[0] for path in hidden}
        need(f"nothing else can be reached: {found}", set(found.values()) == {404})
        refused = self._alice.asked("DELETE", "/webhooks/rest/webhook")[0]
        need(f"other methods are refused: {refused}", refused == 403)
        say(f"404 for {', '.join(hidden)}")

    def _actions_are_for_rasa_alone(self) -> None:
        port = self._stack.port("actions", 5055)
        wrong = self._secret("rabbitmq_password")
        found = [action_server_says(port, login) for login in (None, ("rasa", wrong), ("eve", wrong))]
        need(f"the action server refuses: {found}", found == [401, 401, 401])
        allowed = action_server_says(port, ("rasa", self._secret("actions_password")))
        need(f"the action server answers Rasa: {allowed}", allowed == 200)
        say("the action server: 401 without a login or with a wrong one, 200 with Rasa's")

    def _redis(self, user: Optional[str], password: Optional[str]) -> Any:
        return redis.Redis(port=self._stack.port("redis", 6379), username=user, password=password)

    def _rights_in_redis(self) -> None:
        rasa = self._redis("rasa", self._secret("redis_password"))
        strangers = [self._redis(None, None), self._redis("health", "any")]
        try:
            commands = [["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["ACL", "LIST"], ["GET", "another"]]
            for client, command in [
                *((rasa, command) for command in commands),
                *((stranger, ["GET", "tracker:alice"]) for stranger in strangers),
            ]:
                try:
                    client.execute_command(*command)
                except (redis.ResponseError, redis.AuthenticationError) as error:  # of NOPERM and NOAUTH
                    is_refusal = any(word in str(error).lower() for word in ("permission", "authentication"))
                    need(f"{command} is refused for want of rights: {error}", is_refusal)
                else:
                    need(f"{command} is refused", False)
        finally:
            for client in (rasa, *strangers):
                client.connection_pool.disconnect()
        say("Redis refuses Rasa's user FLUSHALL, KEYS, CONFIG, ACL and other keys, and everybody else everything")

    def _a_worker_dies_in_a_turn(self) -> None:
        """Kill a worker that waits for the action server; the same message again is the next cup, not one too many."""
        workers = {self._stack.port(name, 5005): name for name in WORKERS}
        actions = self._stack.port("actions", 5055)
        frozen = self._stack.processes["action-server"]
        frozen.send_signal(SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            try:
                turn = pool.submit(self._alice.posted, "tea please")
                until("a worker calls the action server", lambda: ports_in_use({actions}))
                (busy,) = ports_in_use(set(workers))
                self._stack.kill(workers[busy])
                status = turn.result()[0]
            finally:
                frozen.send_signal(SIGCONT)
        say(f"alice: tea please  ({workers[busy]} is killed in the middle of it: {status})")
        need(f"the client is told: {status}", status == 502)
        self._stack.start(workers[busy])  # as its restart policy would
        began_at = time.monotonic()
        self._says("tea please", "Cup 5 is on its way.")
        say(f"the message is sent again, and answered after {time.monotonic() - began_at:.1f} s; nothing is lost")
        self._says("another cup", "Cup 6 is on its way.")
        self._stack.wait(workers[busy])
        count = len(self._served_by())

        def it_is_back() -> bool:
            self._says("how many", "You have ordered 6.")
            return workers[busy] in self._served_by()[count:]

        until(f"{workers[busy]} is back, and knows it, too", it_is_back)

    def _sql(self, query: str) -> List[str]:
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(self._stack.port("postgresql", 5432)), "PGUSER": "postgres"}
        place.update({"PGPASSWORD": self._secret("postgresql_password"), "PGDATABASE": "events"})
        command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", query]
        done = subprocess.run(command, env={**os.environ, **place}, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def _kept(self) -> List[Dict[str, Any]]:
        """Return alice's events as PostgreSQL has them, in its order, as they are in Redis."""
        rows = self._sql("SELECT body - 'sender_id' FROM events WHERE sender_id = 'alice' ORDER BY id")
        return [json.loads(row) for row in rows]

    def _events_are_in_postgresql(self) -> None:
        rasa = self._redis("rasa", self._secret("redis_password"))
        try:
            stored = json.loads(rasa.get("tracker:alice"))["events"]
        finally:
            rasa.connection_pool.disconnect()
        took_s = until("all events are in PostgreSQL", lambda: len(self._kept()) >= len(stored))
        need("they are there each once, in their order, as in Redis", self._kept() == stored)
        said = [event["text"] for event in stored if event["event"] == "user"]
        say(f"{len(stored)} events of {len(said)} messages are in PostgreSQL after {took_s:.1f} s, each once, in order")
        self._stack.wait("events")

        bodies = self._sql("SELECT body FROM events WHERE sender_id = 'alice' ORDER BY id LIMIT 3")
        nul = json.dumps({"sender_id": "alice", "event": "user", "timestamp": 1.0, "text": "\0"})
        where = f"amqp://127.0.0.1:{self._stack.port('rabbitmq', 5672)}/%2F"
        subprocess.run(
            [str(self._stack.python("events")), "-c", AGAIN, where, self._secret("rabbitmq_password"), EXCHANGE],
            input="\n".join([*bodies, "no event", nul]).encode(),
            check=True,
            timeout=SOON_S,
        )
        until("what is no event is put aside", lambda: self._sql("SELECT count(*) FROM refused") == ["2"])
        need("what comes again is not kept twice", self._kept() == stored)
        say("events that RabbitMQ brings again are not kept twice, and what is no event is put aside")

    def _the_doctor_is_content(self) -> None:
        worker = self._stack.service("rasa-1")
        secrets = {f"{name}".upper(): self._secret(name) for name in worker.settings["secrets"]}
        done = subprocess.run(
            [sys.executable, "-m", "extras", "doctor", str(worker.path("/app/endpoints.yml"))],
            env={**os.environ, **secrets, "PYTHONWARNINGS": "ignore"},
            cwd=worker.folder,
            capture_output=True,
            text=True,
            timeout=SOON_S,
            check=False,
        )
        need(f"the doctor is content:\n{done.stdout}{done.stderr}", done.returncode == 0)
        say(f"rasa-extras doctor: {done.stdout.splitlines()[-1]}")

    def _logs_have_no_surprises(self) -> None:
        texts = {name: self._stack.log(name).read_text(errors="replace") for name in self._stack.processes}
        for name, text in texts.items():
            for surprise in ("Traceback", "InMemoryTrackerStore", "[emerg]", "[crit]"):
                need(f"{name} has not said {surprise}:\n{text[-3000:]}", surprise not in text)
        for name in [file.name for file in self._secrets.iterdir() if file.name.endswith("_password")]:
            need(f"nobody has logged {name}", not any(self._secret(name) in text for text in texts.values()))
        say("nobody has logged a password, or complained of anything but what was done to them")


def say(what: str) -> None:
    """Print what has been seen."""
    print(f"      {what}", flush=True)
