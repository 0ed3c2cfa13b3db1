"""The queue between the writer of a stream and an adapter of the transport, which pumps it to the network.

It must not know which adapter that is, nor what a message means.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from sidecar.edge.transport.ports import Closed


class SendQueue:
    """`transport.Outflow`; full above `high_water_bytes` or `high_water_messages`.

    What is being written counts as queued. A writer that waits goes on when the queue is down to half of
    both.
    """

    def __init__(self, high_water_bytes: int, high_water_messages: int) -> None:
        self._high_water_bytes = high_water_bytes
        self._high_water_messages = high_water_messages
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self.cancelled = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def send(self, message: bytes) -> None:
        if self._closed:
            raise Closed("the stream has ended")
        self._queue.append(message)
        self._bytes += len(message)
        self._news.set()
        if self.full:
            self._room.clear()

    @property
    def full(self) -> bool:
        return self._bytes > self._high_water_bytes or len(self._queue) > self._high_water_messages

    async def drained(self) -> None:
        await self._room.wait()
        if self._closed:
            raise Closed("the stream has ended")

    def close(self) -> None:
        """Take no more messages, and wake the writer that waits for room. May be called again."""
        self._closed = True
        self._news.set()
        self._room.set()

    async def pump(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write what is queued, one message after the other, until the queue is closed and empty."""
        while True:
            while self._queue:
                await write(self._queue[0])
                self._bytes -= len(self._queue.popleft())
                if self._half_empty():
                    self._room.set()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    def _half_empty(self) -> bool:
        return self._bytes * 2 <= self._high_water_bytes and len(self._queue) * 2 <= self._high_water_messages
