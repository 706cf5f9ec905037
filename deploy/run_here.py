"""Run the stack of ``compose/compose.yml`` on this machine, without containers, and see that it does what it is for.

The same processes with the same files: nginx with TLS, two ``rasa run``, the action server behind its password, Redis
with that ACL file, RabbitMQ, PostgreSQL and the consumer between them, on free ports of the loopback interface. Then
somebody talks, a worker and the consumer are killed, and what must not be possible is tried. All is stopped at the end.

``python deploy/run_here.py``, with the Python of an environment that has Rasa 3.6 and rasa-extras; of the distribution
nginx, redis-server, rabbitmq-server, postgresql, curl and openssl. ``--serve`` leaves it running until Ctrl-C.
"""

import argparse
import signal
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Dict, Optional

DEPLOY = Path(__file__).resolve().parent
sys.path.append(str(DEPLOY.parent / "demo"))

from here.checks import Checks  # noqa: E402
from here.layout import Layout  # noqa: E402
from here.stack import LEFT_OUT, Stack, absent, environment_of  # noqa: E402
from here.unpacked import unpack  # noqa: E402
from make_secrets import make  # noqa: E402
from rasa_server import trained  # noqa: E402

COMPOSE = DEPLOY / "compose"
KEPT = Path(sys.prefix) / "tea-room"
"""Where what is made once for an environment is kept: the trained assistant, environments of the others."""


def prepared(folder: Path) -> Stack:
    """Train, install, and lay out what is to be run, in ``folder``."""
    make(folder / "secrets", ["localhost", "127.0.0.1"])
    unpack(folder / "site")
    beside_rasa = {"action-server": "actions", "events": "events"}
    with ThreadPoolExecutor() as pool:
        training = pool.submit(trained, KEPT / "assistant", DEPLOY / "assistant")
        making = {
            service: pool.submit(environment_of, DEPLOY / name / "requirements.txt", KEPT / name)
            for service, name in beside_rasa.items()
        }
    pythons = {service: made.result() for service, made in making.items()}
    instead = {"./site": folder / "site", "../assistant/models": training.result() / "models"}
    files = [COMPOSE / "compose.yml", COMPOSE / "no-build.yml"]
    layout = Layout(folder / "services", files, folder / "secrets", instead)
    del layout.services["rasa-1"].settings["environment"]["PYTHONPATH"]  # the image with the package installed
    return Stack(layout, pythons, {service: DEPLOY / name for service, name in beside_rasa.items()})


def start(stack: Stack) -> None:
    """Start everything in the order that the file asks for, and wait until it is well."""
    waiting: Dict[str, Dict[str, object]] = {
        name: service.settings.get("depends_on", {})
        for name, service in stack.layout.services.items()
        if name not in LEFT_OUT
    }

    def bring_up(name: str) -> str:
        began_at = time.monotonic()
        stack.start(name)
        stack.wait(name)
        print(f"      {name} is well after {time.monotonic() - began_at:.1f} s", flush=True)
        return name

    well = set(LEFT_OUT)
    with ThreadPoolExecutor(max_workers=len(waiting)) as pool:
        starting: Dict[str, Future[str]] = {}
        try:
            while waiting or starting:
                for name in [name for name, needs in waiting.items() if set(needs) <= well]:
                    del waiting[name]
                    starting[name] = pool.submit(bring_up, name)
                for name in [name for name, done in starting.items() if done.done()]:
                    well.add(starting.pop(name).result())
                time.sleep(0.05)
        except BaseException:
            stack.give_up()
            raise


def main() -> int:
    """Run it, and print what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="leave it running until Ctrl-C, and check nothing")
    given = parser.parse_args()
    missing = absent()
    if missing:
        print(f"not here: apt-get install {missing}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        with tempfile.TemporaryDirectory(prefix="tea-room-") as name:
            _run(Path(name), given.serve)
    except KeyboardInterrupt:
        print("interrupted; everything is stopped")
        return 130
    except RuntimeError as error:
        print(f"{error}\nnot as it should be; everything is stopped", file=sys.stderr)
        return 1
    return 0


def _run(folder: Path, serve: bool) -> None:
    began_at = time.monotonic()
    print("[1/3] training the assistant, making secrets, environments and a folder for each service", flush=True)
    with prepared(folder) as stack:
        print("[2/3] starting what compose.yml has", flush=True)
        for left_out, why in LEFT_OUT.items():
            print(f"      without {left_out}: {why}")
        start(stack)
        if serve:
            address = f"https://127.0.0.1:{stack.port('nginx', 8443)}/webhooks/rest/webhook"
            message = """'{"sender": "alice", "message": "tea please"}'"""
            print(f"curl --cacert {folder}/secrets/tls_certificate {address} --json {message}", flush=True)
            signal.pause()
        print("[3/3] talking, and killing", flush=True)
        Checks(stack, folder / "secrets").all()
    print(f"all is as it should be, after {time.monotonic() - began_at:.0f} s; everything is stopped")


def _interrupted(number: int, frame: Optional[FrameType]) -> None:
    """End, and let nobody hurry the end."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
