"""The highest order numbers that are seen of other apps' stores, and what they have seen of this one.

A store that goes back with the disk or machine under it does not know that. An app that has seen a number of it which
it has not given yet does; what it has sent since would be taken for copies of what is forgotten. So it goes on as
another store.
"""

import structlog

from sidecar.actors.engine import Engine
from sidecar.core.ids import LARGEST_NUMBER, PeerId
from sidecar.core.model import Changes
from sidecar.store.protocol import store_id

_LARGEST_BELIEVED = LARGEST_NUMBER >> 2  # above, there would be no room for those that follow
_ONCE_SECONDS = 60.0  # an app that tells what is not true costs little
log = structlog.get_logger(__name__)


class HighestNumbers:
    """What each app is told, when a link is made, of what was seen of it; and what is done about what it tells."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: dict[PeerId, tuple[str, int]] = {}
        self._last: float | None = None  # when this store has taken itself for another, monotonic

    def note(self, peer: PeerId, store: str, number: int) -> None:
        """Take note of a number that a store of an app has given."""
        known, highest = self._seen.get(peer, (store, 0))
        self._seen[peer] = (store, max(highest, number) if known == store else number)

    def of(self, peer: PeerId) -> tuple[str, int]:
        """Return the store of an app that was seen last, and the highest number of it; ("", 0) if there is none."""
        return self._seen.get(peer, ("", 0))

    async def told(self, app: str, store: str, number: int) -> bool:
        """Take what an app has seen of a store; return whether this one has gone back, and goes on as another.

        Raises:
            UnavailableError: it could not be stored.
        """
        engine, now = self._engine, self._engine.clock.monotonic()
        if store != engine.identity or not engine.ids.next_order <= number <= _LARGEST_BELIEVED:
            return False
        if self._last is not None and now - self._last < _ONCE_SECONDS:
            return False
        self._last = now
        log.warning("this store has gone back: another app has seen more of it", app=app)
        await _begin_generation(engine, number)
        return True


async def _begin_generation(engine: Engine, above: int) -> None:
    """Go on as another store, as if started anew, with order numbers above one. Raises UnavailableError."""
    generation = str(above + 1)
    await engine.commit(Changes(generation=generation))
    engine.ids.next_order = max(engine.ids.next_order, above + 1)
    engine.identity = f"{store_id(engine.store.identity)}.{generation}"
    engine.start_id = engine.clock.new_id()
