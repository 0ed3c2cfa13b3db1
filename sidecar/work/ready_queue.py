"""Work that waits for a worker: a bounded hint over the store, fair to every name of each hub (a lane).

Plain methods, no I/O. When it is full, lanes that no connected worker takes make room, and then the lane with the most
items, so that no work keeps other work out. It knows of which lanes the store has more.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Set
from typing import Generic, NamedTuple, TypeVar

from sidecar.core.model import DEFAULT_HUB

QUEUE_LIMIT = 20_000

Lane = tuple[str, str]  # hub and name: all lanes have an equal right to the queue
Key = tuple[str, str] | int
K = TypeVar("K", bound=Key)


class Group(NamedTuple):
    """Work that the same workers can take: its name, version and hub, the bytes that a worker must be able to
    receive, and the workers that do not want it now.

    A `suspect` has cost workers: none gets two of them at a time.

    The size is 0 until an item proved too large for a worker: sending it would break that worker's stream each time.
    """

    name: str
    version: str
    size: int = 0
    excluded_workers: frozenset[str] = frozenset()
    hub: str = DEFAULT_HUB
    on_probation: bool = False

    @property
    def lane(self) -> Lane:
        """What it competes as."""
        return (self.hub, self.name)


class ReadyQueue(Generic[K]):
    """Work of one kind that waits, in the order it came, by group.

    `is_taken` says whether a connected worker takes a lane. Lanes that nobody takes have what room the others leave.
    `now` gives a time in microseconds, from which on an item waits.
    """

    def __init__(
        self,
        limit: int = QUEUE_LIMIT,
        is_taken: Callable[[Lane], bool] = lambda _lane: True,
        now: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limit = limit
        self._is_taken = is_taken
        self._now = now
        self._groups: dict[Group, dict[K, int]] = {}  # of lanes that are taken; the one served last comes last
        self._idle: dict[Group, dict[K, int]] = {}  # of the others
        self._where: dict[K, Group] = {}
        self._counts: Counter[Lane] = Counter()  # of lanes that are taken
        self._short: set[Lane] = set()  # lanes that are taken of which the store has more than is here
        self._idle_short = False  # whether the store has more of a lane that is not taken
        self._read_all = False  # whether such a lane may be taken by now

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, item: K) -> bool:
        return item in self._where

    def offer(self, item: K, group: Group, since: int | None = None) -> None:
        """Queue an item, which waits from now or since a time, unless it does already or its lane has no room."""
        if item in self._where:
            return
        taken = self._is_taken(group.lane)
        if len(self._where) >= self.limit and not (taken and self._make_room(group.lane)):
            if taken:
                self._short.add(group.lane)
            else:
                self._idle_short = True
            return
        self._put(item, group, self._now() if since is None else since, taken=taken)

    def _put(self, item: K, group: Group, since: int, *, taken: bool) -> None:
        (self._groups if taken else self._idle).setdefault(group, {})[item] = since
        self._where[item] = group
        if taken:
            self._counts[group.lane] += 1

    def _make_room(self, lane: Lane) -> bool:
        """Let an item go that nobody takes, or else the last one of the lane with the most unless this is the one."""
        if self._idle:
            items = next(reversed(self._idle.values()))
            self.discard(next(reversed(items)))
            self._idle_short = True
            return True
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
        groups = self._groups if group in self._groups else self._idle
        del groups[group][item]
        if not groups[group]:
            del groups[group]
        if groups is self._groups:
            self._counts[group.lane] -= 1
            if not self._counts[group.lane]:
                del self._counts[group.lane]

    def workers_changed(self, *, more: bool) -> None:
        """Sort the lanes anew by whether a worker takes them. `more`: one came, which may take what was left out."""
        before = [*self._groups.items(), *self._idle.items()]
        self._groups, self._idle, self._counts = {}, {}, Counter()
        for group, items in before:
            taken = self._is_taken(group.lane)
            (self._groups if taken else self._idle)[group] = items
            if taken:
                self._counts[group.lane] += len(items)
        idle = {lane for lane in self._short if not self._is_taken(lane)}
        self._short -= idle
        self._read_all = self._read_all or (more and self._idle_short)
        self._idle_short = self._idle_short or bool(idle)

    def group(self, item: K) -> Group | None:
        """Return the group of an item that waits, or None."""
        return self._where.get(item)

    def regroup(self, item: K, excluded_workers: frozenset[str]) -> None:
        """Let an item that waits be kept from these workers only."""
        group = self._where.get(item)
        if group is not None and group.excluded_workers != excluded_workers:
            since = self._items(group)[item]
            self.discard(item)
            self.offer(item, group._replace(excluded_workers=excluded_workers), since)

    def wanted(self) -> frozenset[Lane] | None:
        """Return the lanes of which the store has more, and of which less than half a fair share is left here.

        None: every lane, since a worker may take one by now that was left out.
        """
        if self._read_all:
            return None
        if not self._short:
            return frozenset()
        share = max(1, self.limit // len(self._short | self._counts.keys()))
        return frozenset(lane for lane in self._short if 2 * self._counts[lane] < share)

    def refilling(self, lanes: Set[Lane] | None) -> None:
        """Take note that all there is of these lanes (None: of every lane) is being read from the store."""
        self._short -= self._short if lanes is None else lanes
        if lanes is None:
            self._read_all = self._idle_short = False

    def has_share(self, lanes: Set[Lane] | None) -> bool:
        """Whether no more of these lanes fits: reading on is no use."""
        return lanes is not None and lanes <= self._short

    def groups(self) -> Iterator[Group]:
        """Return the groups of which something waits."""
        return iter([*self._groups, *self._idle])

    def takeable(self) -> list[Group]:
        """Return the groups of lanes that a connected worker takes, the one first that was served longest ago."""
        return list(self._groups)

    def count(self, group: Group) -> int:
        """Return how many items of a group wait."""
        return len(self._items(group))

    def waits_since(self) -> int | None:
        """Return since when the oldest item waits, None if there is none."""
        return min(
            (next(iter(items.values())) for items in (*self._groups.values(), *self._idle.values())), default=None
        )

    def _items(self, group: Group) -> dict[K, int]:
        return self._groups.get(group) or self._idle.get(group) or {}

    def take(self, group: Group) -> tuple[K, int] | None:
        """Take the oldest item of a group out, with since when it waits, or None; it is the others' turn then."""
        found = next(iter(self._items(group).items()), None)
        if found is not None:
            self.discard(found[0])
            if group in self._groups:
                self._groups[group] = self._groups.pop(group)
        return found
