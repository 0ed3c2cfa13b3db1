"""The process at the other end of a connection, where the system shows it, as Linux does for those beside this one.

Whether a process is gone tells a crash from a connection that broke. One in another container of the same pod shows its
socket and not itself: while somebody holds that, the process lives.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PEER = re.compile(r"ipv[46]:\[?([0-9a-fA-F.:]+?)\]?:(\d+)")
_MAPPED = "0000000000000000FFFF0000"  # how the system writes an IPv4 address at an IPv6 socket
_STATE, _STARTED = 0, 19  # of the fields behind the name
_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Remote:
    """Who is at an address: the socket there, and its process, 0 if that cannot be seen, with its start."""

    address: str  # as the system writes it
    inode: str
    pid: int = 0
    started: str = ""

    def is_alive(self) -> bool | None:
        """Whether the process lives; None if that cannot be told."""
        if self.pid:
            return _started(self.pid) == self.started
        return True if _inode_of(self.address) == self.inode else None


def find(peer: str) -> Remote | None:
    """Return who is at the other end, given as grpc writes it; None if it is not on this machine. Takes milliseconds.

    A socket that nobody holds, as of a process that has just ended, is nobody.
    """
    matched = _PEER.fullmatch(peer)
    address = "" if matched is None else _written(matched[1], int(matched[2]))
    inode = _inode_of(address) if address else ""
    if not inode:
        return None
    pid = _holder(f"socket:[{inode}]")
    started = _started(pid) if pid else ""
    return Remote(address, inode, pid if started else 0, started)


def _written(host: str, port: int) -> str:
    """Return an address as the tables of the system have it, "" if it is of another form. Words are little-endian."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError):
        packed = socket.inet_pton(family, host)
        words = [packed[at : at + 4][::-1].hex().upper() for at in range(0, len(packed), 4)]
        return f"{''.join(words)}:{port:04X}"
    return ""


def _inode_of(address: str) -> str:
    """Return the number of the socket that has an address and is held by a process, "" if there is none."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].removeprefix(_MAPPED) == address and fields[9] != "0":
                    return fields[9]
    return ""


def _holder(link: str) -> int:
    """Return a process that holds a file, 0 if none can be seen."""
    return next((pid for pid in _pids() if _holds(pid, link)), 0)


def _pids() -> Iterator[int]:
    with suppress(OSError):
        yield from (int(name) for name in os.listdir(_PROC) if name.isdecimal())


def _holds(pid: int, link: str) -> bool:
    with suppress(OSError), os.scandir(f"{_PROC}/{pid}/fd") as files:
        for file in files:
            with suppress(OSError):
                if os.readlink(file.path) == link:
                    return True
    return False


def _started(pid: int) -> str:
    """Return when a process was started, in the words of the system; "" if it has ended."""
    with suppress(OSError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[_STATE] in _DEAD else fields[_STARTED]
    return ""
