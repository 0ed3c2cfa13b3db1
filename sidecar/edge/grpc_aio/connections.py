"""Whether the connection that a call came over is still open, as the system sees it: grpc tells nobody.

A call that its caller has cancelled and one whose caller is gone look alike in grpc.aio. What tells them apart is the
socket: the system knows that a process has ended before grpc does. Where sockets cannot be listed, nothing is known.
"""

import os
import socket
from contextlib import suppress

_OWN_FILES = "/dev/fd"
_MAPPED = "::ffff:"  # how IPv6 writes an IPv4 address


class Connections:
    """The sockets of this process by the address of their peer, in grpc's words. They are listed only when needed."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._calls = 0
        self._listed = 0  # how many calls had begun then

    def begin(self) -> int:
        """Return the number of a call that begins."""
        self._calls += 1
        return self._calls

    def is_open(self, peer: str, call: int) -> bool:
        """Whether the connection to a peer, over which this call came, is open at both ends."""
        if not self._found(peer) and self._listed < call:
            # One list serves all calls that had begun: a peer that is not in it is gone.
            self._listed = self._calls
            self._files = _sockets()
        with suppress(OSError), _duplicate(self._files.get(peer, -1)) as connection:
            return _peer_of(connection) == peer and _is_alive(connection)
        return False

    def _found(self, peer: str) -> bool:
        with suppress(OSError), _duplicate(self._files.get(peer, -1)) as connection:
            return _peer_of(connection) == peer
        return False


def _sockets() -> dict[str, int]:
    found = {}
    with suppress(OSError):
        for name in os.listdir(_OWN_FILES):
            with suppress(OSError), _duplicate(int(name)) as connection:
                found[_peer_of(connection)] = int(name)
    return found


def _duplicate(file: int) -> socket.socket:
    """Return a second handle of a socket, which grpc cannot close under us. Raises OSError if it is none."""
    copy = os.dup(file)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _peer_of(connection: socket.socket) -> str:
    """Return the address at the other end as grpc writes it. Raises OSError if there is none."""
    address = connection.getpeername()
    if connection.family == socket.AF_INET:
        return f"ipv4:{address[0]}:{address[1]}"
    if connection.family != socket.AF_INET6:
        return ""
    host = str(address[0])
    return f"ipv4:{host[len(_MAPPED) :]}:{address[1]}" if host.startswith(_MAPPED) else f"ipv6:[{host}]:{address[1]}"


def _is_alive(connection: socket.socket) -> bool:
    """Whether the other end has not closed it. Raises OSError if the connection is broken."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
