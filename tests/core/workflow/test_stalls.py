"""E.9, M88 to M90: an instance that no worker can run waits, says why, and goes on by itself."""

from typing import Any

import pytest

from sidecar.core import events, operations
from sidecar.core.model import Changes, Kind, Outcome, Status
from sidecar.core.workflow import pauses, stalls
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import PARENT, Flow, command, end, kinds, renew, result, task

# Java's way to say the same.
ENDED_STALLED = pb.Action(id=1, complete=pb.Complete(status=8))
NOT_AVAILABLE = pb.Action(id=1, version_not_available=pb.VersionNotAvailable())


def version(*patches: str, name: str = "") -> dict[str, Any]:
    return {"version": pb.WorkflowVersion(patches=patches, name=name)}


def stall(flow: Flow, *actions: pb.Action, **fields: Any) -> Changes | None:
    """Let a worker answer that cannot run the instance."""
    with pytest.raises(stalls.StalledError) as error:
        flow.complete(flow.begin(), *actions, **fields)
    changes = stalls.stalled(flow.at, flow.state, error.value.why)
    return None if changes is None else flow.commit(changes)


def started(changes: Changes) -> pb.WorkflowVersion:
    """What the history says of the version at the start of the turn."""
    return events.decode(min(changes.append).event).orchestrator_started.version


@pytest.fixture
def flow() -> Flow:
    """Made with version v1, and with something that waits."""
    flow = Flow().start()
    flow.turn(**version("p1", "p2", name="v1"))
    return flow.event("more")


# ---------------------------------------------------------------- what is recorded


def test_a_turn_records_what_is_new_of_version_and_patches(flow: Flow) -> None:
    changes = flow.turn(task(5), **version("p1", "p2", "p3", name="v1"))
    assert (list(started(changes).patches), started(changes).name) == (["p3"], "")
    changes = flow.turn(task(6), **version("p1", "p2", "p3", name="v1"))
    assert not started(changes).ByteSize()


def test_a_patch_that_is_asked_for_twice_is_recorded_twice() -> None:
    """The list is what the code went through, so that it can be compared with what it goes through later."""
    flow = Flow().start()
    flow.turn(**version("p", "p"))
    assert list(started(flow.turn(**version("p", "p", "q", "p"))).patches) == ["q", "p"]


def test_a_new_execution_begins_without_version_and_patches(flow: Flow) -> None:
    flow.complete(flow.begin(), renew(), **version("p1", "p2", name="v1"))
    changes = flow.turn(**version("other", name="v2"))
    assert (list(started(changes).patches), started(changes).name) == (["other"], "v2")


# ---------------------------------------------------------------- stalling


@pytest.mark.parametrize("word", [NOT_AVAILABLE, ENDED_STALLED])
def test_a_worker_without_the_version_stalls_the_instance_and_nothing_of_its_answer_holds(
    flow: Flow, word: pb.Action
) -> None:
    changes = stall(flow, word, task(7))
    assert changes is not None
    assert (flow.instance.status, flow.instance.ready, flow.open) == (Status.STALLED, True, {})
    (row,) = changes.append
    event = events.decode(row.event).execution_stalled
    assert (event.reason, event.description) == (1, "Version not available: v1")


@pytest.mark.parametrize(
    ("current", "fits"),
    [
        (("p1", "p2"), True),
        (("p1", "p2", "p3"), True),
        (("p1",), False),
        ((), False),
        (("p2", "p1"), False),
        (("p0", "p1", "p2"), False),
    ],
)
def test_the_patches_of_the_history_are_the_first_that_the_code_goes_through(
    flow: Flow, current: tuple[str, ...], fits: bool
) -> None:
    if fits:
        flow.complete(flow.begin(), end(), **version(*current, name="v1"))
        assert flow.instance.status is Status.COMPLETED
        return
    stall(flow, end(), **version(*current, name="v1"))
    assert flow.instance.status is Status.STALLED
    why = pb.ExecutionStalled.FromString(flow.instance.stall or b"")
    assert (
        why.description == f"Patch mismatch. History patches: [p1, p2], current patches: [{', '.join(current)}]. "
    )  # Dapr's to the blank
    assert why.reason == 0


def test_a_history_without_patches_takes_any_code() -> None:
    flow = Flow().start()
    flow.turn()
    flow.turn(**version("new"))
    assert flow.instance.status is Status.RUNNING


def test_the_event_stands_between_the_turns_and_the_inbox_stays(flow: Flow) -> None:
    changes = stall(flow, NOT_AVAILABLE)
    assert changes is not None
    (row,) = changes.append
    assert row.turn == flow.instance.last_completed_turn
    assert kinds(flow.state.inbox) == ["event_raised"]
    assert kinds(flow.begin().rows) == ["event_raised"]


def test_one_event_for_each_text_and_none_for_the_same_again(flow: Flow) -> None:
    assert stall(flow, NOT_AVAILABLE) is not None
    assert stall(flow, NOT_AVAILABLE) is None
    assert stall(flow, **version("p9")) is not None
    assert stall(flow, NOT_AVAILABLE) is not None


def test_several_stalls_stand_in_their_order() -> None:
    flow = Flow().start()
    positions = []
    for number in range(3):
        changes = stalls.stalled(flow.at, flow.state, stalls.too_large(number + 1, 0))
        assert changes is not None
        positions.append(flow.commit(changes).append[0].position)
    assert positions == sorted(set(positions))
    assert {turn for turn, _ in positions} == {0}, "before the first turn as well"


def test_a_turn_that_is_completed_ends_it(flow: Flow) -> None:
    stall(flow, NOT_AVAILABLE)
    flow.complete(flow.begin(), task(7), **version("p1", "p2", name="v1"))
    assert (flow.instance.status, flow.instance.stall) == (Status.RUNNING, None)
    assert stall(flow.event(), NOT_AVAILABLE) is not None, "a stall after that is another one"


def test_an_instance_that_cannot_run_anyway_is_not_stalled(flow: Flow) -> None:
    flow.take(pauses.suspend(flow.at, flow.state, None))
    assert stalls.stalled(flow.at, flow.state, stalls.too_large(2, 1)) is None


# ---------------------------------------------------------------- while stalled


def commands(flow: Flow) -> dict[str, Any]:
    return {
        "raise": lambda: operations.raise_event(flow.at, flow.state, "e", None),
        "suspend": lambda: pauses.suspend(flow.at, flow.state, None),
        "resume": lambda: pauses.resume(flow.at, flow.state, None),
        "terminate": lambda: operations.terminate(flow.at, flow.state, None, False),
        "purge": lambda: operations.purge(flow.at, flow.state, False),
    }


@pytest.mark.parametrize("name", ["raise", "suspend", "resume", "terminate", "purge"])
def test_commands_of_clients_are_refused_with_the_reason(flow: Flow, name: str) -> None:
    """M89."""
    stall(flow, NOT_AVAILABLE)
    decision = commands(flow)[name]()
    assert decision.changes is None
    assert decision.reply.outcome is Outcome.WRONG_STATE
    assert decision.reply.text == "workflow 'w' is stalled: Version not available: v1"


def test_purge_by_force_removes_it(flow: Flow) -> None:
    stall(flow, NOT_AVAILABLE)
    assert operations.purge(flow.at, flow.state, True).reply.outcome is Outcome.DONE


def test_results_and_timers_are_kept_for_later(flow: Flow) -> None:
    flow.turn(task(7, app="ml"), **version("p1", "p2", name="v1"))
    (request,) = [one for one in flow.last.set if one.kind is Kind.ACTIVITY]
    flow.event()
    stall(flow, NOT_AVAILABLE)
    assert flow.arrive(result(request)).reply.outcome is Outcome.DONE
    assert flow.instance.status is Status.STALLED
    assert kinds(flow.begin().rows) == ["event_raised", "task_completed"]


def test_the_parent_may_still_end_it() -> None:
    """A command of a client is refused; one that is on its way from a parent that ended is not lost."""
    flow = Flow().start(parent=PARENT)
    flow.turn(**version(name="v1"))
    flow.event()
    stall(flow, NOT_AVAILABLE)
    flow.arrive(command(Kind.TERMINATE))
    assert (flow.instance.status, flow.instance.stall) == (Status.TERMINATED, None)


def test_a_reuse_policy_sees_a_running_instance(flow: Flow) -> None:
    stall(flow, NOT_AVAILABLE)
    flow.start(execution="w-2", replaceable=frozenset({int(Status.RUNNING)}))
    assert flow.instance.execution == "w-2"
