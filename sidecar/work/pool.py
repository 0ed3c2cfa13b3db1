"""Connected workers and the work that waits for them.

Plain methods, no I/O: state in, list of assignments out.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Generic, NamedTuple

import structlog

from sidecar.work import concurrency as limits_
from sidecar.work.concurrency import Limit, Room
from sidecar.work.free_workers import FreeWorkers, Names
from sidecar.work.ready_queue import Group, K, Key, ReadyQueue
from sidecar.work.workers import Filter, FilterOf, Worker, of_activities, of_entities, of_turns

UNKNOWN_LIMIT = 1_000
log = structlog.get_logger(__name__)


class Assignment(NamedTuple):
    """Work that was given to a worker, after it has waited since a time; its slot is taken."""

    worker: Worker
    item: Key
    since: int


@dataclass(frozen=True, slots=True)
class _Kind(Generic[K]):
    """Turns, activities or entities: what a worker takes, how many at once, and which it has, by name.

    Of what it `streams` a worker that fetches the past may have an item that is too large for one message.
    """

    accepted: FilterOf
    most: Callable[[Worker], int]
    held: Callable[[Worker], dict[K, str]]
    streams: bool = False

    def room(self, worker: Worker) -> int:
        return self.most(worker) - len(self.held(worker))

    def suits(self, group: Group, worker: Worker) -> bool:
        fits = worker.max_bytes >= group.size or (self.streams and worker.streams_history)
        wanted = worker.name not in group.excluded_workers and not (group.on_probation and worker.has_on_probation())
        return fits and wanted and _takes(worker, self.accepted(worker), group)


_TURNS = _Kind(of_turns, lambda worker: worker.max_turns, lambda worker: worker.turns, streams=True)
_ACTIVITIES = _Kind(of_activities, lambda worker: worker.max_activities, lambda worker: worker.activities)
_ENTITIES = _Kind(of_entities, lambda worker: worker.max_entities, lambda worker: worker.entities)


class Pool:
    """All workers of one sidecar, and their work."""

    def __init__(self, limits: Mapping[str, int] = MappingProxyType({}), now: Callable[[], int] = lambda: 0) -> None:
        self._turn_limits = limits_.of(limits_.WORKFLOWS, limits)
        self._activity_limits = limits_.of(limits_.ACTIVITIES, limits)
        self._turn_names, self._activity_names, self._entity_names = Names(), Names(), Names()
        self._served = itertools.count(1)
        self.workers: list[Worker] = []
        self.turns: ReadyQueue[tuple[str, str]] = ReadyQueue(is_taken=self._turn_names.__contains__, now=now)
        self.activities: ReadyQueue[int] = ReadyQueue(is_taken=self._activity_names.__contains__, now=now)
        self.entities: ReadyQueue[tuple[str, str]] = ReadyQueue(is_taken=self._entity_names.__contains__, now=now)
        self.open = True

    def add(self, worker: Worker) -> None:
        """Take a worker in."""
        self.workers.append(worker)
        self._count(worker, 1)

    def _count(self, worker: Worker, by: int) -> None:
        for names, accepted in (
            (self._turn_names, of_turns(worker)),
            (self._activity_names, of_activities(worker)),
            (self._entity_names, of_entities(worker)),
        ):
            names.count(worker.hub, accepted, by)
        for queue in (self.turns, self.activities, self.entities):
            queue.workers_changed(more=by > 0)

    def assign(self) -> list[Assignment]:
        """Give waiting work to free workers within the limits: one of each name in turn, to the least busy worker."""
        if not self.open or not self.workers:
            return []
        turns = self._spread(_TURNS, self.turns, self._turn_limits)
        activities = self._spread(_ACTIVITIES, self.activities, self._activity_limits)
        return turns + activities + self._spread(_ENTITIES, self.entities, ())

    def _spread(self, kind: _Kind[K], waiting: ReadyQueue[K], limits: tuple[Limit, ...]) -> list[Assignment]:
        groups = waiting.takeable()
        if not groups:
            return []
        given: list[Assignment] = []
        room = Room(limits, (name for worker in self.workers for name in kind.held(worker).values()))
        free = FreeWorkers(self.workers, {group.lane for group in groups}, kind.accepted, kind.room)
        while groups:
            served = []
            for group in groups:
                if not room.admits(group.name):
                    continue
                worker = free.best(group, partial(kind.suits, group))
                taken = None if worker is None else waiting.take(group)
                if worker is None or taken is None:
                    continue
                item, since = taken
                kind.held(worker)[item] = group.name
                self._give(worker, item, group)
                room.take(group.name)
                given.append(Assignment(worker, item, since))
                served.append(group)
            groups = served
        return given

    def _give(self, worker: Worker, item: Key, group: Group) -> None:
        worker.assigned += 1
        worker.served = next(self._served)
        if group.on_probation:
            worker.on_probation.add(item)

    def turn_room(self) -> Room:
        """Return what the limits leave free for turns."""
        return Room(self._turn_limits, (name for worker in self.workers for name in worker.turns.values()))

    def activity_room(self) -> Room:
        """Return what the limits leave free for activities."""
        return Room(self._activity_limits, (name for worker in self.workers for name in worker.activities.values()))

    def turn_takers(self, group: Group) -> list[Worker]:
        """Return the workers that take turns of this hub, name and version."""
        return [worker for worker in self.workers if _takes(worker, worker.turn_filter, group)]

    def largest_for_activity(self, group: Group) -> int:
        """Return the largest message that a worker receives which takes activities of this hub, name and version."""
        takers = (worker for worker in self.workers if _takes(worker, worker.activity_filter, group))
        return max((worker.max_bytes for worker in takers), default=0)

    def largest_for_entity(self, group: Group) -> int:
        """Return the largest message that a worker receives which takes operations of such entities of this hub."""
        takers = (one for one in self.workers if one.max_entities and _takes(one, one.entity_filter, group))
        return max((worker.max_bytes for worker in takers), default=0)

    def refuse_name(self, worker: Worker, group: Group, filter_of: FilterOf) -> bool:
        """Keep work of this name from a worker that does not know it; return whether another worker may know it.

        When there is none nothing is kept: that nobody knows it is for whoever waits for the work.
        """
        log.info("worker does not know a name", worker=worker.name, name=group.name)
        others = any(one is not worker and _takes(one, filter_of(one), group) for one in self.workers)
        unknown = filter_of(worker).unknown
        if others and len(unknown) < UNKNOWN_LIMIT:
            unknown.add((group.name, group.version))
        return others and (group.name, group.version) in unknown

    def remove(self, worker: Worker) -> None:
        """Forget a worker; the caller gives its work back. A name that only it may have known is asked for again."""
        if worker in self.workers:
            self.workers.remove(worker)
            self._count(worker, -1)
            for filter_of in (of_turns, of_activities, of_entities):
                self._ask_again(worker.hub, filter_of)

    def _ask_again(self, hub: str, filter_of: FilterOf) -> None:
        """Let a worker have names again that no worker takes: it then says of each that it does not know it."""
        for worker in self.workers:
            unknown = filter_of(worker).unknown
            for name, version in list(unknown) if worker.hub == hub else ():
                group = Group(name, version, hub=hub)
                if not any(_takes(one, filter_of(one), group) for one in self.workers):
                    unknown.discard((name, version))


def _takes(worker: Worker, accepted: Filter, group: Group) -> bool:
    return worker.hub == group.hub and accepted.accepts(group.name, group.version)
