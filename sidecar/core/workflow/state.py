"""How changes are applied to the state of an instance in memory."""

from bisect import bisect_left
from dataclasses import replace
from operator import itemgetter
from typing import Any

from sidecar.core.model import FIRST_ARRIVAL, Changes, Instance, Position, Row, State, Status

POSITION = itemgetter(slice(2))  # of a row, as fast as it gets: an inbox is in the order of these


def new(instance: Instance) -> State:
    """Return the state of an instance that has only just been created."""
    return State(instance)


def load(instance: Instance, state: State, rows: list[Row]) -> State:
    """Put the inbox of a stored instance into its state and find where the next arrival goes."""
    state.inbox = rows
    if rows:
        state.tail = Position(rows[-1].turn, max(rows[-1].event_index + 1, FIRST_ARRIVAL))
    else:
        state.tail = Position(instance.last_completed_turn + 1, FIRST_ARRIVAL)
    state.tail = max(state.tail, _floor(instance))
    return state


def _floor(instance: Instance) -> Position:
    """Return the first position for arrivals."""
    return Position(instance.last_completed_turn + 1, FIRST_ARRIVAL)


def apply(state: State | None, changes: Changes) -> State | None:
    """Apply changes that are about to be committed. If the commit fails, the caller drops the state.

    Returns the state, which is changed in place, or None if the instance is removed.
    """
    if changes.purged:
        return None
    if changes.instance is None:
        return state
    if state is None or changes.replaces or not changes.expected:
        state = new(changes.instance)
    state.instance = changes.instance
    _calls(state, changes)
    _log(state, changes)
    return state


def _calls(state: State, changes: Changes) -> None:
    if changes.close_all:
        state.open.clear()
    for task in changes.closed:
        state.open.pop(task, None)
    for call in changes.opened:
        state.open[call.call.task] = call
    for call_id in changes.ended:
        state.children.pop(call_id, None)
    for child in changes.children:
        state.children[child.call] = child


def _log(state: State, changes: Changes) -> None:
    last_completed_turn = state.instance.last_completed_turn
    if changes.truncate is not None:
        state.inbox = state.inbox[: bisect_left(state.inbox, changes.truncate, key=POSITION)]
    if changes.removed:
        gone = set(changes.removed)
        state.inbox = [row for row in state.inbox if row.position not in gone]
    if state.inbox and state.inbox[0].turn <= last_completed_turn:
        state.inbox = [row for row in state.inbox if row.turn > last_completed_turn]
    fresh = [row for row in changes.append if row.turn > last_completed_turn]
    if fresh:
        start = [row for row in fresh if row.event_index < FIRST_ARRIVAL]
        state.inbox = start + state.inbox + fresh[len(start) :] if start else state.inbox + fresh
        state.tail = max(state.tail, Position(fresh[-1].turn, max(fresh[-1].event_index + 1, FIRST_ARRIVAL)))
    state.tail = max(state.tail, _floor(state.instance))


def ready(state: State, instance: Instance, arrivals: int) -> bool:
    """Whether a turn can be handed out once `arrivals` more events are in the inbox."""
    waiting = arrivals or instance.rewind or any(row.turn > instance.last_completed_turn for row in state.inbox)
    runnable = instance.began and not instance.suspended and not instance.crashes.quarantined
    return bool(waiting and runnable and not instance.status.terminal)


def arrive(state: State, events: list[bytes]) -> tuple[Row, ...]:
    """Return the rows of events that are appended to the inbox."""
    turn, index = state.tail
    return tuple(Row(turn, index + offset, event) for offset, event in enumerate(events))


def touched(state: State, now: int, arrivals: int, **fields: Any) -> Instance:
    """Return the instance's row after a step, with these fields, the next revision, its time and its readiness."""
    instance = replace(
        state.instance,
        revision=state.instance.revision + 1,
        updated_at=max(now, state.instance.updated_at),
        **fields,
    )
    return replace(instance, ready=ready(state, instance, arrivals))


def live_status(instance: Instance) -> Status:
    """Return the status of an instance that is neither ended nor suspended."""
    return Status.PENDING if instance.started_at is None else Status.RUNNING
