"""The process at the other end of a connection, where the system shows it, as Linux does for those beside this one.

Whether a process is gone tells a crash from a connection that broke. One in another container of the same pod shows its
socket and not itself: while somebody holds that, the process lives.
"""

import asyncio
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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


def living(remotes: Sequence[Remote]) -> list[bool | None]:
    """Say of each whether its process lives, None if that cannot be told; the sockets are looked at once for all."""
    unseen = {remote.address for remote in remotes if not remote.pid}
    inodes = _inodes(unseen) if unseen else {}
    return [
        _started(remote.pid) == remote.started
        if remote.pid
        else (True if inodes.get(remote.address) == remote.inode else None)
        for remote in remotes
    ]


def find(peers: Iterable[str]) -> dict[str, Remote]:
    """Return who is at the other ends, given as grpc writes them, of those on this machine. Takes milliseconds.

    A socket that nobody holds, as of a process that has just ended, is nobody.
    """
    addresses = {peer: _address(peer) for peer in peers}
    inodes = _inodes(set(addresses.values()))
    holders = _holders({f"socket:[{inode}]": inode for inode in inodes.values()})
    found = {}
    for peer, address in addresses.items():
        if inode := inodes.get(address):
            pid = holders.get(inode, 0)
            started = _started(pid) if pid else ""
            found[peer] = Remote(address, inode, pid if started else 0, started)
    return found


class Finder:
    """Finds who is at the other ends of many connections: those that are asked for together cost as much as one."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[Remote | None]] = {}
        self._looking = asyncio.Lock()

    async def find(self, peer: str) -> Remote | None:
        """Return who is at the other end of a connection, None if that cannot be told."""
        answer = self._asked.setdefault(peer, asyncio.get_running_loop().create_future())
        async with self._looking:
            if not answer.done():
                asked, self._asked = self._asked, {}
                found: dict[str, Remote] = {}
                try:
                    found = await asyncio.to_thread(find, list(asked))
                finally:  # also for the others when the one that looks for all is cancelled
                    for one, waiting in asked.items():
                        waiting.set_result(found.get(one))
        return answer.result()


def _address(peer: str) -> str:
    """Return the address of a peer as the tables of the system have it, "" if it is of another form."""
    matched = _PEER.fullmatch(peer)
    return "" if matched is None else _written(matched[1], int(matched[2]))


def _written(host: str, port: int) -> str:
    """Write an address as the tables of the system have it: words are little-endian."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError):
        packed = socket.inet_pton(family, host)
        words = [packed[at : at + 4][::-1].hex().upper() for at in range(0, len(packed), 4)]
        return f"{''.join(words)}:{port:04X}"
    return ""


def _inodes(addresses: Set[str]) -> dict[str, str]:
    """Return the numbers of the sockets that have these addresses and are held by a process."""
    found = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split(maxsplit=10)
                address = fields[1].removeprefix(_MAPPED)
                if address in addresses and fields[9] != "0":
                    found[address] = fields[9]
    return found


def _holders(links: Mapping[str, str]) -> dict[str, int]:
    """Return processes that hold these files, as far as they can be seen."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for pid in [int(name) for name in os.listdir(_PROC) if name.isdecimal()]:
            if len(found) == len(links):
                break
            found |= {links[link]: pid for link in _open_files(pid) if link in links}
    return found


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError), os.scandir(f"{_PROC}/{pid}/fd") as files:
        for file in files:
            with suppress(OSError):
                yield os.readlink(file.path)


def _started(pid: int) -> str:
    """Return when a process was started, in the words of the system; "" if it has ended."""
    with suppress(OSError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[_STATE] in _DEAD else fields[_STARTED]
    return ""
