"""Connected workers and the work that waits for them.

Plain methods, no I/O: state in, list of assignments out.
"""

import enum
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import structlog

from sidecar.core.model import DEFAULT_HUB
from sidecar.core.work_items import TurnItem, WorkItem
from sidecar.work import concurrency as limits_
from sidecar.work.concurrency import Room
from sidecar.work.ready_queue import Group, K, Key, ReadyQueue

SEEN_LIMIT = 20_000
UNKNOWN_LIMIT = 1_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Filter:
    """Names that a worker takes, each with the versions it takes (none listed: all). None takes everything.

    `any_case`: upper and lower case count as the same, as in the worker; its names are given in lower case. `unknown`
    are names and versions that it was sent all the same and did not know.
    """

    names: dict[str, frozenset[str]] | None = None
    any_case: bool = False
    unknown: set[tuple[str, str]] = field(default_factory=set)

    def accepts(self, name: str, version: str) -> bool:
        """Whether the worker takes work of this name and version."""
        if (name, version) in self.unknown:
            return False
        if self.names is None:
            return True
        versions = self.names.get(name.lower() if self.any_case else name)
        return versions is not None and (not versions or version in versions)


FilterOf = Callable[["Worker"], Filter]


class Rewinds(enum.IntEnum):
    """Whether a worker can write the new history of an instance that is rewound."""

    NO = 0
    PERHAPS = 1  # it may be of a kind that can
    YES = 2


class Seen:
    """How many events of their past a worker has kept of the instances that it had a turn of last, by execution.

    Bounded: of an instance that is forgotten the whole past is sent once more.
    """

    def __init__(self) -> None:
        self._events: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()

    def keep(self, address: tuple[str, str], execution: str, events: int) -> None:
        """A turn was answered that was sent with so many events before it."""
        self._events[address] = (execution, events)
        if len(self._events) > SEEN_LIMIT:
            self._events.popitem(last=False)

    def take(self, address: tuple[str, str], execution: str) -> int:
        """Return how many events a worker has kept of an execution, and rely on it no more until the next answer."""
        kept, events = self._events.pop(address, ("", 0))
        return events if kept == execution else 0


@dataclass(slots=True, eq=False)
class Worker:
    """One `GetWorkItems` stream: what it takes, how much at once, and what it has. It takes work of one hub.

    `send` returns 0, or the size of an item that is too large for it, which then was not sent. `fits` returns how many
    of the new events of a turn it can receive. No two have one name.
    """

    name: str
    peer: str
    max_turns: int
    max_activities: int
    max_bytes: int  # the largest message that it can receive
    turn_filter: Filter
    activity_filter: Filter
    is_full: Callable[[], bool]
    send: Callable[[WorkItem], int]
    fits: Callable[[TurnItem], int]
    hub: str = DEFAULT_HUB
    rewinds: Callable[[], Rewinds] = lambda: Rewinds.NO
    keeps_history: bool = False
    streams_history: bool = False  # it fetches the past of a turn that is too large for one message
    turns: dict[tuple[str, str], str] = field(default_factory=dict)  # what it has, with its name
    activities: dict[int, str] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    max_entities: int = 0
    entity_filter: Filter = field(default_factory=Filter)
    entities: dict[tuple[str, str], str] = field(default_factory=dict)
    on_probation: set[Key] = field(default_factory=set)
    assigned: int = 0  # how many items it has been given since it connected
    trouble: str = ""  # what may have cost it

    def loss(self) -> str:
        """Return what is to be said of items that it had when it was lost."""
        return f"the stream of {self.name} at {self.peer} ended while it had this{self.trouble}"

    def has_on_probation(self) -> bool:
        """Whether it has an item that may be what costs workers: it gets no other such item beside it."""
        self.on_probation &= self.turns.keys() | self.activities.keys() | self.entities.keys()
        return bool(self.on_probation)


class Assignment(NamedTuple):
    """Work that was given to a worker; its slot is taken."""

    worker: Worker
    item: Key


class Pool:
    """All workers of one sidecar, and their work."""

    def __init__(self, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        self._turn_limits = limits_.of(limits_.WORKFLOWS, limits)
        self._activity_limits = limits_.of(limits_.ACTIVITIES, limits)
        self.workers: list[Worker] = []
        self.turns: ReadyQueue[tuple[str, str]] = ReadyQueue()
        self.activities: ReadyQueue[int] = ReadyQueue()
        self.entities: ReadyQueue[tuple[str, str]] = ReadyQueue()
        self.open = True

    def assign(self) -> list[Assignment]:
        """Give waiting work to free workers within the limits: one of each name in turn, to the least busy worker."""
        if not self.open or not self.workers:
            return []
        return self._assign_turns() + self._assign_activities() + self._assign_entities()

    def _assign_turns(self) -> list[Assignment]:
        def free(worker: Worker, group: Group) -> int:
            fits = worker.max_bytes >= group.size or worker.streams_history
            room = worker.max_turns - len(worker.turns)
            return room if fits and worker.turn_filter.accepts(group.name, group.version) else 0

        room = Room(self._turn_limits, (name for worker in self.workers for name in worker.turns.values()))
        return self._spread(self.turns, free, lambda worker, item, name: worker.turns.update({item: name}), room)

    def _assign_activities(self) -> list[Assignment]:
        def free(worker: Worker, group: Group) -> int:
            room = worker.max_activities - len(worker.activities)
            fits = worker.max_bytes >= group.size
            return room if fits and worker.activity_filter.accepts(group.name, group.version) else 0

        room = Room(self._activity_limits, (name for worker in self.workers for name in worker.activities.values()))
        return self._spread(
            self.activities, free, lambda worker, item, name: worker.activities.update({item: name}), room
        )

    def _assign_entities(self) -> list[Assignment]:
        def free(worker: Worker, group: Group) -> int:
            room = worker.max_entities - len(worker.entities)
            fits = worker.max_bytes >= group.size
            return room if fits and worker.entity_filter.accepts(group.name, group.version) else 0

        room = Room((), ())
        return self._spread(self.entities, free, lambda worker, item, name: worker.entities.update({item: name}), room)

    def _spread(
        self,
        backlog: ReadyQueue[K],
        free: Callable[[Worker, Group], int],
        take: Callable[[Worker, K, str], None],
        room: Room,
    ) -> list[Assignment]:
        given: list[Assignment] = []
        groups = list(backlog.groups())
        while groups:
            served = []
            for group in groups:
                ready = [worker for worker in self.workers if _can_take(worker, group) and free(worker, group) > 0]
                item = backlog.first(group)
                if not ready or item is None or not room.admits(group.name):
                    continue
                worker = max(ready, key=lambda candidate: free(candidate, group))
                backlog.discard(item)
                take(worker, item, group.name)
                worker.assigned += 1
                if group.on_probation:
                    worker.on_probation.add(item)
                room.take(group.name)
                # Of workers that are equally busy the one that waited longest is next.
                self.workers.remove(worker)
                self.workers.append(worker)
                given.append(Assignment(worker, item))
                served.append(group)
            groups = served
        return given

    def knows_rewind(self, hub: str, name: str, version: str) -> bool:
        """Whether a worker for such workflows is known to be able to write the new history of one."""
        able = (one for one in self.workers if one.hub == hub and one.rewinds() is Rewinds.YES)
        return any(worker.turn_filter.accepts(name, version) for worker in able)

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


def of_turns(worker: Worker) -> Filter:
    """Return the workflows that a worker takes."""
    return worker.turn_filter


def of_activities(worker: Worker) -> Filter:
    """Return the activities that a worker takes."""
    return worker.activity_filter


def of_entities(worker: Worker) -> Filter:
    """Return the entities that a worker takes."""
    return worker.entity_filter if worker.max_entities else Filter({})


def _able(worker: Worker, group: Group) -> bool:
    return worker.hub == group.hub and not (group.rewind and worker.rewinds() is Rewinds.NO)


def _takes(worker: Worker, accepted: Filter, group: Group) -> bool:
    return _able(worker, group) and accepted.accepts(group.name, group.version)


def _can_take(worker: Worker, group: Group) -> bool:
    wanted = worker.name not in group.excluded_workers and not (group.on_probation and worker.has_on_probation())
    return wanted and _able(worker, group) and not worker.is_full()
