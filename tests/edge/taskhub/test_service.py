"""The service as SDKs call it, bytes in and bytes out, over a whole sidecar: every status that they rely on."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2

from sidecar.actors import store_outage
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import FullError, UnavailableError
from tests.edge.transport.network import open_stream, rest
from tests.inprocess.sidecars import SERVICE, Node, fields, get, work_items
from tests.inprocess.world import COMPLETED, RUNNING, SUSPENDED, TERMINATED, call, end, until

ENFORCE_UNIQUE = b"\x50\x01"  # field 10 of a start as Dapr has it: a flag
STREAMS = ("GetWorkItems", "StreamInstanceHistory")
COMPLETE = ("CompleteOrchestratorTask", "CompleteWorkflowTask", "CompleteActivityTask")
OK = (StatusCode.OK, "")
MISSING = (StatusCode.NOT_FOUND, "no such instance exists")
BY_ID: dict[str, Callable[..., Message]] = {
    "GetInstance": pb.GetInstanceRequest,
    "WaitForInstanceStart": pb.GetInstanceRequest,
    "WaitForInstanceCompletion": pb.GetInstanceRequest,
    "RaiseEvent": lambda **given: pb.RaiseEventRequest(**{"name": "e"} | given),
    "TerminateInstance": pb.TerminateRequest,
    "SuspendInstance": pb.ReasonRequest,
    "ResumeInstance": pb.ReasonRequest,
    "PurgeInstances": pb.PurgeInstancesRequest,
    "StartInstance": lambda **given: pb.CreateInstanceRequest(**{"name": "flow"} | given),
}
ABANDON = ("AbandonTaskActivityWorkItem", "AbandonTaskOrchestratorWorkItem", "AbandonTaskEntityWorkItem")
MANY = ("QueryInstances", "ListInstanceIds", "ListInstanceIDs", "CreateTaskHub", "DeleteTaskHub")
ENTITIES = ("SignalEntity", "GetEntity", "QueryEntities", "CleanEntityStorage")
UNARY = ("Hello", *BY_ID, *COMPLETE, "CompleteEntityTask", *ABANDON, *ENTITIES, "GetInstanceHistory")


async def streamed(node: Node, method: str, request: bytes) -> tuple[StatusCode, str]:
    """How a stream ends."""
    try:
        await rest(await open_stream(node.channel, SERVICE + method, request))
    except Refused as refused:
        return refused.status, refused.message
    return OK


async def test_a_missing_instance_is_told_at_once_and_is_no_error(node: Node) -> None:
    answer = await node.call("GetInstance", pb.GetInstanceRequest(instance_id="nobody"), 2.0)
    assert not pb.GetInstanceResponse.FromString(answer).exists


async def test_a_command_to_a_missing_instance_is_not_found(node: Node) -> None:
    for method in ("RaiseEvent", "TerminateInstance", "SuspendInstance", "ResumeInstance"):
        assert await node.refusal(method, BY_ID[method](instance_id="nobody")) == MISSING, method


async def test_the_history_of_a_missing_instance_is_not_found(node: Node) -> None:
    request = pb.GetInstanceHistoryRequest(instance_id="nobody")
    assert await node.refusal("GetInstanceHistory", request) == MISSING
    assert await streamed(node, "StreamInstanceHistory", request.SerializeToString()) == MISSING


async def test_purging_a_missing_instance_says_that_none_went(node: Node) -> None:
    answer = await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="nobody"))
    response = pb.PurgeInstancesResponse.FromString(answer)
    assert (response.deleted_instance_count, response.is_complete.value) == (0, True)


# ---------------------------------------------------------------- starting


async def test_an_id_that_is_in_use_exists_already(node: Node) -> None:
    await node.begin("a")
    request = pb.CreateInstanceRequest(instance_id="a", name="flow")
    expected = (StatusCode.ALREADY_EXISTS, "an active workflow with ID 'a' already exists")
    assert await node.refusal("StartInstance", request) == expected


async def test_the_id_of_an_ended_instance_may_be_used_again_unless_it_must_be_unique(node: Node) -> None:
    await node.begin("a", data='"first"')
    await node.call("TerminateInstance", pb.TerminateRequest(instance_id="a"))
    unique = pb.CreateInstanceRequest(instance_id="a", name="flow")
    unique.MergeFromString(ENFORCE_UNIQUE)
    status, text = await node.refusal("StartInstance", unique)
    assert (status, "already exists" in text) == (StatusCode.ALREADY_EXISTS, True)
    await node.begin("a", data='"second"')
    assert (await get(node, "a")).state.input.value == '"second"'


async def test_a_reuse_policy_says_which_instances_may_be_replaced(node: Node) -> None:
    await node.begin("a", data='"first"')
    wrong = pb.CreateInstanceRequest(instance_id="a", name="flow", reuse_policy={"replaceable_status": [COMPLETED]})
    assert (await node.refusal("StartInstance", wrong))[0] is StatusCode.ALREADY_EXISTS
    right = pb.CreateInstanceRequest(instance_id="a", name="new", reuse_policy={"replaceable_status": [6]})
    assert await node.refusal("StartInstance", right) == OK
    assert (await get(node, "a")).state.name == "new"


async def test_a_start_without_an_id_gets_one(node: Node) -> None:
    answer = await node.call("StartInstance", pb.CreateInstanceRequest(name="flow"))
    instance_id = pb.CreateInstanceResponse.FromString(answer).instance_id
    assert len(instance_id) >= 16
    assert (await get(node, instance_id)).exists


@pytest.mark.parametrize(
    "when", [Timestamp(), Timestamp(seconds=-1), Timestamp(seconds=-(2**63)), Timestamp(seconds=1, nanos=-5)]
)
async def test_a_start_time_in_the_past_means_now(node: Node, when: Timestamp) -> None:
    worker = node.worker(lambda events: [end()])
    request = pb.CreateInstanceRequest(instance_id="a", name="flow", scheduled_start=when)
    await node.call("StartInstance", request)
    assert (await node.outcome("a", 3.0)).status == COMPLETED
    assert worker.turns


async def test_a_start_time_that_no_store_can_hold_harms_nobody(node: Node) -> None:
    odd = pb.CreateInstanceRequest(instance_id="odd", name="flow", scheduled_start=Timestamp(seconds=2**63 - 1))
    statuses = await asyncio.gather(
        node.refusal("StartInstance", odd), *(node.refusal("RaiseEvent", b"") for _ in range(3)), node.begin("a")
    )
    assert statuses[0][0] in (StatusCode.OK, StatusCode.INVALID_ARGUMENT)
    assert (await get(node, "a")).exists


async def test_what_the_other_family_means_by_a_number_is_left_alone(node: Node) -> None:
    """Field 10 of a start is a time and field 5 of a purge a flag in one family."""
    start = pb.CreateInstanceRequest(instance_id="a", name="flow").SerializeToString() + b"\x52\x02\x08\x01"
    assert await node.refusal("StartInstance", start) == OK
    await node.call("TerminateInstance", pb.TerminateRequest(instance_id="a"))
    purge = pb.PurgeInstancesRequest(instance_id="a").SerializeToString() + b"\x28\x01"
    assert pb.PurgeInstancesResponse.FromString(await node.call("PurgeInstances", purge)).deleted_instance_count == 1


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x0a\x7fcut"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(node: Node, garbage: bytes) -> None:
    for method in (*UNARY, *MANY):
        assert (await node.refusal(method, garbage))[0] is StatusCode.INVALID_ARGUMENT, method


async def test_text_that_is_not_utf_8_is_an_invalid_argument(node: Node) -> None:
    for method in UNARY[1:]:
        assert (await node.refusal(method, b"\x0a\x02\xc3\x28"))[0] is StatusCode.INVALID_ARGUMENT, method


async def test_a_stream_that_is_asked_for_with_garbage_ends_with_an_invalid_argument(node: Node) -> None:
    for method in STREAMS:
        assert (await streamed(node, method, b"\xff\xff\xff"))[0] is StatusCode.INVALID_ARGUMENT, method


@pytest.mark.parametrize("wrong", ["x" * 16_385, "a\nb", "\x00"])
async def test_an_id_that_cannot_exist_is_an_invalid_argument(node: Node, wrong: str) -> None:
    for method, build in BY_ID.items():
        status, text = await node.refusal(method, build(instance_id=wrong))
        assert (status, "instance ID" in text) == (StatusCode.INVALID_ARGUMENT, True), method


@pytest.mark.parametrize("wrong", ["x" * 257, "@a@", "@a@b"])
async def test_an_id_that_may_not_be_chosen_is_an_invalid_argument_of_what_creates(node: Node, wrong: str) -> None:
    started = pb.CreateInstanceRequest(instance_id=wrong, name="flow")
    rerun = pb.RerunRequest(source_instance_id="a", event_id=1, new_instance_id=wrong)
    for method, request in {"StartInstance": started, "RerunWorkflowFromEvent": rerun}.items():
        assert (await node.refusal(method, request))[0] is StatusCode.INVALID_ARGUMENT, method


async def test_an_app_that_cannot_exist_is_an_invalid_argument_that_names_it(node: Node) -> None:
    for method, build in BY_ID.items():
        status, text = await node.refusal(method, build(instance_id="a", router={"target_app_id": "no such!"}))
        assert (status, "no such!" in text) == (StatusCode.INVALID_ARGUMENT, True), method


async def test_a_call_that_names_this_app_is_served_here(node: Node) -> None:
    await node.begin("a")
    for method in ("GetInstance", "RaiseEvent", "SuspendInstance", "ResumeInstance", "TerminateInstance"):
        request = BY_ID[method](instance_id="a", router={"target_app_id": "orders"})
        assert await node.refusal(method, request) == OK, method


async def test_a_name_that_cannot_exist_is_an_invalid_argument(node: Node) -> None:
    for method in ("StartInstance", "RaiseEvent"):
        for name in ("", "x" * 300):
            request = BY_ID[method](instance_id="a", name=name)
            assert (await node.refusal(method, request))[0] is StatusCode.INVALID_ARGUMENT, (method, name)


async def test_a_failure_that_names_neither_instance_nor_token_is_that_of_the_only_activity_with_its_number(
    node: Node,
) -> None:
    """B.5: `@dapr/dapr` 3.6 sends a failed activity so."""
    stream = await work_items(node.channel)
    await node.begin("a")
    fields(await stream.receive() or b"")
    await node.call("CompleteOrchestratorTask", pb.OrchestratorResponse(instance_id="a", actions=[call(1)]))
    assert 2 in fields(await stream.receive() or b"")
    other = pb.ActivityResponse(task_id=2, failure=pb.FailureDetails(error_message="not mine"))
    await node.call("CompleteActivityTask", other)
    assert len(node.sidecar.dispatch.activities.leases) == 1
    failed = pb.ActivityResponse(task_id=1, failure=pb.FailureDetails(error_message="broken"))
    await node.call("CompleteActivityTask", failed)
    turn = fields(fields(await stream.receive() or b"")[1][0])
    event = pb.HistoryEvent.FromString(turn[4][1])
    assert event.task_failed.failure.error_message == "broken"


async def test_what_is_not_there_is_unimplemented(node: Node) -> None:
    assert (await node.refusal("Nonsense"))[0] is StatusCode.UNIMPLEMENTED


async def test_a_running_instance_is_purged_only_by_force(node: Node) -> None:
    await node.begin("a")
    status, text = await node.refusal("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a"))
    assert (status, "terminate it first" in text) == (StatusCode.FAILED_PRECONDITION, True)
    answer = await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a", force=True))
    assert pb.PurgeInstancesResponse.FromString(answer).deleted_instance_count == 1
    assert not (await get(node, "a")).exists


async def test_control_takes_effect_before_the_answer_without_any_worker(node: Node) -> None:
    await node.begin("a")
    await node.call("SuspendInstance", pb.ReasonRequest(instance_id="a"))
    assert (await get(node, "a")).state.status == SUSPENDED
    await node.call("TerminateInstance", pb.TerminateRequest(instance_id="a", output=StringValue(value='"why"')))
    state = (await get(node, "a")).state
    assert (state.status, state.output.value) == (TERMINATED, '"why"')
    for method in ("TerminateInstance", "SuspendInstance", "ResumeInstance", "RaiseEvent"):
        assert await node.refusal(method, BY_ID[method](instance_id="a")) == OK, method


async def test_waiting_ends_with_the_instance(node: Node) -> None:
    await node.begin("a")
    begun = asyncio.create_task(node.call("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="a")))
    ended = asyncio.create_task(node.outcome("a"))
    await asyncio.sleep(0.05)
    assert not begun.done()
    stream = await work_items(node.channel)
    item = fields(await stream.receive() or b"")
    assert pb.GetInstanceResponse.FromString(await begun).state.status == RUNNING
    answer = pb.OrchestratorResponse(instance_id="a", completion_token=item[10][0].decode())
    await node.call("CompleteWorkflowTask", answer)
    assert not ended.done()
    await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a", force=True))
    assert await ended == pb.InstanceState(), "a purged instance is waited for no longer"


async def test_a_wait_ends_with_the_deadline_of_the_caller(node: Node) -> None:
    await node.begin("a")
    request = pb.GetInstanceRequest(instance_id="a")
    assert (await node.refusal("WaitForInstanceCompletion", request, 0.1))[0] is StatusCode.DEADLINE_EXCEEDED
    await asyncio.sleep(0.05)
    assert not node.sidecar.engine.actor(("default", "a")).watchers, "nobody waits any more"


async def test_both_history_calls_show_the_same_events_in_order(node: Node) -> None:
    node.worker(lambda events: [end()] if any(event.HasField("task_completed") for event in events) else [call(1)],
                {"work": lambda request: "7"})  # fmt: skip
    await node.begin("a")
    await node.outcome("a")
    request = pb.GetInstanceHistoryRequest(instance_id="a").SerializeToString()
    whole = fields(await node.call("GetInstanceHistory", request))[1]
    chunks = await rest(await open_stream(node.channel, SERVICE + "StreamInstanceHistory", request))
    parts = [event for chunk in chunks for event in fields(chunk).get(1, ())]
    expected = [
        "orchestrator_started", "execution_started", "task_scheduled",
        "orchestrator_started", "task_completed", "execution_completed",
    ]  # fmt: skip
    for found in (whole, parts):
        assert [pb.HistoryEvent.FromString(event).WhichOneof("kind") for event in found] == expected


async def test_the_history_of_another_execution_is_not_found(node: Node) -> None:
    await node.begin("a")
    execution = (await get(node, "a")).state.execution_id.value
    for wanted, expected in ((execution, StatusCode.OK), ("", StatusCode.OK), ("another", StatusCode.NOT_FOUND)):
        request = pb.GetInstanceHistoryRequest(instance_id="a", execution_id={"value": wanted})
        assert (await streamed(node, "StreamInstanceHistory", request.SerializeToString()))[0] is expected, wanted


async def test_a_streamed_history_shows_the_tags_of_calls_where_its_readers_look(node: Node) -> None:
    tag = pb.Tag(key="k", value="v").SerializeToString()
    task = pb.Action(id=1, schedule_task=pb.ScheduleTask(name="work", slot_4=[tag]))
    child = pb.Action(id=2, create_child=pb.CreateChild(name="sub", instance_id="c", slot_6=[tag]))
    node.worker(lambda events: [] if len(events) > 2 else [task, child])
    await node.begin("a")
    request = pb.GetInstanceHistoryRequest(instance_id="a").SerializeToString()

    async def shown() -> list[pb.HistoryEvent]:
        chunks = await rest(await open_stream(node.channel, SERVICE + "StreamInstanceHistory", request))
        return [pb.HistoryEvent.FromString(event) for chunk in chunks for event in fields(chunk).get(1, ())]

    async with asyncio.timeout(5):
        while len(found := await shown()) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [list(event.task_scheduled.slot_5) for event in found if event.HasField("task_scheduled")] == [[tag]]
    assert [list(event.child_created.slot_6) for event in found if event.HasField("child_created")] == [[tag]]


# ---------------------------------------------------------------- answers of workers


@pytest.mark.parametrize("method", COMPLETE)
async def test_an_answer_that_comes_too_late_is_ok_and_empty(node: Node, method: str) -> None:
    kind = pb.ActivityResponse if method == "CompleteActivityTask" else pb.OrchestratorResponse
    await node.begin("a")
    for token in ("", "t.old.default", "t.old", "a.999", "a.999.1", "a.-1", "a.1.x", f"a.{10**30}.1", "junk"):
        for instance_id in ("a", "nobody", ""):
            assert await node.call(method, kind(instance_id=instance_id, completion_token=token)) == b"", token
    assert (await get(node, "a")).state.status == 6


async def test_giving_back_what_one_does_not_have_is_ok(node: Node) -> None:
    for method in ("AbandonTaskActivityWorkItem", "AbandonTaskOrchestratorWorkItem"):
        for token in ("", "t.old.default", "a.7"):
            assert await node.call(method, pb.AbandonRequest(completion_token=token)) == b"", (method, token)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["abandon", "requires history"])
async def test_a_turn_that_is_given_back_comes_again(node: Node, how: str) -> None:
    stream = await work_items(node.channel)
    await node.begin("a")
    token = fields(await stream.receive() or b"")[10][0].decode()
    if how == "abandon":
        await node.call("AbandonTaskOrchestratorWorkItem", pb.AbandonRequest(completion_token=token))
    else:
        response = pb.OrchestratorResponse(instance_id="a", completion_token=token, requires_history=True)
        await node.call("CompleteOrchestratorTask", response)
    async with asyncio.timeout(5.0):
        again = fields(await stream.receive() or b"")
    assert again[10][0].decode() != token


async def test_an_answer_in_several_parts_is_taken_as_one(node: Node) -> None:
    """E.5: the .NET and Java SDKs cut an answer above about 3.9 MB."""
    stream = await work_items(node.channel)
    await node.begin("a")
    token = fields(await stream.receive() or b"")[10][0].decode()
    for number, actions in enumerate(([call(1)], [call(2)], [call(3), end()])):
        answer = pb.OrchestratorResponse(instance_id="a", actions=actions, completion_token=token)
        answer.is_partial, answer.chunk_index.value = number < 2, number
        assert await node.refusal("CompleteOrchestratorTask", answer) == OK
    assert (await get(node, "a")).state.status == COMPLETED
    history = await node.call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id="a"))
    found = [pb.HistoryEvent.FromString(event).WhichOneof("kind") for event in fields(history)[1]]
    assert found.count("task_scheduled") == 3


async def test_the_answer_to_an_activity_whose_workflow_was_purged_is_ok_and_empty(node: Node) -> None:
    stream = await work_items(node.channel)
    await node.begin("a")
    token = fields(await stream.receive() or b"")[10][0].decode()
    answer = pb.OrchestratorResponse(instance_id="a", actions=[call(1), end()], completion_token=token)
    await node.call("CompleteOrchestratorTask", answer)
    token = fields(await stream.receive() or b"")[10][0].decode()
    await node.call("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a"))
    response = pb.ActivityResponse(instance_id="a", task_id=1, completion_token=token)
    assert await node.refusal("CompleteActivityTask", response) == OK


# ---------------------------------------------------------------- a store that fails, a sidecar that stops


@pytest.mark.parametrize(("error", "status"), [(UnavailableError, "UNAVAILABLE"), (FullError, "RESOURCE_EXHAUSTED")])
async def test_a_store_that_fails_is_unavailable_and_a_full_one_is_said_to_be_but_to_no_worker(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: type[UnavailableError], status: str
) -> None:
    """D.4: some SDKs let a workflow fail when their answer is refused for want of space."""
    monkeypatch.setattr(store_outage, "HOLD_SECONDS", 0.3)
    stream = await work_items(node.channel)
    await node.begin("a")
    turn = pb.OrchestratorResponse(instance_id="a", actions=[call(1)])
    turn.completion_token = fields(await stream.receive() or b"")[10][0].decode()
    await node.call("CompleteOrchestratorTask", turn)
    activity = pb.ActivityResponse(instance_id="a", task_id=1)
    activity.completion_token = fields(await stream.receive() or b"")[10][0].decode()

    async def broken(*_args: Any) -> None:
        raise error("disk full")

    for name in ("commit", "load", "events", "payloads", "reminder"):
        monkeypatch.setattr(node.sidecar.store, name, broken)
    for method in ("RaiseEvent", "SuspendInstance", "StartInstance", "TerminateInstance"):
        assert (await node.refusal(method, BY_ID[method](instance_id=f"new {method}")))[0] is StatusCode[status], method
    request = pb.GetInstanceHistoryRequest(instance_id="a").SerializeToString()
    assert (await node.refusal("GetInstanceHistory", request))[0] is StatusCode[status]
    assert (await node.refusal("CompleteActivityTask", activity))[0] is StatusCode.UNAVAILABLE
    assert (await streamed(node, "StreamInstanceHistory", request))[0] is StatusCode.UNAVAILABLE


async def test_while_stopping_only_answers_of_workers_are_taken(tmp_path: Path) -> None:
    """D.4 draining, E.6: calls are UNAVAILABLE, and streams end with it too once nobody can connect again."""
    node = await Node.start("orders", tmp_path, drain_timeout=5.0)
    stream = await work_items(node.channel)
    await node.begin("a")
    item = fields(await stream.receive() or b"")
    waiting = asyncio.create_task(node.refusal("WaitForInstanceStart", pb.GetInstanceRequest(instance_id="a")))
    await asyncio.sleep(0.05)
    node.until.set()
    await until(node.sidecar.taskhub.stopping.is_set)

    for method in UNARY:
        if not method.startswith(("Complete", "Abandon")):
            assert (await node.refusal(method, pb.GetInstanceRequest(instance_id="a")))[0] is StatusCode.UNAVAILABLE, (
                method
            )
    assert not node.serving.done(), "it waits for the turn that is out"
    answer = pb.OrchestratorResponse(instance_id="a", actions=[call(1)], completion_token=item[10][0].decode())
    assert await node.refusal("CompleteOrchestratorTask", answer) == OK
    assert (await waiting)[0] is StatusCode.OK, "what it waited for has happened"
    async with asyncio.timeout(2.0):
        await node.serving
    stopping = asyncio.create_task(node.stop())
    async with asyncio.timeout(2.0):
        with pytest.raises(Refused) as refused:
            await stream.receive()
    assert refused.value.status is StatusCode.UNAVAILABLE, "no activity was handed out"
    await stopping


@pytest.mark.parametrize(
    ("agent", "ends"),
    [
        ("dapr-js-sdk/workflow", grpc.StatusCode.OK),
        ("durabletask-js", grpc.StatusCode.UNAVAILABLE),
        ("dapr-sdk-dotnet/v1.18.0", grpc.StatusCode.UNAVAILABLE),
        ("dapr-durabletask/rust", grpc.StatusCode.UNAVAILABLE),
        ("anything", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_stream_ends_as_its_worker_comes_back_best(tmp_path: Path, agent: str, ends: grpc.StatusCode) -> None:
    """E.6: one takes an error for the end of its work, others wait after an OK for all that they run."""
    node = await Node.start("orders", tmp_path)
    options = [("grpc.primary_user_agent", agent)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{node.ports.grpc[0]}", options) as channel:
        stream = channel.unary_stream(SERVICE + "GetWorkItems")(b"")
        await until(lambda: node.sidecar.dispatch.pool.workers)
        await node.stop()
        assert await stream.code() is ends


async def test_a_wait_ends_when_the_sidecar_closes(tmp_path: Path) -> None:
    node = await Node.start("orders", tmp_path)
    await node.begin("a")
    waiting = asyncio.create_task(node.refusal("WaitForInstanceCompletion", pb.GetInstanceRequest(instance_id="a")))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(3.0):
        await node.stop()
        assert (await waiting)[0] is StatusCode.UNAVAILABLE


async def _health(node: Node, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    answer = await node.channel.unary("/grpc.health.v1.Health/Check", request, timeout=2.0)
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


@pytest.mark.parametrize("service", ["", "TaskHubSidecarService"])
async def test_health_is_serving_until_the_sidecar_stops(node: Node, service: str) -> None:
    await until(node.sidecar.ready)
    assert await _health(node, service) == health_pb2.HealthCheckResponse.SERVING
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    watch = await open_stream(node.channel, "/grpc.health.v1.Health/Watch", request)
    first = health_pb2.HealthCheckResponse.FromString(await watch.receive() or b"")
    assert first.status == health_pb2.HealthCheckResponse.SERVING
    node.until.set()
    async with asyncio.timeout(2.0):
        second = health_pb2.HealthCheckResponse.FromString(await watch.receive() or b"")
    assert second.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await _health(node, service) == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


async def test_the_health_of_an_unknown_service_is_told_as_the_protocol_says(node: Node) -> None:
    with pytest.raises(Refused) as refused:
        await _health(node, "nonsense")
    assert refused.value.status is StatusCode.NOT_FOUND
    request = health_pb2.HealthCheckRequest(service="nonsense").SerializeToString()
    watch = await open_stream(node.channel, "/grpc.health.v1.Health/Watch", request)
    answer = health_pb2.HealthCheckResponse.FromString(await watch.receive() or b"")
    assert answer.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


# ---------------------------------------------------------------- filters


def filters(**names: str) -> bytes:
    """A request for work with filters, one name of each kind that is given."""
    lists: dict[str, Any] = {kind: [pb.WorkItemFilter(name=name)] for kind, name in names.items()}
    return pb.GetWorkItemsRequest(filters=pb.WorkItemFilters(**lists)).SerializeToString()


async def test_filters_without_any_name_are_no_filters(node: Node) -> None:
    stream = await work_items(node.channel, filters())
    await node.begin("a")
    async with asyncio.timeout(5.0):
        assert 1 in fields(await stream.receive() or b"")


async def test_a_worker_that_filters_one_kind_takes_nothing_of_the_others(node: Node) -> None:
    await work_items(node.channel, filters(activities="work"))
    await until(lambda: node.sidecar.dispatch.pool.workers)
    [worker] = node.sidecar.dispatch.pool.workers
    taken = [one.accepts("work", "") for one in (worker.turn_filter, worker.activity_filter, worker.entity_filter)]
    assert taken == [False, True, False]


@pytest.mark.parametrize(("agent", "taken"), [("grpc-dotnet/2.67", True), ("grpc-python/1.60", False)])
async def test_the_names_of_filters_of_dotnet_compare_without_case(node: Node, agent: str, taken: bool) -> None:
    address = f"127.0.0.1:{node.ports.grpc[0]}"
    async with grpc.aio.insecure_channel(address, [("grpc.primary_user_agent", agent)]) as channel:
        stream = channel.unary_stream(SERVICE + "GetWorkItems")(filters(orchestrations="Flow", activities="Work"))
        await until(lambda: node.sidecar.dispatch.pool.workers)
        [worker] = node.sidecar.dispatch.pool.workers
        found = worker.turn_filter.accepts("fLOW", ""), worker.activity_filter.accepts("wORK", "")
        assert found == (taken, taken)
        assert worker.turn_filter.accepts("Flow", "")
        stream.cancel()


async def test_metadata_shows_workers_and_what_none_of_them_takes(node: Node) -> None:
    await work_items(node.channel, filters(orchestrations="other"))
    await until(lambda: node.sidecar.dispatch.pool.workers)
    await node.begin("a")
    await until(lambda: len(node.sidecar.dispatch.pool.turns) == 1)
    shown = cast(dict[str, Any], node.sidecar.metadata())
    [worker], [left] = shown["workers"], shown["untaken"]
    assert (worker["workflows"], worker["activities"], worker["entities"]) == (["other"], [], [])
    assert "nothing that waits here" in worker["error"]
    assert left["why"] == "no connected worker takes workflow 'flow': they take 'other'"
