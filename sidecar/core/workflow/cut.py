"""Where the log of a failed instance is cut, so that what is left replays and runs again what has failed. Pure.

Any number of whole turns from the beginning of a log replays. So it is cut before the turn that was told of the first
failure of the call that ended the workflow: of its first attempt, where it was tried again. What arrived behind the
cut is kept, if it answers a call that is still made or belongs to none. Activities that have failed there are made
again by the replay.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sidecar.core.workflow import call_emission
from sidecar.schema import taskhub_pb2 as pb

_FAILURES = frozenset({"task_failed", "child_failed"})
_RESULTS = frozenset({"task_completed", "child_completed", "timer_fired"})
_AT_ENTITIES = {"entity_completed": "request_id", "entity_failed": "request_id"}
_RETRIED = frozenset({"task_scheduled", "child_created"})
_ONE_TURN = 2  # the start of a turn and that of the execution: without them there is no log


class Cut(NamedTuple):
    """What is kept: whole turns, and what arrives in the next one."""

    history: list[pb.HistoryEvent]
    arrivals: list[pb.HistoryEvent]


class _End(NamedTuple):
    """The end of a call in a log: where it stands, what was called, and whether it failed."""

    at: int
    called: str
    failed: bool


def before_failure(
    log: Sequence[pb.HistoryEvent], waiting: Sequence[pb.HistoryEvent], failure: pb.FailureDetails | None
) -> Cut:
    """Cut a log of whole turns, behind which some events wait, by the failure with which it ended.

    Without a failed call in it the whole log is kept: the workflow has failed by itself.
    """
    log = [event for event in log if not event.HasField("execution_completed")]
    at = _turn_of(log, _first_failure(log, failure))
    history, behind = list(log[:at]), [*log[at:], *waiting]
    arrivals = _still_of_use(history, behind)
    return Cut(_without_failed(history, behind, arrivals), arrivals)


def _turn_of(log: Sequence[pb.HistoryEvent], index: int) -> int:
    """Return where the turn of an event begins, the end of the log for none; the first turn is never cut."""
    before = range(index, _ONE_TURN - 1, -1) if index < len(log) else ()
    return next((at for at in before if log[at].HasField("orchestrator_started")), len(log))


def _first_failure(log: Sequence[pb.HistoryEvent], failure: pb.FailureDetails | None) -> int:
    """Return where the call that ended the workflow has failed first; behind the log if no call has failed.

    It is the last that failed with a text that the workflow's own failure repeats, else the last that failed. Others
    that failed before it count too, as far as nothing was done in between: several calls made at once.
    """
    ends = _ends(log)
    failed = [end for end in ends if end.failed]
    if not failed:
        return len(log)
    said = _texts(failure)
    told = [end for end in failed if (text := _message(log[end.at])) and text in said]
    first = _first_attempt(ends, (told or failed)[-1])
    for end in reversed([end for end in failed if end.at < first]):
        if any(event.WhichOneof("kind") in call_emission.SENDERS for event in log[end.at : first]):
            break
        first = end.at
    return first


def _ends(log: Sequence[pb.HistoryEvent]) -> list[_End]:
    """Return the ends of activities and children, in their order."""
    made: dict[int, str] = {}
    ends = []
    for index, event in enumerate(log):
        kind, task = event.WhichOneof("kind") or "", call_emission.ended_task(event)
        if kind in _RETRIED:
            made[event.event_id] = _called(event)
        elif task in made and kind != "timer_fired":
            ends.append(_End(index, made[task], kind in _FAILURES))
    return ends


def _called(made: pb.HistoryEvent) -> str:
    """Return what all attempts of a call have in common: what is called, where, and with what."""
    kind = made.WhichOneof("kind") or ""
    call = getattr(made, kind)
    return "\0".join((kind, call.name, made.router.target_app_id, call.input.value))


def _first_attempt(ends: Sequence[_End], last: _End) -> int:
    """Return where the first attempt has failed of a call whose last attempt is given."""
    first = last.at
    for end in reversed([end for end in ends if end.at < last.at and end.called == last.called]):
        if not end.failed:
            break
        first = end.at
    return first


def _message(event: pb.HistoryEvent) -> str:
    kind = event.WhichOneof("kind") or ""
    text: str = getattr(event, kind).failure.error_message
    return text


def _texts(failure: pb.FailureDetails | None) -> str:
    """Return all that a failure and those inside it say."""
    found = []
    while failure is not None:
        found += [failure.error_message, failure.stack_trace.value]
        failure = failure.inner_failure if failure.HasField("inner_failure") else None
    return "\n".join(found)


def _still_of_use(history: Sequence[pb.HistoryEvent], behind: Sequence[pb.HistoryEvent]) -> list[pb.HistoryEvent]:
    """Return what arrived behind a history that it can use: what is raised, and the first result of each open call."""
    left = call_emission.left_open(history)
    tasks = {event.event_id for event in left}
    requests = {event.entity_called.request_id for event in left if event.HasField("entity_called")}
    kept = []
    for event in behind:
        kind, task = event.WhichOneof("kind") or "", call_emission.ended_task(event)
        request = getattr(getattr(event, kind), _AT_ENTITIES[kind]) if kind in _AT_ENTITIES else None
        if kind == "event_raised" or (kind in _RESULTS and task in tasks) or request in requests:
            kept.append(event)
            tasks.discard(-1 if task is None else task)
            requests.discard(request or "")
    return kept


def _without_failed(
    history: Sequence[pb.HistoryEvent], behind: Sequence[pb.HistoryEvent], arrivals: Sequence[pb.HistoryEvent]
) -> list[pb.HistoryEvent]:
    """Return a history without the activities that it leaves open and that have failed: a replay makes them again.

    So code that was mended may give them another input. Nothing in the history hangs on their end.
    """
    failed = {call_emission.ended_task(event) for event in behind if event.HasField("task_failed")}
    failed -= {call_emission.ended_task(event) for event in arrivals}
    left = call_emission.left_open(history)
    gone = {id(event) for event in left if event.HasField("task_scheduled") and event.event_id in failed}
    return [event for event in history if id(event) not in gone]
