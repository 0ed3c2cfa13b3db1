"""What the published SDKs rely on, rule by rule, over a whole sidecar. The names are those of the notes on SDKs.

Rules that have tests of their own elsewhere: rewind (test_rewind.py), transport (test_transport*.py), what is malformed
and what stopping means (test_taskhub.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.edge import dialects
from sidecar.edge.taskhub import clients
from sidecar.edge.transport.ports import DuplexCall, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import SERVICE, Node, fields, get, work_items
from tests.inprocess.world import COMPLETED, TERMINATED, call, child, end, timer, until

FAILED = 3
ENFORCE_UNIQUE = b"\x50\x01"  # field 10 of a start as Dapr has it: a flag
NEVER = Timestamp(seconds=253402300799, nanos=999999999)


async def start(node: Node, instance_id: str, **fields: Any) -> tuple[StatusCode, str]:
    return await node.refusal("StartInstance", pb.CreateInstanceRequest(instance_id=instance_id, name="flow", **fields))


async def start_unique(node: Node, instance_id: str, **fields: Any) -> tuple[StatusCode, str]:
    request = pb.CreateInstanceRequest(instance_id=instance_id, name="flow", **fields)
    request.MergeFromString(ENFORCE_UNIQUE)
    return await node.refusal("StartInstance", request)


async def terminate(node: Node, instance_id: str, recursive: bool = False) -> None:
    await node.call("TerminateInstance", pb.TerminateRequest(instance_id=instance_id, recursive=recursive))


def kinds(found: Sequence[pb.HistoryEvent]) -> list[str | None]:
    return [event.WhichOneof("kind") for event in found]


def named(found: Sequence[pb.HistoryEvent], kind: str) -> list[pb.HistoryEvent]:
    return [event for event in found if event.WhichOneof("kind") == kind]


# ---------------------------------------------------------------- D.4 status codes and replies


async def test_d4_get_of_a_missing_instance(node: Node) -> None:
    assert not (await get(node, "nobody")).exists


@pytest.mark.parametrize("method", ["WaitForInstanceStart", "WaitForInstanceCompletion"])
async def test_e15_a_wait_for_an_instance_that_is_not_there_yet_lasts_until_it_is_or_the_caller_has_gone(
    node: Node, method: str
) -> None:
    """As with Dapr's runtime and with the backend for tests in Microsoft's Python package."""
    request = pb.GetInstanceRequest(instance_id="later")
    assert (await node.refusal(method, request, 0.3))[0] is StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not node.sidecar.engine.actor(("default", "later")).watchers)
    waiting = asyncio.ensure_future(node.call(method, request))
    await asyncio.sleep(0.05)
    node.worker(lambda events: [end()])
    await node.begin("later")
    assert pb.GetInstanceResponse.FromString(await waiting).exists


async def test_e16_daprs_dotnet_is_told_at_once_as_it_documents(node: Node) -> None:
    agent = [("grpc.primary_user_agent", "grpc-dotnet/2.71.0 dapr-sdk-dotnet/v1.19.0")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{node.ports.grpc[0]}", agent) as channel:
        for method in ("WaitForInstanceStart", "WaitForInstanceCompletion"):
            request = pb.GetInstanceRequest(instance_id="nobody").SerializeToString()
            answer = await channel.unary_unary(SERVICE + method)(request, timeout=5)
            assert not pb.GetInstanceResponse.FromString(answer).exists


async def test_d4_a_purge_ends_a_wait_as_one_for_nothing(node: Node) -> None:
    await node.begin("a")
    waiting = asyncio.ensure_future(node.call("WaitForInstanceCompletion", pb.GetInstanceRequest(instance_id="a")))
    await until(lambda: node.sidecar.engine.actor(("default", "a")).watchers)
    await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a", force=True))
    assert not pb.GetInstanceResponse.FromString(await waiting).exists


async def test_d4_wait_without_a_deadline_for_a_missing_instance_by_a_client_that_cannot_be_told(node: Node) -> None:
    """Microsoft's .NET client sends no deadline: it waits until it goes, and a purge ends its wait with an error."""
    address, agent = f"127.0.0.1:{node.ports.grpc[0]}", ("grpc.primary_user_agent", "grpc-dotnet/2.67")
    async with grpc.aio.insecure_channel(address, [agent]) as channel:
        wait = channel.unary_unary(SERVICE + "WaitForInstanceCompletion")
        request = pb.GetInstanceRequest(instance_id="later").SerializeToString()
        gone = wait(request)
        waiting = asyncio.ensure_future(wait(request))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        gone.cancel()
        await until(lambda: len(node.sidecar.engine.actor(("default", "later")).watchers) == 1)
        await node.begin("later")
        await asyncio.sleep(0.05)
        await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="later", force=True))
        with pytest.raises(grpc.aio.AioRpcError, match="purged") as error:
            await waiting
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_d4_a_wait_for_a_missing_instance_is_answered_at_once_where_the_sdk_documents_an_error(
    node: Node,
) -> None:
    """Dapr's .NET client makes an InvalidOperationException of it."""
    address, agent = (
        f"127.0.0.1:{node.ports.grpc[0]}",
        ("grpc.primary_user_agent", "grpc-dotnet/2.71 dapr-sdk-dotnet/v1.19.0"),
    )
    async with grpc.aio.insecure_channel(address, [agent]) as channel:
        for method in ("WaitForInstanceStart", "WaitForInstanceCompletion"):
            wait = channel.unary_unary(SERVICE + method)
            answer = await wait(pb.GetInstanceRequest(instance_id="nobody").SerializeToString(), timeout=5)
            assert not pb.GetInstanceResponse.FromString(answer).exists


async def test_d4_wait_times_out_with_the_deadline(node: Node) -> None:
    await node.begin("a")
    status, _ = await node.refusal("WaitForInstanceCompletion", pb.GetInstanceRequest(instance_id="a"), 0.2)
    assert status is StatusCode.DEADLINE_EXCEEDED


async def test_d4_duplicate_id(node: Node) -> None:
    await node.begin("a")
    status, text = await start(node, "a")
    assert status is StatusCode.ALREADY_EXISTS
    assert "an active workflow with ID 'a' already exists" in text


async def test_d4_reuse_without_a_policy_takes_ended_ids(node: Node) -> None:
    await node.begin("a")
    await terminate(node, "a")
    assert (await start(node, "a"))[0] is StatusCode.OK


async def test_d4_reuse_that_must_be_unique_takes_none(node: Node) -> None:
    """M55"""
    await node.begin("a")
    await terminate(node, "a")
    assert (await start_unique(node, "a"))[0] is StatusCode.ALREADY_EXISTS


async def test_d4_a_repeated_unique_start_is_the_same_start(node: Node) -> None:
    """M55: retries of the same create stay idempotent."""
    for _ in range(2):
        assert (await start_unique(node, "a", execution_id=StringValue(value="mine")))[0] is StatusCode.OK
    assert (await get(node, "a")).state.execution_id.value == "mine"


PENDING = 6
POLICIES = {
    "replaceable, listed": ({"replaceable_status": [PENDING]}, StatusCode.OK, True),
    "replaceable, not listed": ({"replaceable_status": [COMPLETED]}, StatusCode.ALREADY_EXISTS, False),
    "an empty policy": ({}, StatusCode.ALREADY_EXISTS, False),
    "ignore, listed": ({"replaceable_status": [PENDING], "action": 1}, StatusCode.OK, False),
    "ignore, not listed": ({"replaceable_status": [COMPLETED], "action": 1}, StatusCode.ALREADY_EXISTS, False),
    "terminate, listed": ({"replaceable_status": [PENDING], "action": 2}, StatusCode.OK, True),
    "terminate, not listed": ({"replaceable_status": [COMPLETED], "action": 2}, StatusCode.ALREADY_EXISTS, False),
    "error, listed": ({"replaceable_status": [PENDING], "action": 0}, StatusCode.ALREADY_EXISTS, False),
}


@pytest.mark.parametrize("policy", POLICIES)
async def test_d4_reuse_policies_of_both_generations_on_a_live_instance(node: Node, policy: str) -> None:
    fields, status, replaced = POLICIES[policy]
    await node.begin("a", data='"first"')
    given = pb.IdReusePolicy(**fields)
    assert (await start(node, "a", input=StringValue(value='"second"'), reuse_policy=given))[0] is status
    assert ((await get(node, "a")).state.input.value == '"second"') is replaced


def test_d4_an_older_policy_without_an_action_means_that_a_start_fails() -> None:
    """The action "error" is 0, which Go does not write: the bytes are those of a newer policy that replaces."""
    listed = pb.CreateInstanceRequest(reuse_policy=pb.IdReusePolicy(replaceable_status=[PENDING]))
    assert clients._reuse(listed, older=True) == {}
    assert clients._reuse(listed, older=False) == {"replaceable": {PENDING}}
    agents = {"grpc-go/1.60": True, "dapr-sdk-go/v1.11.0 grpc-go/1.71": True, "grpc-python/1.80": False, "": False}
    assert {agent: dialects.means_older_reuse({"user-agent": agent}) for agent in agents} == agents


@pytest.mark.parametrize("action", [0, 1, 2])
async def test_d4_the_older_policy_lets_an_ended_instance_that_it_does_not_list_be_replaced(
    node: Node, action: int
) -> None:
    await node.begin("a", data='"first"')
    await terminate(node, "a")
    policy = pb.IdReusePolicy(replaceable_status=[COMPLETED], action=action)
    assert (await start(node, "a", input=StringValue(value='"second"'), reuse_policy=policy))[0] is StatusCode.OK
    assert (await get(node, "a")).state.input.value == '"second"'


async def test_e15_a_policy_that_lists_nothing_never_lets_an_id_be_used_again(node: Node) -> None:
    """As Microsoft's Python 1.12 and JavaScript mean it; the Go SDKs send an empty one of the older generation."""
    await node.begin("a", data='"first"')
    await terminate(node, "a")
    empty = {"input": StringValue(value='"second"'), "reuse_policy": pb.IdReusePolicy()}
    assert (await start(node, "a", **empty))[0] is StatusCode.ALREADY_EXISTS
    assert (await get(node, "a")).state.input.value == '"first"'
    assert (await start(node, "b", **empty))[0] is StatusCode.OK, "a new ID is free"
    assert clients._reuse(pb.CreateInstanceRequest(**empty), older=True) == {}


async def test_d4_an_instance_that_an_older_policy_terminates_is_gone_with_its_work(node: Node) -> None:
    worker = node.worker(lambda found: [] if named(found, "task_scheduled") else [call(1, "slow")])
    await node.begin("a")
    await node.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="a"))
    policy = pb.IdReusePolicy(replaceable_status=[0], action=2)
    assert (await start(node, "a", reuse_policy=policy))[0] is StatusCode.OK
    await node.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="a"))
    assert [len(named(turn, "execution_started")) for turn in worker.turns] == [1] * len(worker.turns)


async def test_d4_an_id_is_free_when_the_children_in_this_app_have_ended_too(node: Node) -> None:
    """M53: the blocking child is named, a later one by its path."""
    below = {"flow": "kid", "sub": "grandkid"}

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        begun = named(found, "execution_started")[0].execution_started
        level = below.get(begun.name) if begun.instance.instance_id != "grandkid" else None
        return [child(1, level)] if level and not named(found, "child_created") else []

    node.worker(flow)
    await node.begin("a")
    for name in ("a", "kid", "grandkid"):
        while not (await get(node, name)).exists:  # noqa: ASYNC110 (until a few turns are taken)
            await asyncio.sleep(0.01)
        await node.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id=name))
    for ended, blocking in (("a", ""), ("kid", ": child workflow 'grandkid'")):
        await terminate(node, ended)
        status, text = await start(node, "a")
        said = f"cannot recreate workflow with ID 'a': child workflow 'kid'{blocking} has not ended"
        assert (status, text) == (StatusCode.ALREADY_EXISTS, said), "the words of Dapr's runtime"
    await terminate(node, "grandkid")
    assert (await start(node, "a"))[0] is StatusCode.OK


async def test_d4_a_child_and_a_detached_workflow_wait_for_the_same_to_be_free(node: Node) -> None:
    """M53, M50: what would take the place of an instance whose child runs fails, or is dropped."""

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        begun = named(found, "execution_started")[0].execution_started
        failures = named(found, "child_failed")
        if failures:
            return [end(failures[0].child_failed.failure.error_message)]
        if begun.name == "taker":
            detached = pb.Action(id=2, create_detached=pb.CreateDetached(instance_id="a", name="other"))
            return [] if named(found, "child_created") else [child(1, "a"), detached]
        return [child(1, "kid")] if begun.name == "flow" and not named(found, "child_created") else []

    node.worker(flow)
    await node.begin("a")
    while not (await get(node, "kid")).exists:  # noqa: ASYNC110 (until two turns are taken)
        await asyncio.sleep(0.01)
    await terminate(node, "a")
    await node.begin("b", "taker")
    assert "'kid' has not ended" in (await node.outcome("b")).output.value
    assert (await get(node, "a")).state.status == TERMINATED


async def test_d4_restart_missing_and_wrong_state(node: Node) -> None:
    assert (await node.refusal("RestartInstance", pb.RestartInstanceRequest(instance_id="a")))[
        0
    ] is StatusCode.NOT_FOUND
    await node.begin("a")
    status, text = await node.refusal("RestartInstance", pb.RestartInstanceRequest(instance_id="a"))
    assert (status, "PENDING" in text) == (StatusCode.FAILED_PRECONDITION, True)


async def test_e15_restart_under_a_new_id_needs_no_end(node: Node) -> None:
    await node.begin("a", data='"in"')
    request = pb.RestartInstanceRequest(instance_id="a", with_new_instance_id=True)
    answer = pb.RestartInstanceResponse.FromString(await node.call("RestartInstance", request))
    copy = (await get(node, answer.instance_id)).state
    assert (answer.instance_id != "a", copy.status, copy.input.value) == (True, PENDING, '"in"')
    assert (await get(node, "a")).state.status == PENDING


@pytest.mark.parametrize("new_id", [False, True])
async def test_d4_restart_starts_the_same_once_more(node: Node, new_id: bool) -> None:
    fields = {"input": StringValue(value="1"), "version": StringValue(value="2.0"), "tags": {"team": "growth"}}
    await start(node, "a", **fields)
    before = (await get(node, "a")).state
    await terminate(node, "a")
    request = pb.RestartInstanceRequest(instance_id="a", with_new_instance_id=new_id)
    answer = pb.RestartInstanceResponse.FromString(await node.call("RestartInstance", request))
    assert (answer.instance_id == "a") is not new_id
    state = (await get(node, answer.instance_id)).state
    assert (state.name, state.version.value, state.input.value, dict(state.tags)) == (
        "flow",
        "2.0",
        "1",
        fields["tags"],
    )
    assert (state.status, state.HasField("output"), state.HasField("completed")) == (PENDING, False, False)
    assert state.execution_id.value not in ("", before.execution_id.value)
    assert (await get(node, "a")).state.status == (TERMINATED if new_id else PENDING)


async def test_d4_rerun_refusals(node: Node) -> None:
    """NOT_FOUND and INVALID_ARGUMENT as the runtime that has it says."""
    request = pb.RerunRequest(source_instance_id="nobody", event_id=1)
    missing = (StatusCode.NOT_FOUND, "workflow instance does not exist with ID 'nobody'")
    assert await node.refusal("RerunWorkflowFromEvent", request) == missing, "the words of Dapr's runtime"
    node.worker(lambda found: [end()])
    await node.begin("a")
    await node.outcome("a")
    refused = {
        (StatusCode.NOT_FOUND, "does not have history event with ID '7'"): {"event_id": 7},
        (StatusCode.INVALID_ARGUMENT, "must be different from the original"): {"new_instance_id": "a"},
        (StatusCode.INVALID_ARGUMENT, "empty"): {"new_instance_id": ""},
        (StatusCode.INVALID_ARGUMENT, "no/slash"): {"router": pb.Router(target_app_id="no/slash")},
    }
    for (status, said), wrong in refused.items():
        found, text = await node.refusal("RerunWorkflowFromEvent", pb.RerunRequest(source_instance_id="a", **wrong))
        assert (found, said in text) == (status, True), text


async def test_d4_unsupported_is_unimplemented(node: Node) -> None:
    assert (await node.refusal("NoSuchCall"))[0] is StatusCode.UNIMPLEMENTED


async def test_d4_bad_argument_at_start(node: Node) -> None:
    assert (await start(node, "a\nb"))[0] is StatusCode.INVALID_ARGUMENT
    assert (await node.refusal("StartInstance", pb.CreateInstanceRequest(instance_id="a")))[
        0
    ] is StatusCode.INVALID_ARGUMENT


async def test_d4_history_missing(node: Node) -> None:
    status, _ = await node.refusal("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id="nobody"))
    assert status is StatusCode.NOT_FOUND


async def test_d4_purge_says_how_many_and_that_it_is_complete(node: Node) -> None:
    await node.begin("a")
    await terminate(node, "a")
    for count in (1, 0):
        answer = await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a"))
        response = pb.PurgeInstancesResponse.FromString(answer)
        assert (response.deleted_instance_count, response.is_complete.value) == (count, True)


async def test_d4_commands_to_a_missing_instance(node: Node) -> None:
    requests = {
        "RaiseEvent": pb.RaiseEventRequest(instance_id="nobody", name="e"),
        "SuspendInstance": pb.ReasonRequest(instance_id="nobody"),
        "ResumeInstance": pb.ReasonRequest(instance_id="nobody"),
        "TerminateInstance": pb.TerminateRequest(instance_id="nobody"),
    }
    for method, request in requests.items():
        assert await node.refusal(method, request) == (StatusCode.NOT_FOUND, "no such instance exists")


async def test_d4_stale_completion_is_ok_and_empty(node: Node) -> None:
    for method in ("CompleteOrchestratorTask", "CompleteWorkflowTask"):
        response = pb.OrchestratorResponse(instance_id="nobody", completion_token="t.x.default")
        assert await node.call(method, response) == b""
    response = pb.ActivityResponse(instance_id="nobody", task_id=1, completion_token="a.1.1")
    assert await node.call("CompleteActivityTask", response) == b""


# ---------------------------------------------------------------- E.1 history, E.2 clock, E.3 timers


async def test_e1_the_shape_of_a_history(node: Node) -> None:
    """Turns begin with their start, the first has the start of the execution; numbers and times are on every event."""

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if named(found, "task_completed"):
            return [end()]
        return [] if named(found, "task_scheduled") else [call(4), timer(5, 2**52), child(6, "kid")]

    worker = node.worker(flow, {"work": lambda request: "1"})
    await node.begin("a")
    await node.outcome("a")
    own = [turn for turn in worker.turns if turn[1].execution_started.instance.instance_id == "a"]
    assert kinds(own[0]) == ["orchestrator_started", "execution_started"]
    assert kinds(own[1])[2:] == [
        *("task_scheduled", "timer_created", "child_created", "orchestrator_started", "task_completed"),
    ]
    for event in own[-1]:
        confirms = event.WhichOneof("kind") in ("task_scheduled", "timer_created", "child_created")
        assert (event.event_id >= 0) is confirms
        assert event.timestamp.seconds > 1_600_000_000
    assert [event.event_id for event in own[-1] if event.event_id >= 0] == [4, 5, 6]
    assert named(own[-1], "task_completed")[0].task_completed.task_scheduled_id == 4


async def test_e1_a_confirmation_has_the_name_that_replay_compares(node: Node) -> None:
    worker = node.worker(lambda found: [] if named(found, "task_scheduled") else [call(1, "charge"), child(2, "kid")])
    await node.begin("a")
    await node.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e"))
    while not any(named(turn, "child_created") for turn in worker.turns):  # noqa: ASYNC110 (until a turn is taken)
        await asyncio.sleep(0.01)
    turn = next(turn for turn in worker.turns if named(turn, "child_created"))
    assert named(turn, "task_scheduled")[0].task_scheduled.name == "charge"
    assert named(turn, "child_created")[0].child_created.name == "sub"


async def test_e2_a_timer_fires_before_the_time_of_its_turn_and_names_its_own_exactly(node: Node) -> None:
    due = Timestamp(nanos=123_456_789)
    due.seconds = int(time.time())

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if named(found, "timer_fired"):
            return [end()]
        action = pb.Action(id=1, create_timer=pb.CreateTimer(fire_at=due))
        return [] if named(found, "timer_created") else [action]

    worker = node.worker(flow)
    await node.begin("a")
    await node.outcome("a")
    fired = named(worker.turns[-1], "timer_fired")[0].timer_fired
    assert fired.fire_at == due
    clocks = [events.micros(event.timestamp) for event in named(worker.turns[-1], "orchestrator_started")]
    assert clocks == sorted(clocks)
    assert clocks[-1] > events.micros(due)


async def test_e3_a_timer_for_the_end_of_time_is_confirmed_to_the_nanosecond_and_set_for_nobody(node: Node) -> None:
    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if named(found, "event_raised"):
            return [end()]
        wait = pb.CreateTimer(fire_at=NEVER, name="paid", origin_external_event=b"\x0a\x04paid")
        return [] if named(found, "timer_created") else [pb.Action(id=1, create_timer=wait)]

    worker = node.worker(flow)
    await node.begin("a")
    await node.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="a"))
    await node.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="paid"))
    await node.outcome("a")
    created = named(worker.turns[-1], "timer_created")[0].timer_created
    assert created.fire_at == NEVER
    assert pb.TimerOrigin.FromString(created.SerializeToString()).external_event == b"\x0a\x04paid"


# ---------------------------------------------------------------- E.4 start, E.5 completion


async def test_e4_an_empty_start_time_is_now_and_an_empty_version_is_none(node: Node) -> None:
    node.worker(lambda found: [end()])
    await start(node, "a", scheduled_start=Timestamp(), version=StringValue())
    state = await node.outcome("a")
    assert (state.status, state.HasField("version")) == (COMPLETED, False)


async def test_e4_a_start_in_the_future_waits_and_shows_when(node: Node) -> None:
    when = Timestamp(seconds=2**32)
    await start(node, "a", scheduled_start=when)
    worker = node.worker(lambda found: [end()])
    await asyncio.sleep(0.1)
    state = (await get(node, "a")).state
    assert (state.status, state.scheduled_start, worker.turns) == (PENDING, when, [])


async def test_e4_the_time_that_the_other_family_sends_as_number_10_is_left_alone(node: Node) -> None:
    """Microsoft's `requestTime`, where the other family has `enforceUniqueInstanceId`."""
    request = pb.CreateInstanceRequest(instance_id="a", name="flow").SerializeToString()
    stamped = request + b"\x52\x06" + Timestamp(seconds=1_700_000_000).SerializeToString()
    for _ in range(2):
        assert (await node.refusal("StartInstance", stamped))[0] is StatusCode.OK
        await terminate(node, "a")


async def test_e4_tags_and_trace_of_a_start_reach_the_worker(node: Node) -> None:
    trace = pb.TraceContext(trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", span_id="s")
    worker = node.worker(lambda found: [end()])
    await start(node, "a", tags={"team": "growth"}, parent_trace_context=trace)
    await node.outcome("a")
    begun = worker.turns[0][1].execution_started
    assert (dict(begun.tags), begun.parent_trace_context) == ({"team": "growth"}, trace)


@pytest.mark.parametrize("own", [True, False])
async def test_e4_a_call_has_its_own_trace_or_that_of_its_workflow(node: Node, own: bool) -> None:
    """M93; one family's workers send the context of each call, the other's runtime adds it."""
    trace, mine = pb.TraceContext(trace_parent="00-1-2-01"), pb.TraceContext(trace_parent="00-3-4-01")

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if found[1].execution_started.name == "sub" or named(found, "task_completed"):
            return [end()]
        actions = [call(1), child(2, "kid")]
        if own:
            actions[0].schedule_task.slot_5 = actions[1].create_child.slot_5 = mine.SerializeToString()
        return [] if named(found, "task_scheduled") else actions

    worker = node.worker(flow, {"work": lambda request: "1"})
    await start(node, "a", parent_trace_context=trace)
    await node.outcome("a")
    await node.outcome("kid")
    kid = next(turn for turn in worker.turns if turn[1].execution_started.name == "sub")
    wanted = mine if own else trace
    assert worker.requests[0].parent_trace_context == wanted
    assert kid[1].execution_started.parent_trace_context == wanted


async def test_e4_a_child_is_told_its_parent_and_shows_it(node: Node) -> None:
    """`ParentInstanceInfo` with app and namespace; `WorkflowState.16` and `.17`."""

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if found[1].execution_started.name == "sub" or named(found, "child_completed"):
            return [end()]
        return [] if named(found, "child_created") else [child(7, "kid")]

    worker = node.worker(flow)
    await start(node, "a", version=StringValue(value="2.0"))
    top = await node.outcome("a")
    kid = await node.outcome("kid")
    begun = next(turn[1].execution_started for turn in worker.turns if turn[1].execution_started.name == "sub")
    parent = begun.parent
    assert (parent.task_scheduled_id, parent.name.value, parent.version.value) == (7, "flow", "2.0")
    assert (parent.instance.instance_id, parent.instance.execution_id.value) == ("a", top.execution_id.value)
    assert (parent.app_id, parent.app_namespace) == ("orders", "default")
    assert (kid.parent_instance_id.value, kid.parent_app_id.value) == ("a", "orders")
    assert kid.started.seconds >= kid.created.seconds > 0
    assert not top.HasField("parent_app_id")
    assert top.HasField("started")


async def test_e5_continue_as_new_is_a_new_execution_that_keeps_tags_and_begins_a_trace(node: Node) -> None:
    """M94: a traced run does not go on in one trace for ever."""

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if found[1].execution_started.input.value == '"again"':
            return [call(1)] if not named(found, "task_scheduled") else [end()]
        return [end('"again"', 2)]

    worker = node.worker(flow, {"work": lambda request: "1"})
    trace = pb.TraceContext(trace_parent="00-1-2-01")
    await start(node, "a", tags={"k": "v"}, parent_trace_context=trace)
    state = await node.outcome("a")
    first, second = worker.turns[0][1].execution_started, worker.turns[1][1].execution_started
    assert first.instance.execution_id.value != second.instance.execution_id.value == state.execution_id.value
    assert dict(second.tags) == {"k": "v"}
    version, trace_id, span_id, flags = second.parent_trace_context.trace_parent.split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "01")
    assert trace_id != "1"
    assert worker.requests[0].parent_trace_context == second.parent_trace_context


async def test_e5_what_belongs_to_no_call_outlives_a_continue_as_new(node: Node) -> None:
    carried = events.decode(events.event_raised(1, "carried", None))

    def flow(found: list[pb.HistoryEvent]) -> list[pb.Action]:
        if found[1].execution_started.input.value == '"again"':
            return [end()]
        again = pb.Complete(status=2, result=StringValue(value='"again"'), carryover_events=[carried])
        return [pb.Action(id=1, complete=again)]

    await node.begin("a")
    worker = node.worker(flow)
    await node.outcome("a")
    assert [event.event_raised.name for event in named(worker.turns[1], "event_raised")] == ["carried"]


@pytest.mark.parametrize("recursive", [True, False])
async def test_e5_terminate_reaches_children_only_if_it_says_so(node: Node, recursive: bool) -> None:
    """M56, M58"""
    node.worker(
        lambda found: (
            [child(1, "kid")] if found[1].execution_started.name == "flow" and not named(found, "child_created") else []
        )
    )
    await node.begin("a")
    while not (await get(node, "kid")).state.HasField("started"):  # noqa: ASYNC110 (until two turns are taken)
        await asyncio.sleep(0.01)
    await terminate(node, "a", recursive)
    if recursive:
        assert (await node.outcome("kid")).status == TERMINATED
    else:
        assert (await get(node, "kid")).state.status == 0


# ---------------------------------------------------------------- E.12


async def test_e12_details_of_a_failure_pass_unchanged(node: Node) -> None:
    """`errorType` and `isNonRetriable` drive the retries of SDKs; field 6 has what one family adds."""
    raw = pb.FailureDetails(error_type="Odd", error_message="no", is_non_retriable=True).SerializeToString()
    details = pb.FailureDetails.FromString(raw + b"\x32\x03\x0a\x01k")
    complete = pb.Complete(status=FAILED, failure=details)
    node.worker(lambda found: [pb.Action(id=1, complete=complete)])
    await node.begin("a")
    assert (await node.outcome("a")).failure.SerializeToString() == details.SerializeToString()


async def test_e12_a_trace_parent_that_is_none_is_tolerated(node: Node) -> None:
    """One SDK sends the bare ID of the trace."""
    worker = node.worker(lambda found: [end()])
    await start(node, "a", parent_trace_context=pb.TraceContext(trace_parent="0af7651916cd43dd"))
    await node.outcome("a")
    assert worker.turns[0][1].execution_started.parent_trace_context.trace_parent == "0af7651916cd43dd"


async def test_e12_each_start_is_an_execution_of_its_own(node: Node) -> None:
    seen = set()
    for _ in range(3):
        await node.begin("a")
        seen.add((await get(node, "a")).state.execution_id.value)
        await terminate(node, "a")
    assert len(seen) == 3
    assert "" not in seen


# ---------------------------------------------------------------- E.16, Microsoft's .NET


class Dotnet:
    """Calls as Microsoft's .NET SDK makes them, beside a node whose calls are anybody's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def call(self, method: str, request: Message) -> bytes:
        answer: bytes = await self._channel.unary_unary(SERVICE + method)(request.SerializeToString(), timeout=5)
        return answer


@pytest.fixture
async def dotnet(node: Node) -> AsyncIterator[Dotnet]:
    agent = ("grpc.primary_user_agent", "grpc-dotnet/2.67")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{node.ports.grpc[0]}", [agent]) as channel:
        yield Dotnet(channel)


async def answered(node: Node, by: Node | Dotnet, stream: DuplexCall, status: str | None, *actions: pb.Action) -> str:
    """Answer the next turn with a custom status; what the status is then."""
    item = fields(await stream.receive() or b"")
    response = pb.OrchestratorResponse(
        instance_id="a", completion_token=item[10][0].decode(), actions=actions, custom_status=events.text(status)
    )
    await by.call("CompleteOrchestratorTask", response)
    return (await get(node, "a")).state.custom_status.value


@pytest.mark.parametrize("by_dotnet", [True, False])
async def test_e16_a_custom_status_that_is_not_sent_clears_it_for_dotnet_alone(
    node: Node, dotnet: Dotnet, by_dotnet: bool
) -> None:
    by = dotnet if by_dotnet else node
    stream = await work_items(node.channel)
    await node.begin("a")
    assert await answered(node, by, stream, '"half way"') == '"half way"'
    await node.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e"))
    assert await answered(node, by, stream, None) == ("" if by_dotnet else '"half way"')
    await node.call("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e"))
    assert await answered(node, by, stream, '"more"') == '"more"'


@pytest.mark.parametrize("asked", [True, False])
async def test_e16_failure_and_custom_status_come_with_the_payloads_for_dotnet(
    node: Node, dotnet: Dotnet, asked: bool
) -> None:
    stream = await work_items(node.channel)
    await node.begin("a")
    failed = pb.Action(id=1, complete=pb.Complete(status=FAILED, failure=events.failure("Boom", "no luck")))
    await answered(node, node, stream, '"half way"', failed)
    request = pb.GetInstanceRequest(instance_id="a", get_inputs_and_outputs=asked)
    query = pb.QueryInstancesRequest(query=pb.InstanceQuery(fetch_inputs_and_outputs=asked))
    for by in (dotnet, node):
        expected = asked or by is node
        states = [
            pb.GetInstanceResponse.FromString(await by.call(method, request)).state
            for method in ("GetInstance", "WaitForInstanceStart", "WaitForInstanceCompletion")
        ]
        states += pb.QueryInstancesResponse.FromString(await by.call("QueryInstances", query)).states
        assert len(states) == 4
        for state in states:
            assert (state.HasField("failure"), state.HasField("custom_status")) == (expected, expected)
