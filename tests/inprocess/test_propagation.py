"""M87: a callee whose callers' history is too large for its worker stalls before any of its code runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer, fields, hello, work_items

STALLED = 8
CREATE = 4


@pytest.fixture
async def ml(tmp_path: Path) -> AsyncIterator[Node]:
    node = await Node.start("ml", tmp_path)
    yield node
    await node.stop()


def creation(instance_id: str, given: int) -> peer_pb2.Message:
    """A child of app orders that was given a history of so many bytes."""
    chunk = pb.PropagatedChunk(raw_events=[b"\x08\x01" * (given // 2)], app_id="orders", workflow_name="caller")
    started = pb.ExecutionStarted(
        name="callee", lineage=pb.PropagatedHistory(scope=1, chunks=[chunk]).SerializeToString()
    )
    started.instance.execution_id.value = f"execution of {instance_id}"
    actor = {"namespace": "default", "kind": "workflow", "hub": "default"}
    return peer_pb2.Message(
        id=1 + given,
        kind=CREATE,
        target=peer_pb2.Actor(app_id="ml", id=instance_id, **actor),
        source=peer_pb2.Actor(app_id="orders", id="home", **actor),
        call=peer_pb2.Call(execution_id="e", turn=1, task_id=given),
        payload=pb.HistoryEvent(execution_started=started).SerializeToString(),
    )


async def test_a_history_that_is_too_large_for_the_worker_stalls_the_callee_alone(ml: Node) -> None:
    """M87"""
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders"))
    await peer.ask(creation("large", 5 * 1024 * 1024), creation("small", 1024))
    stream = await work_items(ml.channel, pb.GetWorkItemsRequest(dapr_capabilities=[2]).SerializeToString())
    item = fields(fields(await stream.receive() or b"")[1][0])
    assert item[1] == [b"small"]
    assert pb.PropagatedHistory.FromString(item[8][0]).chunks[0].app_id == "orders"

    async def status() -> int:
        request = pb.GetInstanceRequest(instance_id="large")
        return pb.GetInstanceResponse.FromString(await ml.call("GetInstance", request)).state.status

    async with asyncio.timeout(5.0):
        while await status() != STALLED:  # noqa: ASYNC110 (asked over the wire)
            await asyncio.sleep(0.02)
    await peer.close()
