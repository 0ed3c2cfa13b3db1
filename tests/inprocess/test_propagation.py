"""Histories of callers over real connections: M86, M87, and what a policy reads in them (M82)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer, Start, fields, hello, work_items
from tests.inprocess.world import call, end

STALLED = 8
CREATE = 4


POLICY = "allow: [{caller: orders, activity: charge, requires: [{activity: check, outcome: scheduled}]}]"


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


async def test_the_next_execution_is_given_the_one_that_ended_behind_its_callers(ml: Node) -> None:
    """M86, E.15: also when it is read from the store."""
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders"))
    await peer.ask(creation("kid", 1024))
    asked = pb.GetWorkItemsRequest(dapr_capabilities=[2]).SerializeToString()
    stream = await work_items(ml.channel, asked)
    again = pb.Action(id=1, complete=pb.Complete(status=2))
    for generation in range(3):
        item = fields(await stream.receive() or b"")
        turn = fields(item[1][0])
        given = pb.PropagatedHistory.FromString(turn[8][0])
        assert [chunk.app_id for chunk in given.chunks] == ["orders", *["ml"] * generation]
        for chunk in given.chunks[1:]:
            started = pb.HistoryEvent.FromString(chunk.raw_events[1]).execution_started
            assert (started.name, chunk.workflow_name, chunk.instance_id) == ("callee", "callee", "kid")
        if generation:
            ml.sidecar.dispatch.relieve()
        answer = pb.OrchestratorResponse(instance_id="kid", completion_token=item[10][0].decode(), actions=[again])
        await ml.call("CompleteOrchestratorTask", answer)
    await peer.close()


async def test_a_policy_finds_what_was_called_in_the_turn_of_the_call_itself(start: Start) -> None:
    """M82, E.15: nobody runs the check, it is scheduled and no more."""
    bank = await start("bank", policy=POLICY)
    orders = await start("orders", peers={"bank": (bank.peer_address,)})
    bank.worker(activities={"charge": lambda request: '"charged"'})

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        ended = [event for event in events if event.HasField("task_completed") or event.HasField("task_failed")]
        if ended:
            return [end(ended[0].task_completed.result.value or ended[0].task_failed.failure.error_type)]
        charge = call(2, "charge", "bank")
        charge.schedule_task.history_propagation_scope = 1
        first = [call(1, "check")] if events[1].execution_started.input.value == '"checked"' else []
        return [*first, charge]

    turns_alone = pb.WorkItemFilters(orchestrations=[pb.WorkItemFilter(name="flow")])
    orders.worker(flow, asked=pb.GetWorkItemsRequest(filters=turns_alone).SerializeToString())
    await orders.begin("a", data='"checked"')
    await orders.begin("b")
    assert (await orders.outcome("a")).output.value == '"charged"'
    assert (await orders.outcome("b")).output.value == "WorkflowAccessPolicyDenied"
