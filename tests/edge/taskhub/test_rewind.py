"""Rewind on the wire (E.11, A.3 slots 1 and 2): who is asked for a new history, and in which bytes."""

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


def rewritten(past: list[pb.HistoryEvent], new: list[pb.HistoryEvent]) -> pb.Action:
    """The action of an SDK that rewinds: number 9 alone, which is a router beside another action."""
    kept = [event for event in (*past, *new) if kinds([event])[0] not in ("task_scheduled", "task_failed")]
    kept = [event for event in kept if not event.HasField("execution_completed")]
    kept[1].execution_started.instance.execution_id.value = "fresh"
    return pb.Action(id=-1, slot_9=pb.Rewind(new_history=kept).SerializeToString())


async def test_a_worker_that_knows_how_writes_the_new_history(node: Node) -> None:
    worker = await failed(node)
    await node.call("RewindInstance", REWIND)
    past, new, token = await worker.turn()
    assert kinds(past) == [*OLD, "execution_completed"]
    assert past[-1].execution_completed.status == FAILED
    assert kinds(new) == ["orchestrator_started", "slot 30"]
    assert not new[1].HasField("execution_rewound")
    assert pb.ExecutionRewound.FromString(new[1].slot_30).reason.value == "mended"
    state = pb.GetInstanceResponse.FromString(await node.call("GetInstance", pb.GetInstanceRequest(instance_id="w")))
    assert (state.state.status, state.state.HasField("failure")) == (RUNNING, False)
    await worker.answer(token, rewritten(past, new))
    past, new, token = await worker.turn()
    assert kinds(past) == ["orchestrator_started", "execution_started", *["orchestrator_started"] * 2, "slot 30"]
    assert past[1].execution_started.instance.execution_id.value == "fresh"
    assert kinds(new) == ["orchestrator_started"]
    await worker.answer(token, end(1))
    assert (await node.outcome("w")).execution_id.value == "fresh"


async def test_a_worker_that_answers_without_a_new_history_has_it_written_here(node: Node) -> None:
    """E.16: versions of .NET up to 1.25 do not know the question: they replay, and end with the failure once more."""
    worker = await failed(node)
    await node.call("RewindInstance", REWIND)
    _, _, token = await worker.turn()
    await worker.answer(token, end(FAILED))
    past, new, token = await worker.turn()
    assert kinds(past) == ["orchestrator_started", "execution_started", *["orchestrator_started"] * 2, "slot 30"]
    assert kinds(new) == ["orchestrator_started"]
    await worker.answer(token, end(1))
    assert (await node.outcome("w")).status == 1


async def test_nobody_but_such_a_worker_is_asked(node: Node) -> None:
    """A worker of the other family reads slot 30 as a router."""
    worker = await failed(node)
    await node.call("RewindInstance", REWIND)
    await worker.turn()
    others = [await Worker.connect(node, request) for request in (DAPR, b"")]
    worker.leave()
    for other in others:
        with pytest.raises(TimeoutError):
            await other.turn(0.3)
    again = await Worker.connect(node)
    past, new, _ = await again.turn()
    assert kinds(past) == [*OLD, "execution_completed"]
    assert kinds(new) == ["orchestrator_started", "slot 30"]


@pytest.mark.parametrize("request_", [DAPR, b"", SIZED], ids=["dapr", "unknown", "not yet known"])
async def test_where_no_worker_is_known_to_know_how_it_is_done_here(node: Node, request_: bytes) -> None:
    (await failed(node)).leave()
    other = await Worker.connect(node, request_)
    await node.call("RewindInstance", REWIND)
    past, new, _ = await other.turn()
    assert kinds(past) == ["orchestrator_started", "execution_started", "orchestrator_started", "orchestrator_started"]
    assert kinds(new) == ["orchestrator_started"]


async def test_statuses_of_rewind(node: Node) -> None:
    """D.4 Rewind missing, wrong state."""
    assert (await node.refusal("RewindInstance", REWIND))[0] is StatusCode.NOT_FOUND
    await node.begin("w")
    status, text = await node.refusal("RewindInstance", REWIND)
    assert (status, "PENDING" in text) == (StatusCode.FAILED_PRECONDITION, True)
    assert (await node.refusal("RewindInstance", pb.RewindInstanceRequest()))[0] is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("agent", "request_", "may"),
    [
        ("grpc-python/1.85", "08c80110c801", True),
        ("grpc-python/1.85", "", False),
        ("grpc-dotnet/2.67", "080110011801", True),
        ("durabletask-js grpc-node-js/1.12", "", True),
        ("grpc-java-netty/1.70", "1801", False),
        ("grpc-go/1.70", "", False),
        ("dapr-sdk-dotnet/1.17 grpc-dotnet/2.67", "08c80110c801", False),
        ("dapr-js-sdk/workflow grpc-node-js/1.12", "", False),
        ("grpc-python/1.85", "08c80110c80122020302", False),
    ],
)
def test_who_speaks_like_an_sdk_that_rewinds(agent: str, request_: str, may: bool) -> None:
    request = pb.GetWorkItemsRequest.FromString(bytes.fromhex(request_))
    assert dialects.may_rewind({"user-agent": agent}, request) is may


def test_an_event_of_the_rewind_is_only_for_the_family_that_has_it() -> None:
    rewound = pb.HistoryEvent(event_id=-1, execution_rewound=pb.ExecutionRewound(reason=StringValue(value="r")))
    for family in (dialects.NEUTRAL, dialects.DAPR, dialects.DAPR_DETACHING):
        assert dialects.encode_event(family, 3, events.encode(rewound)) == b""
    sent = fields(dialects.encode_event(dialects.MICROSOFT, 3, events.encode(rewound)))[3][0]
    assert pb.ExecutionRewound.FromString(fields(sent)[30][0]) == rewound.execution_rewound


def test_what_is_in_the_slots_of_a_new_history_is_found_under_its_own_name() -> None:
    tag = pb.Tag(key="k", value="v").SerializeToString()
    history = pb.Rewind(
        new_history=[
            pb.HistoryEvent(task_scheduled=pb.TaskScheduled(name="t", slot_5=[tag])),
            pb.HistoryEvent(child_created=pb.ChildCreated(name="c", slot_6=[tag])),
            pb.HistoryEvent(slot_30=pb.ExecutionRewound(reason=StringValue(value="r")).SerializeToString()),
        ]
    )
    action = pb.Action(id=-1, slot_9=history.SerializeToString())
    response, family = dialects.completion.read(pb.OrchestratorResponse(actions=[action]).SerializeToString())
    task_, child, rewound = response.actions[0].rewind.new_history
    assert family is dialects.MICROSOFT
    assert (dict(task_.task_scheduled.tags), dict(child.child_created.tags)) == ({"k": "v"}, {"k": "v"})
    assert rewound.execution_rewound.reason.value == "r"
    assert (len(task_.task_scheduled.slot_5), len(child.child_created.slot_6)) == (0, 0)
    assert not rewound.HasField("slot_30")
