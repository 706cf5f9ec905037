"""The clients that are compared, each behind one small interface: what it does for a case, as a function to be timed.

Blocking clients and those for asyncio look alike here: the latter's functions return awaitables.
"""

from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Awaitable, Callable, Dict, NamedTuple, Optional, Protocol, Tuple

from extras.bench.cases import LIST_ITEMS, SCRIPT, SCRIPT_ARGUMENT, SCRIPT_SHA, Case

BASELINE = "redis-py"
"""The side that the others are compared with."""

OURS = ("FastConnection", "FastRedis", "AsyncFastConnection", "AsyncFastRedis")

GLIDE_TIMEOUT_MS = 10_000
"""Instead of valkey-glide's default of 250 ms, which a pause of a busy machine would exceed."""

Operation = Callable[[], Any]


class Address(NamedTuple):
    """A server without password or TLS."""

    host: str
    port: int
    db: int


class Peer(Protocol):
    """One client, connected or about to be."""

    def operation(self, case: Case) -> Optional[Operation]:
        """Return what carries out a case once, ``None`` if this client cannot."""


Opener = Callable[[Address, AsyncExitStack], Awaitable[Any]]
"""Makes a :class:`Peer`, or a ``Floor``, which the stack closes. Raises whatever its package raises."""


async def open_all(
    openers: Dict[str, Opener], address: Address, stack: AsyncExitStack
) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """Return all clients that can be made, and why others cannot, by name.

    Raises what the baseline raises, and what ours raise once they are there.
    """
    opened, skipped = {}, {}
    for name, opener in openers.items():
        try:
            opened[name] = await opener(address, stack)
        except Exception as error:  # a package that is missing, half installed, or too old fails in many ways
            is_missing = isinstance(error, (ImportError, AttributeError))
            if name == BASELINE or (name in OURS and not is_missing):
                raise
            skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return opened, skipped


class RedisPy:
    """A client with redis-py's interface, blocking or for asyncio."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def operation(self, case: Case) -> Optional[Operation]:
        """Return what carries out a case once."""
        client, keys, value = self._client, case.keys, case.value

        def pipeline() -> Any:
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.set(key, value)
            return pipe.execute()

        operations: Dict[str, Operation] = {
            "get": partial(client.get, case.key),
            "set": partial(client.set, case.key, value),
            "pipeline": pipeline,
            "lrange": partial(client.lrange, case.key, 0, LIST_ITEMS - 1),
            "evalsha": partial(client.evalsha, SCRIPT_SHA, 1, case.key, SCRIPT_ARGUMENT),
        }
        return operations[case.command]


def connected_by(connection_class: Any, client: Any) -> Any:
    """Let a client of redis-py's, which has not connected yet, use a connection class of ours; return it."""
    client.connection_pool.connection_class = connection_class  # with what redis.Redis gives one, its retries say
    return client


class Glide:
    """A client of valkey-glide, ``package`` being its blocking or its asynchronous one."""

    def __init__(self, package: Any, client: Any) -> None:
        self._package = package
        self._client = client
        self._script = package.Script(SCRIPT)

    def operation(self, case: Case) -> Optional[Operation]:
        """Return what carries out a case once."""
        client, keys, value, batch_class = self._client, case.keys, case.value, self._package.Batch

        def pipeline() -> Any:
            batch = batch_class(False)  # no transaction
            for key in keys:
                batch.set(key, value)
            return client.exec(batch, raise_on_error=True)

        operations: Dict[str, Operation] = {
            "get": partial(client.get, case.key),
            "set": partial(client.set, case.key, value),
            "pipeline": pipeline,
            "lrange": partial(client.lrange, case.key, 0, LIST_ITEMS - 1),
            "evalsha": partial(client.invoke_script, self._script, keys=[case.key], args=[SCRIPT_ARGUMENT]),
        }
        return operations[case.command]


def glide_configuration(package: Any, address: Address) -> Any:
    """Return what a client of valkey-glide is made from: RESP2 and ``TCP_NODELAY``, as the others have."""
    return package.GlideClientConfiguration(
        [package.NodeAddress(address.host, address.port)],
        database_id=address.db,
        protocol=package.ProtocolVersion.RESP2,
        request_timeout=GLIDE_TIMEOUT_MS,
        advanced_config=package.AdvancedGlideClientConfiguration(tcp_nodelay=True),
    )


class Coredis:
    """A client of coredis, which speaks RESP3 only."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def operation(self, case: Case) -> Optional[Operation]:
        """Return what carries out a case once."""
        client, keys, value = self._client, case.keys, case.value

        async def pipeline() -> Any:
            async with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.set(key, value)
            return pipe.results

        operations: Dict[str, Operation] = {
            "get": partial(client.get, case.key),
            "set": partial(client.set, case.key, value),
            "pipeline": pipeline,
        }
        return operations.get(case.command)
