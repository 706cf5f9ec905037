"""What to do about an error that Redis, or the way to it, has answered with, and which errors are a refusal.

A refusal is what asking again does not mend: a certificate, a password, a right, an option that does not fit.
"""

from typing import List, NamedTuple, Optional, Tuple

from extras import _redis
from extras.layout import CLUSTER, SENTINEL
from extras.options import Options


class RefusedError(_redis.RedisError):
    """The server refuses who asks, or is not to be trusted; the message names option and way out."""


class _Known(NamedTuple):
    """``part``: what such an error says, in lower case. ``option``: the one to look at, where it is a refusal."""

    part: str
    way_out: str
    option: str = ""


_TRUST = (
    "let ssl_ca_certs name the file, or ssl_ca_path the folder, with the CA that has signed the server's certificate"
)
_CLIENT = (
    "let ssl_certfile and ssl_keyfile name a certificate of a CA that the server trusts (tls-ca-cert-file, "
    "tls-auth-clients)"
)
_NO_TLS = "the server does not speak TLS on this port: use its TLS port, or, if it has none, redis:// without use_ssl"
_IS_TLS = "this port speaks TLS: set use_ssl: true, or use a rediss:// url"
_VERSION = (
    "server and ssl_min_version have no version of TLS in common: let the server speak a newer one (tls-protocols)"
)
_NAME = "write the name that the server's certificate is for in url, or renew it"
_RIGHTS = "give the user what the store needs: docs/how-to/login.md has the line for ACL SETUSER"

_KNOWN: Tuple[_Known, ...] = (
    _Known("hostname mismatch", _NAME, "url"),
    _Known("ip address mismatch", _NAME, "url"),
    _Known("certificate is not valid for", _NAME, "url"),
    _Known("certificate has expired", "the server's certificate has expired: renew it on the server", "use_ssl"),
    _Known("not yet valid", "the server's certificate is not yet valid: see the clocks of both machines", "use_ssl"),
    _Known("self-signed", _TRUST, "ssl_ca_certs"),
    _Known("self signed", _TRUST, "ssl_ca_certs"),
    _Known("certificate verify failed", _TRUST, "ssl_ca_certs"),
    _Known("ssl_certfile", "put a pair that fits in place; it is read again at the next connect", "ssl_certfile"),
    _Known("ssl_ca_", "put it in place; it is read again at the next connect", "ssl_ca_certs"),
    _Known("certificate required", _CLIENT, "ssl_certfile"),
    _Known("bad certificate", _CLIENT, "ssl_certfile"),
    _Known("unknown ca", _CLIENT, "ssl_certfile"),
    _Known("certificate expired", "the certificate of ssl_certfile has expired: renew it", "ssl_certfile"),
    _Known("unsupported protocol", _VERSION, "ssl_min_version"),
    _Known("protocol version", _VERSION, "ssl_min_version"),
    _Known("wrong version number", _NO_TLS, "use_ssl"),
    _Known("record layer failure", _NO_TLS, "use_ssl"),
    _Known("handshake failure", _CLIENT, "ssl_certfile"),
    _Known('got "\\x15"', _IS_TLS, "use_ssl"),
    _Known(
        "invalid username-password", "correct them; the user may also be off: ACL LIST shows it", "username, password"
    ),
    _Known("invalid password", "correct it", "password"),
    _Known("without any password", "the server has no password for that user: remove it, or set one there", "password"),
    _Known("wrong number of arguments for 'auth'", "the server is older than Redis 6: remove it", "username"),
    _Known("authentication required", "set it, and username for a user of its own", "password"),
    _Known("gave no user and password", "see the provider's settings and log", "credential_provider"),
    _Known("db index", "the server has fewer databases: correct it", "db"),
    _Known("maxmemory", "Redis is full: raise maxmemory, or set record_exp so that old conversations expire"),
    _Known("read only replica", "name the master in url"),
    _Known("misconf", "Redis cannot save to its disk and refuses writes: see its disk and log"),
    _Known("not enough good replicas", "bring replicas back, or lower min-replicas-to-write"),
    _Known("permission", _RIGHTS, "username"),
    _Known("executing the script can't", _RIGHTS, "username"),
    _Known("unknown command", "the server has this command renamed or switched off (rename-command)", "url"),
    _Known("loading", "Redis is reading its data; wait"),
    _Known("cluster support disabled", "this is no Redis Cluster: remove cluster, and deployment_mode"),
    _Known("no sentinel says", "see sentinel_service, and what SENTINEL MASTERS says there"),
    _Known("clusterdown", "slots of the cluster are not served: CLUSTER INFO and CLUSTER NODES show which"),
    _Known("moved", "this is a Redis Cluster: set deployment_mode: cluster"),
    _Known("hash slot", "this is a Redis Cluster: set deployment_mode: cluster"),
    _Known("busy", "a script runs away: SCRIPT KILL"),
    _Known("max number of clients", "find who holds the connections: CLIENT LIST"),
    _Known("timeout", "the server is frozen or overloaded: SLOWLOG GET, and the machine it runs on"),
    _Known("timed out", "the server is frozen or overloaded: SLOWLOG GET, and the machine it runs on"),
)

_NAMES = {
    CLUSTER: _Known(
        "",
        "write names that the certificates are for there, and let the nodes announce them (cluster-announce-hostname, "
        "cluster-preferred-endpoint-type hostname), or renew the certificates for the addresses",
        "endpoints",
    ),
    SENTINEL: _Known(
        "",
        "write names that the certificates are for there, and let the Sentinels name servers so (sentinel "
        "announce-hostnames yes), or renew the certificates for the addresses",
        "endpoints",
    ),
}
"""Where servers, too, say at which names and addresses the others are."""


def way_out_of(error: BaseException) -> str:
    """Return what to do about an error of Redis or redis-py."""
    known = _known(error)
    if known is None:
        return "see the server's log"
    return f"{known.option}: {known.way_out}" if known.option else known.way_out


def explained(error: BaseException, options: Options) -> Optional[str]:
    """Return the text of the error that a refusal becomes; ``None`` for other errors. It holds no secret."""
    known = _known(error) if isinstance(error, _redis.RedisError) else None
    if known is not None and known.way_out is _NAME:
        known = _NAMES.get(options.deployment_mode, known)
    return _told(error, options, known) if known is not None and known.option else None


def misfit(error: BaseException, options: Options, peer_speaks: Optional[str]) -> Optional[str]:
    """Return the text of the error of a lost connection whose peer ``speaks`` something else; ``None`` for others.

    ``peer_speaks``: ``"TLS"``, ``"plain"``, or ``None`` where that is not known.
    """
    option = "use_ssl" if options.deployment_mode != SENTINEL else "use_ssl, sentinel_use_ssl"
    if peer_speaks == "plain" and options.asks_with_ssl:
        return _told(error, options, _Known("", _NO_TLS, option))
    if peer_speaks == "TLS" and not options.asks_with_ssl:
        return _told(error, options, _Known("", _IS_TLS, option))
    if peer_speaks == "TLS" and isinstance(error, _redis.ConnectionError):
        return _told(error, options, _Known("", f"closed after the TLS handshake: {_CLIENT}", "ssl_certfile"))
    return None


def _told(error: BaseException, options: Options, known: _Known) -> str:
    return f"Redis at {options.where} cannot be used: {_first_line(error)}; {known.option}: {known.way_out}"


def _known(error: BaseException) -> Optional[_Known]:
    said = "\n".join(f"{each}" for each in _chain(error)).lower()
    return next((known for known in _KNOWN if known.part in said), None)


def _chain(error: BaseException) -> List[BaseException]:
    """Return an error and what has led to it: redis-py 5 and older do not always say why in their own."""
    chain: List[BaseException] = []
    following: Optional[BaseException] = error
    while following is not None and following not in chain and len(chain) < 8:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _first_line(error: BaseException) -> str:
    return f"{error}".strip().split("\n")[0].rstrip(".") or type(error).__name__
