"""The two commands that are called most, without what redis-py does for options that are not given."""

from typing import Any

from extras._redis import FOR_CACHE


class QuickCommands:
    """Put before a client class of redis-py, blocking or async."""

    def get(self, name: Any) -> Any:
        """Return the value at ``name``, ``None`` if there is none. See redis-py's ``get``."""
        if FOR_CACHE is None:
            return self.execute_command("GET", name)  # type: ignore[attr-defined]
        return self.execute_command("GET", name, keys=[name])  # type: ignore[attr-defined]

    def set(self, name: Any, value: Any, *args: Any, **options: Any) -> Any:
        """Set the value at ``name``. See redis-py's ``set``, which looks for experimental options at each call."""
        if args or options:
            return super().set(name, value, *args, **options)  # type: ignore[misc]
        return self.execute_command("SET", name, value)  # type: ignore[attr-defined]
