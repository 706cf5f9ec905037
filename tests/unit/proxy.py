"""Stands between a store and Redis: keeps what the store sends, and loses replies when told to."""

import socket
import threading
from contextlib import suppress
from typing import Any, List, Tuple


class Proxy:
    """A TCP proxy on a loopback ``port``; ``with`` stops it.

    ``sent``: all bytes that clients have sent since it was last emptied. ``lose``: ``"close"`` closes a client's
    connection in place of handing it a reply, ``"keep"`` swallows the reply and leaves the connection open. ``lost``:
    how many replies that were.
    """

    def __init__(self, server_port: int) -> None:
        self.sent = bytearray()
        self.lose = ""
        self.lost = 0
        self._server_port = server_port
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self._pairs: List[Tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            for pump in (self._commands, self._replies):
                self._threads.append(threading.Thread(target=pump, args=(client, server), daemon=True))
                self._threads[-1].start()

    def _commands(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while True:
                data = client.recv(65536)
                if not data:
                    break
                self.sent += data
                server.sendall(data)
        except OSError:
            pass
        _hang_up(server)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while True:
                data = server.recv(65536)
                if not data:
                    break
                if self.lose:
                    self.lost += 1
                    if self.lose == "close":
                        break
                    continue
                client.sendall(data)
        except OSError:
            pass
        _hang_up(client)

    def __enter__(self) -> "Proxy":
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        _hang_up(self._listener)
        self._threads[0].join(10)
        for pair in self._pairs:
            for sock in pair:
                _hang_up(sock)
        for thread in self._threads[1:]:
            thread.join(10)
        for sock in [self._listener, *(sock for pair in self._pairs for sock in pair)]:
            sock.close()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # the other side did it first
        sock.shutdown(socket.SHUT_RDWR)
