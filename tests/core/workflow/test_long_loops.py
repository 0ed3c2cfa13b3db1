"""What an execution, or an instance over its executions, that goes on and on leaves behind: no more than a number."""

import pytest

from sidecar.core.model import CallKind, Kind
from sidecar.core.workflow import calls
from sidecar.core.workflow import turn as turns
from tests.core.builders import Flow, detach, renew, send


@pytest.fixture
def flow() -> Flow:
    return Flow().start()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_SENT", 50)


def sent(flow: Flow) -> list[int]:
    return [task for task, call in flow.state.open.items() if call.kind is CallKind.EVENT]


def test_a_loop_of_sends_keeps_the_calls_of_the_last_ones_alone(flow: Flow) -> None:
    most = 0
    for number in range(3_000):
        changes = flow.turn(send(2 * number, "there"), detach(2 * number + 1, f"d{number}"))
        assert [one.kind for one in changes.set] == [Kind.EVENT, Kind.DETACHED]
        most = max(most, len(flow.state.open))
    assert most <= 2 * calls.MOST_SENT + 2
    assert max(sent(flow)) == 5_999


def test_what_was_sent_long_ago_is_not_sent_again_when_it_is_named_again(flow: Flow) -> None:
    """Some SDKs name all actions of an execution in each answer."""
    named = []
    for number in range(200):
        named.append(send(number, "there"))
        assert len(flow.turn(*named).set) == 1
    assert len(sent(flow)) < 200


def test_many_sends_of_one_answer_all_leave(flow: Flow) -> None:
    assert len(flow.turn(*(send(number, "there") for number in range(500))).set) == 500
    assert len(flow.turn(send(500, "there")).set) == 1
    assert len(sent(flow)) == 51
    assert flow.turn(*(send(number, "there") for number in range(501))).set == ()


def test_the_next_execution_counts_its_messages_anew(flow: Flow) -> None:
    for number in range(200):
        flow.turn(send(number, "there"))
    flow.turn(renew())
    assert sent(flow) == []
    assert len(flow.turn(send(0, "there")).set) == 1


def test_children_that_ended_are_known_for_a_number_of_turns(flow: Flow) -> None:
    for _ in range(turns._KEPT_TURNS):
        assert flow.turn(renew()).forgets_before == 0
    assert flow.turn(renew()).forgets_before == 1
    assert flow.turn(renew()).forgets_before == 2
