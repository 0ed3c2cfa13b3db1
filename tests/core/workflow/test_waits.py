"""Waits for events with and without a time-out (E.3): their timers end with the event, and never before it."""

from collections.abc import Sequence

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.core import events
from sidecar.core.model import CallKind, Kind, Reminder
from sidecar.core.workflow import call_emission
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import NOW, SECOND, Flow, kind_of, message, result, task, timer

NEVER = Timestamp(seconds=events.NEVER_SECONDS, nanos=999_999_999)


def wait(number: int, name: str, *, limit: bool = True) -> pb.Action:
    origin = pb.EventRaised(name=name).SerializeToString()
    return timer(number, NOW + number * SECOND if limit else NEVER, origin_external_event=origin)


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


def waiting(flow: Flow) -> list[int]:
    return sorted(flow.open)


def step(flow: Flow, *actions: pb.Action, partly: int | None = None) -> None:
    """Take a turn over what has arrived, all of it or only so many events."""
    more = {} if partly is None else {"num_events_processed": {"value": partly + 1}}
    flow.complete(flow.begin(), *actions, **more)


def test_fifty_waits_whose_events_come_cost_no_timer(flow: Flow) -> None:
    made: list[Reminder] = []
    for number in range(1, 51):
        step(flow, wait(number, "go"))
        made += flow.last.set
        flow.event("go")
    step(flow)
    assert (waiting(flow), len(made)) == ([], 50)
    for reminder in made:
        flow.arrive(reminder)
    assert (flow.state.inbox, flow.instance.ready) == ([], False)


def test_a_wait_is_closed_with_its_timer_by_the_turn_that_has_the_event(flow: Flow) -> None:
    step(flow, wait(1, "go"), wait(2, "stop"), timer(3))
    reminder = next(one for one in flow.last.set if one.call.task == 1)
    flow.event("go")
    assert waiting(flow) == [1, 2, 3]
    step(flow)
    assert (flow.last.closed, flow.last.dropped, waiting(flow)) == ((1,), (reminder.id,), [2, 3])


def test_of_waits_for_one_name_the_oldest_gets_the_event_also_one_without_a_time_out(flow: Flow) -> None:
    step(flow, wait(1, "go", limit=False), wait(2, "go"), wait(3, "go"))
    assert [flow.open[number].kind for number in (1, 2)] == [CallKind.WAIT, CallKind.TIMER]
    for left in ([2, 3], [3], []):
        flow.event("go")
        step(flow)
        assert waiting(flow) == left
    assert flow.last.dropped != ()


@pytest.mark.parametrize("where", ["in the turn", "behind it"])
def test_an_event_before_a_time_out_meets_the_wait_that_times_out_and_no_other(flow: Flow, where: str) -> None:
    step(flow, wait(1, "go"), wait(2, "go"))
    fires = next(one for one in flow.last.set if one.call.task == 1)
    flow.event("go")
    if where == "in the turn":
        flow.arrive(fires)
        step(flow)
    else:
        turn = flow.begin()
        flow.arrive(fires)
        flow.complete(turn)
    assert waiting(flow) == [2]


def test_an_event_behind_a_time_out_meets_the_next_wait(flow: Flow) -> None:
    step(flow, wait(1, "go"), wait(2, "go"), wait(3, "go"))
    flow.arrive(next(one for one in flow.last.set if one.call.task == 1))
    flow.event("go")
    step(flow)
    assert waiting(flow) == [3]


def test_an_event_that_is_not_processed_meets_nothing_yet(flow: Flow) -> None:
    step(flow, wait(1, "go"))
    flow.event("other").event("go")
    step(flow, partly=1)
    assert waiting(flow) == [1]
    step(flow)
    assert waiting(flow) == []


def test_a_wait_of_the_turn_that_had_the_event_stays_open(flow: Flow) -> None:
    """Whether the event was for it or came before it, nobody here knows."""
    step(flow)
    flow.event("go")
    step(flow, wait(1, "go"))
    assert waiting(flow) == [1]


@pytest.mark.parametrize(
    ("first", "second", "left"), [("GO", "go", [1, 2]), ("go", "GO", [2]), ("Go", "go", [1, 2]), ("go", "go", [2])]
)
def test_names_that_differ_in_case_alone_never_close_a_wait_that_an_sdk_may_have_left_open(
    flow: Flow, first: str, second: str, left: list[int]
) -> None:
    step(flow, wait(1, first), wait(2, second))
    flow.event("go")
    step(flow)
    assert waiting(flow) == left


@pytest.mark.parametrize("origin", [b"", b"\xff\xff", b"\x0a\x05x"])
def test_an_origin_that_cannot_be_read_makes_it_a_timer_like_others(flow: Flow, origin: bytes) -> None:
    step(flow, timer(1, origin_external_event=origin))
    flow.event("x")
    step(flow)
    assert waiting(flow) == [1]


def test_nobody_answers_a_wait_without_a_time_out(flow: Flow) -> None:
    step(flow, wait(1, "go", limit=False), task(2, app="ml"))
    asked = flow.last.set[0]
    forged = result(asked, events.timer_fired(None, 1, NOW))
    forged = Reminder(9, Kind.RESULT, 0, forged.target, flow.open[1].target, flow.open[1].call, NOW, "", forged.payload)
    flow.arrive(forged, message(1))
    assert waiting(flow) == [1, 2]


def history(*found: bytes) -> Sequence[pb.HistoryEvent]:
    return [events.decode(event) for event in found]


def test_a_history_that_is_run_again_leaves_no_timer_of_a_wait_that_was_met() -> None:
    flow = Flow().start()
    step(flow, wait(1, "go"), wait(2, "go", limit=False), wait(3, "go"))
    made = [row.event for row in flow.last.append if kind_of(row.event) == "timer_created"]
    raised = events.event_raised(NOW, "go", None)
    left = call_emission.left_open(history(*made, raised, raised))
    assert [event.event_id for event in left] == [3]
