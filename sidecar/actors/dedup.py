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
        # By app: its store and session, since when floors of them are watched, and the lowest one.
        self._floors: dict[tuple[str, str], tuple[tuple[str, ...], float, int]] = {}

    async def release(self, messages: Forgotten) -> None:
        """Let go of the keys of messages that will not come again; if that fails, they go with the sender's store."""
        with suppress(UnavailableError):
            await self.engine.commit(Changes(forgotten=(messages,)))

    async def forget(self, peer: tuple[str, str], names: tuple[str, ...], below: int) -> None:
        """Take note that an app's store holds no message below a number, and forget what was below for a while.

        `names` are what its messages are remembered under: its store and the session.

        Copies of what it no longer holds may still be under way; and a message may be sent behind one of a higher
        number. So what counts is the lowest number of that while. Raises UnavailableError.
        """
        now = self.engine.clock.monotonic()
        known, since, lowest = self._floors.get(peer, (names, now, below))
        if known != names:
            since, lowest = now, below
        lowest = min(lowest, below)
        over = now - since >= _COPIES_SECONDS
        self._floors[peer] = (names, now, below) if over else (names, since, lowest)
        if over:
            await self.engine.commit(Changes(forgotten=tuple(Forgotten(name, lowest) for name in names)))
