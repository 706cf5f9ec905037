"""Faults of the file and of the way to the server, for ``rasa-extras doctor`` to find."""

import datetime
from typing import Any

from doctor_fault import fault, option
from doctor_place import OURS, PASSWORD, Place

# The file: types and options.


@fault("failed", "tracker store", "conversations live in memory")
def no_tracker_store(place: Place) -> Any:
    return {"action_endpoint": {}}


option("failed", "tracker store", "conversations live in memory", type=...)
option("warning", "tracker store", "each turn rewrites the whole conversation", type="redis")
option("failed", "tracker store", "is mistyped", type="extras.trackerstores.ExtraRedisTrackerStore")
option("failed", "tracker store", "is mistyped", type="extras.trackerstore.extraredistrackerstore")
option("failed", "tracker store", "is mistyped", type="extra.trackerstore.ExtraRedisTrackerStore")
option("failed", "tracker store", "there is no module no_bot", type="no_bot.stores.Store")
option("failed", "tracker store", "json has no Store", type="json.Store")
option("failed", "tracker store", "neither a type that Rasa knows", type="rediss")
option("failed", "options", "did you mean 'socket_timeout'", socket_timeuot=5)
option("failed", "options", "unknown option 'pasword'", pasword=PASSWORD)
option("failed", "options", "port must be", port="six")
option("failed", "options", "given twice", url="redis://127.0.0.1:1/0", port=2)
option("failed", "options", "use_ssl is off", ssl_certfile="client.pem")
option("failed", "options", "database 0 only", cluster=True, db=1)
option("warning", "options", "drops the key_prefix 'my-bot'", type="redis", key_prefix="my-bot")
option("warning", "options", "waited for for ever", socket_timeout=None)


@fault("failed", "tracker_store", "the environment variable NO_SUCH_VARIABLE is not set")
def unset_variable(place: Place) -> Any:
    return f"tracker_store:\n  type: {OURS}\n  url: redis://:{PASSWORD}@${{NO_SUCH_VARIABLE}}:6379\n"


@fault("warning", "tracker_store", "client_name: a ${VAR} in quotes")
def quoted_variable(place: Place) -> Any:
    place.monkeypatch.setenv("NAME", "rasa")
    lines = [f"{name}: {value}" for name, value in place.store().items()]
    return "tracker_store:\n  " + "\n  ".join([*lines, 'client_name: "${NAME}"']) + "\n"


# The way to the server.

option("failed", "name look-up", "label", url="a" * 64 + ".invalid")
option("failed", "connect", "not there", url="unix:///no/such/redis.sock", port=...)


@fault("failed", "connect", "refused")
def refused(place: Place) -> Any:
    return place.store(port=place.refused_port())


@fault("failed", "answer", "nothing answers")
def frozen(place: Place) -> Any:
    server = place.own()
    server.freeze()
    return place.store(port=server.port, socket_timeout=0.3)


@fault("failed", "answer", "no Redis")
def another_program(place: Place) -> Any:
    return place.store(port=place.http(200))


@fault("failed", "answer", "")
def tls_server_behind_redis_url(place: Place) -> Any:
    return place.store(port=place.tls()["port"], socket_timeout=5)


@fault("failed", "answer", "no connection left")
def no_connection_left(place: Place) -> Any:
    place.config("maxclients", "1")
    return place.store()


@fault("failed", "answer", "protected mode")
def protected_from_other_machines(place: Place) -> Any:
    own = place.own_address()
    return place.store(url=own, port=place.own("--bind", own, "127.0.0.1").port, password=...)


# TLS.


@fault("failed", "certificate", "has expired")
def expired_certificate(place: Place) -> Any:
    return place.tls(_issued(place, days=-1))


@fault("failed", "certificate", "not yet valid")
def certificate_of_the_future(place: Place) -> Any:
    start = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    return place.tls(place.certificates.ca.issue_cert("127.0.0.1", not_before=start))


@fault("warning", "certificate", "days left")
def certificate_that_soon_expires(place: Place) -> Any:
    return place.tls(_issued(place, days=9))


def _issued(place: Place, days: int) -> Any:
    now = datetime.datetime.now(datetime.timezone.utc)
    return place.certificates.ca.issue_cert("127.0.0.1", not_after=now + datetime.timedelta(days=days))


@fault("failed", "certificate", "not for 127.0.0.1")
def certificate_for_another_host(place: Place) -> Any:
    return place.tls(place.certificates.other_name)


@fault("failed", "certificate", "not among ssl_ca_certs")
def unknown_ca(place: Place) -> Any:
    return {**place.tls(), "ssl_ca_certs": place.certificates.other_ca_file}


@fault("failed", "TLS", "does not speak TLS")
def plain_server_behind_rediss_url(place: Place) -> Any:
    return place.store(use_ssl=True, ssl_ca_certs=place.certificates.ca_file, socket_connect_timeout=2)


@fault("failed", "answer", "connected, then")
def client_certificate_missing(place: Place) -> Any:
    return place.tls(client_needs_one=True)


@fault("warning", "TLS host name", "ssl_check_hostname is off")
def host_name_not_checked(place: Place) -> Any:
    return {**place.tls(place.certificates.other_name), "ssl_check_hostname": False}


@fault("failed", "TLS files", "ssl_ca_certs: there is no readable file")
def ca_file_that_is_not_there(place: Place) -> Any:
    return {**place.tls(), "ssl_ca_certs": str(place.folder / "none.pem")}


@fault("failed", "TLS files", "cannot be used")
def ca_file_that_is_none(place: Place) -> Any:
    path = place.folder / "ca.pem"
    path.write_text("no certificate", encoding="ascii")
    return {**place.tls(), "ssl_ca_certs": str(path)}


@fault("failed", "TLS files", "cannot be used")
def key_of_another_certificate(place: Place) -> Any:
    other_key = place.folder / "other.key"
    place.certificates.other_name.private_key_pem.write_to_path(str(other_key))
    certificate = place.certificates.client_cert_file
    return {**place.tls(client_needs_one=True), "ssl_certfile": certificate, "ssl_keyfile": str(other_key)}
