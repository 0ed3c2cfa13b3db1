"""Which worker does not want which item, and for how long: nothing goes round between a queue and a worker.

In memory and bounded: what is forgotten is only tried once more.
"""

import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic

from sidecar.actors.clock import Clock
from sidecar.work.ready_queue import K, ReadyQueue

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
LIMIT = 100_000
_NONE: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Refused:
    count: int = 0
    returns: int = 0
    until: dict[str, float] = field(default_factory=dict)  # by worker, a monotonic time
    reported: bool = False


class Refusals(Generic[K]):
    """The items of one kind that were given back. A pause grows with each time that an item comes back."""

    def __init__(self, clock: Clock, limit: int = LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._items: OrderedDict[K, _Refused] = OrderedDict()
        self._over: list[tuple[float, K]] = []

    def refuse(self, item: K, worker: str, *, for_good: bool = False) -> None:
        """Keep an item from a worker: for a while, or as long as the worker is connected."""
        refused = self._entry(item)
        if for_good:
            refused.until[worker] = math.inf
        else:
            pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(refused.count, 10))
            refused.count += 1
            refused.until[worker] = until = self._clock.monotonic() + self._clock.jitter(pause)
            heapq.heappush(self._over, (until, item))

    def came_back(self, item: K) -> int:
        """A worker had an item and did not answer, though nothing was lost; return how often that is since one did."""
        entry = self._entry(item)
        entry.returns += 1
        return entry.returns

    def returns(self, item: K) -> int:
        """Return how often an item came back since it was answered."""
        refused = self._items.get(item)
        return 0 if refused is None else refused.returns

    def _entry(self, item: K) -> _Refused:
        entry = self._items.setdefault(item, _Refused())
        self._items.move_to_end(item)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)
        return entry

    def of(self, item: K) -> frozenset[str]:
        """Return the workers that are not to have an item now."""
        refused = self._items.get(item)
        if refused is None:
            return _NONE
        now = self._clock.monotonic()
        return frozenset(worker for worker, until in refused.until.items() if until > now)

    def for_good(self, item: K) -> frozenset[str]:
        """Return the workers that are not to have an item as long as they are connected."""
        refused = self._items.get(item)
        return frozenset(worker for worker, until in refused.until.items() if until == math.inf) if refused else _NONE

    def report(self, item: K) -> None:
        """It is known, where people look, that no worker takes the item."""
        if item in self._items:
            self._items[item].reported = True

    def unreported(self, item: K) -> bool:
        """Whether that is not known of an item that workers do not have for good."""
        refused = self._items.get(item)
        return refused is not None and not refused.reported and math.inf in refused.until.values()

    def all_unreported(self) -> list[K]:
        """Return the items of which `untold` is true."""
        return [item for item in self._items if self.unreported(item)]

    def done(self, item: K) -> None:
        """A worker has done its part: pauses begin anew; who is not to have the item for good still is not."""
        kept = self.for_good(item)
        self._items.pop(item, None)
        if kept:
            self._items[item] = _Refused(until=dict.fromkeys(kept, math.inf))

    def forget(self, item: K) -> None:
        """An item is done: what comes under its name later is another."""
        self._items.pop(item, None)

    def left(self, worker: str) -> None:
        """A worker is gone; one that comes instead may be another program."""
        for refused in self._items.values():
            refused.until.pop(worker, None)

    def over(self) -> list[K]:
        """Return the items of which a pause is over, each time it is."""
        now = self._clock.monotonic()
        found = []
        while self._over and self._over[0][0] <= now:
            found.append(heapq.heappop(self._over)[1])
        return found

    def resume(self, backlog: ReadyQueue[K]) -> bool:
        """Let workers whose pause is over have what waits; return whether any pause is."""
        over = self.over()
        for item in over:
            backlog.regroup(item, self.of(item))
        return bool(over)
