"""Whether the server can be reached, and what answers there: name look-up, TCP connect, a PING without login."""

import os
import socket
import time
from typing import List, Tuple

from extras.cli.checks_options import Target
from extras.cli.findings import Check, failed, first_line, ok, warning

SLOW_LOOK_UP_S = 0.5
SLOW_ADDRESS_S = 0.2
_GREETING_BYTES = 512


def timeout_s(target: Target) -> float:
    """Return how long to wait for the network, in seconds: as the store does, but never for ever."""
    return target.options.socket_connect_timeout or target.options.socket_timeout or 5.0


def check_network(target: Target) -> Check[bool]:
    """Connect as the store does, address by address; return whether a Redis answers, or TLS is to be tried."""
    options = target.options
    if options.unix_path:
        return (yield from _check_unix(target))
    addresses = yield from _check_name(options.url, options.port)
    reached = yield from check_addresses("connect", addresses, timeout_s(target))
    if not reached:
        return False
    if options.use_ssl:
        return True
    with socket.create_connection(reached[0], timeout_s(target)) as sock:
        return (yield from check_greeting(sock, target))


def _check_unix(target: Target) -> Check[bool]:
    path = str(target.options.unix_path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s(target))
            sock.connect(path)
            yield ok("connect", f"the socket {path}")
            return (yield from check_greeting(sock, target))
    except OSError as error:
        there = "there, but" if os.path.exists(path) else "not there:"
        found = f"the socket {path} is {there} {first_line(error)}"
        yield failed("connect", found, "see the server's unixsocket and unixsocketperm")
        return False


def _check_name(host: str, port: int) -> Check[List[Tuple[str, int]]]:
    begun = time.perf_counter()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield failed("name look-up", f"{host}: {first_line(error)}", "correct url, or the machine's name service")
        return []
    took_s = time.perf_counter() - begun
    addresses = list(dict.fromkeys((str(entry[4][0]), port) for entry in found))
    said = f"{host} is {', '.join(address for address, _ in addresses)} ({took_s * 1000:.1f} ms)"
    if took_s > SLOW_LOOK_UP_S:
        yield warning("name look-up", said, "see the machine's name service; every new connection waits for it")
    else:
        yield ok("name look-up", said)
    return addresses


def check_addresses(title: str, addresses: List[Tuple[str, int]], limit_s: float) -> Check[List[Tuple[str, int]]]:
    """Connect to each address; return those that accept."""
    reached: List[Tuple[str, int]] = []
    refused: List[str] = []
    slow = False
    for address in addresses:
        begun = time.perf_counter()
        try:
            socket.create_connection(address, limit_s).close()
        except OSError as error:
            refused.append(f"{address[0]} port {address[1]}: {error.strerror or first_line(error)}")
            slow = slow or time.perf_counter() - begun > SLOW_ADDRESS_S
        else:
            reached.append(address)
            yield ok(title, f"{address[0]} port {address[1]} accepts ({(time.perf_counter() - begun) * 1000:.1f} ms)")
    if refused and not reached:
        way_out = "see that the server runs, listens there (bind, port), and that no firewall is between"
        yield failed(title, "; ".join(refused), way_out)
    elif refused and slow:
        yield warning(title, "; ".join(refused), "every new connection may wait for it first; take it out of the name")
    elif refused:
        yield ok(title, f"{'; '.join(refused)}: passed over at once")
    return reached


def check_greeting(sock: socket.socket, target: Target) -> Check[bool]:
    """Say PING on a new connection, without a login; return whether what answers is a Redis that will talk to us."""
    sock.settimeout(target.options.socket_timeout or 5.0)
    try:
        sock.sendall(b"PING\r\n")
        answer = sock.recv(_GREETING_BYTES)
    except socket.timeout:
        yield failed(
            "answer", "connected, but nothing answers", "the server is frozen, or what listens there is no Redis"
        )
        return False
    except OSError as error:
        yield failed("answer", f"connected, then {first_line(error)}", _closed(target))
        return False
    return (yield from _judge(answer, target))


def _closed(target: Target) -> str:
    if target.options.use_ssl:
        return "if the server asks for a client certificate (tls-auth-clients), give ssl_certfile and ssl_keyfile"
    return "if the server speaks TLS, use a rediss:// url or use_ssl: true; otherwise see its log"


def _judge(answer: bytes, target: Target) -> Check[bool]:
    text = answer.decode("latin-1").strip()
    if answer.startswith((b"+", b"-NOAUTH", b"-NOPERM", b"-LOADING", b"-MASTERDOWN", b"-BUSY")):
        return True
    if not answer or answer[:1] in (b"\x15", b"\x16"):
        found = "speaks TLS" if answer else "connected, then the server closed the connection"
        yield failed("answer", found, _closed(target))
    elif text.startswith("-DENIED"):
        found = "the server is in protected mode: it has no password, and lets only its own machine in"
        yield failed("answer", found, "set a password there")
    elif "max number of clients" in text:
        yield failed("answer", "the server has no connection left (maxclients)", "find who holds them: CLIENT LIST")
    elif text.startswith("-"):
        yield failed("answer", f"the server says {text[1:80]!r}", "see the server's log")
    else:
        yield failed("answer", "something answers that is no Redis", "correct url and port")
    return False
