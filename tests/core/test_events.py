from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core import events
from sidecar.core.errors import MalformedError
from sidecar.core.model import Instance, Row, Status
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import NOW, SECOND, Flow

ALL_KINDS = [field.name for field in pb.HistoryEvent.DESCRIPTOR.oneofs_by_name["kind"].fields]
OUTLIVES = {"event_raised", "execution_suspended", "execution_resumed", "execution_terminated"}
SECONDS = st.integers(-62135596800, 253402300799)


def ended(status: Status, **fields: Any) -> Instance:
    return replace(Flow().start().instance, status=status, completed_at=NOW, ended_by=4, **fields)


@given(SECONDS, st.integers(0, 999_999_999))
@example(0, 1)
@example(-1, 999_999_001)
@example(5, 999_999_001)
def test_a_time_becomes_the_first_microsecond_that_is_not_before_it(seconds: int, nanos: int) -> None:
    found = events.micros(Timestamp(seconds=seconds, nanos=nanos))
    exact = seconds * SECOND + Fraction(nanos, 1000)
    assert exact <= found < exact + 1


@given(SECONDS.map(lambda seconds: seconds * SECOND + seconds % SECOND))
def test_a_time_that_is_written_reads_the_same(time: int) -> None:
    written = events.timestamp(time)
    assert 0 <= written.nanos < 1_000_000_000
    assert events.micros(written) == time


def test_a_time_beyond_what_is_possible_still_fits_a_column_of_eight_bytes() -> None:
    for seconds in (2**63 - 1, -(2**63)):
        assert abs(events.micros(Timestamp(seconds=seconds))) < 2**63


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_only_what_belongs_to_no_call_outlives_continue_as_new(kind: str) -> None:
    event = pb.HistoryEvent(event_id=-1)
    getattr(event, kind).SetInParent()
    assert events.belongs_to_no_call(events.encode(event)) is (kind in OUTLIVES)


def test_bytes_that_are_no_event_are_refused() -> None:
    for read in (events.decode, events.belongs_to_no_call, lambda event: events.stamped(event, NOW)):
        with pytest.raises(MalformedError):
            read(b"\xff")


def test_a_stamp_changes_the_time_and_the_way_and_nothing_else() -> None:
    unknown = b"\xfa\x7d\x03new"  # field 2015 of a version to come
    event = pb.HistoryEvent(event_id=4, timestamp=events.timestamp(5), slot_30=b"\x0a\x01x")
    event.execution_started.tags.update({f"t{number}": "x" for number in range(9)})
    event.router.source_app_id = "liar"
    plain, routed = (
        events.decode(stamped)
        for stamped in (
            events.stamped(events.encode(event) + unknown, NOW),
            events.stamped(events.encode(event) + unknown, NOW, "orders", "ml"),
        )
    )
    assert (plain.router.source_app_id, routed.router.source_app_id) == ("liar", "orders")
    assert routed.router.target_app_id == "ml"
    for found in (plain, routed):
        assert events.micros(found.timestamp) == NOW
        assert events.encode(found).endswith(unknown)
        found.router.CopyFrom(event.router)
        found.timestamp.CopyFrom(event.timestamp)
        found.DiscardUnknownFields()
        assert found == event


def test_the_clock_of_a_turn_is_behind_the_latest_timer_in_it() -> None:
    def fired(fire_at: Timestamp | None) -> Row:
        return Row(1, 2, events.timer_fired(fire_at, 0, NOW))

    other = Row(1, 3, events.event_raised(NOW + 9 * SECOND, "x", None))
    assert events.clock_after([], NOW) == NOW
    assert events.clock_after([other, fired(None)], NOW) == NOW
    assert events.clock_after([fired(events.timestamp(NOW - 5))], NOW) == NOW
    assert events.clock_after([fired(events.timestamp(NOW))], NOW) == NOW + 1
    late, later = Timestamp(seconds=NOW // SECOND + 2), Timestamp(seconds=NOW // SECOND + 3, nanos=1)
    assert events.clock_after([fired(later), other, fired(late)], NOW) == NOW + 3 * SECOND + 2


def test_an_activity_that_has_both_a_failure_and_a_result_has_failed() -> None:
    failure = pb.FailureDetails(error_type="Broken", inner_failure=pb.FailureDetails(error_type="Cause"))
    both = events.decode(events.task_result(NOW, pb.ActivityResponse(task_id=4, failure=failure, result=StringValue())))
    assert both.task_failed == pb.TaskFailed(task_scheduled_id=4, failure=failure)


@pytest.mark.parametrize("value", [None, "", '"x"'])
def test_an_empty_result_is_another_thing_than_none(value: str | None) -> None:
    wrapped = events.text(value)
    done = events.decode(events.task_result(NOW, pb.ActivityResponse(task_id=4, result=wrapped))).task_completed
    assert done == pb.TaskCompleted(task_scheduled_id=4, result=wrapped)
    child = events.decode(events.child_completed(NOW, 4, wrapped)).child_completed
    assert child == pb.ChildCompleted(task_scheduled_id=4, result=wrapped)
    end = events.decode(events.execution_completed(ended(Status.COMPLETED), value, "orders")).execution_completed
    assert end == pb.ExecutionCompleted(status=1, result=wrapped)


def test_the_end_of_a_history_has_the_failure_that_was_stored() -> None:
    failure = pb.FailureDetails(error_type="Broken", is_non_retriable=True)
    event = events.execution_completed(ended(Status.FAILED, failure=failure.SerializeToString()), None, "orders")
    assert events.decode(event).execution_completed == pb.ExecutionCompleted(status=3, failure=failure)


def test_the_end_of_a_history_says_which_action_of_which_app_it_was() -> None:
    """E.15."""
    event = events.decode(events.execution_completed(ended(Status.COMPLETED), None, "orders"))
    assert (event.event_id, event.router) == (4, pb.Router(source_app_id="orders"))
