"""Rewind (E.11): what a failed instance becomes, and its children with it."""

from dataclasses import replace

import pytest

from sidecar.core import delivery, events, operations
from sidecar.core.delivery import Arrival
from sidecar.core.model import CallKind, Decision, Kind, Outcome, Position, Reminder, Rewind, Row, State, Status
from sidecar.core.workflow import rewind
from sidecar.core.workflow import state as states
from sidecar.core.workflow.rewind import Record
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import (
    ME,
    ML,
    NOW,
    PARENT,
    SECOND,
    Flow,
    child,
    detach,
    end,
    kind_of,
    kinds,
    message,
    one,
    outcome_of,
    result,
    send,
    task,
    text,
    timer,
)


class Kept(Flow):
    """An instance that also keeps its log and its children, as a store does."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.log: dict[Position, bytes] = {}
        self.output: str | None = None

    def commit(self, changes):  # type: ignore[no-untyped-def]
        if changes.key:
            cut = changes.truncate
            self.log = {at: event for at, event in self.log.items() if cut is None or at < cut}
            self.log |= {row.position: row.event for row in changes.append}
            self.children = {**getattr(self, "children", {}), **{one.call: one for one in changes.children}}
            self.output = None if changes.reopened else changes.output or self.output
        return super().commit(changes)

    def last_completed_turn(self) -> list[bytes]:
        return [self.log[at] for at in sorted(self.log) if at.turn <= self.instance.last_completed_turn]

    def record(self) -> Record:
        instance = self.instance
        return Record(
            instance.last_completed_turn,
            instance.execution,
            self.last_completed_turn(),
            tuple(self.children.values()),
            self.output,
        )

    def rewind(self, *, reason: str | None = "mended") -> Decision:
        return self.take(rewind.rewind(self.at, self.live, text(reason), self.record(), self.at.ids.new_id()))

    def reload(self) -> None:
        """Read it from what is stored, as after a crash."""
        rows = [Row(*at, self.log[at]) for at in sorted(self.log) if at.turn > self.instance.last_completed_turn]
        fresh = State(self.instance, dict(self.state.open), dict(self.state.children))
        self.live = states.load(self.instance, fresh, rows)


def failed(number: int, kind: str = "Boom") -> pb.HistoryEvent:
    return events.decode(events.task_failed(NOW, number, events.failure(kind, "no luck")))


def broken(*, parent: bool = False) -> Kept:
    """An instance that failed with its second activity; the first had succeeded, and much is still open."""
    flow = Kept()
    flow.start(parent=PARENT if parent else None)
    flow.turn(
        task(1),
        task(2, "flaky"),
        child(3, "kid"),
        timer(4),
        task(5, "slow", app="ml"),
        send(6, "friend"),
        detach(7, "r"),
    )
    made = {reminder.call.task: reminder for reminder in flow.last.set if reminder.kind is not Kind.EVENT}
    flow.arrive(result(made[1]))
    flow.arrive(result(made[2], events.encode(failed(2))))
    flow.turn(end(Status.FAILED, failure=events.failure("Boom", "no luck")))
    assert flow.instance.status is Status.FAILED
    assert flow.open == {}
    return flow


KEPT = [
    *("orchestrator_started", "execution_started", "task_scheduled", "child_created", "timer_created"),
    *("task_scheduled", "event_sent", "detached_created"),
    *("orchestrator_started", "execution_rewound"),
]


@pytest.mark.parametrize("status", [None, *(one for one in Status if one is not Status.FAILED)])
def test_only_an_instance_that_has_failed_is_rewound(status: Status | None) -> None:
    flow = broken()
    state = None if status is None else State(replace(flow.instance, status=status))
    decision = rewind.rewind(flow.at, state, None, flow.record(), "new")
    assert decision.changes is None
    assert decision.reply.outcome is (Outcome.MISSING if state is None else Outcome.WRONG_STATE)


def test_what_was_read_of_an_instance_that_has_gone_on_is_not_used() -> None:
    flow = broken()
    for old in (None, flow.record()._replace(last_completed_turn=1), flow.record()._replace(execution="other")):
        assert rewind.rewind(flow.at, flow.live, None, old, "new").reply.outcome is Outcome.UNAVAILABLE


# ---------------------------------------------------------------- the new history


def test_the_log_is_cut_before_the_turn_with_the_failure_and_what_came_with_it_is_news() -> None:
    flow = broken()
    execution = flow.instance.execution
    flow.rewind()
    assert [kind_of(event) for event in flow.last_completed_turn()] == KEPT
    assert kinds(flow.state.inbox) == ["task_completed"]
    assert (flow.instance.status, flow.instance.rewind, flow.instance.ready) == (Status.RUNNING, Rewind.REPLAY, True)
    assert flow.last.reopened
    assert flow.instance.execution not in ("", execution)
    assert (
        events.decode(flow.last_completed_turn()[1]).execution_started.instance.execution_id.value
        == flow.instance.execution
    )
    assert events.decode(flow.last_completed_turn()[-1]).execution_rewound.reason.value == "mended"


def test_what_is_left_open_is_opened_again_as_new_calls() -> None:
    """Design 3: turn numbers go on, so that an answer to an old call is none to the new one."""
    flow = broken()
    old = flow.instance.last_completed_turn
    flow.rewind()
    opened = {number: (call.kind, call.call.turn) for number, call in flow.open.items()}
    assert opened == {
        3: (CallKind.CHILD, 1),
        4: (CallKind.TIMER, old + 1),
        5: (CallKind.ACTIVITY, old + 1),
        6: (CallKind.EVENT, old + 1),
        7: (CallKind.EVENT, old + 1),
    }
    sent = {reminder.kind: reminder for reminder in flow.last.set}
    assert set(sent) == {Kind.REWIND, Kind.TIMER, Kind.ACTIVITY}
    assert (sent[Kind.TIMER].due, sent[Kind.ACTIVITY].kept_until_result) == (NOW + 60 * SECOND, True)
    assert sent[Kind.ACTIVITY].call == (flow.instance.execution, old + 1, 5)
    late = replace(sent[Kind.ACTIVITY], call=sent[Kind.ACTIVITY].call._replace(execution="w-1", turn=1))
    assert flow.arrive(result(late), message(9)).reply.outcome is Outcome.DUPLICATE
    assert flow.arrive(result(sent[Kind.ACTIVITY]), message(10)).reply.outcome is Outcome.DONE


def test_a_call_that_is_made_again_has_the_form_of_its_input() -> None:
    flow = Kept()
    flow.start()
    flow.turn(task(1, "weak", input=text("[1]"), input_form=2), task(2, "slow", input=text("[[1]]"), input_form=2))
    weak = next(reminder for reminder in flow.last.set if reminder.name == "weak")
    flow.arrive(result(weak, events.encode(failed(1))))
    flow.turn(end(Status.FAILED, failure=events.failure("Boom", "no luck")))
    flow.rewind()
    sent = next(reminder for reminder in flow.last.set if reminder.name == "slow")
    assert pb.ActivityRequest.FromString(sent.payload).input_form == 2


def test_a_call_that_is_made_again_passes_on_the_new_history_as_it_was_asked_to() -> None:
    given = pb.PropagatedHistory(scope=2, chunks=[pb.PropagatedChunk(app_id="front", instance_id="boss")])
    flow = Kept()
    flow.start()
    flow.turn(task(1, "asks", app="ml", history_propagation_scope=2))
    flow.turn(end(Status.FAILED, failure=events.failure("Boom", "no luck")))
    record = flow.record()._replace(lineage=given.SerializeToString())
    flow.take(rewind.rewind(flow.at, flow.live, None, record, "new"))
    request = pb.ActivityRequest.FromString(one(flow.last.set, Kind.ACTIVITY).payload)
    caller, own = pb.PropagatedHistory.FromString(request.lineage).chunks
    assert caller == given.chunks[0]
    assert list(own.raw_events) == flow.last_completed_turn()


def test_what_waited_unseen_is_kept_but_for_failures_which_are_tried_again() -> None:
    flow = Kept().start()
    flow.turn(task(1), task(2), task(3))
    made = {reminder.call.task: reminder for reminder in flow.last.set}
    flow.arrive(result(made[1], events.encode(failed(1))))
    turn = flow.begin()
    flow.arrive(result(made[2]))
    flow.arrive(result(made[3], events.encode(failed(3))))
    flow.event("paid")
    flow.complete(turn, end(Status.FAILED))
    flow.rewind()
    assert kinds(flow.state.inbox) == ["task_completed", "event_raised"]
    assert set(flow.open) == set()
    assert "task_failed" not in [kind_of(event) for event in flow.last_completed_turn()]


# ---------------------------------------------------------------- children


def of_child(flow: Kept) -> Reminder:
    return one(flow.last.set, Kind.REWIND)


def test_a_child_is_rewound_by_the_call_that_created_it() -> None:
    flow = broken()
    flow.rewind()
    order = of_child(flow)
    made = next(iter(flow.children.values()))
    assert (order.target, order.kept_until_result) == (ME.workflow("default", "kid"), False)
    assert (order.call, rewind.made_by(order)) == (
        made.call._replace(execution=flow.instance.execution),
        made.call,
    )
    wanted = events.decode(order.payload).execution_rewound
    assert (wanted.reason.value, wanted.parent_execution_id.value) == ("mended", flow.instance.execution)
    assert (wanted.name.value, wanted.instance_id.value) == ("ship", "kid")
    assert flow.state.children == {made.call: made}


def kid(status: Status | None, result_: str | None = None) -> Kept:
    """The child of that parent, in a status."""
    parent = broken()
    parent.rewind()
    order = of_child(parent)
    there = Kept()
    there.order = order  # type: ignore[attr-defined]
    if status is None:
        return there
    born = replace(rewind.as_creation(there.at, order), id=900, call=rewind.made_by(order))
    there.take(delivery.arrive(there.at, None, Arrival(born, consumed=(900,))))
    if status is Status.TERMINATED:
        there.take(operations.terminate(there.at, there.live, None, recurse=False))
    elif status is not Status.RUNNING:
        there.turn(end(status, result_))
    else:
        there.turn()
    return there


def tell(there: Kept, order: Reminder | None = None) -> Decision:
    order = order or there.order  # type: ignore[attr-defined]
    record = there.record() if there.live is not None else None
    return there.take(delivery.arrive(there.at, there.live, Arrival(order, consumed=(order.id,), record=record)))


def test_a_child_that_has_failed_is_rewound() -> None:
    there = kid(Status.FAILED)
    assert tell(there).reply.outcome is Outcome.DONE
    assert (there.instance.status, there.instance.rewind) == (Status.RUNNING, Rewind.REPLAY)
    rewound = events.decode(there.last_completed_turn()[-1]).execution_rewound
    assert (rewound.reason.value, rewound.HasField("name")) == ("mended", False)
    started = events.decode(there.last_completed_turn()[1]).execution_started
    assert started.parent.instance.execution_id.value == rewound.parent_execution_id.value != ""


def test_a_child_that_runs_goes_on_and_answers_the_call_that_was_made_last() -> None:
    there = kid(Status.RUNNING)
    order: Reminder = there.order  # type: ignore[attr-defined]
    before = there.instance
    assert tell(there).reply.outcome is Outcome.DONE
    assert (there.last.append, there.last.dropped) == ((), (order.id,))
    assert (there.instance.status, there.instance.execution) == (before.status, before.execution)
    after = there.instance
    assert tell(there).reply.outcome is Outcome.DONE
    assert there.instance is after, "a copy"
    there.turn(end(Status.FAILED))
    assert one(there.last.set, Kind.RESULT).call == order.call


def test_a_child_that_was_rewound_and_has_failed_again_answers_a_copy_of_the_order() -> None:
    there = kid(Status.FAILED)
    order: Reminder = there.order  # type: ignore[attr-defined]
    tell(there)
    there.turn(end(Status.FAILED))
    tell(there)
    assert there.instance.status is Status.FAILED
    assert one(there.last.set, Kind.RESULT).call == order.call
    assert there.last.unanswered == ()


def test_a_child_that_is_asked_for_as_before_its_rewind_answers_that_call() -> None:
    """A parent whose store went back waits for the answer to the first call again."""
    there = kid(Status.FAILED)
    order: Reminder = there.order  # type: ignore[attr-defined]
    tell(there)
    first = replace(rewind.as_creation(there.at, order), id=901, call=rewind.made_by(order))
    there.take(delivery.arrive(there.at, there.live, Arrival(first, consumed=(901,))))
    assert there.instance.parent is not None
    assert there.instance.parent.asked == first.call
    there.turn(end(Status.COMPLETED, "1"))
    assert one(there.last.set, Kind.RESULT).call == first.call


def test_an_answer_to_the_call_before_a_rewind_counts_no_more() -> None:
    """Seed 1015: a copy came when the child's sidecar was started again, and the rewound workflow failed of it."""
    flow = broken()
    made = next(iter(flow.children))
    flow.rewind()
    order = of_child(flow)
    failure = events.child_failed(NOW, made.task, events.failure("Boom", "no luck"))
    old = replace(result(order, failure), call=made)
    assert flow.arrive(old, message(9)).reply.outcome is Outcome.DUPLICATE
    assert made.task in flow.open
    assert flow.arrive(result(order, failure), message(10)).reply.outcome is Outcome.DONE
    assert (made.task in flow.open, flow.last.ended) == (False, (made,))


def test_an_order_to_rewind_that_is_known_by_the_call_that_created_the_child_is_followed() -> None:
    """So do sidecars write it that do not tell the two calls apart."""
    there = kid(Status.FAILED)
    order: Reminder = there.order  # type: ignore[attr-defined]
    wanted = events.decode(order.payload)
    wanted.execution_rewound.parent.ClearField("instance")
    tell(there, replace(order, call=rewind.made_by(order), payload=events.encode(wanted)))
    assert there.instance.status is Status.RUNNING
    there.turn(end(Status.COMPLETED, "1"))
    assert one(there.last.set, Kind.RESULT).call == rewind.made_by(order)


@pytest.mark.parametrize(
    ("status", "kind"), [(Status.COMPLETED, "child_completed"), (Status.TERMINATED, "child_failed")]
)
def test_a_child_that_has_ended_otherwise_answers_again(status: Status, kind: str) -> None:
    there = kid(status, '"value"')
    tell(there)
    answer = one(there.last.set, Kind.RESULT)
    assert (kind_of(answer.payload), answer.call) == (kind, there.order.call)  # type: ignore[attr-defined]
    assert b'"value"' in answer.payload or status is Status.TERMINATED
    assert there.instance.status is status


def test_a_child_that_is_gone_is_created_again_by_its_old_call() -> None:
    there = kid(None)
    assert tell(there).reply.outcome is Outcome.DONE
    assert there.instance.parent is not None
    order: Reminder = there.order  # type: ignore[attr-defined]
    assert (there.instance.name, there.instance.parent.call) == ("ship", rewind.made_by(order))
    assert there.instance.parent.asked == order.call
    assert there.instance.execution != ""


def test_an_id_that_is_another_s_by_now_fails_the_call() -> None:
    there = Kept().start()
    order = replace(kid(None).order, target=ME.workflow("default", "w"))  # type: ignore[attr-defined]
    assert tell(there, order).reply.outcome is Outcome.EXISTS
    assert b"WorkflowInstanceAlreadyExists" in one(there.last.set, Kind.RESULT).payload
    assert there.instance.status is Status.PENDING


def test_nobody_but_its_parent_rewinds_a_child() -> None:
    there = kid(Status.FAILED)
    order: Reminder = there.order  # type: ignore[attr-defined]
    forged = replace(order, source=ML.workflow("", order.source.id))
    before = there.instance
    decision = delivery.arrive(there.at, there.live, Arrival(forged, received=(message(1),), record=there.record()))
    assert decision.changes is not None
    assert decision.changes.replaces == before.key  # as a creation by another: the ID of an ended instance is free
    odd = replace(order, payload=outcome_of(replace(order, kind=Kind.CREATE)))
    assert delivery.arrive(there.at, there.live, Arrival(odd, received=(message(2),))).reply.outcome is Outcome.INVALID


def test_what_was_read_of_a_child_that_has_gone_on_is_read_again() -> None:
    there = kid(Status.FAILED)
    order: Reminder = there.order  # type: ignore[attr-defined]
    decision = delivery.arrive(there.at, there.live, Arrival(order, consumed=(order.id,)))
    assert (decision.changes, decision.reply.outcome) == (None, Outcome.UNAVAILABLE)
