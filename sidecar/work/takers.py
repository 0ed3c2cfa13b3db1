"""Why work waits for the own workers, and which workers take nothing of what there is: said, never silent.

Plain functions over the pool, for the log and for a person who asks why something waits.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import structlog

from sidecar.core import causes, events
from sidecar.core.causes import Cause, Reason
from sidecar.work.concurrency import Room
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group, Lane, ReadyQueue
from sidecar.work.workers import Filter, Worker, of_activities, of_entities, of_turns

WORKFLOW, ACTIVITY, ENTITY = "workflow", "activity", "entity"
MOST_SHOWN = 100
_MOST_NAMES = 20  # of one worker
_NOTHING_AT_ALL = "it takes nothing at all: its filters leave nothing, or it takes none of the kind that they name"
_NOTHING_OF_THIS = "nothing that waits here is among the names that its filters have"
_UNTAKEN = (Reason.NO_WORKER, Reason.NAME_NOT_TAKEN)
_FILTERS = {WORKFLOW: of_turns, ACTIVITY: of_activities, ENTITY: of_entities}
_FIELDS = ("kind", "hub", "name", "version")
Key = tuple[str, str, str, str]  # of these
log = structlog.get_logger(__name__)


class Untaken(NamedTuple):
    """Work of one name and version that waits and that no connected worker takes."""

    kind: str
    hub: str
    name: str
    version: str
    waiting: int

    @property
    def key(self) -> Key:
        """What it is told apart by."""
        return (self.kind, self.hub, self.name, self.version)

    def cause(self, pool: Pool) -> Cause:
        """Say why, with the names that are taken: that takes a moment, so it is done for who reads it."""
        found = untaken_cause(pool, self.kind, Group(self.name, self.version, hub=self.hub))
        return found or causes.no_worker(self.hub)


def all_names(name: str) -> bool:
    """Whether a name may be told: to the own app, any."""
    return True


def untaken_cause(pool: Pool, kind: str, group: Group, shows: Callable[[str], bool] = all_names) -> Cause | None:
    """Say why no connected worker takes work of this hub, name and version, None if one does.

    `shows` says which names may be told that they take.
    """
    filter_of = _FILTERS[kind]
    here = [filter_of(worker) for worker in pool.workers if worker.hub == group.hub]
    if not here:
        return causes.no_worker(group.hub)
    if any(one.accepts(group.name, group.version) for one in here):
        return None
    taken = (name for one in here for name in one.names or () if shows(name))
    return causes.name_not_taken(kind, group.name, group.version, group.hub, taken)


def cause(pool: Pool, kind: str, group: Group, shows: Callable[[str], bool] = all_names) -> Cause | None:
    """Say why work that waits for an own worker does, None if it is handed out in a moment. `shows`: as above."""
    untaken = untaken_cause(pool, kind, group, shows)
    if untaken is not None:
        return untaken
    limit = _room(pool, kind).full(group.name)
    if limit is not None:
        return causes.over_limit(limit.pattern, limit.most)
    takers = [worker for worker in pool.workers if worker.hub == group.hub]
    takers = [worker for worker in takers if _FILTERS[kind](worker).accepts(group.name, group.version)]
    most = max(worker.max_bytes for worker in takers)
    if most < group.size and not (kind == WORKFLOW and any(worker.streams_history for worker in takers)):
        return causes.too_large(group.size, most)
    willing = [worker for worker in takers if worker.name not in group.excluded_workers]
    if not willing or (group.on_probation and all(worker.has_on_probation() for worker in willing)):
        return causes.given_back()
    busy = all(worker.is_full() or _has(worker, kind) for worker in willing)
    return causes.workers_busy(len(willing)) if busy else None


def _room(pool: Pool, kind: str) -> Room:
    if kind == ENTITY:
        return Room((), ())
    return pool.turn_room() if kind == WORKFLOW else pool.activity_room()


def _has(worker: Worker, kind: str) -> bool:
    """Whether a worker has as much of a kind as it takes at once."""
    if kind == WORKFLOW:
        return len(worker.turns) >= worker.max_turns
    if kind == ACTIVITY:
        return len(worker.activities) >= worker.max_activities
    return len(worker.entities) >= worker.max_entities


def queue_of(pool: Pool, kind: str) -> ReadyQueue[Any]:
    """Return the queue of a kind."""
    queues: dict[str, ReadyQueue[Any]] = {WORKFLOW: pool.turns, ACTIVITY: pool.activities, ENTITY: pool.entities}
    return queues[kind]


def lane_groups(pool: Pool, kind: str, lanes: Collection[Lane]) -> dict[Lane, Group]:
    """Return work that waits of these lanes, one group of each that has some."""
    return {group.lane: group for group in queue_of(pool, kind).groups() if group.lane in lanes}


def _is_untaken(pool: Pool, kind: str, group: Group) -> bool:
    here = (_FILTERS[kind](worker) for worker in pool.workers if worker.hub == group.hub)
    return not any(accepted.accepts(group.name, group.version) for accepted in here)


def untaken(pool: Pool) -> list[Untaken]:
    """Return what waits and is taken by no connected worker: the first names of it, of which there may be thousands."""
    found: dict[Key, Untaken] = {}
    for kind in _FILTERS:
        queue = queue_of(pool, kind)
        for group in queue.groups():
            key = (kind, group.hub, group.name, group.version)
            if key not in found and (len(found) >= MOST_SHOWN or not _is_untaken(pool, kind, group)):
                continue
            before = found[key].waiting if key in found else 0
            found[key] = Untaken(*key, before + queue.count(group))
    return list(found.values())


def held_back(pool: Pool) -> dict[str, Cause]:
    """Return by their patterns the limits of the settings for which work waits that a connected worker takes."""
    found: dict[str, Cause] = {}
    for kind in (WORKFLOW, ACTIVITY):
        room = _room(pool, kind)
        for group in queue_of(pool, kind).takeable()[:MOST_SHOWN]:
            limit = room.full(group.name)
            if limit is not None:
                found[f"{kind}:{limit.pattern}"] = causes.over_limit(limit.pattern, limit.most)
    return found


def useless(worker: Worker, left: Sequence[Untaken]) -> str:
    """Say why a worker is of no use here, "" if it is; `left` is what no worker takes."""
    none = worker.turn_filter.names == {} and worker.activity_filter.names == {}
    if none and (worker.entity_filter.names == {} or not worker.max_entities):
        return _NOTHING_AT_ALL
    filtered = None not in (worker.turn_filter.names, worker.activity_filter.names)
    waits = any(one.hub == worker.hub for one in left)
    return _NOTHING_OF_THIS if filtered and waits and not worker.assigned else ""


def taken_names(accepted: Filter) -> list[str]:
    """Return the first names that a filter has, `["*"]` if it takes everything."""
    return ["*"] if accepted.names is None else sorted(accepted.names)[:_MOST_NAMES]


class Watch:
    """Knows since when work is taken by no worker, and logs it and workers of no use: once, and work again at its end.

    `patience` is at how many looks in a row no worker must be connected, until that is told: apps restart. The same
    goes for a limit that holds work back, which is there to do that for a while.
    """

    def __init__(self, now: Callable[[], int], logger: Any = log, patience: int = 10) -> None:
        self._now = now
        self._log = logger
        self._patience = patience
        self._since: dict[Key, int] = {}
        self._looks: dict[tuple[str, ...], int] = {}
        self._told: set[tuple[str, ...]] = set()

    def look(self, pool: Pool) -> None:
        """Tell what was so at the last look and is so still: a worker that comes a moment later is no reason."""
        left, now = untaken(pool), self._now()
        self._since = {one.key: self._since.get(one.key, now) for one in left}
        hubs = {worker.hub for worker in pool.workers}
        seen: dict[tuple[str, ...], int] = {}
        for one in left:
            # That no worker is connected is one line a hub.
            key, looks = (one.key, 2) if one.hub in hubs else (("any", one.hub), self._patience)
            if self._is_due(seen, key, looks):
                self._begins(one, pool)
        for worker in pool.workers:
            why = useless(worker, left)
            if why and self._is_due(seen, ("worker", worker.name, why), 2):
                self._log.warning("worker is of no use", worker=worker.name, peer=worker.peer, why=why, **names(worker))
        for pattern, cause in held_back(pool).items():
            if self._is_due(seen, ("limit", pattern), self._patience):
                self._log.warning("work waits for a limit", limit=pattern, why=cause.text, advice=cause.advice)
        for ended in self._told - seen.keys():
            if ended[0] == "limit":
                self._log.info("work waits no longer for a limit", limit=ended[1])
            elif ended[0] != "worker":
                fields = dict(zip(_FIELDS, ended, strict=False))
                self._log.info("work waits no longer for a worker that takes it", **fields)
        self._told &= seen.keys()
        self._looks = seen

    def _begins(self, one: Untaken, pool: Pool) -> None:
        cause, since = one.cause(pool), events.timestamp(self._since[one.key]).ToJsonString()
        event = "work waits that no connected worker takes"
        if cause.reason is Reason.NO_WORKER:
            event = "work waits and no worker is connected"
        self._log.warning(event, waiting=one.waiting, why=cause.text, since=since, advice=cause.advice)

    def _is_due(self, seen: dict[tuple[str, ...], int], key: tuple[str, ...], looks: int) -> bool:
        if key in seen:
            return False
        seen[key] = self._looks.get(key, 0) + 1
        due = seen[key] >= looks and key not in self._told
        if due:
            self._told.add(key)
        return due

    def since(self, cause: Cause, kind: str, group: Group) -> Cause:
        """Return a cause with since when it holds of such work, if that is known."""
        since = self._since.get((kind, group.hub, group.name, group.version), 0)
        return cause._replace(since=since) if cause.reason in _UNTAKEN else cause

    def shown(self, pool: Pool) -> dict[str, object]:
        """Return for a person: the workers with the names that they take, why one is of no use, and what none takes."""
        left = untaken(pool)
        workers = [
            {
                "peer": worker.peer,
                "hub": worker.hub,
                **names(worker),
                "has": {
                    "workflows": len(worker.turns),
                    "activities": len(worker.activities),
                    "entities": len(worker.entities),
                },
                "error": useless(worker, left),
            }
            for worker in pool.workers[:MOST_SHOWN]
        ]
        return {"workers": workers, "untaken": list(self._rows(left, pool))}

    def _rows(self, left: Sequence[Untaken], pool: Pool) -> Iterator[dict[str, object]]:
        for one in left:
            cause = one.cause(pool)._replace(since=self._since.get(one.key, 0))
            yield {**dict(zip(_FIELDS, one.key, strict=True)), "waiting": one.waiting, **shown(cause)}


def shown(cause: Cause) -> dict[str, object]:
    """Return a cause as metadata shows it."""
    since = events.timestamp(cause.since).ToJsonString() if cause.since else None
    return {"reason": cause.reason.value, "why": cause.text, "since": since, "advice": cause.advice}


def names(worker: Worker) -> dict[str, list[str]]:
    """Return the names that a worker takes, by kind."""
    return {
        "workflows": taken_names(worker.turn_filter),
        "activities": taken_names(worker.activity_filter),
        "entities": taken_names(worker.entity_filter) if worker.max_entities else [],
    }
