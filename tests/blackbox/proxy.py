"""A TCP proxy before a port: it can be cut, fall silent as a dead connection does, or lose what comes back."""

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
        """End the proxies, with all that they hold."""
        self.do(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()


class Proxy:
    """Carries the bytes of each connection to a port and back, until it is told to do otherwise."""

    def __init__(self, network: Network, target: int) -> None:
        self._network = network
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._there, self._back = asyncio.Event(), asyncio.Event()  # set: carried
        self._there.set()
        self._back.set()
        self.port: int = network.do(self._listen())

    def cut(self) -> None:
        """End all connections, and each new one."""
        self._network.do(self._set(cut=True, there=True, back=True))

    def silence(self) -> None:
        """Carry nothing more, and close nothing: what both ends see when a cable is pulled."""
        self._network.do(self._set(cut=False, there=False, back=False))

    def lose_answers(self) -> None:
        """Carry what is sent to the port, and nothing back."""
        self._network.do(self._set(cut=False, there=True, back=False))

    def mend(self) -> None:
        """Carry everything again; the connections that were held are gone with what they held."""
        self._network.do(self._mend())

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, HOST, 0)
        self._serving = asyncio.create_task(_serve_until_cancelled(server))
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _mend(self) -> None:
        if self._there.is_set() and self._back.is_set():
            self._cut = False
            return
        self._abort()
        await asyncio.sleep(0.1)
        await self._set(cut=False, there=True, back=True)

    async def _set(self, *, cut: bool, there: bool, back: bool) -> None:
        self._cut = cut
        for way, carried in ((self._there, there), (self._back, back)):
            way.set() if carried else way.clear()
        if cut:
            self._abort()

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # at the end of the network; the server would log it
            await self._connect(reader, writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            await asyncio.gather(_carry(reader, back, self._there), _carry(onward, writer, self._back))
        finally:
            for end in both:
                end.transport.abort()
            self._open -= both


async def _serve_until_cancelled(server: asyncio.Server) -> None:
    async with server:
        await server.serve_forever()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carried: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            await carried.wait()
            writer.write(data)
            await writer.drain()
    writer.close()
