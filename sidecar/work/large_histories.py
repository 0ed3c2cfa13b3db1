"""Workflows whose history comes near what their workers receive in one message: said before they stall of it."""

from collections import OrderedDict
from typing import NamedTuple

import structlog

from sidecar.actors.residents import Address
from sidecar.core.model import Changes
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group
from sidecar.work.workers import Worker

_NEAR = 0.75  # of what a worker receives: from here on it is said
_COMING = "history is about to become larger than its workers receive: continue as new, or let them receive more"
MOST_KEPT = 1_000
_MOST_SHOWN = 100
log = structlog.get_logger(__name__)


class _Large(NamedTuple):
    """A history of so many bytes, of which the workers of its workflow receive `limit`."""

    execution: str
    bytes: int
    limit: int


class LargeHistories:
    """Those that were handed out lately. All of it is a hint: it is found again with the next turn."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._found: OrderedDict[Address, _Large] = OrderedDict()

    def look(self, address: Address, execution: str, size: int, worker: Worker, group: Group) -> None:
        """Take note of a history of so many bytes that goes to a worker, and warn once when it is near its limit."""
        before = self._found.pop(address, None)
        limit = self._limit(worker, group) if _is_near(size, worker.max_bytes) else None
        if limit is None or not _is_near(size, limit):
            return
        self._found[address] = _Large(execution, size, limit)
        if len(self._found) > MOST_KEPT:
            self._found.popitem(last=False)
        if before is None or before.execution != execution:
            log.warning(_COMING, instance=address[1], hub=address[0], bytes=size, limit=limit)

    def _limit(self, worker: Worker, group: Group) -> int | None:
        """Return how much a worker for such workflows receives, None if one receives a history in portions."""
        takers = [worker, *self._pool.turn_takers(group)]
        in_portions = any(one.streams_history or one.keeps_history for one in takers)
        return None if in_portions else max(one.max_bytes for one in takers)

    def committed(self, address: Address, changes: Changes) -> None:
        """Forget the history of an execution that is over."""
        found, instance = self._found.get(address), changes.instance
        if found is None or (instance is None and not changes.purged):
            return
        if instance is None or instance.status.terminal or instance.execution != found.execution:
            del self._found[address]

    def shown(self) -> list[dict[str, object]]:
        """Return those that were handed out last, for a person."""
        latest = list(reversed(self._found.items()))[:_MOST_SHOWN]
        return [{"hub": hub, "instance": id_, "bytes": one.bytes, "limit": one.limit} for (hub, id_), one in latest]


def _is_near(size: int, limit: int) -> bool:
    return size > _NEAR * limit
