"""A TCP proxy between a sidecar and a peer, which can be cut for a while."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

HOST = "127.0.0.1"
_CHUNK = 64 * 1024


class Network:
    """An event loop on a thread of its own, for all proxies."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)


class Proxy:
    """Carries the bytes of each connection to a port and back; while it is cut, it takes and carries none."""

    def __init__(self, network: Network, target: int) -> None:
        self._network = network
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        self.port: int = network.do(self._listen())

    def cut(self) -> None:
        self._network.do(self._set(cut=True))

    def mend(self) -> None:
        self._network.do(self._set(cut=False))

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _set(self, *, cut: bool) -> None:
        self._cut = cut
        for writer in list(self._open) if cut else ():
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            onward, back = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._open |= both
        try:
            await asyncio.gather(_carry(reader, back), _carry(onward, writer))
        finally:
            self._open -= both


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
