"""The network of a simulated deployment: channels and links, as in `edge/transport/ports.py`, over simulated wires.

Frames of one direction of a link keep their order; they are late, lost while two apps are cut off from each other, or
come twice. A link that breaks may still bring its last frames to the side that was called, as real ones do.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.edge.transport.ports import NO_NAMES, Call, Closed, Metadata, Refused, StatusCode


class Endpoint(Protocol):
    """A sidecar that can be reached."""

    name: str

    def accept(self, call: Call, requests: AsyncIterator[bytes], out: "Pipe") -> "asyncio.Task[None]":
        """Serve a link that was opened to it, in a task of its own."""


@dataclass
class Faults:
    """What the network does at the moment. Times in seconds."""

    latency: tuple[float, float] = (0.0002, 0.005)
    twice: float = 0.0
    cut: set[frozenset[str]] = field(default_factory=set)


class Pipe:
    """One direction of a link. Also an `Outflow`, whose reader is at the far end."""

    def __init__(self, network: "Network", ends: frozenset[str], label: str) -> None:
        self._network = network
        self._ends = ends
        self._label = label
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._last = 0.0
        self.closed = False

    def send(self, message: bytes) -> None:
        """See `Outflow`. A frame between apps that are cut off is gone."""
        if self.closed:
            raise Closed("the link has ended")
        network = self._network
        if self._ends in network.faults.cut:
            network.note(f"{self._label}: frame lost")
            return
        copies = 2 if network.rng.random() < network.faults.twice else 1
        if copies == 2:
            network.note(f"{self._label}: frame comes twice")
        loop = asyncio.get_running_loop()
        self._last = max(self._last, loop.time() + network.rng.uniform(*network.faults.latency))
        for _ in range(copies):
            loop.call_at(self._last, self._queue.put_nowait, message)

    @property
    def full(self) -> bool:
        """See `Outflow`."""
        return False

    async def drained(self) -> None:
        """See `Outflow`."""

    @property
    def cancelled(self) -> bool:
        """See `Outflow`."""
        return False

    async def receive(self) -> bytes | None:
        """Return the next frame, None when the direction has ended."""
        return await self._queue.get()

    def end(self) -> None:
        """End the direction, behind the frames that are on their way."""
        if not self.closed:
            self.closed = True
            loop = asyncio.get_running_loop()
            loop.call_at(max(self._last, loop.time()), self._queue.put_nowait, None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        message = await self._queue.get()
        if message is None:
            raise StopAsyncIteration
        return message


class Link:
    """A call with frames both ways: `DuplexCall` for the side that opened it."""

    def __init__(self, network: "Network", caller: str, target: Endpoint | None, name: str) -> None:
        self._network = network
        self.ends = frozenset((caller, name))
        self.up = Pipe(network, self.ends, f"{caller} > {name}")
        self.down = Pipe(network, self.ends, f"{name} > {caller}")
        self.broken = target is None
        self._serving: asyncio.Task[None] | None = None
        self._sending = False
        if target is not None:
            call = Call("link", {}, None, caller, NO_NAMES)
            self._serving = target.accept(call, self.up, self.down)
            self._serving.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            task.exception()
        self.broken = True
        self.down.end()

    async def send(self, message: bytes) -> None:
        """See `DuplexCall`."""
        if self._sending:
            raise AssertionError("two messages were handed to one wire at the same time")
        self._sending = True
        try:
            await asyncio.sleep(0)
            if self.broken:
                raise Closed("the link is broken")
            self.up.send(message)
        finally:
            self._sending = False

    async def done_sending(self) -> None:
        """See `DuplexCall`."""
        self.up.end()

    async def receive(self) -> bytes | None:
        """See `DuplexCall`."""
        if self.broken and self._serving is None:
            raise Refused(StatusCode.UNAVAILABLE, "connection refused")
        message = await self.down.receive()
        if message is None:
            raise Refused(StatusCode.UNAVAILABLE, "the link broke")
        return message

    def cancel(self) -> None:
        """See `DuplexCall`."""
        self.snap(0.0)

    def snap(self, linger: float) -> None:
        """Break: the opener sees it now, the other side after `linger` seconds."""
        self.broken = True
        self.down.end()
        if self._serving is not None and not self._serving.done():
            asyncio.get_running_loop().call_later(linger, self._serving.cancel)


class Channel:
    """See `transport.Channel`."""

    def __init__(self, network: "Network", caller: str, target: str) -> None:
        self._network = network
        self._caller = caller
        self._target = target

    async def unary(self, method: str, request: bytes, metadata: Metadata = (), timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """See `transport.Channel`."""
        raise Refused(StatusCode.UNIMPLEMENTED, method)

    def duplex(self, method: str, metadata: Metadata = ()) -> Link:
        """See `transport.Channel`."""
        return self._network.open(self._caller, self._target)

    async def close(self) -> None:
        """See `transport.Channel`."""


class Network:
    """All links of a deployment."""

    def __init__(self, rng: random.Random, note: Callable[[str], None]) -> None:
        self.rng = rng
        self.note = note
        self.faults = Faults()
        self.endpoints: dict[str, Endpoint] = {}
        self.links: list[Link] = []

    def open(self, caller: str, target: str) -> Link:
        """Open a link; to an app that is down it is broken from the start."""
        found = self.endpoints.get(target)
        if frozenset((caller, target)) in self.faults.cut:
            found = None
        link = Link(self, caller, found, target)
        self.links = [one for one in self.links if not one.broken]
        self.links.append(link)
        return link

    def break_one(self, name: str = "") -> None:
        """Break a link that is up, if a name is given one of that app."""
        up = [link for link in self.links if not link.broken and (not name or name in link.ends)]
        if up:
            link = self.rng.choice(up)
            self.note(f"link {' - '.join(sorted(link.ends))} breaks")
            link.snap(self.rng.choice([0.0, 0.05, 1.0]))

    def drop_all(self, name: str) -> None:
        """Break every link of an app that died."""
        for link in self.links:
            if name in link.ends and not link.broken:
                link.snap(0.0)
