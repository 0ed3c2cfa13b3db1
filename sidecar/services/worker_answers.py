"""The answers of workers: claim the lease, decide purely, commit, settle the lease.

A decision can be taken again, as after a conflict in the store, since nothing but the commit comes of it. An answer
that comes too late changes nothing.
"""

from collections.abc import Coroutine
from typing import Any

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.reminders import Reminders
from sidecar.actors.residents import Address, Decide
from sidecar.actors.store_outage import held
from sidecar.core import events, names
from sidecar.core.entity import entity
from sidecar.core.errors import OvertakenError
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Outcome, Reminder, Reply, State
from sidecar.core.workflow import propagated_history
from sidecar.core.workflow import turn as turns
from sidecar.core.workflow.rewind import Record
from sidecar.core.workflow.stalls import StalledError
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import UnavailableError
from sidecar.work import workers
from sidecar.work.activities import group_of
from sidecar.work.answer_chunks import BrokenAnswerError
from sidecar.work.dispatch import Dispatch
from sidecar.work.entities import EntityLease
from sidecar.work.leases import ActorLeases, L, is_valid
from sidecar.work.turns import TurnLease, stall
from sidecar.work.workers import FilterOf

_LONGEST_NUMBER = 18  # digits of an order number: any such number fits a column
_SHOWN = 100  # characters of a token in the log
STALE = Reply(Outcome.STALE)
log = structlog.get_logger(__name__)


class WorkerAnswers:
    """Takes the answers of workers, and what they do not want back."""

    def __init__(self, dispatch: Dispatch, reminders: Reminders) -> None:
        self._engine = dispatch.engine
        self._pool = dispatch.pool
        self._turns = dispatch.turns
        self._activities = dispatch.activities
        self._entities = dispatch.entities
        self._reminders = reminders

    # ------------------------------------------------------------ turns

    async def complete_turn(
        self, hub: str, peer: str, response: pb.OrchestratorResponse, unknown: str | None = None
    ) -> Reply:
        """Take a worker's answer to a turn, or a part of it, in neutral form; a part has its effect with the last.

        `unknown` is the name that it does not know if that is what it answers, "" if it does not say which.
        """
        return await self._to_its_end(self._complete_turn(hub, peer, response, unknown))

    async def _complete_turn(
        self, hub: str, peer: str, response: pb.OrchestratorResponse, unknown: str | None
    ) -> Reply:
        token = response.completion_token
        lease = self._turns.leased((_hub_of(token, hub), response.instance_id), token, peer)
        lease = lease or await _late(self._engine, self._turns, token)
        if lease is None:
            return _answers_nothing("turn", peer, token)
        if lease.tells:
            lease.was_seen()
            self._turns.settle(lease)
            return STALE
        whole = self._joined(lease, response)
        if whole is None or self._handed_on(self._turns, lease, unknown, workers.of_turns):
            return STALE
        self._turns.answered(lease, whole)
        try:
            return await self._decide_turn(lease, whole)
        except OvertakenError:
            return STALE
        except StalledError as error:
            return await self._stall(lease, error.why)
        finally:
            self._turns.settle(lease)

    def _joined(self, lease: TurnLease, response: pb.OrchestratorResponse) -> pb.OrchestratorResponse | None:
        """Return an answer that is whole, None while more of it must come or when the turn is handed out again."""
        try:
            whole = self._turns.chunks.join(lease.token, response)
        except BrokenAnswerError:
            self._turns.decline(lease)
            return None
        if whole is not None and turns.processes_nothing(whole):
            self._turns.decline(lease)
            return None
        return whole

    async def _decide_turn(self, lease: TurnLease, response: pb.OrchestratorResponse) -> Reply:
        state = lease.actor.state
        reads = state is not None and propagated_history.passed_on(state.instance, response)
        record = await self._reminders.record(lease.actor.address, log=True) if reads else None
        return await self._submit(lease.actor.address, _completed(lease, response, record))

    async def _stall(self, lease: TurnLease, why: pb.ExecutionStalled) -> Reply:
        """An instance cannot go on with this worker: it stalls unless another one is left to try."""
        if self._turns.refuse_for_good(lease):
            return DONE
        return await self._submit(lease.actor.address, lambda at, state: stall(at, state, why))

    async def stall_turn(
        self, hub: str, peer: str, response: pb.OrchestratorResponse, why: pb.ExecutionStalled
    ) -> Reply:
        """Take note that a worker has an answer to a turn that cannot be taken."""
        return await self._to_its_end(self._stall_turn(hub, peer, response, why))

    async def _stall_turn(
        self, hub: str, peer: str, response: pb.OrchestratorResponse, why: pb.ExecutionStalled
    ) -> Reply:
        token = response.completion_token
        lease = self._turns.leased((_hub_of(token, hub), response.instance_id), token, peer)
        lease = lease or await _late(self._engine, self._turns, token)
        if lease is None:
            return STALE
        self._turns.claim(lease)
        try:
            return await self._stall(lease, why)
        finally:
            self._turns.settle(lease)

    def abandon_turn(self, token: str) -> None:
        """Take back a turn that a worker does not want."""
        self._turns.abandon(token)

    def resend_turn(self, token: str) -> None:
        """Send a turn again to a worker that needs all of the past."""
        self._turns.resend(token)

    # ------------------------------------------------------------ activities

    async def complete_activity(
        self, hub: str, peer: str, response: pb.ActivityResponse, unknown: str | None = None
    ) -> Reply:
        """Take a worker's answer to an activity; the first one counts, whoever it comes from.

        `unknown` is the name that it does not know if that is what it answers.
        """
        return await self._to_its_end(self._complete_activity(hub, peer, response, unknown))

    async def _complete_activity(
        self, hub: str, peer: str, response: pb.ActivityResponse, unknown: str | None
    ) -> Reply:
        activities = self._activities
        reminder_id, number = _delivery(response.completion_token, self._engine.store.identity)
        if reminder_id is None and not response.completion_token:
            reminder_id = activities.by_task(peer, hub, response.instance_id, response.task_id)
        reminder = None if reminder_id is None else await activities.find(reminder_id)
        if reminder is None:
            return _answers_nothing("activity", peer, response.completion_token)
        if self._activity_handed_on(reminder, number, unknown):
            return STALE
        response.task_id = reminder.call.task
        result = events.task_result(self._engine.clock.now(), response)
        try:
            return await held(self._engine, lambda: activities.settle(reminder, result))
        except UnavailableError:
            activities.give_back(reminder.id, number)
            raise

    def abandon_activity(self, token: str) -> None:
        """Take back an activity that a worker does not want."""
        reminder_id, number = _delivery(token, self._engine.store.identity)
        if reminder_id is not None:
            self._activities.abandon(reminder_id, number)

    # ------------------------------------------------------------ entities

    async def complete_batch(self, peer: str, result: pb.EntityBatchResult, unknown: str | None = None) -> Reply:
        """Take a worker's answer to a batch of operations of an entity; `unknown` is the name that it does not know."""
        return await self._to_its_end(self._complete_batch(peer, result, unknown))

    async def _complete_batch(self, peer: str, result: pb.EntityBatchResult, unknown: str | None) -> Reply:
        token = result.completion_token
        lease = self._entities.leased(token) or await _late(self._engine, self._entities, token)
        if lease is None:
            return _answers_nothing("operations of an entity", peer, token)
        if self._handed_on(self._entities, lease, unknown, workers.of_entities):
            return STALE
        self._entities.claim(lease)
        try:
            reply = await self._submit(lease.actor.address, _ran(lease, result))
        except OvertakenError:
            if not result.results:
                self._entities.ran_nothing(lease)
            return STALE
        else:
            self._entities.done(lease)
            return reply
        finally:
            self._entities.settle(lease)

    def abandon_batch(self, token: str) -> None:
        """Take back a batch that a worker does not want."""
        lease = self._entities.leased(token)
        if lease is not None:
            self._entities.decline(lease)

    # ------------------------------------------------------------ all

    def _handed_on(self, work: ActorLeases[L], lease: L, unknown: str | None, filter_of: FilterOf) -> bool:
        """Queue work for others if its worker does not know its name, and another may; return whether that is so."""
        state = lease.actor.state
        if state is None or not names.is_told(unknown, state.instance.name):
            return False
        if not self._pool.refuse_name(lease.worker, work.group_of(state.instance), filter_of):
            return False
        work.settle(lease)
        return True

    def _activity_handed_on(self, reminder: Reminder, number: int | None, unknown: str | None) -> bool:
        """Do so for an activity. An earlier delivery that is not known means nothing: others have it, or will."""
        if not names.is_told(unknown, reminder.name):
            return False
        lease = self._activities.leases.get(reminder.id)
        if lease is None or number not in (None, lease.number):
            return True
        if not self._pool.refuse_name(lease.worker, group_of(reminder), workers.of_activities):
            return False
        self._activities.give_back(reminder.id)
        return True

    async def _submit(self, address: Address, decide: Decide) -> Reply:
        return await held(self._engine, lambda: self._engine.submit(address, decide))

    async def _to_its_end(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        """Take an answer to its end, though the connection that it came over breaks meanwhile."""
        reply: Reply = await self._engine.tasks.through(work, "answer of a worker")
        return reply


async def _late(engine: Engine, work: ActorLeases[L], token: str) -> L | None:
    """Return the lease of an answer that comes after it was taken back, if nothing contradicts it."""
    return await held(engine, lambda: work.taken_up(token))


def _answers_nothing(kind: str, peer: str, token: str) -> Reply:
    """Say that a worker has answered what it does not have: late, or again, or without the token of its item."""
    told = log.info if token else log.warning
    told("answer of a worker to what it does not have", to=kind, peer=peer, token=token[:_SHOWN])
    return STALE


def _completed(lease: TurnLease, response: pb.OrchestratorResponse, record: Record | None) -> Decide:
    def decide(at: Context, state: State | None) -> Decision:
        if state is None or lease.turn is None or not is_valid(lease, state):
            return Decision(None, STALE)
        return Decision(turns.complete(at, state, lease.turn, response, record), DONE)

    return decide


def _ran(lease: EntityLease, result: pb.EntityBatchResult) -> Decide:
    def decide(at: Context, state: State | None) -> Decision:
        if state is None or lease.batch is None or not is_valid(lease, state):
            return Decision(None, STALE)
        return Decision(entity.complete(at, state, lease.batch, result), DONE)

    return decide


def _delivery(token: str, store: str) -> tuple[int | None, int | None]:
    """Return the activity and the number of its delivery that a completion token names.

    One of a store that was lost names none: its worker lived on, and order numbers began again here.
    """
    kind, _, rest = token.partition(".")
    activity, _, rest = rest.partition(".")
    number, _, of = rest.partition(".")
    if kind != "a" or of != store or not all(_is_number(text) for text in (activity, number)):
        return None, None
    return int(activity), int(number)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER


def _hub_of(token: str, hub: str) -> str:
    """Return the hub that the token names: a worker answers where it got the item."""
    kind, _, rest = token.partition(".")
    _, found, named = rest.partition(".")
    return named if kind == "t" and found else hub
