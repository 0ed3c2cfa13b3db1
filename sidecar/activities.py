"""Activities for the own workers: those that wait, and those that a worker has.

One delivery at a time. All of it is a hint over the store: an activity that is not known here is read from there.
"""

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from sidecar.core.items import ActivityItem
from sidecar.core.model import Kind, Reminder
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import Store, UnavailableError
from sidecar.timers import Clock
from sidecar.workers import Pool, Worker

SMALL_PAYLOAD = 64 * 1024  # payloads up to this size are kept while their activity waits
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """An activity that a worker has, since a monotonic time; `number` tells this delivery from others of it."""

    worker: Worker
    reminder: Reminder
    since: float
    number: int


class Activities:
    """Hands activities to workers and takes them back. `spawn` runs something on the side."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        pool: Pool,
        *,
        spawn: Callable[[Coroutine[object, object, None], str], None],
        pump: Callable[[], None],
        store_failed: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._pool = pool
        self._spawn = spawn
        self._pump = pump
        self._store_failed = store_failed
        self._at_hand: dict[int, Reminder] = {}
        self._numbers = itertools.count(1)
        self._discarded: list[set[int]] = []  # for each read that is under way: what went meanwhile
        self.leases: dict[int, Lease] = {}

    def queue(self, reminder: Reminder) -> None:
        """Take an activity that was committed, or that came back from a worker."""
        if reminder.id in self.leases:
            return
        self._offer(reminder)
        if reminder.id in self._pool.activities and len(reminder.payload) <= SMALL_PAYLOAD:
            self._at_hand[reminder.id] = reminder
        self._pump()

    async def refill(self) -> None:
        """Queue what waits in the store, as much of it as the queue holds. Raises UnavailableError."""
        limit = self._pool.activities.limit + len(self.leases)
        gone: set[int] = set()
        self._discarded.append(gone)
        try:
            found = await self._store.activities(0, limit)
        finally:
            self._discarded = [one for one in self._discarded if one is not gone]
        self._pool.activities.complete = len(found) < limit
        for reminder in found:
            if reminder.id not in gone:
                self.queue(reminder)

    def _offer(self, reminder: Reminder, size: int = 0) -> None:
        version = pb.ActivityRequest.FromString(reminder.payload).version.value
        self._pool.activities.offer(reminder.id, reminder.name, version, size, hub=reminder.target.hub)

    def discard(self, reminder_id: int) -> None:
        """Forget an activity that is gone from the store."""
        for discarded in self._discarded:
            discarded.add(reminder_id)
        self._at_hand.pop(reminder_id, None)
        self._pool.activities.discard(reminder_id)
        self._end(reminder_id)

    def hand_out(self, worker: Worker, reminder_id: int) -> None:
        """Send an activity to the worker that it was assigned to."""
        reminder = self._at_hand.pop(reminder_id, None)
        if reminder is None:
            self._spawn(self._fetch(worker, reminder_id), "fetch activity")
        else:
            self._send(worker, reminder)

    async def _fetch(self, worker: Worker, reminder_id: int) -> None:
        try:
            reminder = await self._store.reminder(reminder_id)
        except UnavailableError as error:
            log.warning("cannot read an activity", error=str(error))
            worker.activities.pop(reminder_id, None)
            self._store_failed()
            return
        if reminder is None:
            worker.activities.pop(reminder_id, None)
        elif worker in self._pool.workers:
            self._send(worker, reminder)
        else:
            self.queue(reminder)

    def _send(self, worker: Worker, reminder: Reminder) -> None:
        if len(reminder.payload) > worker.max_bytes:
            worker.activities.pop(reminder.id, None)
            self._offer(reminder, len(reminder.payload))
            self._pump()
            return
        number = next(self._numbers)
        self.leases[reminder.id] = Lease(worker, reminder, self._clock.monotonic(), number)
        worker.send(ActivityItem(reminder.payload, f"a.{reminder.id}.{number}"))

    async def find(self, reminder_id: int) -> Reminder | None:
        """Return an activity that is not done, or None."""
        lease = self.leases.get(reminder_id)
        if lease is not None:
            return lease.reminder
        reminder = self._at_hand.get(reminder_id) or await self._store.reminder(reminder_id)
        return reminder if reminder is not None and reminder.kind is Kind.ACTIVITY else None

    def by_task(self, peer: str, hub: str, instance_id: str, task: int) -> int | None:
        """Return the activity that a worker at this address has, for an SDK that echoes no token."""
        for reminder_id, lease in self.leases.items():
            found, worker = lease.reminder, lease.worker
            if (worker.peer, worker.hub) == (peer, hub) and (found.source.id, found.call.task) == (instance_id, task):
                return reminder_id
        return None

    def give_back(self, reminder_id: int, number: int | None = None) -> None:
        """Queue the activity of a worker that is gone, gave it up, or took too long.

        With a number only if that delivery is the one that is out: an earlier one has nothing to give back.
        """
        lease = self.leases.get(reminder_id)
        if lease is not None and number in (None, lease.number):
            self._end(reminder_id)
            self.queue(lease.reminder)

    def late(self, seconds: float) -> list[Lease]:
        """Return the activities that a worker has had for longer."""
        now = self._clock.monotonic()
        return [lease for lease in self.leases.values() if now - lease.since > seconds]

    def _end(self, reminder_id: int) -> None:
        lease = self.leases.pop(reminder_id, None)
        if lease is not None:
            lease.worker.activities.pop(reminder_id, None)
            self._pump()
