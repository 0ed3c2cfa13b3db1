"""Workers whose stream has ended: with a goodbye, by a crash, or with a connection that broke while the process lives.

Which of the last two it was shows only later. What such a worker has stays with it meanwhile: its answers count, and
nobody else gets it. A process that is seen dead, or is not seen and not back in time, has crashed. Of one that lives
its work is handed out again after a pause that grows with each time, since it may be at work on it still, or its answer
may have been lost with the connection.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from sidecar.actors.engine import Engine
from sidecar.work.activities import ActivityWork
from sidecar.work.entities import EntityWork
from sidecar.work.pool import Pool
from sidecar.work.turns import TurnWork
from sidecar.work.workers import Worker

RETURN_SECONDS = 10.0  # in which a worker whose process cannot be seen must be back
SHORTEST_PAUSE, LONGEST_PAUSE = 10.0, 120.0  # seconds until work of a living process is handed out again
_DYING_SECONDS = 0.2  # in which a process that lets go of its connections has ended
TRUSTED = 3  # times that an item may come back from processes that cannot be seen: from then on it counts
Living = Callable[[Sequence[Any]], Sequence[bool | None]]  # says of processes whether they live; None: not known
log = structlog.get_logger(__name__)


class Verdict(enum.Enum):
    """What became of a worker."""

    OPEN = "it is not known yet, or its work is to stay with it"
    CRASHED = "its process is gone"
    BROKEN_OFF = "its process lives, and its work is handed out again"


@dataclass(slots=True, eq=False)
class Absence:
    """A worker that is away since a monotonic time; `back`: one like it has come since."""

    worker: Worker
    since: float
    back: bool = False

    def verdict(self, now: float, returns: int, alive: bool | None) -> Verdict:
        """Return what became of it.

        `returns`: how often what it has came back already without an answer; `alive`: whether its process lives, None
        if that cannot be told.
        """
        unseen = alive is None
        if alive is False or (unseen and self.back and returns >= TRUSTED):
            return Verdict.CRASHED
        if unseen and not self.back:
            return Verdict.CRASHED if now - self.since >= RETURN_SECONDS else Verdict.OPEN
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(returns, 10))
        return Verdict.BROKEN_OFF if now - self.since >= pause else Verdict.OPEN


class Departures:
    """Lets workers go, with what they had."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        turns: TurnWork,
        entities: EntityWork,
        activities: ActivityWork,
        *,
        living: Living,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._turns = turns
        self._entities = entities
        self._activities = activities
        self._living = living
        self._away: list[Absence] = []
        self._lost = 0
        self._looking = False

    def remove(self, worker: Worker, *, farewell: bool) -> None:
        """Let a worker go of which it is known whether it has said goodbye or is lost."""
        self._pool.remove(worker)
        self._left(worker, lost=not farewell)

    def lose(self, worker: Worker) -> None:
        """The connection of a worker is gone: what it has stays with it until it is known whether its process is."""
        if not self._pool.open:
            self.remove(worker, farewell=True)
            return
        self._pool.remove(worker)
        self._turns.away(worker)
        self._entities.away(worker)
        if worker.has_anything():
            self._away.append(Absence(worker, self._engine.clock.monotonic()))
            self._lost += 1
            if not self._looking:
                self._looking = True
                self._engine.side.spawn(self._look_soon(), "look for the processes of workers")

    def came(self, worker: Worker) -> None:
        """A worker has connected: of those that are away one that is like it may be back."""
        for absence in self._away:
            absence.back = absence.back or absence.worker.origin == worker.origin

    def decide(self) -> None:
        """Take back what those had of which it is known by now what became of them."""
        now = self._engine.clock.monotonic()
        known = [one.worker.process for one in self._away if one.worker.process is not None]
        alive = iter(self._living(known) if known else ())
        decided = [
            (one, one.verdict(now, self._returns(one.worker), None if one.worker.process is None else next(alive)))
            for one in self._away
        ]
        self._away = [one for one, verdict in decided if verdict is Verdict.OPEN]
        for one, verdict in decided:
            if verdict is not Verdict.OPEN:
                log.info("worker is gone", worker=one.worker.name, peer=one.worker.peer, why=verdict.value)
                one.worker.broken_off = verdict is Verdict.BROKEN_OFF
                self._left(one.worker, lost=verdict is Verdict.CRASHED)

    async def _look_soon(self) -> None:
        seen = 0
        try:
            while seen != self._lost:  # of workers that are lost together
                seen = self._lost
                await self._engine.clock.sleep(_DYING_SECONDS)
                self.decide()
        finally:
            self._looking = False

    def _returns(self, worker: Worker) -> int:
        """Return how often what a worker has came back before, at most."""
        turns, entities, activities = self._turns.refusals, self._entities.refusals, self._activities.refusals
        counts = [*map(turns.returns, worker.turns), *map(entities.returns, worker.entities)]
        return max([*counts, *map(activities.returns, worker.activities)], default=0)

    def _left(self, worker: Worker, *, lost: bool) -> None:
        """Take back what a worker has; a loss counts unless this sidecar stops."""
        lost = lost and self._pool.open
        self._turns.left(worker, lost=lost)
        self._activities.left(worker, lost=lost)
        self._entities.left(worker, lost=lost)
