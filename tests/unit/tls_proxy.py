"""A TLS terminating proxy in front of a plain Redis server, and certificates to talk to it."""

import select
import socket
import ssl
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Optional

with warnings.catch_warnings():
    # trustme's cryptography says so on Python 3.8, at import.
    warnings.filterwarnings("ignore", message="Python 3.8 is no longer supported")
    import trustme as trustme


class Certificates:
    """A CA, a server certificate for 127.0.0.1, one for another name, and a client certificate, as files."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.server = self.ca.issue_cert("127.0.0.1")
        self.other_name = self.ca.issue_cert("redis.example")
        client = self.ca.issue_cert("client@example.org")
        self.ca_file = str(folder / "ca.pem")
        self.other_ca_file = str(folder / "other-ca.pem")
        self.client_cert_file = str(folder / "client.pem")
        self.client_key_file = str(folder / "client.key")
        self.client_both_file = str(folder / "client-both.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        trustme.CA().cert_pem.write_to_path(self.other_ca_file)
        client.cert_chain_pems[0].write_to_path(self.client_cert_file)
        client.private_key_pem.write_to_path(self.client_key_file)
        client.private_key_and_cert_chain_pem.write_to_path(self.client_both_file)

    def context(self, certificate: "trustme.LeafCert", client_needs_one: bool = False) -> ssl.SSLContext:
        """Return a server's context that shows ``certificate``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        if client_needs_one:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class TlsProxy:
    """Takes TLS connections on a loopback port and hands the plain bytes on to another; ``with`` ends it."""

    def __init__(self, context: ssl.SSLContext, target_port: int) -> None:
        self._context = context
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.shown: List[Optional[bytes]] = []
        """The certificate of each client, as DER, ``None`` for one that was not asked for any."""
        self._ending = threading.Event()
        self._threads: List[threading.Thread] = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        while not self._ending.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads = [known for known in self._threads if known.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(5)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain = socket.socket()
        with client, plain, suppress(OSError), self._context.wrap_socket(client, server_side=True) as tls:
            self.shown.append(tls.getpeercert(binary_form=True))
            plain.connect(("127.0.0.1", self._target_port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pump(tls, plain)

    def _pump(self, tls: ssl.SSLSocket, plain: socket.socket) -> None:
        while not self._ending.is_set():
            ready = [tls] if tls.pending() else select.select([tls, plain], [], [], 0.05)[0]
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (plain if source is tls else tls).sendall(data)

    def __enter__(self) -> "TlsProxy":
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()
