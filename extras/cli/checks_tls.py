"""Whether the server's certificate is one that the store accepts, for how long, and whether ours is accepted."""

import socket
import ssl
import time
from typing import Optional

from extras.cli.checks_network import check_greeting, timeout_s
from extras.cli.checks_options import Target
from extras.cli.findings import Check, Finding, failed, first_line, ok, warning
from extras.configured import tls_kwargs
from extras.errors import OptionError
from extras.options import Options
from extras.tls import Tls, TlsFileError

FEW_DAYS = 21
_DAY_S = 86_400
_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_CA = (2, 18, 19, 20, 21)
_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_*; see openssl-verification-options(1)."""


def check_tls(target: Target) -> Check[bool]:
    """Shake hands as the store does; return whether a Redis answers over TLS."""
    options = target.options
    try:
        context = Tls(**tls_kwargs(options)).context()
    except (OptionError, TlsFileError) as error:
        yield failed("TLS files", f"{error}", "see that the files are there, readable and PEM")
        return False
    try:
        with socket.create_connection((options.url, options.port), timeout_s(target)) as plain, context.wrap_socket(
            plain, server_hostname=options.url
        ) as sock:
            yield from _check_certificate(sock)
            yield from _check_version(sock)
            if not options.ssl_check_hostname:
                yield warning(
                    "TLS host name",
                    "ssl_check_hostname is off: a certificate of that CA for any other name is accepted",
                    "turn it on, with a certificate for the name in url",
                )
            return (yield from check_greeting(sock, target))
    except ssl.SSLCertVerificationError as error:
        yield _refused(error, options)
    except OSError as error:
        yield _no_handshake(error, target)
    return False


def _check_certificate(sock: ssl.SSLSocket) -> Check[None]:
    not_after = (sock.getpeercert() or {}).get("notAfter")
    days = (ssl.cert_time_to_seconds(str(not_after)) - time.time()) / _DAY_S
    said = f"chain and name are good, {days:.0f} days left (until {not_after})"
    if days < FEW_DAYS:
        yield warning(
            "certificate", said, "renew it on the server before then: no new connection is made with an expired one"
        )
    else:
        yield ok("certificate", said)


def _check_version(sock: ssl.SSLSocket) -> Check[None]:
    version = sock.version() or "unknown"
    if version in ("SSLv3", "TLSv1", "TLSv1.1"):
        yield warning("TLS", f"{version}, which is broken", "let the server speak TLSv1.2 and TLSv1.3 (tls-protocols)")
    else:
        yield ok("TLS", version)


def _refused(error: ssl.SSLCertVerificationError, options: Options) -> Finding:
    code: Optional[int] = error.verify_code
    if code == _EXPIRED:
        return failed("certificate", "the server's certificate has expired", "renew it on the server")
    if code == _NOT_YET_VALID:
        return failed("certificate", "the server's certificate is not yet valid", "see the clocks of both machines")
    if code in _OTHER_NAME:
        return failed(
            "certificate",
            f"the server's certificate is not for {options.url}",
            "write the name that the certificate is for in url, or have one made for this name",
        )
    if code in _UNKNOWN_CA:
        given = "ssl_ca_certs" if options.ssl_ca_certs else "the system's CA certificates"
        return failed(
            "certificate",
            f"the server's certificate is of a CA that is not among {given} ({error.verify_message})",
            "let ssl_ca_certs name the file with the CA that has signed it",
        )
    return failed("certificate", f"refused: {error.verify_message}", "have a new one made")


def _no_handshake(error: OSError, target: Target) -> Finding:
    """Tell a server without TLS, which may wait for the end of what it takes for a command, from other failures."""
    if _speaks_plain(target):
        return failed("TLS", "the server there does not speak TLS", "use the server's TLS port, or redis://")
    reason = getattr(error, "reason", None) or first_line(error)
    return failed("TLS", f"no handshake: {reason}", "see the server's log; ssl_certfile, if it asks for a certificate")


def _speaks_plain(target: Target) -> bool:
    try:
        with socket.create_connection((target.options.url, target.options.port), timeout_s(target)) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(1) in (b"+", b"-")
    except OSError:
        return False
