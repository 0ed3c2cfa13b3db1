"""Removes ended workflows when they have been kept for as long as the settings say.

No reminder waits for that: what is due is found along the index of ends, in small pieces. An instance that was started
anew, purged or changed in between is left alone, and nothing is said of it. Children are kept by their own ends.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from sidecar.actors.engine import Engine
from sidecar.core import operations
from sidecar.core.identity import Context
from sidecar.core.model import Decision, Instance, Outcome, State, Status
from sidecar.store.protocol import BEGINNING, Criteria, Cursor, DamagedError, Order, UnavailableError

_BY_NAME = {
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "terminated": Status.TERMINATED,
    "canceled": Status.CANCELED,
}
_AT_ONCE = 50
_PAUSE = 0.02  # seconds between groups: removing what has piled up leaves room for work
_OFTEN, _SELDOM = 0.05, 60.0  # seconds between two looks
_LOOKS = 20  # in the time that an instance is kept
log = structlog.get_logger(__name__)


def kept_for(policy: Mapping[str, float]) -> dict[Status, float]:
    """Return the seconds that ends are kept, by status; "any" is for those that are not named."""
    named = {status: policy.get(name, policy.get("any")) for name, status in _BY_NAME.items()}
    return {status: seconds for status, seconds in named.items() if seconds is not None}


class Retention:
    """Applies a policy (see `kept_for`) to all instances of a sidecar; an empty one keeps everything."""

    def __init__(self, engine: Engine, policy: Mapping[str, float]) -> None:
        self._engine = engine
        self._kept = kept_for(policy)
        self._interval = max(_OFTEN, min(_SELDOM, min(self._kept.values(), default=0.0) / _LOOKS))

    async def run(self) -> None:
        """Remove what is due, for ever."""
        while self._kept:
            try:
                count = await self.sweep()
                if count:
                    log.info("ended workflows removed", count=count)
            except UnavailableError as error:
                log.debug("cannot remove ended workflows", error=str(error))
            await self._engine.clock.sleep(self._interval)

    async def sweep(self) -> int:
        """Remove what is due now; return how many instances went. Raises UnavailableError."""
        count = 0
        for hub in await self._engine.store.hubs():
            for status, seconds in self._kept.items():
                due = self._engine.clock.now() - int(seconds * 1e6)
                count += await self._remove(Criteria(hub, frozenset({status}), before=due + 1))
        return count

    async def _remove(self, criteria: Criteria) -> int:
        count = 0
        cursor: Cursor | None = BEGINNING
        while cursor is not None:
            page = await self._engine.store.query(criteria, Order.COMPLETED, cursor, _AT_ONCE)
            count += await self._remove_all(page.found)
            cursor = page.next
            if page.found:
                await self._engine.clock.sleep(_PAUSE)
        return count

    async def _remove_all(self, instances: Sequence[Instance]) -> int:
        gone = await asyncio.gather(*map(self._remove_one, instances), return_exceptions=True)
        for result in gone:
            # One that cannot be read stays, and those behind it go; the engine has said it in the log.
            if isinstance(result, BaseException) and not isinstance(result, DamagedError):
                raise result
        return sum(result is True for result in gone)

    async def _remove_one(self, seen: Instance) -> bool:
        def decide(at: Context, state: State | None) -> Decision:
            return operations.expire(at, state, seen.key, seen.revision)

        return (await self._engine.submit((seen.hub, seen.id), decide)).outcome is Outcome.DONE
