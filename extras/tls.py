"""TLS as options ask for it: what is trusted, what is shown, and files that are read again for each connection.

redis-py's asyncio connections read their files once, and all of them trust the system's CAs beside those that they are
given. A certificate that was rotated on the disk would go on being shown until it expires, and any public CA could
vouch for a private server.
"""

import os
import ssl
from typing import Any, Dict, Mapping, NamedTuple, Optional

MIN_VERSIONS = ("TLSv1.2", "TLSv1.3")
"""What ``ssl_min_version`` may be, in text; OpenSSL has all older ones switched off."""

_FILES = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "ssl_ca_path")
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class TlsFileError(OSError):
    """A certificate, key or CA cannot be used as it is on the disk now; the message names option, path and reason."""


class Tls(NamedTuple):
    """What a connection's arguments ask for, in redis-py's names."""

    ssl_certfile: Optional[str] = None
    ssl_keyfile: Optional[str] = None
    ssl_ca_certs: Optional[str] = None
    ssl_ca_path: Optional[str] = None
    ssl_ca_data: Any = None
    ssl_password: Optional[str] = None
    ssl_cert_reqs: Any = "required"
    ssl_check_hostname: bool = False
    ssl_min_version: Any = None
    ssl_ciphers: Optional[str] = None

    def context(self) -> ssl.SSLContext:
        """Read the files and return a context for one connection. Raises :class:`TlsFileError`."""
        verify = _VERIFY.get(self.ssl_cert_reqs or "none", self.ssl_cert_reqs)
        if verify == ssl.CERT_NONE and not (self.ssl_ca_certs or self.ssl_ca_path or self.ssl_ca_data):
            context = ssl._create_unverified_context()  # of PEP 476: without the system's CAs, 20 ms of each connect
        else:
            context = self._trusting()
        context.check_hostname = self.ssl_check_hostname and verify != ssl.CERT_NONE
        context.verify_mode = verify
        if self.ssl_min_version is not None:
            context.minimum_version = version(self.ssl_min_version)
        if self.ssl_ciphers:
            context.set_ciphers(self.ssl_ciphers)
        if self.ssl_certfile:
            try:
                # Without a pass phrase given, OpenSSL would ask the terminal for it.
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self.ssl_password or "")
            except OSError as error:
                raise self._of_files(error, "ssl_certfile", "ssl_keyfile") from error
        return context

    def _trusting(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(
                cafile=self.ssl_ca_certs, capath=self.ssl_ca_path, cadata=self.ssl_ca_data or None
            )
        except OSError as error:
            raise self._of_files(error, "ssl_ca_certs", "ssl_ca_path") from error

    def _of_files(self, error: OSError, *names: str) -> TlsFileError:
        given = {name: getattr(self, name) for name in names if getattr(self, name)}
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        shown = ", ".join(f"{name} {path!r}" for name, path in given.items())
        return TlsFileError(
            f"{shown} cannot be used ({reason}): see that it is there, readable, PEM, without a pass phrase, and that "
            f"key and certificate belong together"
        )


def asked(kwargs: Mapping[str, Any], checks_hostname: bool) -> Optional[Tls]:
    """Return what a connection's keyword arguments ask for, ``None`` where they ask for more than is known here.

    ``checks_hostname``: whether the host name is checked where they do not say.
    """
    given: Dict[str, Any] = {name: value for name, value in kwargs.items() if name.startswith("ssl_")}
    if any(value for name, value in given.items() if name not in Tls._fields):
        return None
    known = {name: value for name, value in given.items() if name in Tls._fields}
    return Tls(**{"ssl_check_hostname": checks_hostname, **known})


def unreadable(paths: Mapping[str, Optional[str]]) -> Optional[str]:
    """Return what is wrong with the first path that cannot be read, by its option's name, ``None`` if all can."""
    for name in _FILES:
        path = paths.get(name)
        is_there = os.path.isdir if name == "ssl_ca_path" else os.path.isfile
        if path is not None and not (is_there(path) and os.access(path, os.R_OK)):
            return f"{name}: there is no readable {'folder' if name == 'ssl_ca_path' else 'file'} {path!r}"
    return None


def version(given: Any) -> ssl.TLSVersion:
    """Return redis-py's ``ssl_min_version`` of text such as ``TLSv1.2``."""
    return ssl.TLSVersion[given.replace(".", "_")] if isinstance(given, str) else ssl.TLSVersion(given)
