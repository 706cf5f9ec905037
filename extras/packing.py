"""Commands as bytes for Redis: packed natively below redis-py's own methods, which keep what is theirs to refuse."""

from typing import Any, List

from extras import fastsock
from extras._redis import packed_buffers

BUFFERS = packed_buffers()
"""Which of ``bytearray`` and ``memoryview`` this redis-py packs."""


def is_utf8(encoder: Any) -> bool:
    """Return whether text is sent as :func:`extras.fastsock.pack_commands` packs it."""
    return encoder.encoding.lower() in ("utf-8", "utf8")


class Packer:
    """Packs what it can, and leaves the rest to ``stock``, redis-py's own packer."""

    def __init__(self, stock: Any) -> None:
        self._stock = stock

    def pack(self, *args: Any) -> List[Any]:
        """Return the pieces of a command."""
        packed = fastsock.pack_commands((args,), BUFFERS)
        return self._stock.pack(*args) if packed is None else packed


class Packing:
    """Put before a connection class of redis-py, blocking or async, makes its connections pack natively."""

    packs = False
    """Whether they do: not in another encoding."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packs = is_utf8(self.encoder)  # type: ignore[attr-defined]

    def pack_command(self, *args: Any) -> Any:
        """Return what ``send_packed_command`` takes, with the caller's own bytes where they are large."""
        packed = fastsock.pack_commands((args,), BUFFERS) if self.packs else None
        return super().pack_command(*args) if packed is None else packed  # type: ignore[misc]

    def pack_commands(self, commands: Any) -> Any:
        """Return the same for several commands."""
        commands = list(commands)
        packed = fastsock.pack_commands(commands, BUFFERS) if self.packs else None
        return super().pack_commands(commands) if packed is None else packed  # type: ignore[misc]
