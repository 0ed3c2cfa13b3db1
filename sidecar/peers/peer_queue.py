"""What waits for one peer, and how it goes: plain methods, no I/O."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from sidecar.core import causes, undeliverable
from sidecar.core.causes import Cause, Reason
from sidecar.core.ids import PeerId
from sidecar.core.model import ActorId, CallId, Kind, Reminder
from sidecar.peers.asked import Asked
from sidecar.peers.limits import size_of

QUEUE_LIMIT = 5_000
BATCH_MESSAGES = 256
BATCH_BYTES = 4 * 1024 * 1024
ActorPair = tuple[ActorId, ActorId]
log = structlog.get_logger(__name__)


class Blocked(NamedTuple):
    """Until which monotonic time messages of one actor to one are not sent, and why the peer did not take the last."""

    until: float
    why: str


class Queued(NamedTuple):
    """A reminder that waits, without its payload; `size` is what it takes in a frame, in bytes."""

    id: int
    kind: Kind
    source: ActorId
    target: ActorId
    call: CallId
    name: str
    size: int
    is_call: bool
    due: int


@dataclass(slots=True)
class PeerQueue:
    """What waits for one peer, by order number, and how it goes."""

    peer: PeerId
    pending: dict[int, Queued] = field(default_factory=dict)
    unsent: dict[CallId, int] = field(default_factory=dict)  # activities that have surely not left this sidecar
    last_out: int = 0  # the last message that may have left
    complete: bool = True
    met: bool = False  # there was a link: it is known, whether it has an address or not
    failures: int = 0
    cause: Cause | None = None  # why nothing leaves, since the last that did
    blocked: dict[ActorPair, Blocked] = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)  # what the peer has been given
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def next_batch(self, now: float, most_bytes: int) -> list[Queued]:
        """Return what may go now: the oldest first, none whose lane waits, one at least, not too much at once.

        From then on it may have left.
        """
        batch: list[Queued] = []
        size = 0
        for reminder_id in sorted(self.pending):
            queued = self.pending[reminder_id]
            blocked = self.blocked.get((queued.source, queued.target))
            if blocked is not None and blocked.until > now:
                continue
            size += queued.size
            if batch and (len(batch) >= BATCH_MESSAGES or size > most_bytes):
                break
            batch.append(queued)
            self.unsent.pop(queued.call, None)
            self.last_out = max(self.last_out, reminder_id)
        return batch

    def waits_since(self) -> int | None:
        """Return since when the oldest waits, None if there is none."""
        return self.pending[min(self.pending)].due if self.pending else None

    def why(self, reminder: Queued) -> Cause | None:
        """Say why a reminder that waits here does, None if it is on its way."""
        blocked = self.blocked.get((reminder.source, reminder.target))
        return causes.refused_for_now(self.peer[1], blocked.why) if blocked is not None else self.cause

    def add(self, reminder: Reminder) -> bool:
        """Queue a reminder that was just stored; False if too many wait already: those are read again later."""
        if not self.complete or len(self.pending) >= QUEUE_LIMIT:
            self.complete = False
            return False
        self.put(reminder, fresh=True)
        self.wake.set()
        return True

    def put(self, reminder: Reminder, *, fresh: bool) -> None:
        """Queue a reminder that the store holds; a `fresh` one was set since this sidecar was started."""
        if reminder.id in self.pending:
            return
        if fresh and reminder.kind is Kind.ACTIVITY and reminder.id > self.last_out:
            self.unsent[reminder.call] = reminder.id
        self.pending[reminder.id] = Queued(
            reminder.id,
            reminder.kind,
            reminder.source,
            reminder.target,
            reminder.call,
            reminder.name,
            size_of(reminder),
            undeliverable.is_call(reminder),
            reminder.due,
        )

    def remove(self, reminder_id: int) -> None:
        """A reminder waits no longer."""
        queued = self.pending.pop(reminder_id, None)
        if queued is not None and self.unsent.get(queued.call) == reminder_id:
            del self.unsent[queued.call]

    def is_over(self) -> bool:
        """Whether nothing waits for a peer that was never there: an ID that was named once."""
        return self.complete and not (self.pending or self.met or self.wake.is_set())

    def note(self, cause: Cause | None, now: int) -> None:
        """Keep why the peer does not take what waits for it, None if it does, at a time; say so when that changes.

        That there is no link is said by those who dial.
        """
        before, app = self.cause, self.peer[1]
        self.cause = None if cause is None else cause._replace(since=cause.since or (before.since if before else now))
        if before is not None and before.reason is not Reason.UNREACHABLE and cause is None:
            log.info("messages for an app leave again", app=app)
        if cause is None or cause.reason is Reason.UNREACHABLE:
            return
        if before is None or before.reason is not cause.reason:
            waiting = len(self.pending)
            log.warning("messages for an app wait", app=app, why=cause.text, advice=cause.advice, waiting=waiting)
