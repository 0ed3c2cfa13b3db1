"""Activities for the own workers: those that wait, and those that a worker has.

One delivery at a time. All of it is a hint over the store: an activity that is not known here is read from there.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from sidecar.actors.engine import Engine
from sidecar.actors.payloads import AtHand
from sidecar.core import activities, events
from sidecar.core.attempts import Crash, DeliveryLimit
from sidecar.core.model import Changes, Kind, Outcome, Reminder, Reply
from sidecar.core.work_items import ActivityItem
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import UnavailableError
from sidecar.store.reads import Reads
from sidecar.work.backoff import Refusals
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group, Lane
from sidecar.work.workers import Worker

PAGE = 1_000
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ActivityLease:
    """An activity that a worker has, since a monotonic time; `number` tells this delivery from others of it.

    `span` is what it is traced by, `began` the wall time, and `answer` the event that it is being ended with.
    """

    worker: Worker
    reminder: Reminder
    since: float
    number: int
    span: str
    began: int
    answer: bytes = b""


class Attempt(NamedTuple):
    """A delivery of an activity that has ended, after so many seconds. `answer` is b"" if it came back without one."""

    reminder: Reminder
    span: str
    began: int
    seconds: float
    answer: bytes


class _Failure(NamedTuple):
    """Why an activity is not handed out again: the type and the text of the failure."""

    kind: str
    text: str


class ActivityWork:
    """Hands activities to workers and takes them back."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        *,
        delivery_limit: DeliveryLimit,
        pump: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._clock = engine.clock
        self._pool = pool
        self._delivery_limit = delivery_limit
        self._spawn = engine.side.spawn
        self._pump = pump
        self.at_hand = AtHand()
        self._numbers = itertools.count(1)
        self._reads = Reads()
        self.refusals: Refusals[int] = Refusals(engine.clock)
        self.leases: dict[int, ActivityLease] = {}
        self.observers: tuple[Callable[[Attempt], None], ...] = ()
        self.queue_observers: tuple[Callable[[str, float], None], ...] = ()  # name, and seconds until a worker has it

    def queue(self, reminder: Reminder) -> None:
        """Take an activity that was committed, or that came back from a worker."""
        if reminder.id in self.leases:
            return
        try:
            self._offer(reminder)
        except DecodeError as error:
            log.error("an activity cannot be read and is left out", activity=reminder.name, number=reminder.id,
                      instance=reminder.source.id, error=str(error))  # fmt: skip
            return
        if reminder.id in self._pool.activities:
            self.at_hand.keep(reminder)
        self._pump()

    async def refill(self, lanes: frozenset[Lane] | None = None) -> None:
        """Queue what waits in the store, of these lanes (None: of all), as far as it fits.

        Raises:
            UnavailableError: the store failed.
        """
        backlog = self._pool.activities
        backlog.refilling(lanes)
        after, more = 0, True
        with self._reads.reading() as gone:
            while more and not backlog.has_share(lanes):
                page = await self._store.activities(after, PAGE)
                for reminder in page:
                    if not gone(reminder.id) and (lanes is None or (reminder.target.hub, reminder.name) in lanes):
                        self.queue(reminder)
                more = bool(page)
                after = page[-1].id if page else after

    def _offer(self, reminder: Reminder, size: int = 0) -> None:
        on_probation = self._delivery_limit.on_probation(reminder.crashes.times)
        group = group_of(reminder, size)._replace(
            excluded_workers=self.refusals.of(reminder.id), on_probation=on_probation
        )
        self._pool.activities.offer(reminder.id, group)

    def discard(self, reminder_id: int) -> None:
        """Forget an activity that is gone from the store."""
        self._reads.went(reminder_id)
        self.refusals.forget(reminder_id)
        self.at_hand.discard(reminder_id)
        self._pool.activities.discard(reminder_id)
        self._end(reminder_id)

    def hand_out(self, worker: Worker, reminder_id: int, since: int) -> None:
        """Send an activity, which waits since a time, to the worker that it was assigned to."""
        reminder = self.at_hand.pop(reminder_id)
        if reminder is None:
            self._spawn(self._fetch(worker, reminder_id, since), "fetch activity")
        else:
            self._send(worker, reminder, since)

    async def _fetch(self, worker: Worker, reminder_id: int, since: int) -> None:
        reminder = None
        try:
            reminder = await self._store.reminder(reminder_id)
        except UnavailableError as error:
            log.warning("cannot read an activity", error=str(error))
            self._engine.effects.store_failed()
        if reminder is None:
            worker.activities.pop(reminder_id, None)
            self._pump()
        elif worker in self._pool.workers:
            self._send(worker, reminder, since)
        else:
            self.queue(reminder)

    def _send(self, worker: Worker, reminder: Reminder, since: int) -> None:
        number, span, clock = next(self._numbers), self._clock.new_id(), self._clock
        token = f"a.{reminder.id}.{number}.{self._store.identity}"
        self.leases[reminder.id] = ActivityLease(worker, reminder, clock.monotonic(), number, span, clock.now())
        too_large = worker.send(ActivityItem(reminder.payload, token, span))
        if too_large:
            self._end(reminder.id, attempted=False)
            self._too_large(reminder, too_large)
            return
        for observe in self.queue_observers:
            observe(reminder.name, max(0, clock.now() - since) / 1e6)

    def _too_large(self, reminder: Reminder, size: int) -> None:
        """Let an activity wait for a worker that can receive it; when there is none, let it fail, and say why."""
        limit = self._pool.largest_for_activity(group_of(reminder))
        if limit >= size:
            log.info("activity waits for a worker that can receive it", name=reminder.name, bytes=size)
            self._offer(reminder, size)
            return
        text = f"the request of activity '{reminder.name}' has {size} bytes, and a worker receives at most {limit}"
        log.warning("activity is too large", name=reminder.name, bytes=size, limit=limit)
        self._spawn(self._fail(reminder, "PayloadSizeExceeded", text), "fail an activity")

    async def _fail(self, reminder: Reminder, kind: str, text: str) -> None:
        """Let an activity fail for a reason that is not its own; to try it once more at once would be no use."""
        details = events.failure(kind, text, retriable=False)
        try:
            await self.settle(reminder, events.task_failed(self._clock.now(), reminder.call.task, details))
        except UnavailableError as error:
            log.warning("cannot store the failure of an activity", error=str(error))
            self._engine.effects.store_failed()

    async def settle(self, reminder: Reminder, event: bytes) -> Reply:
        """End an activity with the event that says how, whether or not a worker has it.

        Raises:
            UnavailableError: the store failed.
        """
        engine, lease = self._engine, self.leases.get(reminder.id)
        if lease is not None:
            lease.answer = event
        if reminder.owner:
            reply = await engine.submit(
                (reminder.source.hub, reminder.source.id),
                lambda at, state: activities.activity_done(at, state, reminder, event),
            )
            # That nobody waits any more is no mistake of the worker.
            outcome = Outcome.STALE if reply.outcome is Outcome.MISSING else reply.outcome
        else:
            refusal = await engine.commit(activities.foreign_activity_done(engine.context(), reminder, event))
            outcome = Outcome.DONE if refusal is None else Outcome.STALE
        # Done by this answer or before it: either way nobody may have it any more.
        self.discard(reminder.id)
        return Reply(outcome)

    async def find(self, reminder_id: int) -> Reminder | None:
        """Return an activity that is not done, or None."""
        lease = self.leases.get(reminder_id)
        if lease is not None:
            return lease.reminder
        reminder = self.at_hand.get(reminder_id) or await self._store.reminder(reminder_id)
        return reminder if reminder is not None and reminder.kind is Kind.ACTIVITY else None

    def by_task(self, peer: str, hub: str, instance_id: str, task: int) -> int | None:
        """Return the activity that a worker at this address has, for an SDK that echoes no token.

        One of them does not even name the instance when an activity fails: it must be the only one.
        """
        found = [
            reminder_id
            for reminder_id, lease in self.leases.items()
            if (lease.worker.peer, lease.worker.hub, lease.reminder.call.task) == (peer, hub, task)
            and instance_id in ("", lease.reminder.source.id)
        ]
        return found[0] if len(found) == 1 or (found and instance_id) else None

    def give_back(self, reminder_id: int, number: int | None = None) -> None:
        """Queue the activity of a worker that is gone, or took too long.

        With a number only if that delivery is the one that is out: an earlier one has nothing to give back.
        """
        lease = self.leases.get(reminder_id)
        if lease is not None and number in (None, lease.number):
            self._end(reminder_id)
            self.queue(lease.reminder)

    def abandon(self, reminder_id: int, number: int | None) -> None:
        """Take back the activity of a worker that does not want it: others may have it at once, this one later."""
        lease = self.leases.get(reminder_id)
        if lease is not None and number == lease.number:
            self.refusals.refuse(reminder_id, lease.worker.name)
            self._end(reminder_id)
            self._again(lease.reminder)

    def left(self, worker: Worker, *, lost: bool) -> None:
        """Queue all that a worker had which is gone; if it was lost, count that against what was out."""
        self.refusals.left(worker.name)
        out = [
            lease.reminder for one in worker.activities if (lease := self.leases.get(one)) and lease.worker is worker
        ]
        for reminder in out:
            self._end(reminder.id)
        if lost and out:
            self._spawn(self._crashed(out, worker.loss()), "count crashes")
        else:
            for reminder in out:
                self._again(reminder)

    async def _crashed(self, out: list[Reminder], error: str) -> None:
        """Count the loss of a worker in the store, and only then hand out again what it had."""
        engine = self._engine
        with self._reads.reading() as gone:
            try:
                await engine.commit(Changes(crashed=tuple(Crash(reminder.id, error) for reminder in out)))
            except UnavailableError as failure:
                log.warning("cannot count crashes", error=str(failure))
                return  # what is not done is read from the store again
            for reminder in out:
                if not gone(reminder.id):
                    counted = replace(reminder, crashes=reminder.crashes.another(error))
                    self._again(counted, crashed=True)

    def _again(self, reminder: Reminder, *, crashed: bool = False) -> None:
        """Queue an activity that its worker lost or gave back, or let it fail if that happens again and again."""
        limit = self._delivery_limit
        failure = _crashed(reminder, limit) if crashed else _returned(reminder, self.refusals, limit)
        if failure is None:
            self.queue(reminder)
            return
        self._spawn(self._fail(reminder, failure.kind, failure.text), "fail an activity")

    def sweep(self, limit: float | None) -> None:
        """Hand out again what took longer than `limit` seconds, and what was given back and has paused."""
        now = self._clock.monotonic()
        late = [] if limit is None else [lease for lease in self.leases.values() if now - lease.since > limit]
        for lease in late:
            log.warning("activity timed out", activity=lease.reminder.name, seconds=limit)
            self._end(lease.reminder.id)
            self._again(lease.reminder)
        if self.refusals.resume(self._pool.activities):
            self._pump()

    def _end(self, reminder_id: int, *, attempted: bool = True) -> None:
        lease = self.leases.pop(reminder_id, None)
        if lease is None:
            return
        lease.worker.activities.pop(reminder_id, None)
        self._pump()
        for observe in self.observers if attempted else ():
            seconds = self._clock.monotonic() - lease.since
            observe(Attempt(lease.reminder, lease.span, lease.began, seconds, lease.answer))


def _crashed(reminder: Reminder, limit: DeliveryLimit) -> _Failure | None:
    """Return the failure of an activity that has cost too many workers."""
    if not limit.is_over(reminder.crashes):
        return None
    text = (
        f"activity '{reminder.name}' was handed out {reminder.crashes.times} times, and each time the worker was lost "
    )
    text += "before it answered: it crashes, or was restarted so often without a goodbye; find out why"
    log.warning("activity fails: each worker that gets it crashes", name=reminder.name, times=reminder.crashes.times)
    return _Failure("WorkerCrashed", text)


def _returned(reminder: Reminder, refusals: Refusals[int], limit: DeliveryLimit) -> _Failure | None:
    """Count that a worker has given an activity back, or left in good order; return the failure if all ever do that."""
    if not limit.is_futile(refusals.came_back(reminder.id)):
        return None
    text = f"activity '{reminder.name}' was handed out {limit.most_returns} times, and each time its worker gave it "
    text += "back, was stopped or took too long before it answered: find out why in what its workers log"
    log.warning("activity fails: no worker answers it", name=reminder.name, times=limit.most_returns)
    return _Failure("NeverAnswered", text)


def group_of(reminder: Reminder, size: int = 0) -> Group:
    """Return what workers must be able to take to have an activity; `size` in bytes, 0 for any.

    One without a version is taken as of that of its workflow: SDKs whose workers are strict about versions say with
    their filters that they take nothing else, and give no version to an activity that is called without one.
    """
    request = pb.ActivityRequest.FromString(reminder.payload)
    return Group(reminder.name, request.version.value or request.workflow_version, size, hub=reminder.target.hub)
