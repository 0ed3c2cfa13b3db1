"""A history, read into what ran when and where."""

import io

import pytest
from rich.console import Console

from sidecar.cli.show import history
from sidecar.cli.show.history import Span
from sidecar.cli.show.instances import Home
from sidecar.schema import taskhub_pb2 as pb

S = 1_000_000
HOME = Home("orders", "default")


def at(seconds: float, number: int = -1, app: str = "", **kind: object) -> pb.HistoryEvent:
    event = pb.HistoryEvent(event_id=number, **kind)  # type: ignore[arg-type]
    event.timestamp.FromMicroseconds(round(seconds * S))
    if app:
        event.slot_30 = pb.Router(source_app_id="orders", target_app_id=app).SerializeToString()
    return event


BEGUN = at(0, execution_started=pb.ExecutionStarted(name="order"))


def test_calls_have_their_answers_also_when_a_number_comes_twice() -> None:
    log = [
        BEGUN,
        at(1, 1, "ml", task_scheduled=pb.TaskScheduled(name="score")),
        at(2, app="ml", task_failed=pb.TaskFailed(task_scheduled_id=1)),
        at(3, 1, "ml", task_scheduled=pb.TaskScheduled(name="score")),
        at(4, 2, child_created=pb.ChildCreated(name="ship", instance_id="kid")),
        at(5, app="ml", task_completed=pb.TaskCompleted(task_scheduled_id=1)),
        at(6, event_raised=pb.EventRaised(name="paid")),
        at(9, child_completed=pb.ChildCompleted(task_scheduled_id=2)),
    ]
    assert history.spans(log, "orders") == [
        Span("orders", "order", 0, None, "running"),
        Span("ml", "activity score", 1 * S, 2 * S, "failed"),
        Span("ml", "activity score", 3 * S, 5 * S, "done"),
        Span("orders", "child ship", 4 * S, 9 * S, "done"),
        Span("orders", "event paid", 6 * S, 6 * S),
    ]


def test_what_runs_when_the_workflow_ends_is_left() -> None:
    timer = at(1, 1, timer_created=pb.TimerCreated(fire_at=at(61).timestamp))
    ended = at(9, execution_completed=pb.ExecutionCompleted(status=5))
    assert history.spans([BEGUN, timer, ended], "orders") == [
        Span("orders", "order", 0, 9 * S, "terminated"),
        Span("orders", "timer 1 min", 1 * S, 9 * S, "left"),
    ]


def test_entities_are_called_and_locked() -> None:
    called = pb.EntityCalled(request_id="r", operation="add")
    called.target_instance_id.value = "@counter@a"
    log = [
        BEGUN,
        at(1, 1, entity_lock_requested=pb.EntityLockRequested(critical_section_id="s", lock_set=["@counter@a"])),
        at(2, entity_lock_granted=pb.EntityLockGranted(critical_section_id="s")),
        at(2, 2, entity_called=called),
        at(3, entity_completed=pb.EntityCompleted(request_id="r")),
    ]
    assert [(one.what, one.state) for one in history.spans(log, "orders")[1:]] == [
        ("lock @counter@a", "done"),
        ("entity @counter@a add", "done"),
    ]


def test_every_kind_of_event_is_shown_in_both_forms_and_as_data() -> None:
    kinds = [field.name for field in pb.HistoryEvent.DESCRIPTOR.oneofs_by_name["kind"].fields]
    log = [at(number, number, **{kind: getattr(pb.HistoryEvent(), kind)}) for number, kind in enumerate(kinds)]
    for shown in (history.timeline(log, HOME, 99 * S, 80), history.listed(log, HOME, 80)):
        Console(file=io.StringIO(), width=80).print(shown)
    assert len({row["type"] for row in history.data(log, HOME)}) == len(kinds)


@pytest.mark.parametrize("room", [8, 40, 100])
def test_a_bar_never_leaves_its_room(room: int) -> None:
    scale = (0, 7 * S, 7 * S)
    for begin in range(8):
        for end in (*range(begin, 8), None):
            one = Span("a", "b", begin * S, None if end is None else end * S, "done")
            drawn = history.bar(one, scale, room, history.DRAWN)
            assert begin * (room - 1) // 7 < len(drawn) <= room
    assert history.bar(Span("a", "b", 7 * S, 7 * S), scale, room, history.ASCII) == " " * (room - 1) + "*"


def test_what_has_not_begun_is_said() -> None:
    out = io.StringIO()
    Console(file=out).print(history.timeline([], HOME, 0, 40))
    assert out.getvalue() == "it has not begun\n"
