"""Turns for the own workers: instances that are ready for one, and the turns that a worker has.

A turn is out under a token; only its answer under that token counts. All of it is a hint over the store.
"""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from sidecar.actors.clock import Clock
from sidecar.actors.engine import Engine
from sidecar.actors.residents import Actor, Address
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Changes, Decision, Instance, Position, Row, State, Status, Turn
from sidecar.core.work_items import Past, TurnItem
from sidecar.core.workflow import stalls
from sidecar.core.workflow import turn as turns
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import Store
from sidecar.work.answer_chunks import AnswerChunks
from sidecar.work.history_cache import HistoryCache
from sidecar.work.large_histories import LargeHistories
from sidecar.work.leases import ActorLeases, Lease
from sidecar.work.pool import Pool
from sidecar.work.ready_queue import Group
from sidecar.work.workers import Worker

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class TurnLease(Lease):
    """A turn that a worker has; `sent` is how many events of the past it stands on, `withheld` if not all were sent.

    `tells` if it only tells a worker that keeps the past a portion of it: its answer means nothing. `stored` says that
    the answer which has claimed it is committed.
    """

    turn: Turn | None = None
    sent: int = 0
    withheld: bool = False
    tells: bool = False
    stored: bool = False

    @property
    def key(self) -> int:
        """See `Lease`."""
        return 0 if self.turn is None else self.turn.key

    @property
    def token(self) -> str:
        """What the worker echoes with its answer; the hub in it tells where a worker got the item."""
        return "" if self.turn is None else f"{self.turn.token}.{self.actor.address[0]}"

    @property
    def rows(self) -> tuple[Row, ...]:
        """See `Lease`."""
        return () if self.turn is None else self.turn.rows

    def fits(self, state: State) -> bool:
        """See `Lease`."""
        return self.turn is not None and turns.close_again(state, self.turn)

    def was_seen(self) -> None:
        """The worker has the past that this stands on; it may keep it."""
        if self.worker.keeps_history and self.turn is not None:
            self.worker.seen.keep(self.actor.address, self.turn.execution, self.sent)

    def completed_by(self, changes: Changes) -> Turn | None:
        """Return the turn if these committed changes complete it, None if not or if others did before."""
        if self.turn is None or not self.claimed or self.stored or changes.instance is None:
            return None
        self.stored = changes.instance.last_completed_turn >= self.turn.number
        return self.turn if self.stored else None


class TurnWork(ActorLeases[TurnLease]):
    """Hands turns to workers and takes them back."""

    _lease_type = TurnLease

    def __init__(self, engine: Engine, pool: Pool, **options: Any) -> None:
        super().__init__(engine, pool, pool.turns, entities=False, **options)
        self.pasts = HistoryCache()
        self.chunks = AnswerChunks()
        self.large = LargeHistories(pool)

    # ------------------------------------------------------------ waiting

    def _offer(self, address: Address, group: Group) -> None:
        self._retry_if_nobody_is_left(address, group)
        super()._offer(address, group)

    def _retry_if_nobody_is_left(self, address: Address, group: Group) -> bool:
        """When all workers that are there have refused an instance for good, let one say again why: it then stalls."""
        if not self.refusals.unreported(address) or self._takers_left(address, group):
            return False
        self.refusals.forget(address)
        return True

    def _takers_left(self, address: Address, group: Group) -> bool:
        """Whether a worker may still be able to run an instance; without workers nothing is known."""
        takers = {worker.name for worker in self._pool.turn_takers(group)}
        return not takers or bool(takers - self.refusals.for_good(address))

    # ------------------------------------------------------------ out

    def before_commands(self, actor: Actor, lease: TurnLease) -> asyncio.Future[None] | None:
        """Hand out the turn of an instance that was assigned. Returns what must be awaited first, or None."""
        if lease.is_out:
            return None
        if actor.state is None or not actor.state.instance.ready:
            self.recall(actor)
            return None
        past = self.pasts.get(actor.address)
        if past is None:
            return asyncio.ensure_future(_read_past(self._engine.store, self.pasts, actor.state.instance))
        self._hand_out(lease, actor.state, past)
        return None

    def _hand_out(self, lease: TurnLease, state: State, past: Past) -> None:
        instance, clock, address, worker = state.instance, self._engine.clock, lease.actor.address, lease.worker
        item = _begin(lease, state, past, clock)
        self.large.look(address, instance.execution, past.size, worker, self.group_of(instance))
        lease.deadline = clock.monotonic() + self._timeout
        self._went_out(lease)
        self.pasts.use(address, past)
        too_large = worker.send(item)
        if too_large:
            self.recall(lease.actor)
            self._wait_for_larger(address, instance, too_large, worker)
        elif instance.status is Status.PENDING:
            lease.actor.changed()  # it reads as running from here on

    def _wait_for_larger(self, address: Address, instance: Instance, size: int, worker: Worker) -> None:
        """Let a turn wait for a worker that can receive it; without one the instance says so."""
        if worker.streams_history:
            self.refusals.refuse(address, worker.name, for_good=True)
            self.refusals.report(address)
        log.warning("turn waits for a worker that can receive it", instance=instance.id, bytes=size)
        self._offer(address, self.group_of(instance, size))
        refused = self.refusals.for_good(address)
        takers = self._pool.turn_takers(self.group_of(instance))
        limit = max((taker.max_bytes for taker in takers), default=0)
        if limit < size and not any(taker.streams_history and taker.name not in refused for taker in takers):
            self._engine.tell(address, lambda at, state: stall(at, state, stalls.too_large(size, limit)))

    # ------------------------------------------------------------ answers

    def leased(self, address: Address, token: str, peer: str) -> TurnLease | None:
        """Return the turn of an instance that is out, if the worker that answers has it.

        An SDK that echoes no token must answer over the connection that it got the turn on.
        """
        lease = self.out.get(address)
        has_it = lease is not None and (token == lease.token or (not token and lease.worker.peer == peer))
        return lease if has_it else None

    def answered(self, lease: TurnLease, answer: pb.OrchestratorResponse) -> None:
        """Claim the turn for its answer. A worker forgets the past of an execution when it ends it."""
        self.claim(lease)
        ends = any(action.HasField("complete") for action in answer.actions)
        if not ends:
            lease.was_seen()

    def refuse_for_good(self, lease: TurnLease) -> bool:
        """Keep an instance from the worker that cannot run it; return whether another one is left to try."""
        address, state = lease.actor.address, lease.actor.state
        self.refusals.refuse(address, lease.worker.name, for_good=True)
        left = state is None or self._takers_left(address, self.group_of(state.instance))
        if not left:
            self.refusals.report(address)
        return left

    def committed(self, actor: Actor, changes: Changes) -> None:
        """Move what is kept of an instance over changes, which may be those of the answer that has claimed its turn."""
        lease, instance = self.lease_of(actor), changes.instance
        turn = None if lease is None else lease.completed_by(changes)
        if turn is not None:
            self.refusals.done(actor.address)
            if instance is not None and instance.execution != turn.execution:
                self.refusals.forget(actor.address)
        self.pasts.committed(actor.address, changes, turn)
        self.large.committed(actor.address, changes)

    def loaded(self, actor: Actor) -> None:
        """An instance was read anew: the turn that an answer has claimed is closed as before, or counts no more."""
        lease = self.lease_of(actor)
        if lease is not None and lease.claimed:
            lease.void = actor.state is None or not lease.fits(actor.state)

    def abandon(self, token: str) -> None:
        """Take back the turn that a worker does not want."""
        lease = self._having(token)
        if lease is not None:
            self.decline(lease)

    def resend(self, token: str) -> None:
        """Send the turn of a worker that has lost the past with all of it; one that had it has given the turn back."""
        lease = self._having(token)
        if lease is not None and lease.withheld:
            self.settle(lease)
        elif lease is not None:
            self.decline(lease)

    def _having(self, token: str) -> TurnLease | None:
        """Return the lease of a turn that is out under a token, or None."""
        return next((lease for lease in self.out.values() if token == lease.token), None)

    # ------------------------------------------------------------ of this kind

    def left(self, worker: Worker, *, lost: bool) -> None:
        """Queue all that a worker had which is gone, and what only that one had not refused for good."""
        super().left(worker, lost=lost)
        for address in self.refusals.all_unreported():
            group = self._pool.turns.group(address)
            if group is not None and self._retry_if_nobody_is_left(address, group):
                self._pool.turns.regroup(address, frozenset())
                self._pump()

    def _held_by(self, worker: Worker) -> MutableMapping[Address, str]:
        return worker.turns

    def _came_back(self, lease: TurnLease) -> None:
        """Stall an instance whose turn only ever comes back: it goes on with the first worker that answers."""
        address, limit = lease.actor.address, self._delivery_limit
        if limit.is_futile(self.refusals.came_back(address)):
            why = stalls.given_back(limit.most_returns)
            self._engine.tell(address, lambda at, state: stall(at, state, why))

    def _freed(self, lease: TurnLease) -> None:
        self.chunks.forget(lease.token)

    def _late(self, lease: TurnLease) -> None:
        log.warning("turn timed out", instance=lease.actor.address[1], seconds=self._timeout)


def _begin(lease: TurnLease, state: State, past: Past, clock: Clock) -> TurnItem:
    """Begin the turn of a lease, with as many of the new events as its worker can receive, and close it.

    A worker that keeps the past and has no room for a new event beside what it lacks of it is told of that first.
    """
    instance, worker, now = state.instance, lease.worker, clock.now()
    known = worker.seen.take(lease.actor.address, instance.execution)
    lease.sent, lease.withheld = len(past.events), known > 0
    turn = lease.turn = turns.begin(state, now, f"t.{clock.new_id()}")
    of, trace = (instance.id, instance.execution), instance.orchestration_trace
    item = TurnItem(*of, past, turn.events, lease.token, known, trace)
    fits = worker.fits(item)
    if fits < min(2, len(item.new)) and worker.keeps_history and (shown := worker.shows(item)) > known:
        lease.sent, lease.tells = shown, True
        return replace(item, new=item.new[:1], shown=shown)
    if fits < len(item.new):
        turn = lease.turn = turns.begin(state, now, turn.token, fits - 1)
        item = replace(item, new=turn.events)
    state.tail = turns.after(state, turn)
    return item


async def _read_past(store: Store, pasts: HistoryCache, instance: Instance) -> None:
    lineage = await store.lineage(instance.key) if instance.lineage else b""
    events = await store.events(instance.key, Position(0, -1), instance.last_completed_turn)
    pasts.use((instance.hub, instance.id), Past(events, lineage))


def stall(at: Context, state: State | None, why: pb.ExecutionStalled) -> Decision:
    """Decide that an instance cannot go on with the workers that are there."""
    return Decision(None if state is None else stalls.stalled(at, state, why), DONE)


def as_shown(engine: Engine, instance: Instance) -> Instance:
    """Return an instance as it reads: it runs as soon as a worker has its first turn (E.5), which is not stored."""
    actor = engine.residents.find((instance.hub, instance.id)) if instance.status is Status.PENDING else None
    lease = None if actor is None else actor.lease
    if not isinstance(lease, TurnLease) or not lease.is_out or lease.turn is None or lease.key != instance.key:
        return instance
    return replace(instance, status=Status.RUNNING, started_at=lease.turn.time)
