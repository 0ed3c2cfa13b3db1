"""The ID of a task execution (E.13, E.14): with each result of an activity, also one that no worker has made."""

import pytest

from sidecar.core import events
from sidecar.core.model import Kind
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import NOW, Flow, kind_of, message, one, result, task

BOOM = events.failure("Boom", "no luck")


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


def told(event: bytes) -> str:
    ended = events.decode(event)
    return (ended.task_failed if ended.HasField("task_failed") else ended.task_completed).task_execution_id


def arrived(flow: Flow) -> str:
    return told(flow.last.append[-1].event)


@pytest.mark.parametrize("app", ["", "ml"])
@pytest.mark.parametrize("fails", [False, True])
def test_each_result_has_the_id_of_its_call(flow: Flow, app: str, fails: bool) -> None:
    flow.turn(task(1, app=app, task_execution_id="key"))
    asked = one(flow.last.set, Kind.ACTIVITY)
    answer = result(asked, events.task_failed(NOW, 1, BOOM) if fails else None)
    flow.arrive(answer, *([message(1)] if app else []))
    assert kind_of(flow.last.append[-1].event) == ("task_failed" if fails else "task_completed")
    assert arrived(flow) == "key"


def test_attempts_under_one_id_keep_it(flow: Flow) -> None:
    """An SDK reads it in the failure and gives it to the next attempt, under the same number or another."""
    execution = "key"
    for number in (1, 1, 2):
        flow.turn(task(number, task_execution_id=execution))
        asked = one(flow.last.set, Kind.ACTIVITY)
        assert pb.ActivityRequest.FromString(asked.payload).task_execution_id == "key"
        flow.arrive(result(asked, events.task_failed(NOW, number, BOOM)))
        execution = arrived(flow)
    assert execution == "key"


@pytest.mark.parametrize("own", ["key", ""])
def test_what_another_app_says_of_it_does_not_count(flow: Flow, own: str) -> None:
    flow.turn(task(1, app="ml", task_execution_id=own))
    done = pb.HistoryEvent(event_id=-1)
    done.task_completed.task_scheduled_id = 1
    done.task_completed.task_execution_id = "forged"
    flow.arrive(result(one(flow.last.set, Kind.ACTIVITY), events.encode(done)), message(1))
    assert arrived(flow) == own


def test_a_call_that_cannot_be_made_fails_with_its_id(flow: Flow) -> None:
    changes = flow.turn(task(1, app="m!l", task_execution_id="key"))
    assert [told(row.event) for row in changes.append if kind_of(row.event) == "task_failed"] == ["key"]
