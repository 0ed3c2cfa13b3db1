"""One connected worker: what it takes, how much at once, and what it has."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.core.model import DEFAULT_HUB
from sidecar.core.work_items import TurnItem, WorkItem
from sidecar.work.ready_queue import Key

SEEN_LIMIT = 20_000


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
    of the new events of a turn it can receive, `shows` of how many of the past ones it can be told at once. No two have
    one name.
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
    shows: Callable[[TurnItem], int]
    hub: str = DEFAULT_HUB
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
    served: int = 0  # when it was given its last one: a number that grows with each that is given to any worker
    broken_off: bool = False  # its connection is gone, and its process lives
    trouble: str = ""  # what may have cost it
    origin: str = ""  # where it runs and what it is, the same when it connects once more
    process: object | None = None  # who is at the other end of its connection, if that can be told

    def loss(self) -> str:
        """Return what is to be said of items that it had when it was lost."""
        return f"the stream of {self.name} at {self.peer} ended while it had this{self.trouble}"

    def has_anything(self) -> bool:
        """Whether it has any item."""
        return bool(self.turns or self.activities or self.entities)

    def has_on_probation(self) -> bool:
        """Whether it has an item that may be what costs workers: it gets no other such item beside it."""
        self.on_probation &= self.turns.keys() | self.activities.keys() | self.entities.keys()
        return bool(self.on_probation)


FilterOf = Callable[[Worker], Filter]


def of_turns(worker: Worker) -> Filter:
    """Return the workflows that a worker takes."""
    return worker.turn_filter


def of_activities(worker: Worker) -> Filter:
    """Return the activities that a worker takes."""
    return worker.activity_filter


def of_entities(worker: Worker) -> Filter:
    """Return the entities that a worker takes."""
    return worker.entity_filter if worker.max_entities else Filter({})
