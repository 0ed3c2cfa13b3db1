"""E.5, numEventsProcessed: what a worker did not process of a turn is first in the next one."""

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sidecar.core import operations
from sidecar.core.model import Position, Row, State, Status, Turn
from sidecar.core.workflow import state as states
from sidecar.core.workflow import turn as turns
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import Flow, end, kinds, renew, task


def processed(count: int) -> dict[str, Int32Value]:
    return {"num_events_processed": Int32Value(value=count)}


def names(rows: tuple[Row, ...] | list[Row]) -> list[str]:
    found = [pb.HistoryEvent.FromString(row.event) for row in rows]
    return [event.event_raised.name for event in found if event.HasField("event_raised")]


@pytest.fixture
def flow() -> Flow:
    """After its first turn, with three events that wait."""
    flow = Flow().start()
    flow.turn()
    return flow.event("a").event("b").event("c")


def test_what_was_not_processed_comes_again_before_what_arrived_meanwhile(flow: Flow) -> None:
    turn = flow.begin()
    flow.event("d")
    changes = flow.complete(turn, task(7), **processed(2))
    assert changes.truncate == turn.rows[1].position
    assert names(changes.append) == ["b", "c", "d"]
    assert flow.instance.ready
    assert names(flow.begin().rows) == ["b", "c", "d"]


def test_the_log_shows_what_was_processed_and_then_the_actions_of_the_turn(flow: Flow) -> None:
    turn = flow.begin()
    changes = flow.complete(turn, task(7), **processed(3))
    completed = sorted(
        [*turn.rows[:2], *(row for row in changes.append if row.turn <= flow.instance.last_completed_turn)]
    )
    assert kinds(completed) == ["orchestrator_started", "event_raised", "event_raised", "task_scheduled"]
    assert len({row.position for row in completed}) == len(completed)
    assert all(row.position < changes.truncate for row in completed[:3] if changes.truncate)
    assert [row.turn for row in changes.append if row.turn > flow.instance.last_completed_turn] == [turn.number + 1]


def test_a_rest_that_spans_several_turns_is_moved_whole() -> None:
    flow = Flow().start()
    flow.turn()
    flow.event("a")
    flow.begin()
    flow.event("b").event("c")
    turn = flow.begin()
    assert len({row.turn for row in turn.rows}) == 2
    flow.event("d")
    flow.complete(turn, task(7), **processed(2))
    assert names(flow.state.inbox) == ["b", "c", "d"]
    positions = [row.position for row in flow.state.inbox]
    assert positions == sorted(set(positions))
    assert positions[0] > Position(flow.instance.last_completed_turn, 1 << 30)
    flow.event("e")
    assert names(flow.begin().rows) == ["b", "c", "d", "e"]


def test_a_call_that_fails_at_once_is_answered_behind_the_rest(flow: Flow) -> None:
    wrong = task(7)
    wrong.router.target_app_id = "no such app!"
    flow.complete(flow.begin(), wrong, **processed(2))
    assert kinds(flow.begin().rows) == ["event_raised", "event_raised", "task_failed"]


@pytest.mark.parametrize("count", [4, 5, 100])
def test_as_many_events_as_were_sent_or_more_are_all_of_them(flow: Flow, count: int) -> None:
    changes = flow.complete(flow.begin(), task(7), **processed(count))
    assert changes.truncate is None
    assert not flow.state.inbox
    assert not flow.instance.ready


def test_continue_as_new_carries_what_was_not_processed_and_belongs_to_no_call(flow: Flow) -> None:
    turn = flow.begin()
    flow.event("d")
    flow.complete(turn, renew(), **processed(2))
    assert names(flow.begin().rows) == ["b", "c", "d"]


def test_an_execution_that_ends_keeps_its_log_in_order(flow: Flow) -> None:
    turn = flow.begin()
    changes = flow.complete(turn, end(), **processed(2))
    assert flow.instance.status is Status.COMPLETED
    assert not flow.instance.ready
    kept = [row.position for row in turn.rows if changes.truncate is None or row.position < changes.truncate]
    positions = kept + [row.position for row in changes.append]
    assert len(set(positions)) == len(positions)


@pytest.mark.parametrize(("count", "nothing"), [(0, True), (1, True), (2, False)])
def test_an_answer_that_took_no_event_but_the_start_of_the_turn_processed_nothing(count: int, nothing: bool) -> None:
    assert turns.processes_nothing(pb.OrchestratorResponse(**processed(count))) is nothing
    assert not turns.processes_nothing(pb.OrchestratorResponse())


# ---------------------------------------------------------------- turns that are handed out in part


def begin_part(flow: Flow, most: int) -> Turn:
    turn = turns.begin(flow.state, flow.now, "token", most)
    flow.state.tail = turns.after(flow.state, turn)
    return turn


@pytest.mark.parametrize(("most", "expected"), [(-1, 1), (0, 1), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_a_turn_has_at_most_so_many_events_and_at_least_one(flow: Flow, most: int, expected: int) -> None:
    assert names(begin_part(flow, most).rows) == ["a", "b", "c"][:expected]


def test_what_was_not_handed_out_comes_next_before_what_arrived_meanwhile(flow: Flow) -> None:
    turn = begin_part(flow, 1)
    flow.event("d")
    flow.complete(turn, task(7))
    assert names(flow.begin().rows) == ["b", "c", "d"]


def test_a_worker_may_take_some_of_what_was_handed_out(flow: Flow) -> None:
    flow.complete(begin_part(flow, 2), task(7), **processed(2))
    assert names(flow.begin().rows) == ["b", "c"]


def test_a_part_that_waited_through_a_reload_counts_for_what_it_had(flow: Flow) -> None:
    turn = begin_part(flow, 2)
    again = states.load(flow.instance, State(flow.instance), list(flow.state.inbox))
    assert turns.close_again(again, turn)
    other = states.load(flow.instance, State(flow.instance), list(flow.state.inbox[1:]))
    assert not turns.close_again(other, turn)


def test_much_that_waits_is_moved_once_and_not_with_each_turn() -> None:
    flow = Flow().start()
    flow.turn()
    for _ in range(64):
        flow.take(operations.raise_event(flow.at, flow.live, "much", StringValue(value="x" * 100_000)))
    moved, count = 0, 0
    while flow.state.inbox:
        turn = begin_part(flow, 15)
        count += 1
        changes = flow.complete(turn)
        moved += sum(len(row.event) > 100_000 for row in changes.append)
    assert moved == 64 - 15
    assert count == 6


def test_a_turn_ends_where_the_log_has_the_end_of_one(flow: Flow) -> None:
    flow.begin()
    flow.event("d").event("e")
    assert names(begin_part(flow, 4).rows) == ["a", "b", "c"]
