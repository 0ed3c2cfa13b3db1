"""Answers of workers that are larger than is taken: each has its end, and says both sizes where a person looks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.edge.transport.ports import DuplexCall, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, fields, work_items
from tests.inprocess.world import COMPLETED, call, end, until

LIMIT = 128 * 1024
OK = (StatusCode.OK, "")
ENTITIES = pb.GetWorkItemsRequest(max_entities=10).SerializeToString()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = await Node.start("orders", tmp_path, max_message_bytes=LIMIT)
    yield node
    await node.stop()


async def item(stream: DuplexCall, kind: int) -> tuple[bytes, str]:
    """The next item of a kind (1 turn, 2 activity, 5 batch), as bytes, and its token."""
    async with asyncio.timeout(5.0):
        while True:
            found = fields(await stream.receive() or b"")
            if kind in found:
                return found[kind][0], found[10][0].decode()


async def activity(node: Node, stream: DuplexCall, instance_id: str = "a") -> tuple[pb.ActivityRequest, str]:
    """The activity that an instance has called in its first turn."""
    await node.begin(instance_id)
    _, token = await item(stream, 1)
    answer = pb.OrchestratorResponse(instance_id=instance_id, completion_token=token, actions=[call(1)])
    await node.call("CompleteOrchestratorTask", answer)
    body, token = await item(stream, 2)
    return pb.ActivityRequest.FromString(body), token


def result(request: pb.ActivityRequest, token: str, size: int, instance_id: str = "a") -> pb.ActivityResponse:
    text = StringValue(value="x" * size)
    return pb.ActivityResponse(instance_id=instance_id, task_id=request.task_id, result=text, completion_token=token)


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 3 * LIMIT])
async def test_an_activity_whose_result_is_too_large_fails_and_its_worker_goes_on(node: Node, size: int) -> None:
    stream = await work_items(node.channel)
    request, token = await activity(node, stream)
    answer = result(request, token, size)
    with structlog.testing.capture_logs() as logs:
        assert await node.refusal("CompleteActivityTask", answer) == OK
    body, token = await item(stream, 1)
    failed = [pb.HistoryEvent.FromString(event) for event in fields(body)[4]][1].task_failed
    assert failed.task_scheduled_id == 1
    assert failed.failure.error_type == "PayloadSizeExceeded"
    assert failed.failure.is_non_retriable
    assert f"{answer.ByteSize()} bytes, and at most {LIMIT}" in failed.failure.error_message
    told = next(line for line in logs if line["event"] == "answer is too large")
    assert (told["bytes"], told["limit"], told["peer"].split(":")[0]) == (answer.ByteSize(), LIMIT, "ipv4")
    answer = pb.OrchestratorResponse(instance_id="a", completion_token=token, actions=[end()])
    await node.call("CompleteOrchestratorTask", answer)
    assert (await node.outcome("a", 3.0)).status == COMPLETED


async def test_a_failure_that_is_too_large_fails_the_activity_too(node: Node) -> None:
    stream = await work_items(node.channel)
    request, token = await activity(node, stream)
    answer = pb.ActivityResponse(instance_id="a", task_id=request.task_id, completion_token=token)
    answer.failure.stack_trace.value = "x" * 2 * LIMIT
    assert await node.refusal("CompleteActivityTask", answer) == OK
    assert b"PayloadSizeExceeded" in (await item(stream, 1))[0]


async def test_an_answer_that_is_too_large_and_too_late_changes_nothing(node: Node) -> None:
    stream = await work_items(node.channel)
    request, token = await activity(node, stream)
    assert await node.refusal("CompleteActivityTask", result(request, token, 10)) == OK
    assert await node.refusal("CompleteActivityTask", result(request, token, 2 * LIMIT)) == OK
    assert b"PayloadSizeExceeded" not in (await item(stream, 1))[0]


async def test_a_turn_whose_answer_is_too_large_stalls_and_goes_on_with_another_worker(node: Node) -> None:
    stream = await work_items(node.channel)
    await node.begin("a")
    _, token = await item(stream, 1)
    large = call(1)
    large.schedule_task.input.value = "x" * 2 * LIMIT
    answer = pb.OrchestratorResponse(instance_id="a", completion_token=token, actions=[large])
    assert await node.refusal("CompleteOrchestratorTask", answer) == OK
    _, text = await node.refusal("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e"))
    assert f"{answer.ByteSize()} bytes, and at most {LIMIT}" in text

    better = await work_items(node.channel)
    _, token = await item(better, 1)
    answer = pb.OrchestratorResponse(instance_id="a", completion_token=token, actions=[end()])
    await node.call("CompleteOrchestratorTask", answer)
    assert (await node.outcome("a", 3.0)).status == COMPLETED


async def test_the_operations_of_a_batch_whose_answer_is_too_large_fail_and_the_state_stays(node: Node) -> None:
    stream = await work_items(node.channel, ENTITIES)
    await node.call("SignalEntity", pb.SignalEntityRequest(instance_id="@c@a", name="add"))
    for state, size in (("small", 0), ("x" * 2 * LIMIT, 0), ("after", 0)):
        _, token = await item(stream, 5)
        done = pb.OperationResult(success=pb.OperationSuccess(result=StringValue(value="x" * size)))
        answer = pb.EntityBatchResult(results=[done], entity_state=StringValue(value=state), completion_token=token)
        assert await node.refusal("CompleteEntityTask", answer) == OK
        request = pb.GetEntityRequest(instance_id="@c@a", include_state=True)
        found = pb.GetEntityResponse.FromString(await node.call("GetEntity", request))
        assert found.entity.serialized_state.value == ("after" if state == "after" else "small")
        await node.call("SignalEntity", pb.SignalEntityRequest(instance_id="@c@a", name="add"))


async def test_an_answer_that_is_far_too_large_is_logged_with_its_peer_and_named_in_what_is_lost(node: Node) -> None:
    stream = await work_items(node.channel)
    request, token = await activity(node, stream)
    with structlog.testing.capture_logs() as logs:
        status, _ = await node.refusal("CompleteActivityTask", result(request, token, 5 * LIMIT))
    assert status is StatusCode.RESOURCE_EXHAUSTED
    told = [line for line in logs if line["event"].startswith("request was not received")]
    assert [(line["limit"], line["method"].rpartition("/")[2]) for line in told] == [
        (4 * LIMIT, "CompleteActivityTask")
    ]
    (worker,) = node.sidecar.dispatch.pool.workers
    assert told[0]["peer"] == worker.peer
    assert f"more than {4 * LIMIT} bytes" in worker.loss()


@pytest.mark.parametrize(("refused", "crashes"), [(True, 0), (False, 1)])
async def test_a_worker_that_leaves_since_its_answer_was_refused_has_not_crashed(
    node: Node, *, refused: bool, crashes: int
) -> None:
    """Dapr's for .NET ends its stream then, and drops all that it runs. It comes back: that is no goodbye."""
    pool = node.sidecar.dispatch.pool
    before = await work_items(node.channel)
    await until(lambda: bool(pool.workers))
    before.cancel()
    await until(lambda: not pool.workers)
    stream = await work_items(node.channel)
    await activity(node, stream)
    (lease,) = node.sidecar.dispatch.activities.leases.values()
    if refused:
        assert (await node.refusal("CompleteActivityTask", b"\xff"))[0] is StatusCode.INVALID_ARGUMENT
    stream.cancel()
    await until(lambda: not pool.workers)
    await until(lambda: len(pool.activities) == 1)
    stored = await node.sidecar.store.reminder(lease.reminder.id)
    assert stored is not None
    assert stored.crashes.times == crashes


async def test_a_request_of_a_client_that_is_too_large_is_refused_with_both_sizes(node: Node) -> None:
    request = pb.RaiseEventRequest(instance_id="a", name="e", input=StringValue(value="x" * 2 * LIMIT))
    size = request.ByteSize()
    expected = f"the request has {size} bytes, at most {LIMIT} are taken: send less, or raise --max-message-bytes"
    assert await node.refusal("RaiseEvent", request) == (StatusCode.RESOURCE_EXHAUSTED, expected)
