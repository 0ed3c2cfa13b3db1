"""A client that speaks HTTP/2 frame by frame, for what a well-behaved client would not send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
EMPTY_MESSAGE = bytes(5)
ACK, END_STREAM, END_HEADERS = 1, 1, 4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header_block(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Encode header fields of less than 127 bytes each, without compression."""
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


class Client:
    """One connection. The frames that come in, as (kind, flags, payload), pile up in `received`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received: list[tuple[int, int, bytes]] = []
        self._writer = writer
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, port: int) -> AsyncIterator["Client"]:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.write(PREFACE + frame(SETTINGS))
        try:
            yield client
        finally:
            await client.drop()

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def call(self, path: bytes, header: tuple[bytes, bytes] | None = None, body: bytes = b"", missing: int = 0) -> None:
        """Send a call with a message on stream 1, of which so many bytes do not come.

        `header` is added or replaces its namesake.
        """
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        if header is not None:
            fields = [field for field in fields if field[0] != header[0]]
            fields.insert(3 if header[0].startswith(b":") else len(fields), header)
        headers = frame(HEADERS, END_HEADERS, 1, header_block(fields))
        size = (len(body) + missing).to_bytes(4, "big")
        self.write(headers + frame(DATA, 0 if missing else END_STREAM, 1, b"\x00" + size + body))

    def ended(self) -> bool:
        """Whether the server has ended the call."""
        return any(kind == HEADERS and flags & END_STREAM for kind, flags, _ in self.received)

    def count(self, kind: int, flags: int | None = None) -> int:
        return sum(1 for got in self.received if got[0] == kind and flags in (None, got[1]))

    async def drop(self) -> None:
        """Cut the connection, as a process that is killed does."""
        self._writer.transport.abort()
        await asyncio.wait([self._reading])

    async def end(self) -> None:
        """Close the connection without a word in HTTP/2."""
        self._writer.close()
        await asyncio.wait([self._reading])

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                self.received.append((head[3], head[4], payload))
                if head[3] == SETTINGS and not head[4] & ACK:
                    self.write(frame(SETTINGS, ACK))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
