"""Turns for the own workers: instances that are ready for one, and the turns that a worker has.

A turn is out under a token; only its answer under that token counts. All of it is a hint over the store.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

from sidecar.actors.engine import Actor, Address, Engine
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Changes, Decision, Instance, Position, Rewind, State, Turn
from sidecar.core.work_items import Past, TurnItem
from sidecar.core.workflow import chunks, stalls
from sidecar.core.workflow import turn as turns
from sidecar.core.workflow.chunks import Parts
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work.history_cache import HistoryCache
from sidecar.work.leases import ActorLeases
from sidecar.work.pool import Pool, Rewinds, Worker
from sidecar.work.ready_queue import Group

ALL_PARTS_BYTES = 256 * 1024 * 1024  # of answers that are not whole yet
log = structlog.get_logger(__name__)


class TurnWork(ActorLeases):
    """Hands turns to workers and takes them back."""

    def __init__(self, engine: Engine, pool: Pool, **options: Any) -> None:
        super().__init__(engine, pool, pool.turns, entities=False, **options)
        self._pasts = HistoryCache(engine)
        self._part_bytes = 0

    # ------------------------------------------------------------ waiting

    def _offer(self, address: Address, group: Group) -> None:
        self._retry_if_nobody_is_left(address, group)
        super()._offer(address, group)

    def _retry_if_nobody_is_left(self, address: Address, group: Group) -> bool:
        """When all workers that are there have refused an instance for good, let one say again why: it then stalls."""
        if not self._refusals.unreported(address) or self._takers_left(address, group):
            return False
        self._refusals.forget(address)
        return True

    def _takers_left(self, address: Address, group: Group) -> bool:
        """Whether a worker may still be able to run an instance; without workers nothing is known."""
        takers = {worker.name for worker in self._pool.turn_takers(group)}
        return not takers or bool(takers - self._refusals.for_good(address))

    # ------------------------------------------------------------ out

    def before_commands(self, actor: Actor) -> asyncio.Future[None] | None:
        """Hand out the turn of an instance that was assigned. Returns what must be awaited first, or None."""
        if actor.holder is None or actor.turn is not None:
            return None
        if actor.state is None or not actor.state.instance.ready:
            self.recall(actor)
            return None
        if actor.past is None:
            return asyncio.ensure_future(self._read_past(actor, actor.state.instance))
        self._hand_out(actor, actor.state, actor.past, actor.holder)
        return None

    async def _read_past(self, actor: Actor, instance: Instance) -> None:
        store = self._engine.store
        lineage = await store.lineage(instance.key) if instance.lineage else b""
        actor.past = Past(await store.events(instance.key, Position(0, -1), instance.last_completed_turn), lineage)

    def _hand_out(self, actor: Actor, state: State, past: Past, worker: Worker) -> None:
        instance, clock = state.instance, self._engine.clock
        asked = instance.rewind is Rewind.ASKED
        if asked and worker.rewinds() is Rewinds.NO:
            self.recall(actor)
            self._offer(actor.address, self._group_of(instance))
            return
        turn = turns.begin(state, clock.now(), f"t.{clock.new_id()}")
        state.tail = turns.after(state, turn)
        actor.turn, actor.deadline = turn, clock.monotonic() + self._timeout
        self.out[actor.address] = actor
        self._pasts.use(actor, past)
        new = [turn.started, *(row.event for row in turn.rows)]
        token = f"{turn.token}.{actor.address[0]}"
        known = worker.seen.take(actor.address, instance.execution)
        actor.sent, actor.withheld = len(past.events), known > 0
        too_large = worker.send(TurnItem(instance.id, instance.execution, past, new, token, asked, known))
        if too_large:
            self.recall(actor)
            self._wait_for_larger(actor, instance, too_large, worker)

    def _wait_for_larger(self, actor: Actor, instance: Instance, size: int, worker: Worker) -> None:
        """Let a turn wait for a worker that can receive it; without one the instance says so."""
        if worker.streams_history:
            self._refusals.refuse(actor.address, worker.name, for_good=True)
            self._refusals.report(actor.address)
        log.warning("turn waits for a worker that can receive it", instance=instance.id, bytes=size)
        self._offer(actor.address, self._group_of(instance, size))
        refused = self._refusals.for_good(actor.address)
        takers = self._pool.turn_takers(self._group_of(instance))
        limit = max((taker.max_bytes for taker in takers), default=0)
        if limit < size and not any(taker.streams_history and taker.name not in refused for taker in takers):
            self._engine.tell(
                actor.address, lambda at, state: self.stall(at, actor, state, stalls.too_large(size, limit))
            )

    def stall(
        self, at: Context, actor: Actor, state: State | None, why: pb.ExecutionStalled, worker: Worker | None = None
    ) -> Decision:
        """Decide that an instance cannot go on with this worker; it stalls unless another one is left to try."""
        if state is None:
            return Decision(None, DONE)
        instance = state.instance
        if worker is not None:
            self._refusals.refuse(actor.address, worker.name, for_good=True)
            left = self._takers_left(actor.address, self._group_of(instance))
            if not left:
                self._refusals.report(actor.address)
            self.queue(actor, instance)
            if left:
                return Decision(None, DONE)
        changes = stalls.stalled(at, state, why)
        if changes is not None:
            log.warning("workflow is stalled", instance=actor.address[1], why=why.description)
            if actor.past is not None:
                actor.past.add(row.event for row in changes.append)
        return Decision(changes, DONE)

    def is_out(self, actor: Actor, token: str, peer: str) -> bool:
        """Whether a worker that answers has the turn that is out.

        An SDK that echoes no token must answer over the connection that it got the turn on.
        """
        if actor.turn is None or actor.holder is None:
            return False
        return token == f"{actor.turn.token}.{actor.address[0]}" or (not token and actor.holder.peer == peer)

    def take(self, actor: Actor, peer: str, answer: pb.OrchestratorResponse) -> Turn | None:
        """Take the turn that a worker answers, if it is the one that is out; its slot is free again."""
        turn, worker = actor.turn, actor.holder
        if turn is None or worker is None or not self.is_out(actor, answer.completion_token, peer):
            return None
        self.recall(actor)
        # A worker forgets the past of an execution when it ends it.
        if worker.keeps_history and not any(action.HasField("complete") for action in answer.actions):
            worker.seen.keep(actor.address, turn.execution, actor.sent)
        return turn

    def join(self, actor: Actor, peer: str, answer: pb.OrchestratorResponse) -> pb.OrchestratorResponse | None:
        """Take an answer, or a part of one: return it when it is whole, None while more must come.

        A part that comes twice is taken once. When one is missing, or too much comes at once, the turn is given back.
        """
        if not self.is_out(actor, answer.completion_token, peer):
            return None if answer.is_partial else answer
        if actor.parts is None and not answer.is_partial and chunks.index_of(answer, 0) == 0:
            return answer
        actor.parts = actor.parts or Parts()
        expected = len(actor.parts)
        if chunks.index_of(answer, expected) != expected or self._part_bytes > ALL_PARTS_BYTES:
            if chunks.index_of(answer, expected) >= expected:
                log.warning("parts of an answer are missing or too many at once", instance=actor.address[1])
                self.decline(actor)
            return None
        before = actor.parts.size
        fits = actor.parts.add(answer)
        self._part_bytes += actor.parts.size - before
        if not fits:
            return chunks.too_large(answer)
        return None if answer.is_partial else actor.parts.whole()

    def done(self, actor: Actor, turn: Turn, changes: Changes) -> None:
        """Move the past of an instance over a completed turn."""
        instance, cut = changes.instance, changes.truncate
        self._refusals.done(actor.address)
        if actor.past is None or instance is None:
            return
        if instance.execution != turn.execution:
            self.forget_refusals(actor)
            lineage = actor.past.lineage
            self._pasts.forget(actor)
            actor.past = Past([], lineage)
            return
        taken = [row for row in turn.rows if cut is None or row.position < cut]
        rows = sorted((*taken, *(row for row in changes.append if row.turn <= instance.last_completed_turn)))
        actor.past.add(row.event for row in rows)

    def recall(self, actor: Actor) -> None:
        """Void the turn that is out, or assigned, and free its slot."""
        if actor.holder is not None:
            actor.holder.turns.pop(actor.address, None)
            self._pump()
        if actor.parts is not None:
            self._part_bytes -= actor.parts.size
        actor.turn = actor.holder = actor.parts = None
        self.out.pop(actor.address, None)

    def abandon(self, token: str) -> None:
        """Take back the turn that a worker does not want."""
        actor = self._having(token)
        if actor is not None:
            self.decline(actor)

    def resend(self, token: str) -> None:
        """Send the turn of a worker that has lost the past with all of it; one that had it has given the turn back."""
        actor = self._having(token)
        if actor is not None and actor.withheld:
            self.give_back(actor)
        elif actor is not None:
            self.decline(actor)

    def _having(self, token: str) -> Actor | None:
        """Return the instance whose turn is out under a token, or None."""
        for actor in self.out.values():
            if actor.turn is not None and token.startswith(f"{actor.turn.token}."):
                return actor
        return None

    def forget_past(self, actor: Actor) -> None:
        """What a worker has seen of an instance is not its past any more."""
        self._pasts.forget(actor)

    def drop_pasts(self) -> None:
        """Forget all that can be read again."""
        self._pasts.drop()

    # ------------------------------------------------------------ time

    def left(self, worker: Worker, *, lost: bool) -> None:
        """Queue all that a worker had which is gone, and what only that one had not refused for good."""
        super().left(worker, lost=lost)
        for address in self._refusals.all_unreported():
            group = self._pool.turns.group(address)
            if group is not None and self._retry_if_nobody_is_left(address, group):
                self._pool.turns.regroup(address, frozenset())
                self._pump()

    def _held(self, worker: Worker) -> Iterable[Address]:
        return worker.turns

    def _late(self, actor: Actor) -> None:
        log.warning("turn timed out", instance=actor.address[1], seconds=self._timeout)
