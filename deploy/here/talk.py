"""Those who use the stack: somebody who talks over HTTPS, and who tries what must not be possible."""

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

TIMEOUT_S = 90
_TURN = re.compile(r" POST /webhooks/rest/webhook (\d+) (.+?) [\d, -]+ [\d.]+$")


class Person:
    """Talks to the assistant through nginx, whose certificate is checked."""

    def __init__(self, port: int, certificate: Path, sender: str) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(certificate))
        self.sender = sender

    def asked(self, method: str, path: str, body: Optional[Any] = None) -> Tuple[int, bytes]:
        """Return status and body of an answer."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=TIMEOUT_S, context=self._context)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def posted(self, text: str) -> Tuple[int, bytes]:
        """Say something; return status and body of the answer."""
        return self.asked("POST", "/webhooks/rest/webhook", {"sender": self.sender, "message": text})

    def says(self, text: str) -> List[str]:
        """Say something; return what the assistant says. Raises ``RuntimeError`` if that is no answer."""
        status, body = self.posted(text)
        if status != 200:
            raise RuntimeError(f"{text!r} was answered with {status}: {body!r}")
        return [reply["text"] for reply in json.loads(body)]


def turns(log: Path) -> List[Tuple[int, List[str]]]:
    """Return the status of each turn in nginx's log, and the workers that were asked for it."""
    found = filter(None, (_TURN.search(line) for line in log.read_text().splitlines()))
    return [(int(turn[1]), turn[2].split(", ")) for turn in found]


def action_server_says(port: int, login: Optional[Tuple[str, str]]) -> int:
    """Call the action server with a login or none; return the status of its answer."""
    headers = {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    call: Dict[str, Any] = {"next_action": "action_order", "version": "3.6.21", "domain": {}, "sender_id": "nobody"}
    call["tracker"] = {"sender_id": "nobody", "slots": {}, "latest_message": {}, "events": [], "paused": False}
    call["tracker"].update({"followup_action": None, "active_loop": {}, "latest_action_name": None})
    request = urllib.request.Request(f"http://127.0.0.1:{port}/webhook", json.dumps(call).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def ports_in_use(ports: Set[int]) -> Set[int]:
    """Return on which of these ports of this machine somebody is connected. Source: proc_net_tcp.txt of Linux."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == "01":  # TCP_ESTABLISHED
            found.add(int(local.rpartition(":")[2], 16))
    return found & ports
