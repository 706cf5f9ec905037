"""A name that moves is followed: it is looked up again at every connect, so that a store goes on where it points to."""

import socket
from pathlib import Path
from typing import Any, Dict, List, Type

import pytest
import redis
from faces import FACES, Face

from extras.bench.server import RedisServer
from extras.options import parse


@pytest.mark.parametrize("face", FACES)
def test_a_store_goes_on_where_the_name_has_moved(
    face: Type[Face], server: RedisServer, raw: "redis.Redis", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points_to: Dict[str, int] = {}
    asked: List[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> List[Any]:
        if host not in points_to:
            return real(host, *arguments, **named)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", points_to[host]))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with RedisServer(tmp_path / "first") as first:
        points_to["redis.test"] = first.port
        with face(parse({"url": "redis.test", "call_timeout": 30})) as client:
            client.ask("SET", "where", "first")
            assert client.ask("GET", "where") == b"first"
            assert len(asked) == 1
            first.kill()
            with pytest.raises(redis.ConnectionError):
                client.ask("GET", "where")
            assert len(asked) > 1
            raw.set("where", "second")
            points_to["redis.test"] = server.port
            assert client.ask("GET", "where") == b"second"
