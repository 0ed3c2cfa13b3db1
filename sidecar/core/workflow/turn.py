"""A turn: what is handed to a worker (`begin`), and what its answer changes (`complete`)."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from sidecar.core import events
from sidecar.core.attempts import NONE
from sidecar.core.errors import OvertakenError, UnsupportedActionError
from sidecar.core.identity import Context
from sidecar.core.model import FIRST_ARRIVAL, Changes, Instance, Position, Rewind, Row, State, Status, Turn
from sidecar.core.workflow import calls, next_execution, propagated_history, stalls, waits
from sidecar.core.workflow import state as states
from sidecar.core.workflow.actions import carry_out
from sidecar.core.workflow.calls import Draft, Lineage
from sidecar.core.workflow.rewind import Record
from sidecar.schema import taskhub_pb2 as pb

_STARTED_AND_ONE = 2
_MOST_TRACE_BYTES = 1024  # an ID and a time take some thirty
_KEPT_TURNS = 100  # of children that have ended: an execution that continues as new forgets those of earlier turns
_PART_BYTES = 1024 * 1024  # of events that are moved together: small beside what any worker receives
_ENDS = frozenset({Status.COMPLETED, Status.FAILED, Status.TERMINATED, Status.CANCELED, Status.CONTINUED_AS_NEW})


def begin(state: State, now: int, token: str, most: int | None = None) -> Turn:
    """Make the inbox a turn, or at most its first `most` events, but at least one.

    The caller sets `state.tail` to `after`, so that later arrivals are not part of it.
    """
    rows = tuple(state.inbox)
    if most is not None:
        rows = rows[: _end_within(rows, most)]
    time = events.clock_after(rows, max(now, state.instance.workflow_time))
    instance = state.instance
    return Turn(
        instance.key,
        instance.execution,
        max((row.turn for row in rows), default=instance.last_completed_turn + 1),
        token,
        events.orchestrator_started(time),
        time,
        rows,
    )


def _end_within(rows: tuple[Row, ...], most: int) -> int:
    """Return how many of these rows make a turn of at most `most` events, but at least one.

    It ends where the log has the end of a turn, if it can: then nothing has to be moved.
    """
    if most >= len(rows):
        return len(rows)
    ends = (count for count in range(most, 0, -1) if rows[count - 1].turn < rows[count].turn)
    return next(ends, max(1, most))


def after(state: State, turn: Turn) -> Position:
    """Return where arrivals go while a worker has the turn."""
    return max(state.tail, Position(turn.number + 1, FIRST_ARRIVAL))


def close_again(state: State, turn: Turn) -> bool:
    """Close a turn over a state that was read anew, as if it had just been handed out; False if it does not fit.

    What it covers must be the first that waits: else its answer would stand for events that no worker has seen.
    """
    instance = state.instance
    first = tuple(state.inbox[: len(turn.rows)])
    if (instance.key, instance.execution, first) != (turn.key, turn.execution, turn.rows):
        return False
    state.tail = after(state, turn)
    return turn.number > instance.last_completed_turn


def complete(
    at: Context, state: State, turn: Turn, response: pb.OrchestratorResponse, record: Record | None = None
) -> Changes:
    """Return what a worker's answer to a turn changes.

    `response` is in neutral form. An answer that cannot be carried out fails the instance, with the reason.
    `record` is what was read of the instance, for history that is passed on.

    Raises:
        OvertakenError: the instance was terminated, suspended, replaced or continued meanwhile.
        StalledError: the worker lacks the version or the patches that the instance needs.
    """
    _check_current(state.instance, turn)
    stalls.check(state.instance, response)
    turn = _processed(turn, response)
    draft = Draft(at, state, turn.number)
    if record is not None:
        draft.lineage = Lineage([*record.log, *turn.events], record.lineage)
    ending = next((action for action in response.actions if action.WhichOneof("kind") == "complete"), None)
    try:
        if ending is not None and ending.complete.status not in _ENDS:
            raise UnsupportedActionError(f"an execution cannot end with status {ending.complete.status}")
        draft.ending = ending is not None
        draft.sent_before = calls.first_sent(state)
        for action in response.actions:
            if action.WhichOneof("kind") != "complete":  # of several the first one counts
                carry_out(draft, action)
    except UnsupportedActionError as error:
        draft = Draft(at, state, turn.number, ending=True)
        ending = _failed_by_us(str(error))
    draft.waiting = _behind(state, turn)
    if ending is None:
        return _go_on(draft, turn, response)
    if ending.complete.status == Status.CONTINUED_AS_NEW:
        return _continue_as_new(draft, turn, ending.complete, response)
    return _end(draft, turn, ending, response)


def processes_nothing(response: pb.OrchestratorResponse) -> bool:
    """Whether a worker says that it has processed nothing but the start of the turn: the instance would never go on."""
    return response.HasField("num_events_processed") and response.num_events_processed.value < _STARTED_AND_ONE


def _processed(turn: Turn, response: pb.OrchestratorResponse) -> Turn:
    """Return the turn with the events that the worker has processed. The first event is its start."""
    if not response.HasField("num_events_processed"):
        return turn
    return replace(turn, rows=turn.rows[: max(0, response.num_events_processed.value - 1)])


def _behind(state: State, turn: Turn) -> tuple[Row, ...]:
    """Return what waits that is no part of a turn."""
    end = turn.rows[-1].position if turn.rows else Position(turn.number, FIRST_ARRIVAL - 1)
    return tuple(state.inbox[bisect_right(state.inbox, end, key=states.POSITION) :])


def _check_current(instance: Instance, turn: Turn) -> None:
    same = (instance.key, instance.execution) == (
        turn.key,
        turn.execution,
    ) and turn.number > instance.last_completed_turn
    if not same or instance.suspended or instance.status.terminal:
        raise OvertakenError(f"turn {turn.number} was overtaken")


def _failed_by_us(message: str) -> pb.Action:
    details = events.failure("UnsupportedAction", message, retriable=False)
    return pb.Action(id=-1, complete=pb.Complete(status=Status.FAILED, failure=details))


# ---------------------------------------------------------------- outcomes of a turn


def _closing_rows(draft: Draft, turn: Turn, response: pb.OrchestratorResponse) -> tuple[Row, ...]:
    """Return the rows that complete a turn: its start, in front of its events, and the confirmations behind them."""
    version = stalls.news(draft.state.instance, response.version)
    started = events.orchestrator_started(turn.time, version) if version.ByteSize() else turn.started
    last = max((row.event_index for row in turn.rows if row.turn == turn.number), default=0)
    index = max(last + 1, FIRST_ARRIVAL)
    rows = [Row(draft.state.instance.last_completed_turn + 1, 0, started)]
    rows.extend(Row(turn.number, index + offset, event) for offset, event in enumerate(draft.confirmed))
    return tuple(rows)


def _base(draft: Draft, response: pb.OrchestratorResponse, turn: Turn) -> dict[str, Any]:
    instance = draft.state.instance
    fields: dict[str, Any] = {
        "last_completed_turn": turn.number,
        "rewind": Rewind.NO,
        "workflow_time": turn.time,
        "started_at": instance.started_at if instance.started_at is not None else turn.time,
        "detached": instance.detached + draft.detached,
        "stall": None,
        "crashes": NONE,
        "recorded": stalls.recorded(instance, response.version),
    }
    if 0 < len(response.orchestration_trace) <= _MOST_TRACE_BYTES:
        fields["orchestration_trace"] = response.orchestration_trace
    if response.HasField("custom_status") or response.without_custom_status:
        fields["custom_status"] = response.custom_status.value or None  # an empty one says that there is none
    return fields


def _go_on(draft: Draft, turn: Turn, response: pb.OrchestratorResponse) -> Changes:
    for task in waits.met(draft.state.open, turn.rows, draft.waiting):
        draft.closed.append(task)
        draft.dropped.extend([draft.state.open[task].reminder] if draft.state.open[task].reminder else [])
    draft.closed.extend(calls.sent_long_ago(draft.state))
    cut, moved = _moved(draft, turn)
    if cut is None:
        moved = states.arrive(draft.state, draft.arrivals)
    fields = _base(draft, response, turn) | {"status": Status.RUNNING}
    return _changes(
        draft,
        states.touched(draft.state, draft.now, len(moved), **fields),
        append=_closing_rows(draft, turn, response) + moved,
        truncate=cut,
    )


def _moved(draft: Draft, turn: Turn) -> tuple[Position | None, tuple[Row, ...]]:
    """Return where the log is cut and the rows that follow: what the turn did not process is first in the next one."""
    if not draft.waiting or draft.waiting[0].turn > turn.number:
        return None, ()
    moved = [*(row.event for row in draft.waiting), *draft.arrivals]
    return draft.waiting[0].position, tuple(_in_parts(moved, turn.number + 1))


def _in_parts(moved: Iterable[bytes], number: int) -> Iterator[Row]:
    """Yield the rows of events that are moved to the turn of this number, and to turns after it when they are many.

    The next turns can then end between two parts, and what waits is not moved again with each of them.
    """
    size, index = 0, FIRST_ARRIVAL
    for event in moved:
        if size and size + len(event) > _PART_BYTES:
            number, size, index = number + 1, 0, FIRST_ARRIVAL
        yield Row(number, index, event)
        size, index = size + len(event), index + 1


def _changes(draft: Draft, instance: Instance, **fields: Any) -> Changes:
    return Changes(
        key=instance.key,
        expected=draft.state.instance.revision,
        instance=instance,
        opened=tuple(draft.opened.values()),
        closed=tuple(draft.closed),
        children=tuple(draft.children),
        set=tuple(draft.reminders),
        dropped=tuple(draft.dropped),
        released=tuple(draft.released),
        **fields,
    )


def _end(draft: Draft, turn: Turn, ending: pb.Action, response: pb.OrchestratorResponse) -> Changes:
    complete_ = ending.complete
    calls.end_all(draft, withdraw=complete_.status == Status.TERMINATED)
    result = complete_.result if complete_.HasField("result") else None
    calls.answer_parent(draft, _answer(draft, complete_))
    details = complete_.failure.SerializeToString(deterministic=True) if complete_.HasField("failure") else None
    fields = _base(draft, response, turn) | {
        "status": Status(complete_.status),
        "completed_at": draft.now,
        "failure": details,
        "ended_by": ending.id,
    }
    cut, moved = _moved(draft, turn)
    return _changes(
        draft,
        states.touched(draft.state, draft.now, 0, **fields),
        append=_closing_rows(draft, turn, response) + moved,
        truncate=cut,
        output=None if result is None else result.value,
        close_all=True,
    )


def _answer(draft: Draft, complete_: pb.Complete) -> bytes:
    parent = draft.state.instance.parent
    task = parent.call.task if parent else 0
    if complete_.status == Status.COMPLETED:
        return events.child_completed(draft.now, task, complete_.result if complete_.HasField("result") else None)
    if complete_.HasField("failure"):
        return events.child_failed(draft.now, task, complete_.failure)
    name = Status(complete_.status).name.lower()
    message = f"child workflow '{draft.state.instance.id}' was {name}"
    return calls.failed_child(draft.now, task, f"Workflow{name.capitalize()}", message)


def _continue_as_new(draft: Draft, turn: Turn, complete_: pb.Complete, response: pb.OrchestratorResponse) -> Changes:
    calls.end_all(draft, withdraw=True)
    instance = replace(draft.state.instance, execution=next_execution.id_after(draft.state.instance.execution))
    if complete_.HasField("new_version"):
        instance = replace(instance, version=complete_.new_version.value)
    carried = list(events.carried_over(complete_.carryover_events, draft.now))
    carried += [row.event for row in draft.waiting if events.belongs_to_no_call(row.event)]
    trace = next_execution.new_root(instance, draft.at.ids)
    new_input = complete_.result if complete_.HasField("result") else None
    begun = next_execution.start_event(draft.me, instance, new_input, draft.now, trace)
    rows = [Row(turn.number + 1, 1, begun)]
    rows += [Row(turn.number + 1, FIRST_ARRIVAL + offset, event) for offset, event in enumerate(carried)]
    fields = _base(draft, response, turn) | {
        "execution": instance.execution,
        "version": instance.version,
        "recorded": b"",
        "custom_status": None,
        "status": Status.RUNNING,
        "trace": trace,
        "orchestration_trace": b"",
    }
    return _changes(
        draft,
        states.touched(draft.state, draft.now, len(rows), **fields),
        append=tuple(rows),
        truncate=Position(0, 0),
        close_all=True,
        continues=draft.state.instance,
        forgets_before=max(0, turn.number - _KEPT_TURNS),
        lineage=propagated_history.of_next(draft),
    )
