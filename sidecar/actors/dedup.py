"""The dedup keys of messages that were taken in, so that each has its effect once: they go when no copy can come."""

from contextlib import suppress

from sidecar.actors.engine import Engine
from sidecar.core.model import Changes
from sidecar.core.receipts import Forgotten
from sidecar.store.protocol import UnavailableError

_COPIES_SECONDS = 60.0  # a copy of a message may be under way this long, on a link that broke or in a queue here


class DedupKeys:
    """Lets go of keys. Those of forwarded calls go one by one, those of reminders by the floors that apps tell."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # By app: its store, since when floors of it are watched, and the lowest one.
        self._floors: dict[tuple[str, str], tuple[str, float, int]] = {}

    async def release(self, messages: Forgotten) -> None:
        """Let go of the keys of messages that will not come again; if that fails, they go with the sender's store."""
        with suppress(UnavailableError):
            await self.engine.commit(Changes(forgotten=(messages,)))

    async def forget(self, peer: tuple[str, str], floor: Forgotten) -> None:
        """Take note that an app's store holds no message below a number, and forget what was below for a while.

        Copies of what it no longer holds may still be under way; and a message may be sent behind one of a higher
        number. So what counts is the lowest number of that while. Raises UnavailableError.
        """
        now = self.engine.clock.monotonic()
        store, since, lowest = self._floors.get(peer, ("", now, floor.below))
        if store != floor.store:
            since, lowest = now, floor.below
        lowest = min(lowest, floor.below)
        over = now - since >= _COPIES_SECONDS
        self._floors[peer] = (floor.store, now, floor.below) if over else (floor.store, since, lowest)
        if over:
            await self.engine.commit(Changes(forgotten=(Forgotten(floor.store, lowest),)))
