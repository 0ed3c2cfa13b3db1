"""Rewind on the wire (E.11, A.3 slots 1 and 2): what workers of each family are sent."""

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.edge import dialects
from sidecar.edge.transport.ports import DuplexCall, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, fields, work_items

FAILED, RUNNING = 3, 0
SIZED = bytes.fromhex("08c80110c801")  # as Microsoft's Python SDK asks for work, and older ones of Dapr too
DAPR = bytes.fromhex("22020302")
TRACED = bytes.fromhex("0a120a103030663036376161306261393032623712060880e2cfaa06")[2:]


class Worker:
    """A worker by its bytes."""

    def __init__(self, node: Node, stream: DuplexCall) -> None:
        self._node = node
        self._stream = stream

    @classmethod
    async def connect(cls, node: Node, request: bytes = SIZED) -> "Worker":
        return cls(node, await work_items(node.channel, request))

    async def item(self, seconds: float = 5.0) -> dict[int, list[bytes]]:
        async with asyncio.timeout(seconds):
            while True:
                item = await self._stream.receive()
                assert item is not None
                found = fields(item)
                if 1 in found or 2 in found:
                    return found

    async def turn(self, seconds: float = 5.0) -> tuple[list[pb.HistoryEvent], list[pb.HistoryEvent], str]:
        """The next turn: its past, its news, and its token."""
        found = await self.item(seconds)
        request = fields(found[1][0])
        past, new = ([pb.HistoryEvent.FromString(event) for event in request.get(number, ())] for number in (3, 4))
        return past, new, found[10][0].decode()

    async def answer(self, token: str, *actions: pb.Action) -> None:
        """Answer a turn as Microsoft's SDKs do, with the trace of the orchestration."""
        response = pb.OrchestratorResponse(instance_id="w", actions=actions, completion_token=token, slot_6=TRACED)
        await self._node.call("CompleteOrchestratorTask", response)

    async def fail_activity(self) -> None:
        item = await self.item()
        request = pb.ActivityRequest.FromString(item[2][0])
        response = pb.ActivityResponse(instance_id="w", task_id=request.task_id, completion_token=item[10][0].decode())
        response.failure.error_type = "Boom"
        await self._node.call("CompleteActivityTask", response)

    def leave(self) -> None:
        self._stream.cancel()


def task(number: int) -> pb.Action:
    return pb.Action(id=number, schedule_task=pb.ScheduleTask(name="flaky"))


def end(status: int) -> pb.Action:
    return pb.Action(id=9, complete=pb.Complete(status=status, failure=events.failure("Boom", "no luck")))


def kinds(found: list[pb.HistoryEvent]) -> list[str]:
    return [event.WhichOneof("kind") or f"slot {30 if event.HasField('slot_30') else '?'}" for event in found]


async def failed(node: Node) -> Worker:
    """A workflow whose activity failed, and the worker that let it fail."""
    worker = await Worker.connect(node)
    await node.begin("w")
    _, _, token = await worker.turn()
    await worker.answer(token, task(1))
    await worker.fail_activity()
    _, _, token = await worker.turn()
    await worker.answer(token, end(FAILED))
    assert (await node.outcome("w")).status == FAILED
    return worker


REWIND = pb.RewindInstanceRequest(instance_id="w", reason=StringValue(value="mended"))
OLD = ["orchestrator_started", "execution_started", "task_scheduled", "orchestrator_started", "task_failed"]


@pytest.mark.parametrize("request_", [SIZED, DAPR, b""], ids=["microsoft or dapr", "dapr", "unknown"])
async def test_any_worker_replays_what_was_before_the_failure(node: Node, request_: bytes) -> None:
    """Nobody is asked for a new history, which none can write of a workflow that did something about its failure."""
    (await failed(node)).leave()
    worker = await Worker.connect(node, request_)
    await node.call("RewindInstance", REWIND)
    past, new, token = await worker.turn()
    assert [kind for kind in kinds(past) if kind != "slot 30"] == [*OLD[:2], "orchestrator_started"]
    assert kinds(new) == ["orchestrator_started"]
    state = pb.GetInstanceResponse.FromString(await node.call("GetInstance", pb.GetInstanceRequest(instance_id="w")))
    assert (state.state.status, state.state.HasField("failure")) == (RUNNING, False)
    await worker.answer(token, task(1))
    item = await worker.item()
    assert pb.ActivityRequest.FromString(item[2][0]).task_id == 1


async def test_a_microsoft_worker_is_shown_the_rewind(node: Node) -> None:
    worker = await failed(node)
    await node.call("RewindInstance", REWIND)
    past, _, _ = await worker.turn()
    assert kinds(past)[-2:] == ["orchestrator_started", "slot 30"]
    assert pb.ExecutionRewound.FromString(past[-1].slot_30).reason.value == "mended"


async def test_a_new_history_that_nobody_asked_for_fails_the_workflow(node: Node) -> None:
    worker = await Worker.connect(node)
    await node.begin("w")
    past, new, token = await worker.turn()
    await worker.answer(token, pb.Action(id=-1, slot_9=pb.Rewind(new_history=[*past, *new]).SerializeToString()))
    ended = await node.outcome("w")
    assert (ended.status, "'rewind'" in ended.failure.error_message) == (FAILED, True)


async def test_statuses_of_rewind(node: Node) -> None:
    """D.4 Rewind missing, wrong state."""
    assert (await node.refusal("RewindInstance", REWIND))[0] is StatusCode.NOT_FOUND
    await node.begin("w")
    status, text = await node.refusal("RewindInstance", REWIND)
    assert (status, "PENDING" in text) == (StatusCode.FAILED_PRECONDITION, True)
    assert (await node.refusal("RewindInstance", pb.RewindInstanceRequest()))[0] is StatusCode.INVALID_ARGUMENT


def test_an_event_of_the_rewind_is_only_for_the_family_that_has_it() -> None:
    rewound = pb.HistoryEvent(event_id=-1, execution_rewound=pb.ExecutionRewound(reason=StringValue(value="r")))
    for family in (dialects.NEUTRAL, dialects.DAPR, dialects.DAPR_DETACHING):
        assert dialects.encode_event(family, 3, events.encode(rewound)) == b""
    sent = fields(dialects.encode_event(dialects.MICROSOFT, 3, events.encode(rewound)))[3][0]
    assert pb.ExecutionRewound.FromString(fields(sent)[30][0]) == rewound.execution_rewound
