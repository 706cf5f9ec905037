"""redis-py as it is where hiredis is not installed: its parser and packer in Python."""

from typing import Any

import redis.connection

from extras import _redis


def without_hiredis(client: Any) -> Any:
    """Let a blocking client, which has not connected yet, parse and pack in Python; return it."""
    pool, known = client.connection_pool, vars(redis.connection)
    pool.connection_kwargs["parser_class"] = known.get("_RESP2Parser") or known["PythonParser"]
    if "PythonRespSerializer" in known:  # since redis-py 4.5; Python packed everything before
        pool.connection_class = _PacksInPython
    return client


def async_without_hiredis(client: Any) -> Any:
    """Let a client for asyncio, which has not connected yet, parse in Python; it always packs so. Return it."""
    import redis.asyncio.connection

    known = vars(redis.asyncio.connection)
    client.connection_pool.connection_kwargs["parser_class"] = known.get("_AsyncRESP2Parser") or known["PythonParser"]
    return client


class _PacksInPython(_redis.Connection):
    _buffer_cutoff: int
    encoder: Any

    def _construct_command_packer(self, packer: Any) -> Any:
        serializer: Any = vars(redis.connection)["PythonRespSerializer"]
        return packer or serializer(self._buffer_cutoff, self.encoder.encode)
