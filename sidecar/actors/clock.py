"""Time and chance: the only place that reads a clock or makes an ID; everything else is handed both."""

import asyncio
import random
import time
import uuid


def usable(seconds: float, shortest_margin: float = 0.2) -> float:
    """Return how many seconds of a caller's time may be used: the answer must be there before it gives up."""
    return seconds - max(shortest_margin, seconds * 0.05)


class Clock:
    """Wall time in microseconds, monotonic time in seconds, and fresh IDs."""

    def now(self) -> int:
        """Return the wall time, in microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back; only differences mean anything."""
        return time.monotonic()

    def new_id(self) -> str:
        """Return a fresh text of 32 characters that nobody can guess."""
        return uuid.uuid4().hex

    def jitter(self, seconds: float) -> float:
        """Return a time between half of `seconds` and all of it."""
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311 (spreads retries, guards nothing)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
