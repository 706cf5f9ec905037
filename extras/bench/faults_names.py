"""A name server that answers, says that there is no such name, or says nothing, as told."""

import socket
import struct
import threading
from pathlib import Path

from extras.bench.faults_namespace import SERVER_ADDRESS, run

NAME = "redis.example.test"

_FLAGS = {"address": 0x8180, "no such name": 0x8183}
"""Response, recursion desired and available; NXDOMAIN (RFC 1035, 4.1.1)."""


class NameServer:
    """Answers for :data:`NAME` on the server's side of the link; ``mode`` says how."""

    def __init__(self) -> None:
        self.mode = "address"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def start(self, folder: Path) -> None:
        """Bind, and make this the name server of all processes of the namespace."""
        self._socket.bind((SERVER_ADDRESS, 53))
        configured = folder / "resolv.conf"
        configured.write_text(f"nameserver {SERVER_ADDRESS}\n", encoding="ascii")
        run("mount", "--bind", str(configured), "/etc/resolv.conf")
        order = Path("/etc/nsswitch.conf")
        if order.exists():  # a machine may ask something else than its name server first
            plain = folder / "nsswitch.conf"
            plain.write_text("hosts: files dns\n", encoding="ascii")
            run("mount", "--bind", str(plain), str(order))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(512)
            if self.mode != "silence":
                self._socket.sendto(answer(query, self.mode), peer)


def answer(query: bytes, mode: str) -> bytes:
    """Return the answer to a query (RFC 1035, 4.1): one address, or that there is no such name."""
    end = query.index(b"\0", 12) + 5
    kind = struct.unpack_from(">H", query, end - 4)[0]
    is_answered = mode == "address" and kind == 1  # A; of AAAA there is none
    header = query[:2] + struct.pack(">HHHHH", _FLAGS[mode], 1, int(is_answered), 0, 0)
    record = struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(SERVER_ADDRESS)
    return header + query[12:end] + (record if is_answered else b"")
