"""Gives a fault a network of its own, without root: the server on one side of a link, the client on the other.

What is started inside is in a process namespace too, so that nothing is left of it when its first process ends.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Callable, Optional, Sequence

SERVER_ADDRESS = "10.99.0.1"
CLIENT_ADDRESS = "10.99.0.2"
LINK = "extras0"
"""The server's end of the link."""

_CLIENT_LINK = "extras1"
_PROGRAMS = ("ip", "nft", "tc", "mount")

# linux/sched.h and linux/prctl.h
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1


def _libc_call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def run(*command: str, passed: Sequence[int] = ()) -> None:
    """Run a program to its end, with these files open. Raises ``OSError`` with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, pass_fds=passed)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def end_with_parent() -> None:
    """Have this process killed when its parent ends (prctl(2)), where the system can do that."""
    if sys.platform == "linux":
        _libc_call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def isolate() -> None:
    """Return in a child that is alone in new namespaces; this process waits for it, and never returns.

    user_namespaces(7), pid_namespaces(7). Raises ``OSError`` where the system does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    _libc_call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWPID)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    end_with_parent()
    run("mount", "--make-rprivate", "/")
    _set_up("lo")


class ClientNetwork:
    """A second network, across a link; this process stays in the first one, the server's."""

    def __init__(self) -> None:
        with open("/proc/self/ns/net", "rb") as server_side:
            _libc_call("unshare", _CLONE_NEWNET)
            self._fd = os.open("/proc/self/ns/net", os.O_RDONLY)
            _libc_call("setns", server_side.fileno(), _CLONE_NEWNET)
            run("ip", "link", "add", LINK, "type", "veth", "peer", "name", _CLIENT_LINK)
            run("ip", "link", "set", _CLIENT_LINK, "netns", f"/proc/self/fd/{self._fd}", passed=(self._fd,))
            _set_up(LINK, SERVER_ADDRESS)
            self.enter()
            _set_up("lo")
            _set_up(_CLIENT_LINK, CLIENT_ADDRESS)
            _libc_call("setns", server_side.fileno(), _CLONE_NEWNET)

    def enter(self) -> None:
        """Move this process there (setns(2))."""
        _libc_call("setns", self._fd, _CLONE_NEWNET)


def _set_up(link: str, address: str = "") -> None:
    if address:
        run("ip", "addr", "add", f"{address}/24", "dev", link)
    run("ip", "link", "set", link, "up")


def why_not() -> Optional[str]:
    """Return why no namespaces can be had here, ``None`` if they can."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, this is {sys.platform}"
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)} here (Debian: iproute2, nftables)"
    return _error_of(_try)


def _try() -> None:
    isolate()
    ClientNetwork()
    run("nft", "add table inet extras")


def _error_of(attempt: Callable[[], None]) -> Optional[str]:
    """Carry out an attempt in a child; what error it ended with."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except BaseException as error:
            with suppress(OSError):
                os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(child, 0)
    return f"user namespaces cannot be had here ({text})" if text else None
