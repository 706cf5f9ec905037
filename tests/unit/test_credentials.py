"""A provider of user and password is made once, asked at each connect, and never on the thread of an event loop."""

import asyncio
import threading
from typing import Any, ClassVar, Iterator, List, Tuple, Type

import pytest
import redis
from faces import FACES, Blocking, Face

from extras import _redis
from extras.configured import connection_kwargs
from extras.errors import OptionError
from extras.options import parse

SECRET = "hunter2-rotating"
NAME = f"{__name__}.Rotating"

needs_providers = pytest.mark.skipif(_redis.CredentialProvider is None, reason="redis-py has none before 4.5")


class Rotating(_redis.CredentialProvider or object):  # type: ignore[misc]
    """Gives the password that is in force."""

    made = 0
    password = ""
    threads: ClassVar[List[threading.Thread]] = []

    def __init__(self) -> None:
        type(self).made += 1

    def get_credentials(self) -> Tuple[str, str]:
        self.threads.append(threading.current_thread())
        return "bot", self.password


class OfALoop(Rotating):
    """Has a coroutine of its own."""

    async def get_credentials_async(self) -> Tuple[str, str]:
        await asyncio.sleep(0)
        return self.get_credentials()


def wrong() -> Any:
    return object()


def failing() -> Any:
    raise RuntimeError(SECRET)


@pytest.fixture
def user(raw: "redis.Redis") -> Iterator[Any]:
    """Set the password of ``bot``, and have all others log in again."""

    def rotate(password: str) -> None:
        Rotating.password = password
        raw.execute_command("ACL SETUSER", "bot", "reset", "on", f">{password}", "~*", "+@all")
        raw.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")

    Rotating.threads.clear()
    yield rotate
    raw.execute_command("ACL DELUSER", "bot")


@needs_providers
@pytest.mark.parametrize("name", ["Rotating", "OfALoop"])
@pytest.mark.parametrize("face", FACES)
def test_it_is_asked_at_each_connect_and_made_once(face: Type[Face], name: str, server: Any, user: Any) -> None:
    user("first-password")
    given = parse({"url": "127.0.0.1", "port": server.port, "credential_provider": f"{__name__}.{name}"})
    with face(given) as client:
        assert client.ask("ACL", "WHOAMI") == b"bot"
        assert client.ask("ACL", "WHOAMI") == b"bot"
        assert len(Rotating.threads) == 1
        user("second-password")
        assert client.ask("ACL", "WHOAMI") == b"bot"
        assert len(Rotating.threads) == 2
        if face is not Blocking and name == "Rotating":
            assert threading.main_thread() not in Rotating.threads
    made = globals()[name].made
    with face(given) as client:
        assert client.ask("ACL", "WHOAMI") == b"bot"
    assert globals()[name].made == made
    assert connection_kwargs(given) == connection_kwargs(given)


@needs_providers
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_module.Provider", "cannot be loaded (ModuleNotFoundError"),
        (f"{__name__}.no_such_class", "cannot be loaded (AttributeError"),
        (f"{__name__}.wrong", "which has no get_credentials()"),
        (f"{__name__}.failing", "cannot be made: RuntimeError"),
    ],
)
def test_one_that_cannot_be_made_is_refused(path: str, said: str) -> None:
    with pytest.raises(OptionError) as error:
        connection_kwargs(parse({"credential_provider": path}))
    assert f"credential_provider {path!r}" in str(error.value)
    assert said in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.skipif(_redis.CredentialProvider is not None, reason="this redis-py has them")
def test_a_redis_py_without_them_is_told() -> None:
    with pytest.raises(OptionError, match=r"credential_provider: redis-py .* has none; pip install 'redis>=4\.5"):
        connection_kwargs(parse({"credential_provider": NAME}))
