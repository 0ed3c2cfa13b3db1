"""Rerun from an event (M69, M70, E.11): which past the new instance gets, and what it asks for again."""

from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.core import events
from sidecar.core.model import CallKind, Kind, Outcome, Position, Rewind, Row, Status
from sidecar.core.workflow import pauses, rerun
from sidecar.core.workflow import state as states
from sidecar.core.workflow.creation import Identity
from sidecar.core.workflow.rerun import RerunRequest, Source
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import (
    ME,
    NOW,
    PARENT,
    SECOND,
    Flow,
    child,
    detach,
    end,
    kind_of,
    one,
    outcome_of,
    result,
    send,
    task,
    text,
    timer,
)

NEW = Identity("default", "again", "again-1")


class Past(Flow):
    """An instance that also keeps its log."""

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[Position, bytes] = {}

    def commit(self, changes):  # type: ignore[no-untyped-def]
        self.log |= {row.position: row.event for row in changes.append}
        return super().commit(changes)

    def source(self) -> Source:
        return Source(
            self.instance, [self.log[at] for at in sorted(self.log) if at.turn <= self.instance.last_completed_turn]
        )


def done() -> Past:
    """An instance that has ended; of its first turn 1 was answered and the rest was open when 6 was asked for."""
    flow = Past()
    flow.start()
    flow.turn(
        *(
            task(1, "quick"),
            task(2, "slow", app="ml"),
            child(3, "kid"),
            timer(4),
            send(5, "friend"),
            detach(7, "report"),
        )
    )
    made = {reminder.call.task: reminder for reminder in flow.last.set if reminder.kind is not Kind.EVENT}
    flow.take(pauses.suspend(flow.at, flow.live, None))
    flow.take(pauses.resume(flow.at, flow.live, None))
    flow.arrive(result(made[1]))
    flow.turn(task(6, "late"), child(8, "second"), timer(9))
    flow.turn(end(result='"done"'))
    return flow


def again(flow: Past, event_id: int, **changed: object) -> Flow:
    """The new instance."""
    fresh = Flow(now=flow.now)
    decision = rerun.rerun(fresh.at, None, flow.source(), NEW, RerunRequest(event_id, **changed))  # type: ignore[arg-type]
    assert decision.reply.outcome is Outcome.DONE, decision.reply
    fresh.take(decision)
    return fresh


def past_of(fresh: Flow) -> list[bytes]:
    return [row.event for row in fresh.last.append]


def test_the_past_is_copied_up_to_the_event_and_a_turn_comes_with_the_first_answer() -> None:
    """E.15: it runs from the beginning, and no turn without news is between the past and the answer."""
    flow = done()
    fresh = again(flow, 6)
    assert [kind_of(event) for event in past_of(fresh)] == [
        *("orchestrator_started", "execution_started", "task_scheduled", "task_scheduled", "child_created"),
        *("timer_created", "event_sent", "detached_created", "orchestrator_started", "task_completed"),
        "task_scheduled",
    ]
    instance = fresh.instance
    assert (instance.status, instance.rewind, instance.ready) == (Status.RUNNING, Rewind.NO, False)
    assert instance.started_at == fresh.now
    assert (instance.id, instance.execution, instance.name, instance.parent) == ("again", "again-1", "order", None)
    fresh.arrive(result(next(one for one in fresh.last.set if one.call.task == 6)))
    turn = fresh.begin()
    assert ([kind_of(row.event) for row in turn.rows], turn.number) == (["task_completed"], 2)
    assert turn.time >= flow.instance.workflow_time - SECOND
    fresh.complete(turn, end())
    assert fresh.instance.status is Status.COMPLETED


def test_it_has_its_own_ids_and_the_original_stays_as_it_is() -> None:
    flow = done()
    before, log = flow.instance, dict(flow.log)
    fresh = again(flow, 6)
    started = events.decode(past_of(fresh)[1]).execution_started
    assert (started.instance.instance_id, started.instance.execution_id.value) == ("again", "again-1")
    assert dict(started.tags) == {"kind": "big"}
    assert (flow.instance, flow.log) == (before, log)


def test_what_the_past_leaves_open_is_asked_for_again() -> None:
    """M70: children in flight are run again under fresh IDs; a timer keeps its time."""
    fresh = again(done(), 6)
    assert {number: call.kind for number, call in fresh.open.items()} == {
        **{2: CallKind.ACTIVITY, 3: CallKind.CHILD, 4: CallKind.TIMER, 5: CallKind.EVENT, 6: CallKind.ACTIVITY},
        7: CallKind.EVENT,
    }
    assert {call.call for call in fresh.open.values()} == {("again-1", 1, number) for number in (2, 3, 4, 5, 6, 7)}
    sent = {(reminder.kind, reminder.call.task): reminder for reminder in fresh.last.set}
    assert set(sent) == {(Kind.ACTIVITY, 2), (Kind.ACTIVITY, 6), (Kind.CREATE, 3), (Kind.TIMER, 4)}
    assert sent[Kind.ACTIVITY, 2].target.app == "ml"
    assert sent[Kind.ACTIVITY, 6].target.id == "again::6::1"
    assert sent[Kind.CREATE, 3].target == ME.workflow("default", "again:0003")
    assert sent[Kind.TIMER, 4].due == NOW + 60 * SECOND
    assert [one.actor.id for one in fresh.state.children.values()] == ["again:0003"]
    created = [events.decode(event).child_created.instance_id for event in past_of(fresh)]
    assert "kid" not in created


def test_a_call_that_is_made_again_passes_on_the_new_instance_s_history_as_it_was_asked_to() -> None:
    """E.15: all that the new instance begins with, the calls that it makes again included, under its own ID."""
    flow = Past()
    flow.start()
    flow.turn(task(1, "asks", history_propagation_scope=2), task(2, "does not"), task(3, "target"))
    flow.turn(end())
    fresh = again(flow, 3)
    given = {reminder.call.task: pb.ActivityRequest.FromString(reminder.payload).lineage for reminder in fresh.last.set}
    assert (given[2], given[3]) == (b"", b"")
    [own] = pb.PropagatedHistory.FromString(given[1]).chunks
    assert (own.app_id, own.instance_id, own.workflow_name) == ("orders", "again", "order")
    assert list(own.raw_events) == past_of(fresh)


def test_a_child_that_had_ended_is_not_made_again() -> None:
    flow = Past()
    flow.start()
    flow.turn(child(1, "kid"))
    flow.arrive(result(one(flow.last.set, Kind.CREATE)))
    flow.turn(task(2))
    flow.turn(end())
    fresh = again(flow, 2)
    assert set(fresh.open) == {2}
    assert [events.decode(event).child_created.instance_id for event in past_of(fresh)][2] == "kid"


def test_a_pause_of_the_original_is_none_of_the_new_one() -> None:
    assert not any("suspended" in kind_of(event) or "resumed" in kind_of(event) for event in past_of(again(done(), 6)))


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, None),
        ({"input": text("7")}, None),
        ({"input": text("7"), "overwrite": True}, "7"),
        ({"overwrite": True}, ""),
    ],
)
def test_the_input_is_another_only_if_that_is_asked_for(changed: dict[str, object], wanted: str | None) -> None:
    flow = Past()
    flow.start()
    flow.turn(task(1, input=text("1")), end())
    fresh = again(flow, 1, **changed)
    request = pb.ActivityRequest.FromString(one(fresh.last.set, Kind.ACTIVITY).payload)
    assert request.input.value == ("1" if wanted is None else wanted)
    assert request.HasField("input") is (wanted != "")


def test_another_input_has_the_form_of_who_gives_it_and_the_old_one_keeps_its_own() -> None:
    flow = Past()
    flow.start()
    flow.turn(task(1, input=text("[1]"), input_form=2), end())
    for changed, form in (({}, 2), ({"input": text("[1]"), "overwrite": True, "input_form": 1}, 1)):
        fresh = again(flow, 1, **changed)
        request = pb.ActivityRequest.FromString(one(fresh.last.set, Kind.ACTIVITY).payload)
        assert request.input_form == form


def test_the_child_of_the_event_gets_the_id_that_was_asked_for() -> None:
    flow = done()
    fresh = again(flow, 8, child_id="mine", input=text("1"), overwrite=True)
    created = {reminder.call.task: reminder for reminder in fresh.last.set if reminder.kind is Kind.CREATE}
    assert {number: reminder.target.id for number, reminder in created.items()} == {3: "again:0003", 8: "mine"}
    assert events.decode(created[8].payload).execution_started.input.value == "1"
    assert again(flow, 8).state.children.popitem()[1].actor.id == "again:0008"


@pytest.mark.parametrize("number", [6, 8, 9])
def test_the_event_says_what_it_was_rerun_from(number: int) -> None:
    event = events.decode(past_of(again(done(), number))[-1])
    assert getattr(event, event.WhichOneof("kind") or "").rerun_parent.instance_id == "w"


REFUSED = {
    "still running": (6, {}, Outcome.INVALID, "not in a terminal state"),
    "a child": (6, {}, Outcome.INVALID, "cannot rerun from child-workflows"),
    "no such event": (77, {}, Outcome.MISSING, "does not have history event with ID '77'"),
    "an event without a number": (-1, {}, Outcome.MISSING, "'-1'"),
    "an event that was sent": (5, {}, Outcome.MISSING, "'*protos.HistoryEvent_EventSent' with ID '5'"),
    "the end": (99, {}, Outcome.MISSING, "'*protos.HistoryEvent_ExecutionCompleted' with ID '99' is not an event that"),
    "a detached workflow": (7, {}, Outcome.INVALID, "detached"),
    "input for a timer": (9, {"overwrite": True}, Outcome.INVALID, "timer event '9'"),
    "a child for a timer": (9, {"child_id": "x"}, Outcome.INVALID, "timer event '9'"),
    "a child for an activity": (6, {"child_id": "x"}, Outcome.INVALID, "activity event '6'"),
    "a child with an ID that cannot be": (8, {"child_id": "a\nb"}, Outcome.INVALID, "control"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_rerun_is_refused_and_says_why(case: str) -> None:
    number, changed, outcome, said = REFUSED[case]
    source = done().source()
    if case == "still running":
        source = source._replace(instance=replace(source.instance, status=Status.RUNNING))
    if case == "a child":
        source = source._replace(instance=replace(source.instance, parent=PARENT))
    fresh = Flow()
    decision = rerun.rerun(fresh.at, None, source, NEW, RerunRequest(number, **changed))
    assert decision.changes is None
    assert decision.reply.outcome is outcome
    assert said in decision.reply.text


def test_an_id_that_is_taken_is_refused_even_if_its_instance_has_ended() -> None:
    for occupant in (Flow().start(), done()):
        decision = rerun.rerun(occupant.at, occupant.live, done().source(), NEW, RerunRequest(6))
        assert (decision.changes, decision.reply.outcome) == (None, Outcome.EXISTS)


def test_the_new_instance_is_loaded_as_it_was_made_and_takes_answers() -> None:
    fresh = again(done(), 6)
    late = one([reminder for reminder in fresh.last.set if reminder.name == "late"], Kind.ACTIVITY)
    rows = [row for row in fresh.last.append if row.turn > fresh.instance.last_completed_turn]
    loaded = states.load(fresh.instance, replace_state(fresh), rows)
    assert (loaded.tail, loaded.inbox) == (fresh.state.tail, fresh.state.inbox)
    fresh.arrive(result(late, outcome_of(late)))
    assert [row.turn for row in fresh.state.inbox] == [2]


def replace_state(fresh: Flow) -> states.State:
    return states.State(fresh.instance, dict(fresh.open), dict(fresh.state.children))


def test_rows_of_the_past_are_in_order() -> None:
    rows = again(done(), 6).last.append
    assert rows == tuple(sorted(rows, key=Row.position.fget))  # type: ignore[attr-defined]


def test_a_replay_is_due_where_nothing_comes_by_itself() -> None:
    """From a wait without a time-out: what its turn has made behind it is made by a replay."""
    flow = Past()
    flow.start()
    flow.turn(timer(1, Timestamp(seconds=events.NEVER_SECONDS), origin_external_event=b"\x0a\x01x"), task(2))
    flow.turn(end())
    fresh = again(flow, 1)
    assert (fresh.instance.status, fresh.instance.rewind, fresh.instance.ready) == (Status.RUNNING, Rewind.REPLAY, True)
    fresh.complete(fresh.begin(), task(2))
    assert set(fresh.open) == {1, 2}
