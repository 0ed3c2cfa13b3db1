"""How many connections the HTTP port has at once, and for how long each."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

SECONDS = 10.0
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BACKLOG = 128


class Doors:
    """Lets at most so many connections in at once. Each is closed after `seconds`: one request takes less."""

    def __init__(self, most: int, seconds: float = SECONDS) -> None:
        self.free = most
        self.seconds = seconds
        self._open: dict[asyncio.BaseTransport, _Connection] = {}

    async def serve(self, handlers: Callable[[], asyncio.Protocol], listening: socket.socket) -> asyncio.Server:
        """Accept connections of a listening socket; each gets a handler of its own."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Connection(handlers(), self), sock=listening, backlog=_BACKLOG)

    def enter(self, connection: "_Connection", transport: asyncio.Transport) -> None:
        """Give a connection a place, and its time."""
        self.free -= 1
        self._open[transport] = connection
        connection.abort_after(self.seconds)

    def leave(self, transport: asyncio.Transport) -> None:
        """Take the place back."""
        self.free += 1
        del self._open[transport]

    def allow(self, transport: asyncio.BaseTransport | None, seconds: float) -> None:
        """Give a connection so many seconds from here on, whose caller may ask what takes longer."""
        if transport in self._open:
            self._open[transport].abort_after(seconds)


class _Connection(asyncio.Protocol):
    """Passes everything on to a handler, unless there was no room for it."""

    def __init__(self, handler: asyncio.Protocol, doors: Doors) -> None:
        self._handler = handler
        self._doors = doors
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast(asyncio.Transport, transport)
        if not self._doors.free:
            connection.write(_FULL)
            connection.close()
            return
        self._transport = connection
        self._doors.enter(self, connection)
        self._handler.connection_made(transport)

    def abort_after(self, seconds: float) -> None:
        """End the connection after so many seconds, whatever was said before."""
        if self._end is not None:
            self._end.cancel()
        assert self._transport is not None  # noqa: S101 - it has a place
        self._end = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        if self._end is not None and self._transport is not None:
            self._end.cancel()
            self._end = None
            self._doors.leave(self._transport)
            self._handler.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._end is not None:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received() if self._end is not None else None

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()
