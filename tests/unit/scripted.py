"""Event loops to test on, and a server that follows a script wherever a real one would have to misbehave."""

import asyncio
import gc
import importlib
import importlib.util
import select
import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Awaitable, Callable, Coroutine, Dict, Iterator, List, Optional, Tuple

import hiredis
from leaks import open_descriptors

LOOPS: Dict[str, Any] = {"asyncio": asyncio.SelectorEventLoop}
if importlib.util.find_spec("uvloop") is not None:
    LOOPS["uvloop"] = importlib.import_module("uvloop").Loop
PATIENCE_S = 10.0
"""Far more than anything takes that is not to be a timeout, on a busy machine."""
HANGS_S = 60.0
"""What has not come to its end by then hangs."""
SOON_S = 0.8
"""A timeout that is to come; what follows it is answered sooner, also on a busy machine."""
LATE_S = 3.0
"""How much later than asked for a timeout may be noticed: far less than ten of them take, one after the other."""
GREETINGS = {b"CLIENT": b"+OK\r\n", b"PING": b"+PONG\r\n"}
"""What redis-py says first on a new connection, depending on its version."""
Work = Callable[[], Coroutine[Any, Any, None]]
Script = Callable[["Peer"], None]


def run_on(loop_class: Any, work: Work) -> None:
    """Run ``work`` on a new loop, in which nothing may be left running, unclosed or reported at the end."""
    loop = loop_class()
    reported: List[Dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        loop.run_until_complete(asyncio.wait_for(work(), HANGS_S))
        assert asyncio.all_tasks(loop) == set()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(loop.shutdown_asyncgens())
        if hasattr(loop, "shutdown_default_executor"):
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    gc.collect()
    assert reported == []


async def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def descriptors_of_a_running_loop() -> int:
    """Count after the loop has opened what it opens for itself only when it looks up a name and has a first stream."""
    await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
    here, there = socket.socketpair()
    with there:
        _, stream = await asyncio.open_unix_connection(sock=here)
        stream.close()
        await stream.wait_closed()
    return open_descriptors()


@contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """A port whose packets go unanswered: a listener that never accepts, with its queue full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)  # in which the kernel answers, where it does, on a busy machine, too
            try:
                filler.connect(listener.getsockname())
            except socket.timeout:
                yield int(listener.getsockname()[1])
                return
        raise AssertionError("the listener's queue did not fill up")


class Gone(Exception):
    """The client has closed its connection."""


class Peer:
    """A script's side of one connection."""

    def __init__(self, server: "ScriptedServer", number: int, sock: socket.socket) -> None:
        self.server = server
        self.number = number
        self.sock = sock
        self._reader = hiredis.Reader()
        self._is_greeted = server.strict

    def command(self) -> List[bytes]:
        """Return what the client asks next. Greetings of a new connection are answered here, unless it is strict."""
        while True:
            asked = self._reader.gets()
            if asked is False:
                data = self.sock.recv(65536)
                if not data:
                    raise Gone
                self._reader.feed(data)
            elif asked[0] in GREETINGS and not self._is_greeted:
                self.sock.sendall(GREETINGS[asked[0]])
            else:
                self._is_greeted = True
                self.server.asked.append((self.number, asked[-1]))
                return list(asked)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def echo(self, times: Optional[int] = None) -> None:
        """Answer so many commands with their last argument, or all to come."""
        while times is None or times > 0:
            self.send(bulk(self.command()[-1]))
            times = None if times is None else times - 1

    def wait_for_the_end(self) -> None:
        """Say nothing until the client closes its connection."""
        while True:
            self.command()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class ScriptedServer:
    """Follows the first script on the first connection, the second on the next, and the last on all further ones.

    ``asked``: number of the connection and last argument of each command that arrived. ``ended``: numbers of the
    connections that the client has closed.
    """

    def __init__(self, *scripts: Script, context: Optional[ssl.SSLContext] = None, strict: bool = False) -> None:
        self.strict = strict
        self.asked: List[Tuple[int, bytes]] = []
        self.ended: List[int] = []
        self.accepted = 0
        self._scripts = scripts
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._ending = threading.Event()
        self._sockets: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        while not self._ending.is_set():
            if select.select([self._listener], [], [], 0.01)[0]:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock, self.accepted))
                self.accepted += 1
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._sockets.append(sock)
            try:
                self._scripts[min(number, len(self._scripts) - 1)](Peer(self, number, sock))
            except (Gone, OSError):
                self.ended.append(number)
        sock.close()

    def forget(self) -> None:
        """Let go of what has been recorded of connections that have ended."""
        self.asked.clear()
        self.ended.clear()
        self._sockets = [sock for sock in self._sockets if sock.fileno() >= 0]
        self._threads = [thread for thread in self._threads if thread.is_alive()]

    def __enter__(self) -> "ScriptedServer":
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._ending.set()
        self._accepting.join()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def echoes(peer: Peer) -> None:
    peer.echo()


def is_silent(peer: Peer) -> None:
    peer.wait_for_the_end()


def closes_when_asked(peer: Peer) -> None:
    peer.command()


def after_one_reply(script: Script) -> Script:
    def both(peer: Peer) -> None:
        peer.echo(1)
        script(peer)

    return both


def answers(reply: bytes) -> Script:
    """Answer each command so, and go on."""

    def script(peer: Peer) -> None:
        while True:
            peer.command()
            peer.send(reply)

    return script


async def outcome(call: Awaitable[Any]) -> Any:
    """The reply, or the error."""
    return (await asyncio.gather(call, return_exceptions=True))[0]


async def outcomes(*calls: Awaitable[Any]) -> List[Any]:
    return list(await asyncio.gather(*calls, return_exceptions=True))
