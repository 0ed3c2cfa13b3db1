"""`dapr.proto.runtime.v1.Dapr` on the app's gRPC port."""

import asyncio
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message

from sidecar.edge.client_api.workflows import VERSIONS
from sidecar.edge.methods import CLIENT_API
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import dapr_pb2 as pb
from tests.edge.client_api.documented import waits_for_go
from tests.inprocess.sidecars import Node, Start, get


async def ask(node: Node, method: str, request: Message) -> bytes:
    return await node.channel.unary(CLIENT_API + method, request.SerializeToString(), node.metadata, timeout=10)


async def shown(node: Node, instance: str, version: str = "Beta1") -> pb.GetWorkflowResponse:
    request = pb.GetWorkflowRequest(instance_id=instance, workflow_component="dapr")
    return pb.GetWorkflowResponse.FromString(await ask(node, f"GetWorkflow{version}", request))


async def until_status(node: Node, instance: str, status: str) -> pb.GetWorkflowResponse:
    async with asyncio.timeout(10):
        while (found := await shown(node, instance)).runtime_status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_workflow_from_its_start_to_its_purge(node: Node, version: str) -> None:
    node.worker(waits_for_go)
    start = pb.StartWorkflowRequest(workflow_component="dapr", workflow_name="flow", instance_id="i", input=b"1")
    answer = await ask(node, f"StartWorkflow{version}", start)
    assert pb.StartWorkflowResponse.FromString(answer).instance_id == "i"
    found = await until_status(node, "i", "RUNNING")
    assert (found.instance_id, found.workflow_name) == ("i", "flow")
    assert found.properties == {"dapr.workflow.input": "1"}
    assert 0 < found.created_at.ToSeconds() <= found.last_updated_at.ToSeconds()
    await ask(node, f"PauseWorkflow{version}", pb.PauseWorkflowRequest(instance_id="i"))
    await until_status(node, "i", "SUSPENDED")
    await ask(node, f"ResumeWorkflow{version}", pb.ResumeWorkflowRequest(instance_id="i"))
    event = pb.RaiseEventWorkflowRequest(instance_id="i", event_name="go", event_data=b"2")
    await ask(node, f"RaiseEventWorkflow{version}", event)
    assert (await until_status(node, "i", "COMPLETED")).properties["dapr.workflow.output"] == "2"
    assert await ask(node, f"PurgeWorkflow{version}", pb.PurgeWorkflowRequest(instance_id="i")) == b""
    # A get of what there is not succeeds without a status: that is what clients look at.
    assert await shown(node, "i", version) == pb.GetWorkflowResponse(instance_id="i")
    await ask(node, f"StartWorkflow{version}", pb.StartWorkflowRequest(instance_id="j", workflow_name="flow"))
    await ask(node, f"TerminateWorkflow{version}", pb.TerminateWorkflowRequest(instance_id="j"))
    await until_status(node, "j", "TERMINATED")


async def test_a_start_may_be_for_later(node: Node) -> None:
    later = pb.StartWorkflowRequest(
        workflow_name="flow", instance_id="i", options={"dapr.workflow.start_time": "2040-01-02T03:04:05Z", "other": ""}
    )
    await ask(node, "StartWorkflowBeta1", later)
    start = (await get(node, "i")).state.scheduled_start
    assert start.ToDatetime(UTC) == datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)


WRONG = {
    "no name": ("Start", pb.StartWorkflowRequest()),
    "no time": ("Start", pb.StartWorkflowRequest(workflow_name="f", options={"dapr.workflow.start_time": "soon"})),
    "no zone": (
        "Start",
        pb.StartWorkflowRequest(workflow_name="f", options={"dapr.workflow.start_time": "2040-01-02T03:04:05"}),
    ),
    "a time that is none of ours": (
        "Start",
        pb.StartWorkflowRequest(workflow_name="f", options={"dapr.workflow.start_time": "0001-01-01T00:00:00+14:00"}),
    ),
    "no text": ("Start", pb.StartWorkflowRequest(workflow_name="f", input=b"\xff")),
    "no ID": ("Get", pb.GetWorkflowRequest()),
    "no event": ("RaiseEvent", pb.RaiseEventWorkflowRequest(instance_id="i")),
    "the ID of an entity": ("Purge", pb.PurgeWorkflowRequest(instance_id="@counter@a")),
    "no app ID": ("Pause", pb.PauseWorkflowRequest(instance_id="i", app_id="a b")),
}


async def refusal(node: Node, verb: str, request: Message) -> Refused:
    with pytest.raises(Refused) as refused:
        await ask(node, f"{verb}WorkflowBeta1", request)
    return refused.value


async def test_what_cannot_be_is_the_callers_mistake(node: Node) -> None:
    for what, (verb, request) in WRONG.items():
        assert (await refusal(node, verb, request)).status is StatusCode.INVALID_ARGUMENT, what


async def test_what_there_is_not_is_said_to_be_missing(node: Node) -> None:
    for verb in ("Terminate", "Pause", "Resume", "Purge"):
        refused = await refusal(node, verb, pb.PauseWorkflowRequest(instance_id="nobody"))
        assert (refused.status, refused.message) == (StatusCode.NOT_FOUND, "no such instance exists"), verb


async def test_the_task_hub_of_a_call_counts(start: Start) -> None:
    node = await start("orders", task_hubs="separate")
    await ask(node.of_hub("blue"), "StartWorkflowBeta1", pb.StartWorkflowRequest(instance_id="i", workflow_name="f"))
    assert (await shown(node.of_hub("blue"), "i")).runtime_status == "PENDING"
    assert (await shown(node, "i")).runtime_status == ""


async def test_metadata_is_that_of_http_and_a_value_can_be_set(node: Node) -> None:
    await ask(node, "SetMetadata", pb.SetMetadataRequest(key="cliPID", value="7"))
    found = pb.GetMetadataResponse.FromString(await ask(node, "GetMetadata", pb.GetMetadataRequest()))
    assert found.id == "orders"
    assert found.extended_metadata == {"appNamespace": "default", "cliPID": "7"}
    assert found.runtime_version
    assert found.actor_runtime.host_ready
    assert found.actor_runtime.runtime_status == pb.ActorRuntime.RUNNING
    node.worker(waits_for_go)
    async with asyncio.timeout(5):
        while not found.workflows.connected_workers:
            found = pb.GetMetadataResponse.FromString(await ask(node, "GetMetadata", pb.GetMetadataRequest()))
    types = [actor.type for actor in found.active_actors_count]
    assert "dapr.internal.default.orders.workflow" in types


async def test_a_shutdown_is_answered_and_ends_the_sidecar(node: Node) -> None:
    assert await ask(node, "Shutdown", pb.ShutdownRequest()) == b""
    async with asyncio.timeout(5):
        await asyncio.shield(node.serving)
