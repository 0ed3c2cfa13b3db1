"""Which work is taken by no connected worker, and which workers take nothing of what there is: said, never silent.

Plain functions over the pool, for the log and for a person who asks why something waits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import structlog

from sidecar.core.model import DEFAULT_HUB
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group, ReadyQueue
from sidecar.work.workers import Filter, Worker

WORKFLOW, ACTIVITY, ENTITY = "workflow", "activity", "entity"
MOST_SHOWN = 100
_MOST_NAMES = 20  # of one worker
_NOTHING_AT_ALL = "it takes nothing at all: its filters leave nothing, or it takes none of the kind that they name"
_NOTHING_OF_THIS = "nothing that waits here is among the names that its filters have"
log = structlog.get_logger(__name__)


class Untaken(NamedTuple):
    """Work of one name and version that waits and that no connected worker takes."""

    kind: str
    hub: str
    name: str
    version: str
    waiting: int
    why: str


def _accepts(worker: Worker, kind: str, group: Group) -> bool:
    if kind == WORKFLOW:
        return worker.turn_filter.accepts(group.name, group.version)
    if kind == ACTIVITY:
        return worker.activity_filter.accepts(group.name, group.version)
    return worker.max_entities > 0 and worker.entity_filter.accepts(group.name, group.version)


def why_untaken(pool: Pool, kind: str, group: Group) -> str:
    """Say why no connected worker takes work of this hub, name and version, "" if one does."""
    here = [worker for worker in pool.workers if worker.hub == group.hub]
    if any(_accepts(worker, kind, group) for worker in here):
        return ""
    where = "" if group.hub == DEFAULT_HUB else f" in task hub '{group.hub}'"
    if not here:
        return f"no worker is connected{where}"
    version = f" in version '{group.version}'" if group.version else ""
    return f"no connected worker{where} takes {kind} '{group.name}'{version}"


def untaken(pool: Pool) -> list[Untaken]:
    """Return what waits and is taken by no connected worker."""
    queues: list[tuple[str, ReadyQueue[Any]]] = [
        (WORKFLOW, pool.turns),
        (ACTIVITY, pool.activities),
        (ENTITY, pool.entities),
    ]
    found: dict[tuple[str, str, str, str], Untaken] = {}
    for kind, queue in queues:
        for group in queue.groups():
            why = why_untaken(pool, kind, group)
            if why:
                key = (kind, group.hub, group.name, group.version)
                before = found[key].waiting if key in found else 0
                found[key] = Untaken(*key, before + queue.count(group), why)
    return list(found.values())


def useless(worker: Worker, left: list[Untaken]) -> str:
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
    """Logs work that no worker takes, and workers that are of no use: each once as long as that is so."""

    def __init__(self, warn: Callable[..., object] = log.warning) -> None:
        self._warn = warn
        self._seen: set[tuple[str, ...]] = set()
        self._told: set[tuple[str, ...]] = set()

    def look(self, pool: Pool) -> None:
        """Tell what was so at the last look and is so still: a worker that comes a moment later is no reason."""
        left = [one for one in untaken(pool) if any(worker.hub == one.hub for worker in pool.workers)][:MOST_SHOWN]
        now: set[tuple[str, ...]] = set()
        for one in left:
            if self._is_due(now, (one.kind, one.hub, one.name, one.version)):
                self._warn("work waits that no connected worker takes", waiting=one.waiting, why=one.why)
        for worker in pool.workers:
            why = useless(worker, left)
            if why and self._is_due(now, ("worker", worker.name, why)):
                self._warn("worker is of no use", worker=worker.name, peer=worker.peer, why=why, **names(worker))
        self._told &= now
        self._seen = now

    def _is_due(self, now: set[tuple[str, ...]], key: tuple[str, ...]) -> bool:
        now.add(key)
        due = key in self._seen and key not in self._told
        if due:
            self._told.add(key)
        return due


def names(worker: Worker) -> dict[str, list[str]]:
    """Return the names that a worker takes, by kind."""
    return {
        "workflows": taken_names(worker.turn_filter),
        "activities": taken_names(worker.activity_filter),
        "entities": taken_names(worker.entity_filter) if worker.max_entities else [],
    }


def shown(pool: Pool) -> dict[str, object]:
    """Return for a person: each worker with the names that it takes, why it is of no use, and what no worker takes."""
    left = untaken(pool)
    workers = [
        {"peer": worker.peer, "hub": worker.hub, **names(worker), "error": useless(worker, left)}
        for worker in pool.workers[:MOST_SHOWN]
    ]
    return {"workers": workers, "untaken": [one._asdict() for one in left[:MOST_SHOWN]]}
