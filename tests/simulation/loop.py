"""An asyncio event loop in simulated time: when nothing is ready it does not wait, it moves the clock.

Nothing here reads a clock, opens a socket or starts a thread, so what runs on it runs the same way each time.
"""

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """Nothing is ready and nothing is scheduled: what the caller waits for will never happen."""


class SimLoop(asyncio.BaseEventLoop):
    """The ready queue and the timers of asyncio, without the world."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.errors.append(context))

    def time(self) -> float:
        """Return the simulated time, in seconds since the loop was made."""
        return self._now

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""

    def _run_once(self) -> None:
        """Run what is ready; if nothing is, move to the next timer."""
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready:
            if not self._scheduled:
                raise StuckError("nothing is left to happen")
            self._now = max(self._now, self._scheduled[0]._when)
        while self._scheduled and self._scheduled[0]._when <= self._now:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, and end what it left running."""
    loop = SimLoop()
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        _cancel_all(loop)
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _cancel_all(loop: SimLoop) -> None:
    left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
