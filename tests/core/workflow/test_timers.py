"""Timers: when they are due, what they are told, and the clock of a workflow."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.core import events
from sidecar.core.model import CallId, CallKind, Kind, OpenCall
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import NOW, SECOND, Flow, kinds, timer


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


@pytest.mark.parametrize(
    ("fire_at", "due"),
    [
        (None, NOW),
        (Timestamp(seconds=5), 5 * SECOND),
        (Timestamp(seconds=-5), 0),
        (Timestamp(seconds=1_800_000_000, nanos=123_456_789), 1_800_000_000 * SECOND + 123_457),
        (Timestamp(seconds=253402300798, nanos=999_999_999), 253402300799 * SECOND),
    ],
    ids=["no time", "past", "before the epoch", "nanoseconds", "far away"],
)
def test_a_timer_is_due_at_the_first_microsecond_that_is_not_too_early(
    flow: Flow, fire_at: Timestamp | None, due: int
) -> None:
    changes = flow.turn(timer(6, fire_at))
    [reminder] = changes.set
    assert (reminder.kind, reminder.due, reminder.target) == (Kind.TIMER, due, reminder.source)
    fired = events.decode(reminder.payload).timer_fired
    created = events.decode(changes.append[1].event).timer_created
    assert fired == pb.TimerFired(timer_id=6, fire_at=fire_at)
    assert created == pb.TimerCreated(fire_at=fire_at)
    assert flow.open[6] == OpenCall(CallId("w-1", 1, 6), CallKind.TIMER, "", reminder.target, reminder.id)


@pytest.mark.parametrize("seconds", [253402300799, 253402300800])
def test_a_timer_for_the_end_of_time_is_confirmed_and_never_set(flow: Flow, seconds: int) -> None:
    changes = flow.turn(timer(6, Timestamp(seconds=seconds)))
    assert kinds(changes.append) == ["orchestrator_started", "timer_created"]
    assert (changes.set, flow.open) == ((), {})


@pytest.mark.parametrize("origin", ["create_timer", "external_event", "activity_retry", "child_retry"])
def test_the_origin_of_a_timer_is_copied_to_where_its_confirmation_has_it(flow: Flow, origin: str) -> None:
    nap = timer(1)
    nap.create_timer.name = "nap"
    setattr(nap.create_timer, f"origin_{origin}", b"\x0a\x01x")
    changes = flow.turn(nap, timer(2))
    first, second = (events.decode(row.event).timer_created.SerializeToString() for row in changes.append[1:])
    copied = pb.TimerOrigin.FromString(first)
    assert copied.name == "nap"
    assert [(field.name, value) for field, value in copied.ListFields()] == [("name", "nap"), (origin, b"\x0a\x01x")]
    assert pb.TimerOrigin.FromString(second).ListFields() == []


def test_workflow_time_never_goes_back_and_is_behind_every_timer_that_fires(flow: Flow) -> None:
    fire_at = Timestamp(seconds=NOW // SECOND + 60, nanos=1_500)
    request = flow.turn(timer(0, fire_at)).set[0]
    flow.now = NOW - 10 * SECOND
    early = flow.event().begin()
    assert early.time == NOW
    flow.complete(early)
    flow.arrive(request)
    fired = flow.begin()
    assert fired.time == NOW + 60 * SECOND + 3
    assert events.micros(events.decode(fired.started).timestamp) == fired.time
    flow.complete(fired)
    flow.now = NOW + 61 * SECOND
    assert flow.event().begin().time == flow.now
