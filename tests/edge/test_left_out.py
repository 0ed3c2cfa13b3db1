"""What of an answer is left out that its caller cannot receive, and what stands there instead."""

import json

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.edge.left_out import as_many_as_fit, fitted, mark
from sidecar.schema import taskhub_pb2 as pb

MOST = 1_000


def test_what_fits_is_as_it_was() -> None:
    state = pb.InstanceState(instance_id="a", output=StringValue(value="x" * 900))
    assert fitted(state, MOST) is state


@pytest.mark.parametrize("where", ["input", "output", "custom_status", "version", "failure", "tag"])
def test_a_mark_stands_for_what_is_too_large_wherever_it_is(where: str) -> None:
    large = "x" * 5_000
    state = pb.InstanceState(instance_id="a", name="flow", input=StringValue(value='"in"'), tags={"k": "v"})
    if where == "failure":
        inner = events.failure("Inner", "why")
        state.failure.CopyFrom(pb.FailureDetails(error_type="Boom", error_message="m", inner_failure=inner))
        state.failure.inner_failure.stack_trace.value = large
    elif where == "tag":
        state.tags["k"] = large
    else:
        getattr(state, where).value = large
    before = state.SerializeToString()
    shown = fitted(state, MOST)
    assert shown.ByteSize() <= MOST
    assert state.SerializeToString() == before
    assert shown.SerializeToString().replace(mark(5_000).encode(), large.encode()) != shown.SerializeToString()
    assert (shown.instance_id, shown.name) == ("a", "flow")
    assert "5000 bytes" in json.loads(mark(5_000))


def test_the_largest_go_first_and_only_as_many_as_must() -> None:
    state = pb.InstanceState(input=StringValue(value="i" * 600), output=StringValue(value="o" * 700))
    shown = fitted(state, MOST)
    assert (shown.input.value, shown.output.value) == ("i" * 600, mark(700))


def test_an_event_of_a_history_is_left_its_kind_and_numbers() -> None:
    event = pb.HistoryEvent(event_id=-1, task_completed=pb.TaskCompleted(task_scheduled_id=7))
    event.task_completed.result.value = "é" * 3_000
    shown = fitted(event, MOST)
    assert (shown.task_completed.task_scheduled_id, shown.task_completed.result.value) == (7, mark(6_000))


@pytest.mark.parametrize(
    ("sizes", "count"), [([], 0), ([2_000], 1), ([2_000, 1], 1), ([500, 500, 1], 2), ([1, 1, 1], 3)]
)
def test_of_a_list_as_many_entries_as_fit_but_one_at_least(sizes: list[int], count: int) -> None:
    assert as_many_as_fit(sizes, MOST) == count
