"""Work that waits for a worker: a bounded hint over the store, fair to every name of each hub (a lane).

Plain methods, no I/O. When it is full the lane with the most items makes room for another, so that work that nobody
takes, however much of it there is, does not keep other work out. It knows of which lanes the store has more.
"""

from collections import Counter
from collections.abc import Iterator, Set
from typing import Generic, NamedTuple, TypeVar

from sidecar.core.model import DEFAULT_HUB

QUEUE_LIMIT = 20_000

Lane = tuple[str, str]  # hub and name: all lanes have an equal right to the queue
Key = tuple[str, str] | int
K = TypeVar("K", bound=Key)


class Group(NamedTuple):
    """Work that the same workers can take: its name, version and hub, the bytes that a worker must be able to
    receive, and the workers that do not want it now.

    `rewind` asks for the new history of an instance that is rewound: most kinds of workers would not understand it.
    A `suspect` has cost workers: none gets two of them at a time.

    The size is 0 until an item proved too large for a worker: sending it would break that worker's stream each time.
    """

    name: str
    version: str
    size: int = 0
    excluded_workers: frozenset[str] = frozenset()
    hub: str = DEFAULT_HUB
    rewind: bool = False
    on_probation: bool = False

    @property
    def lane(self) -> Lane:
        """What it competes as."""
        return (self.hub, self.name)


class ReadyQueue(Generic[K]):
    """Work of one kind that waits, in the order it came, by group."""

    def __init__(self, limit: int = QUEUE_LIMIT) -> None:
        self.limit = limit
        self._groups: dict[Group, dict[K, None]] = {}
        self._where: dict[K, Group] = {}
        self._counts: Counter[Lane] = Counter()
        self._short: set[Lane] = set()  # lanes of which the store has more than is here

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, item: K) -> bool:
        return item in self._where

    def offer(self, item: K, group: Group) -> None:
        """Queue an item, unless it waits already or there is no room for its lane."""
        if item in self._where:
            return
        if len(self._where) >= self.limit and not self._make_room(group.lane):
            self._short.add(group.lane)
            return
        self._groups.setdefault(group, {})[item] = None
        self._where[item] = group
        self._counts[group.lane] += 1

    def _make_room(self, lane: Lane) -> bool:
        """Let the last item of the lane with the most go, unless this is the one."""
        most, count = self._counts.most_common(1)[0]
        if count <= self._counts[lane] + 1:
            return False
        group = max((one for one in self._groups if one.lane == most), key=lambda one: len(self._groups[one]))
        self.discard(next(reversed(self._groups[group])))
        self._short.add(most)
        return True

    def discard(self, item: K) -> None:
        """Take an item out."""
        group = self._where.pop(item, None)
        if group is None:
            return
        del self._groups[group][item]
        if not self._groups[group]:
            del self._groups[group]
        self._counts[group.lane] -= 1
        if not self._counts[group.lane]:
            del self._counts[group.lane]

    def group(self, item: K) -> Group | None:
        """Return the group of an item that waits, or None."""
        return self._where.get(item)

    def regroup(self, item: K, excluded_workers: frozenset[str]) -> None:
        """Let an item that waits be kept from these workers only."""
        group = self._where.get(item)
        if group is not None and group.excluded_workers != excluded_workers:
            self.discard(item)
            self.offer(item, group._replace(excluded_workers=excluded_workers))

    def wanted(self) -> frozenset[Lane]:
        """Return the lanes of which the store has more, and of which less than half a fair share is left here."""
        if not self._short:
            return frozenset()
        share = self.limit // len(self._short | self._counts.keys())
        return frozenset(lane for lane in self._short if 2 * self._counts[lane] < share)

    def refilling(self, lanes: Set[Lane] | None) -> None:
        """Take note that all there is of these lanes (None: of every lane) is being read from the store."""
        self._short -= self._short if lanes is None else lanes

    def has_share(self, lanes: Set[Lane] | None) -> bool:
        """Whether no more of these lanes fits: reading on is no use."""
        return lanes is not None and lanes <= self._short

    def groups(self) -> Iterator[Group]:
        """Return the groups of which something waits."""
        return iter(list(self._groups))

    def count(self, group: Group) -> int:
        """Return how many items of a group wait."""
        return len(self._groups.get(group, ()))

    def first(self, group: Group) -> K | None:
        """Return the oldest item of a group, or None."""
        return next(iter(self._groups.get(group, ())), None)
