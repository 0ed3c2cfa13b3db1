"""Whole sidecars in this process, and workers and peers that the test plays over real connections."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from sidecar import app
from sidecar.config.settings import Settings
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.peer import link
from sidecar.edge.transport.ports import Closed, DuplexCall, Metadata, Refused, StatusCode
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb

SERVICE = "/TaskHubSidecarService/"
Flow = Callable[[list[pb.HistoryEvent]], Sequence[pb.Action]]
Run = Callable[[pb.ActivityRequest], str]


def fields(data: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a message."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        size, at = _varint(data, at)
        if key & 7 == 2:
            found.setdefault(key >> 3, []).append(data[at : at + size])
            at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at


class Node:
    """A sidecar that serves, and a connection to its app port."""

    def __init__(self, sidecar: app.Sidecar, ports: app.Ports) -> None:
        self.sidecar = sidecar
        self.ports = ports
        self.until = asyncio.Event()
        self.serving = asyncio.create_task(sidecar.serve(self.until))
        self.channel = GrpcChannel(f"127.0.0.1:{ports.grpc[0]}")
        self.workers: list[PlayedWorker] = []
        self.metadata: tuple[tuple[str, str], ...] = ()

    def of_hub(self, hub: str) -> "Node":
        """The same sidecar, for calls and workers that name a task hub."""
        view = copy.copy(self)
        view.metadata = (("taskhub", hub),)
        return view

    def as_sdk(self, agent: str) -> "Node":
        """The same sidecar, for calls and workers of an SDK that calls itself so."""
        view = copy.copy(self)
        view.metadata = (("x-user-agent", agent),)
        return view

    @classmethod
    async def start(cls, app_id: str, directory: Path, **settings: Any) -> "Node":
        given: dict[str, Any] = {"grpc_port": (0,), "http_port": 0, "peer_port": 0, "drain_timeout": 0.2}
        sidecar = await app.create(Settings(app_id=app_id, data_dir=directory / app_id, **given | settings))
        return cls(sidecar, await sidecar.start())

    @property
    def peer_address(self) -> str:
        return f"127.0.0.1:{self.ports.peer}"

    async def stop(self) -> None:
        for worker in self.workers:
            await worker.stop()
        self.until.set()
        await self.serving
        await self.sidecar.stop()
        await self.channel.close()

    async def call(self, method: str, request: Message | bytes = b"", seconds: float = 10.0) -> bytes:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        return await self.channel.unary(SERVICE + method, body, self.metadata, timeout=seconds)

    async def refusal(
        self, method: str, request: Message | bytes = b"", seconds: float = 10.0
    ) -> tuple[StatusCode, str]:
        """Status and text of a call, whatever it is."""
        try:
            await self.call(method, request, seconds)
        except Refused as refused:
            return refused.status, refused.message
        return StatusCode.OK, ""

    async def begin(self, instance_id: str, name: str = "flow", data: str = '"in"') -> None:
        request = pb.CreateInstanceRequest(instance_id=instance_id, name=name, input=StringValue(value=data))
        await self.call("StartInstance", request)

    async def outcome(self, instance_id: str, seconds: float = 10.0) -> pb.InstanceState:
        """The instance once it has ended."""
        request = pb.GetInstanceRequest(instance_id=instance_id, get_inputs_and_outputs=True)
        return pb.GetInstanceResponse.FromString(await self.call("WaitForInstanceCompletion", request, seconds)).state

    def worker(
        self, flow: Flow | None = None, activities: Mapping[str, Run] | None = None, asked: bytes = b""
    ) -> "PlayedWorker":
        """Connect a worker; `asked` is what it asks for work with."""
        worker = PlayedWorker(self, flow or (lambda events: []), activities or {}, asked)
        self.workers.append(worker)
        return worker


Start = Callable[..., Awaitable[Node]]


class PlayedWorker:
    """Answers each turn with what `flow` says to all its events so far, and each activity by name."""

    def __init__(self, node: Node, flow: Flow, activities: Mapping[str, Run], asked: bytes = b"") -> None:
        self.turns: list[list[pb.HistoryEvent]] = []
        self.requests: list[pb.ActivityRequest] = []
        self._node, self._flow, self._activities, self._asked = node, flow, activities, asked
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        stream = await work_items(self._node.channel, self._asked, metadata=self._node.metadata)
        try:
            while (item := await stream.receive()) is not None:
                await self._work(fields(item))
        finally:
            stream.cancel()  # stopped within a call of its own, it would stay connected

    async def _work(self, item: dict[int, list[bytes]]) -> None:
        token = item[10][0].decode() if 10 in item else ""
        if 1 in item:
            await self._turn(fields(item[1][0]), token)
        elif 2 in item:
            await self._activity(pb.ActivityRequest.FromString(item[2][0]), token)

    async def _turn(self, turn: dict[int, list[bytes]], token: str) -> None:
        events = [pb.HistoryEvent.FromString(event) for event in (*turn.get(3, ()), *turn[4])]
        self.turns.append(events)
        response = pb.OrchestratorResponse(
            instance_id=turn[1][0].decode(), actions=self._flow(events), completion_token=token
        )
        await self._node.call("CompleteOrchestratorTask", response)

    async def _activity(self, request: pb.ActivityRequest, token: str) -> None:
        self.requests.append(request)
        response = pb.ActivityResponse(
            instance_id=request.instance.instance_id, task_id=request.task_id, completion_token=token
        )
        try:
            response.result.value = self._activities[request.name](request)
        except Exception as error:
            response.failure.error_type, response.failure.error_message = type(error).__name__, str(error)
        await self._node.call("CompleteActivityTask", response)


async def get(node: Node, instance_id: str) -> pb.GetInstanceResponse:
    """An instance with all that is shown of it."""
    request = pb.GetInstanceRequest(instance_id=instance_id, get_inputs_and_outputs=True)
    return pb.GetInstanceResponse.FromString(await node.call("GetInstance", request))


async def work_items(channel: GrpcChannel, request: bytes = b"", metadata: Metadata = ()) -> DuplexCall:
    """Open a stream of work items."""
    stream = channel.duplex(SERVICE + "GetWorkItems", metadata)
    with suppress(Closed):  # it is refused before anything of it is read: `receive` says why
        await stream.send(request)
        await stream.done_sending()
    return stream


def hello(
    app_id: str = "evil", namespace: str = "default", store: str = "evil store", process: str = ""
) -> peer_pb2.Frame:
    greeting = peer_pb2.Hello(protocol=1, namespace=namespace, app_id=app_id, store_id=store, process_id=process)
    return peer_pb2.Frame(hello=greeting)


class PlayedPeer:
    """A peer link to a sidecar, frame by frame."""

    def __init__(self, node: Node) -> None:
        self._channel = GrpcChannel(node.peer_address)
        self._call = self._channel.duplex(link.METHOD)
        self._sequence = 0

    async def send(self, frame: peer_pb2.Frame | bytes) -> None:
        await self._call.send(frame if isinstance(frame, bytes) else frame.SerializeToString())

    async def receive(self, seconds: float = 5.0) -> peer_pb2.Frame | None:
        """The next frame that is not a ping, None at the end, however it came."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    message = await self._call.receive()
                except Refused:
                    return None
                frame = None if message is None else peer_pb2.Frame.FromString(message)
                if frame is None or frame.WhichOneof("frame") != "ping":
                    return frame

    async def introduce(self, frame: peer_pb2.Frame | bytes) -> str:
        """Begin with this frame; the reason when that is refused, else nothing."""
        await self.send(frame)
        answer = await self.receive()
        if answer is None:
            return "the link ended"
        return answer.refused if answer.WhichOneof("frame") == "refused" else ""

    async def ask(self, *messages: peer_pb2.Message, floor: int = 0) -> list[peer_pb2.Answer]:
        """Send a batch and return the answers to it; batches of the other side are left alone."""
        self._sequence += 1
        await self.send(peer_pb2.Frame(batch=peer_pb2.Batch(sequence=self._sequence, floor=floor, messages=messages)))
        while (frame := await self.receive()) is not None:
            if frame.WhichOneof("frame") == "answers" and frame.answers.sequence == self._sequence:
                return list(frame.answers.answers)
        raise Closed("the link ended without an answer")

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()
