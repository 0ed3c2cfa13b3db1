"""Which workers have room for work of one kind: looked up by lane, the least busy first. Plain methods, no I/O."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from sidecar.work.ready_queue import Group, Lane
from sidecar.work.workers import Filter, Worker

Entry = tuple[int, int, int, Worker]  # its room, negative; when it was served last; its place among the workers


class Names:
    """Which lanes the connected workers take, by how many of them each."""

    def __init__(self) -> None:
        self._listed: Counter[tuple[str, str, bool]] = Counter()
        self._all: Counter[str] = Counter()  # by hub: workers that take every name

    def count(self, hub: str, accepted: Filter, by: int) -> None:
        """Count a worker of a hub that came (`by` 1) or went (-1)."""
        if accepted.names is None:
            self._all[hub] += by
        for name in accepted.names or ():
            self._listed[hub, name, accepted.any_case] += by

    def __contains__(self, lane: Lane) -> bool:
        hub, name = lane
        exact, folded = (hub, name, False), (hub, name.lower(), True)
        return self._all[hub] > 0 or self._listed[exact] > 0 or self._listed[folded] > 0


class FreeWorkers:
    """The workers with room at the beginning of a round of handing out; each is asked again when its turn comes."""

    def __init__(
        self,
        workers: Iterable[Worker],
        lanes: Iterable[Lane],
        accepted: Callable[[Worker], Filter],
        room: Callable[[Worker], int],
    ) -> None:
        self._room = room
        self._by_lane: dict[Lane, list[Entry]] = defaultdict(list)
        self._by_hub: dict[str, list[Entry]] = defaultdict(list)  # those that take every name
        names: dict[tuple[str, bool], dict[str, list[str]]] = defaultdict(dict)
        for hub, name in set(lanes):
            names[hub, False].setdefault(name, []).append(name)
            names[hub, True].setdefault(name.lower(), []).append(name)
        for place, worker in enumerate(workers):
            if room(worker) <= 0 or worker.is_full():
                continue
            entry = (-room(worker), worker.served, place, worker)
            takes = accepted(worker)
            if takes.names is None:
                self._by_hub[worker.hub].append(entry)
                continue
            waiting = names[worker.hub, takes.any_case]
            for key in waiting.keys() & takes.names.keys():
                for name in waiting[key]:
                    self._by_lane[worker.hub, name].append(entry)
        for heap in (*self._by_lane.values(), *self._by_hub.values()):
            heapq.heapify(heap)

    def best(self, group: Group, takes: Callable[[Worker], bool]) -> Worker | None:
        """Return the least busy worker that takes an item of the group, of equal ones that which waited longest."""
        heaps = (self._by_lane.get(group.lane), self._by_hub.get(group.hub))
        found = [entry for heap in heaps if heap and (entry := self._first(heap, takes))]
        return min(found)[-1] if found else None

    def _first(self, heap: list[Entry], takes: Callable[[Worker], bool]) -> Entry | None:
        passed = []
        found = None
        while heap and found is None:
            _, _, place, worker = first = heap[0]
            now = (-self._room(worker), worker.served, place, worker)
            if now[0] >= 0 or worker.is_full():
                heapq.heappop(heap)
            elif now[:2] != first[:2]:
                heapq.heapreplace(heap, now)
            elif takes(worker):
                found = first
            else:
                passed.append(heapq.heappop(heap))
        for entry in passed:
            heapq.heappush(heap, entry)
        return found
