"""An app whose sidecar the test plays: what it is sent, what it says, and what is seen of it at the other side."""

from collections.abc import Callable
from typing import Any

from sidecar.core.model import Kind, Position
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer
from tests.inprocess.world import call, end

ACCEPTED, ALREADY, MISSING, EXISTS, DENIED, INVALID = 0, 1, 3, 4, 6, 7  # verdicts
ORDERS = {"namespace": "default", "app_id": "orders"}


class PlayedApp(PlayedPeer):
    """An app that accepts all that it is sent, and answers when the test says so."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.messages: list[peer_pb2.Message] = []
        self._last = 0

    async def receive(self, seconds: float = 5.0) -> peer_pb2.Frame | None:
        while True:
            frame = await super().receive(seconds)
            if frame is None or frame.WhichOneof("frame") != "batch":
                return frame
            await self._accept(frame.batch)

    async def _accept(self, batch: peer_pb2.Batch) -> None:
        self.messages.extend(batch.messages)
        answers = [peer_pb2.Answer(id=message.id) for message in batch.messages]
        await self.send(peer_pb2.Frame(answers=peer_pb2.Answers(sequence=batch.sequence, answers=answers)))

    async def asked(self, number: int) -> peer_pb2.Message:
        """The n-th message that came, from 1."""
        while len(self.messages) < number:
            frame = await super().receive()
            assert frame is not None, "the link ended"
            if frame.WhichOneof("frame") == "batch":
                await self._accept(frame.batch)
        return self.messages[number - 1]

    async def tell(self, *messages: peer_pb2.Message) -> list[int]:
        """Send each as a new message; the verdicts."""
        for message in messages:
            self._last += 1
            message.id = self._last
        return [answer.verdict for answer in await self.ask(*messages)]

    async def say(self, request: peer_pb2.Message, value: str = "paid", **changed: Any) -> int:
        """Send the result of a call, or of one that differs from it; the verdict."""
        call_ = peer_pb2.Call()
        call_.CopyFrom(request.call)
        for name, part in changed.items():
            setattr(call_, name, part)
        event = pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=call_.task_id))
        event.task_completed.result.value = value
        (verdict,) = await self.tell(
            peer_pb2.Message(
                kind=Kind.RESULT,
                target=request.source,
                source=request.target,
                call=call_,
                payload=event.SerializeToString(),
            )
        )
        return verdict


async def history(node: Node, instance_id: str) -> list[pb.HistoryEvent]:
    """The log of an instance, with what waits for the next turn."""
    store = node.sidecar.store
    state = await store.load("default", instance_id)
    assert state is not None
    log_ = await store.events(state.instance.key, Position(0, -1), 1 << 50)
    return [pb.HistoryEvent.FromString(event) for event in log_]


async def log(node: Node, instance_id: str) -> list[str]:
    """What the history of an instance has, in order."""
    return [str(event.WhichOneof("kind")) for event in await history(node, instance_id)]


def asks(*apps: str) -> Callable[[list[pb.HistoryEvent]], list[pb.Action]]:
    """A workflow that asks the apps for something, one after the other, and ends with what they said."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        said = [event.task_completed.result.value for event in events if event.HasField("task_completed")]
        if len(said) == len(apps):
            return [end(",".join(said))]
        return [call(len(said) + 1, "charge", apps[len(said)])]

    return flow


def creation(execution: str, parent: str = "p-1", turn: int = 1) -> peer_pb2.Message:
    """App pay's wish for a child "kid", by an execution of its workflow "boss"."""
    event = pb.HistoryEvent()
    started = event.execution_started
    started.name, started.input.value = "flow", f'"{execution}"'
    started.instance.instance_id, started.instance.execution_id.value = "kid", execution
    return peer_pb2.Message(
        kind=Kind.CREATE,
        target=peer_pb2.Actor(**ORDERS, kind="workflow", hub="default", id="kid"),
        source=peer_pb2.Actor(namespace="default", app_id="pay", kind="workflow", hub="default", id="boss"),
        call=peer_pb2.Call(execution_id=parent, turn=turn, task_id=1),
        payload=event.SerializeToString(),
    )


async def state(node: Node, instance_id: str) -> pb.InstanceState:
    request = pb.GetInstanceRequest(instance_id=instance_id, get_inputs_and_outputs=True)
    return pb.GetInstanceResponse.FromString(await node.call("GetInstance", request)).state
