"""What waits for one peer, and how it goes: plain methods, no I/O."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from sidecar.actors.clock import Clock
from sidecar.core import causes, undeliverable
from sidecar.core.causes import Cause, Reason
from sidecar.core.ids import PeerId
from sidecar.core.model import ActorId, CallId, Kind, Reminder
from sidecar.peers.asked import Asked
from sidecar.peers.limits import size_of

QUEUE_LIMIT = 5_000
MOST_WAITING, LEAST_ROOM = 50_000, 16  # in memory for all apps without a link, and for each of them
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds
BATCH_MESSAGES = 256
BATCH_BYTES = 4 * 1024 * 1024
EVERYTHING = 2**63  # above all order numbers
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


class Batch(NamedTuple):
    """What may go, and whether more may that does not go with it."""

    queued: list[Queued]
    full: bool


@dataclass(slots=True)
class PeerQueue:
    """What waits for one peer, by order number, and how it goes.

    All that waits up to the number `read_to` is here, and what comes with such a number is kept. The rest is read from
    the store later, in the order of its numbers.
    """

    peer: PeerId
    pending: dict[int, Queued] = field(default_factory=dict)
    unsent: dict[CallId, int] = field(default_factory=dict)  # activities that have surely not left this sidecar
    last_out: int = 0  # the last message that may have left
    read_to: int = 0
    missed: int = EVERYTHING + 1  # the lowest number that came behind `read_to` since a read began
    passes: int = 0  # how often reading began anew
    linked: bool = False  # there was a link when it was last looked at
    met: bool = False  # there was a link: it is known, whether it has an address or not
    failures: int = 0
    cause: Cause | None = None  # why nothing leaves, since the last that did
    blocked: dict[ActorPair, Blocked] = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)  # what the peer has been given
    woken: bool = False  # there is a reason to look at it again
    busy: bool = False  # somebody looks at it
    timer: asyncio.TimerHandle | None = None  # wakes it

    @property
    def complete(self) -> bool:
        """Whether all that waits is here."""
        return self.read_to == EVERYTHING

    @property
    def floor(self) -> int:
        """A number that is not above that of any message that may still leave."""
        return min(min(self.pending, default=EVERYTHING), self.read_to + 1)

    def room(self, waiting: int) -> int:
        """How many may be here: if there is no link, fewer when very many wait in memory for all apps together."""
        return QUEUE_LIMIT if self.linked else max(LEAST_ROOM, min(QUEUE_LIMIT, MOST_WAITING - waiting))

    def next_batch(self, now: float, most_bytes: int) -> Batch:
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
                return Batch(batch, full=True)
            batch.append(queued)
            self.unsent.pop(queued.call, None)
            self.last_out = max(self.last_out, reminder_id)
        return Batch(batch, full=False)

    def waits_since(self) -> int | None:
        """Return since when the oldest waits, None if there is none."""
        return self.pending[min(self.pending)].due if self.pending else None

    def why(self, reminder_id: int) -> Cause | None:
        """Say why a reminder that waits does, None if it is on its way."""
        queued = self.pending.get(reminder_id)
        if queued is None:
            return self.cause if reminder_id > self.read_to else None
        blocked = self.blocked.get((queued.source, queued.target))
        return causes.refused_for_now(self.peer[1], blocked.why) if blocked is not None else self.cause

    def add(self, reminder: Reminder, room: int) -> bool:
        """Queue a reminder that was just stored; False if `room` are here or others are to be read first."""
        if reminder.id <= self.read_to and len(self.pending) >= room:
            self.read_to = reminder.id - 1
        if reminder.id > self.read_to:
            self.missed = min(self.missed, reminder.id)
            return False
        self.put(reminder, fresh=True)
        return True

    def begin_read(self) -> tuple[int, int]:
        """A read begins: return the number behind which it does, and its pass, for `end_read`."""
        self.missed = EVERYTHING + 1
        return self.read_to, self.passes

    def end_read(self, last: int, the_pass: int) -> bool:
        """A read has come up to a number; False if what it has found does not count, since reading began anew."""
        if the_pass == self.passes:
            self.read_to = min(last, self.missed - 1)  # what was stored meanwhile may not be in it
        return the_pass == self.passes

    def begin_anew(self) -> list[int]:
        """Read all again that waits; return the numbers of what was here."""
        forgotten = list(self.pending)
        self.read_to, self.passes = 0, self.passes + 1
        return forgotten

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
        return self.complete and not (self.pending or self.met or self.woken)

    def failed(self, cause: Cause | None, clock: Clock) -> float:
        """A try has failed, for a cause if it is to be kept: return the pause until the next, in seconds."""
        if cause is not None:
            self.note(cause, clock.now())
        self.failures += 1
        return clock.jitter(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(self.failures, 10)))

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
