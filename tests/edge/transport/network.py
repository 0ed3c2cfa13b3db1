"""Both ends of the transport on loopback, and the list of adapters that the contract suite is run for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.transport.ports import Call, Channel, DuplexCall, Handlers, Outflow, Server

SOON = 5.0
"""Seconds within which everything that should happen at once must have happened."""


@dataclass(frozen=True)
class Adapter:
    name: str
    server: Callable[..., Server]
    channel: Callable[..., Channel]


ADAPTERS = (Adapter("grpc_aio", GrpcServer, GrpcChannel),)


class Network:
    """Servers and channels that are closed when the test ends."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._servers: list[Server] = []
        self._channels: list[Channel] = []

    def server(self, handlers: Handlers, **limits: int) -> Server:
        server = self._adapter.server(handlers, **limits)
        self._servers.append(server)
        return server

    async def serve(self, handlers: Handlers, port: int = 0, **limits: int) -> int:
        server = self.server(handlers, **limits)
        port = await server.listen("127.0.0.1", port)
        await server.start()
        return port

    def channel(self, port: int, host: str = "127.0.0.1", **options: Any) -> Channel:
        channel = self._adapter.channel(f"{host}:{port}", **options)
        self._channels.append(channel)
        return channel

    async def connect(self, handlers: Handlers, **limits: int) -> Channel:
        return self.channel(await self.serve(handlers, **limits))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for server in self._servers:
            await server.stop(0)


class Held:
    """A stream handler that stays until it is released, and that remembers how it ended."""

    def __init__(self) -> None:
        self.outflows: list[Outflow] = []
        self.started = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def stream(self, _call: Call, _request: bytes, outflow: Outflow) -> None:
        await self._hold(outflow)

    async def duplex(self, _call: Call, _requests: AsyncIterator[bytes], outflow: Outflow) -> None:
        await self._hold(outflow)

    async def unary(self, _call: Call, request: bytes) -> bytes:
        await self._hold(None)
        return request

    async def _hold(self, outflow: Outflow | None) -> None:
        if outflow is not None:
            self.outflows.append(outflow)
        self.started += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def echo(_call: Call, request: bytes) -> bytes:
    return request


async def open_stream(channel: Channel, method: str, request: bytes = b"") -> DuplexCall:
    """Call a method that answers one request with a stream."""
    call = channel.duplex(method)
    await call.send(request)
    await call.done_sending()
    return call


async def rest(call: DuplexCall) -> list[bytes]:
    """Return the messages up to the end of a call."""
    messages = []
    while (message := await call.receive()) is not None:
        messages.append(message)
    return messages


async def until(condition: Callable[[], bool], seconds: float = SOON) -> None:
    """Return when the condition holds; fail when it does not hold in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
