"""Faults of what the file names beside the tracker store, for ``rasa-extras doctor`` to find."""

from typing import Any

from doctor_fault import fault, other
from doctor_place import OURS, PASSWORD, Place

# What else the file names.


def amqp(place: Place) -> Any:
    return {"type": "pika", "url": f"amqp://user:{PASSWORD}@127.0.0.1:{place.refused_port()}/", "password": PASSWORD}


@fault("failed", "event_broker", "the environment variable NO_SUCH_VARIABLE is not set")
def unset_variable_of_the_broker(place: Place) -> Any:
    return f"tracker_store:\n  type: {OURS}\nevent_broker:\n  url: ${{NO_SUCH_VARIABLE}}\n"


def our_broker(place: Place, **options: Any) -> Any:
    kind = {"type": "extras.eventbroker.ExtraRedisEventBroker", "url": "127.0.0.1", "port": place.server.port}
    return {**kind, "password": PASSWORD, **options}


def our_locks(place: Place, *rights: str, kind: str = "extras.lockstore.ExtraRedisLockStore") -> Any:
    server = {"url": "127.0.0.1", "port": place.server.port, "password": PASSWORD}
    return {"type": kind, **server, **place.user(*rights)}


@fault("warning", "event broker", "names no event broker")
def outbox_for_nobody(place: Place) -> Any:
    return place.store(publish="outbox")


def kafka(place: Place) -> Any:
    return {"type": "kafka", "url": [f"127.0.0.1:{place.server.port}", f"127.0.0.1:{place.refused_port()}"]}


def action(place: Place, status: int, host: str = "127.0.0.1") -> Any:
    return {"url": f"http://{host}:{place.http(status)}/webhook?token={PASSWORD}"}


other("event_broker", "failed", "event broker", "127.0.0.1 port", amqp)
other("event_broker", "warning", "event broker", "1 of 2 servers are not there", kafka)
other("event_broker", "failed", "event broker", "label", lambda place: {"url": "a" * 64})
other("event_broker", "failed", "event broker", "cannot be read", lambda place: {"url": "host:port"})
other("event_broker", "failed", "event broker", "pikaa: is neither", lambda place: {"type": "pikaa"})
other("event_broker", "failed", "event broker", "no module no_bot", lambda place: {"type": "no_bot.Broker"})
other("event_broker", "failed", "event broker", "the folder of", lambda place: {"type": "sql", "db": "/no/such/events"})
other("event_broker", "failed", "event broker", "record_exp is about", lambda place: our_broker(place, record_exp=5))
other("event_broker", "failed", "event broker", "invalid", lambda place: our_broker(place, password="hunter3-of-redis"))
other(
    *("event_broker", "failed", "event broker", "connecting to"),
    lambda place: our_broker(place, port=place.refused_port()),
)


@fault("failed", "event broker", "WRONGTYPE")
def something_else_than_a_stream(place: Place) -> Any:
    place.root.set("events-of-bot", "no stream", px=60_000)
    place.undo.callback(place.root.delete, "events-of-bot")
    return {"tracker_store": place.store(), "event_broker": our_broker(place, stream="events-of-bot")}


other(
    *("lock_store", "failed", "lock store", "record_exp is about"),
    lambda place: {"type": "extras.lockstore.ExtraRedisLockStore", "record_exp": 5},
)
other(
    *("lock_store", "failed", "lock store", "url and host are both"),
    lambda place: {"type": "redis", "url": "127.0.0.1", "host": "127.0.0.1"},
)
other(
    *("lock_store", "warning", "lock store", "takes no url, and goes to 127.0.0.1"),
    lambda place: {
        **{"type": "concurrent_redis", "url": "redis.internal", "host": "127.0.0.1"},
        **{"port": place.server.port, "password": PASSWORD},
    },
)
other("lock_store", "failed", "lock store", "Redis: is neither", lambda place: {"type": "Redis"})
other("lock_store", "failed", "lock store", "refused", lambda place: {"type": "redis", "port": place.refused_port()})
other(
    *("lock_store", "failed", "lock store", "invalid"),
    lambda place: {"type": "redis", "url": "127.0.0.1", "port": place.server.port, "password": "hunter3-of-redis"},
)
other(
    *("lock_store", "failed", "lock store", "may not EVAL, EVALSHA on lock:*"),
    lambda place: our_locks(place, "~*", "&*", "+@all", "-@scripting"),
)
other(
    *("lock_store", "failed", "lock store", "the server has no EVALSHA"),
    lambda place: {
        "type": "extras.lockstore.ExtraRedisLockStore",
        "url": "127.0.0.1",
        "port": place.own("--rename-command", "EVALSHA", "").port,
    },
)
other(
    *("lock_store", "failed", "lock store", "may not SET, GET, EVAL, EVALSHA, DEL on lock:*"),
    lambda place: our_locks(place, "~tracker:*", "&*", "+@all", "-acl"),
)
other(
    *("lock_store", "warning", "lock store", "may not PUBLISH, SUBSCRIBE on the channel lock:called"),
    lambda place: our_locks(place, "~*", "resetchannels", "+@all", "-acl"),
)
other(
    *("lock_store", "warning", "lock store", "may not SUBSCRIBE on the channel lock:called"),
    lambda place: our_locks(place, "~*", "&*", "+@all", "-subscribe"),
)
other(
    *("lock_store", "failed", "lock store", "may not SET on lock:*"),
    lambda place: our_locks(place, "~*", "+@all", "-set", kind="redis"),
)
other("lock_store", "failed", "lock store", "port must be", lambda place: {"type": "redis", "port": "six"})
other(
    *("action_endpoint", "failed", "action server", "efused"),
    lambda place: {"url": f"http://user:{PASSWORD}@127.0.0.1:{place.refused_port()}/webhook"},
)
other(
    *("action_endpoint", "failed", "action server", "rong version"),
    lambda place: {"url": f"https://127.0.0.1:{place.http(200)}/webhook"},
)
other(
    *("action_endpoint", "failed", "action server", "http://127.0.0.1"),
    lambda place: {"url": f"http://127.0.0.1:{place.server.port}"},
)
other("action_endpoint", "failed", "action server", "cannot be read", lambda place: {"url": "http://127.0.0.1:x/"})
other("action_endpoint", "warning", "action server", "whoever reaches", lambda place: action(place, 200, "0.0.0.0"))
other("action_endpoint", "failed", "action server", "answers 404", lambda place: action(place, 404))
other("action_endpoint", "failed", "action server", "has no login for it", lambda place: action(place, 401))
other("action_endpoint", "warning", "action server", "answers 500", lambda place: action(place, 500))
