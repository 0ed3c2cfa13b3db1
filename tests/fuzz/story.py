"""A whole sidecar that is lied to: by its client, by its worker, by a peer, in any order.

A story is a list of steps in bytes, so that it can be mutated, kept and told again: it runs in simulated time, with IDs
from a seed. After it the sidecar must still take a workflow to its end, and its stored data must be sound.
"""

import asyncio
import random
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from google.protobuf.message import DecodeError

from sidecar.core.model import Changes
from sidecar.core.model import Status as Life
from sidecar.edge.admin.schedules import ScheduleAdmin
from sidecar.edge.client_api.workflows import Workflows
from sidecar.edge.dialects import wire
from sidecar.edge.methods import TASKHUB as SERVICE
from sidecar.edge.transport.ports import NO_NAMES, Call, Closed, Refused
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.fuzz.items import ANSWERS, Item, addressed, honestly, item_of
from tests.fuzz.pure import accepted
from tests.simulation import loop as loops
from tests.simulation.deployment import Node, track_tasks
from tests.simulation.faulty_store import MemoryDisk
from tests.simulation.network import Network
from tests.simulation.programs import Violation
from tests.simulation.sql_store import SqlDisk

KINDS = ("call", "stream", "answer", "again", "link", "frame", "reply", "wait", "leave", "history")
METADATA: tuple[Mapping[str, str | bytes], ...] = (
    {},
    {"user-agent": "grpc-python/1.85.3"},
    {"x-user-agent": "durabletask-dotnet/1.5", "taskhub": "default"},
    {"user-agent": "dapr-sdk-go/v1.11 grpc-go/1.72"},
    {"user-agent": "grpc-dotnet/2.70"},
    {"user-agent": "durabletask-js/0.4"},
    {"dapr-api-token": "x", "user-agent": "grpc-python/1.85.3"},
    {"taskhub": "\x7f" * 300, "trace-bin": b"\xff\x00"},
)
MOST_STEPS = 60
_MOST_BYTES = (1 << 16) - 1
_PAUSES = (0.0, 0.001, 1.0, 10.0, 70.0)  # in simulated seconds
_PROBE_SECONDS = 600.0


class Step(NamedTuple):
    """One thing that is done to the sidecar; `index` and `extra` choose among what there is."""

    kind: str
    index: int = 0
    extra: int = 0
    body: bytes = b""


def written(steps: Sequence[Step]) -> bytes:
    """Return a story in bytes."""
    parts = []
    for step in steps:
        body = step.body[:_MOST_BYTES]
        index = (step.index & 0xFFFF).to_bytes(2, "big")
        parts.append(bytes([KINDS.index(step.kind), *index, step.extra & 255]) + len(body).to_bytes(2, "big") + body)
    return b"".join(parts)


def read(data: bytes) -> list[Step]:
    """Return the steps that bytes stand for; any bytes are a story."""
    steps: list[Step] = []
    at = 0
    while at + 6 <= len(data) and len(steps) < MOST_STEPS:
        index, size = (int.from_bytes(data[at + place : at + place + 2], "big") for place in (1, 4))
        steps.append(Step(KINDS[data[at] % len(KINDS)], index, data[at + 3], data[at + 6 : at + 6 + size]))
        at += 6 + size
    return steps


def place_of(path: str) -> int:
    """Return the index that names a method in a story; it does not change when there are more methods."""
    return zlib.crc32(path.encode()) & 0xFFFF


def named(paths: Iterable[str], index: int) -> str:
    """Return the method that an index names, or the next one on the ring of all indexes."""
    return min(paths, key=lambda path: (place_of(path) - index) & 0xFFFF)


def tell(data: bytes) -> int:
    """Run a story; return how many messages the sidecar was sent. Raises AssertionError, or what escaped."""
    errors: list[Mapping[str, Any]] = []

    def keep(_logger: Any, _level: str, event: Any) -> Any:
        if event.get("exc_info") or _level in ("error", "critical"):
            errors.append(event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[_with_exception, keep])
    try:
        return loops.run(_told(errors, data))()
    finally:
        structlog.configure(**before)


async def _told(errors: list[Mapping[str, Any]], data: bytes) -> Callable[[], int]:
    """Return how it went as a function: what it raises must not end the loop, which still has to be tidied up."""
    told = Told(errors, sql=len(data) % 2 == 0)
    try:
        inputs = await told.run(read(data))
    except Exception as error:
        failed = error

        def fails() -> int:
            raise failed

        return fails
    return lambda: inputs


def _with_exception(_logger: Any, level: str, event: Any) -> Any:
    if level == "exception" or event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


@dataclass
class Out:
    """What a sidecar sends over one stream."""

    sent: list[bytes]
    closed: bool = False
    full: bool = False
    cancelled: bool = False

    def send(self, message: bytes) -> None:
        """See `Outflow`."""
        if self.closed:
            raise Closed("the stream has ended")
        self.sent.append(message)

    async def drained(self) -> None:
        """See `Outflow`."""


class In:
    """What a sidecar is sent over one stream."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        message = await self.queue.get()
        if message is None:
            raise StopAsyncIteration
        return message


class Hostile:
    """The far end of the links that the sidecar opens; it is at every address."""

    def __init__(self, told: "Told") -> None:
        self.name = "ml"
        self._told = told

    def accept(self, call: Call, requests: AsyncIterator[bytes], out: Any) -> "asyncio.Task[None]":
        """See `network.Endpoint`."""
        return asyncio.create_task(self._serve(requests, out))

    async def _serve(self, requests: AsyncIterator[bytes], out: Any) -> None:
        heard: list[bytes] = []
        self._told.links.insert(0, (heard, out.send))  # the sidecar dials again and again
        async for message in requests:
            heard.append(message)


class Told:
    """One story on its way."""

    def __init__(self, errors: list[Mapping[str, Any]], *, sql: bool) -> None:
        self.errors = errors
        network = Network(random.Random(7), lambda text: None)
        network.endpoints["ml"] = Hostile(self)  # type: ignore[assignment]
        disk = SqlDisk if sql else MemoryDisk
        self.node = Node("orders", ["ml"], network, lambda name, text: None, new_disk=disk, retention={}, cascade=True)
        self.calls: list[asyncio.Task[Any]] = []
        self.streams: list[tuple[asyncio.Task[Any], str, Out]] = []
        self.links: list[tuple[list[bytes], Any]] = []
        self.items: list[Item] = []
        self.inputs = 0

    async def run(self, steps: Sequence[Step]) -> int:
        """Take all steps, then see that the sidecar is well."""
        track_tasks(asyncio.get_running_loop())
        self.node.start()
        await asyncio.sleep(0.1)
        handlers = self.node.middle.taskhub.handlers()
        beside = Workflows(handlers.unary).handlers()
        schedules = ScheduleAdmin(self.node.middle.services.schedules).handlers()
        admin = self.node.middle.admin.handlers()
        self.unary = {**handlers.unary, **beside.unary, **admin.unary, **schedules.unary}
        self.stream = handlers.stream
        for step in steps:
            self._take(step)
            await asyncio.sleep(_PAUSES[step.index % len(_PAUSES)] if step.kind == "wait" else 0.01)
            self._collect()
        self._leave()
        await asyncio.sleep(1.0)
        await self._probe()
        await self._end()
        return self.inputs

    # ------------------------------------------------------------ steps

    def _take(self, step: Step) -> None:
        getattr(self, f"_{step.kind}")(step)
        self.inputs += step.kind not in ("wait", "leave")

    def _call(self, step: Step) -> None:
        self._start(named(self.unary, step.index), step.body, step.extra)

    def _start(self, path: str, body: bytes, extra: int, peer: str = "ipv4:client") -> None:
        call = _called(path, extra, peer)
        self.calls.append(self.node.run(self.unary[path](call, body), path))  # type: ignore[arg-type]

    def _stream(self, step: Step) -> None:
        peer = f"ipv4:worker {len(self.streams)}"
        path = SERVICE + "GetWorkItems"
        out = Out([])
        task = self.node.run(self._streamed(path, step, peer, out), path)
        self.streams.append((task, peer, out))

    def _history(self, step: Step) -> None:
        path = SERVICE + "StreamInstanceHistory"
        self.calls.append(self.node.run(self._streamed(path, step, "ipv4:client", Out([])), path))

    async def _streamed(self, path: str, step: Step, peer: str, out: Out) -> None:
        try:
            await self.stream[path](_called(path, step.extra, peer), step.body, out)
        finally:
            out.closed = True

    def _answer(self, step: Step, *, keep: bool = False) -> None:
        """Answer work of the kind that the step wants, as far as any is out: the token is right, nothing else is."""
        fitting = [item for item in self.items if item.kind == step.index % 3]
        if fitting:
            item = fitting[0]
            if not keep:
                self.items.remove(item)
            self._start(SERVICE + ANSWERS[item.kind], step.body + addressed(item), step.extra, item.peer)

    def _again(self, step: Step) -> None:
        self._answer(step, keep=True)

    def _link(self, step: Step) -> None:
        """Greet the sidecar on a link that is opened for it."""
        incoming, out = In(), Out([])
        incoming.queue.put_nowait(step.body)
        accept = self.node.middle.peers.accept(_called("link", 0, "ipv4:peer"), incoming, out)
        self.calls.append(self.node.run(accept, "link"))
        self.links.append((out.sent, incoming.queue.put_nowait))

    def _frame(self, step: Step) -> None:
        if self.links:
            self._to(step.index, step.body)

    def _to(self, index: int, frame: bytes) -> None:
        try:
            self.links[-1 - index % len(self.links)][1](frame)
        except Closed:
            return

    def _reply(self, step: Step) -> None:
        """Answer the last call or batch that came over a link, with its number and else as the step says."""
        for index, (heard, _) in enumerate(reversed(self.links)):
            for message in reversed(heard):
                frame = peer_pb2.Frame.FromString(message)
                if frame.HasField("request"):
                    response = _honest(step.body) + peer_pb2.Response(id=frame.request.id).SerializeToString()
                    self._to(index, wire.frame(8, response))
                    return
                if frame.HasField("batch"):
                    answers = step.body + peer_pb2.Answers(sequence=frame.batch.sequence).SerializeToString()
                    self._to(index, wire.frame(3, answers))
                    return

    def _wait(self, step: Step) -> None:
        """Let time pass; how much, the loop says. Now and then the wall clock jumps."""
        self.node.clock.jump += 3600.0 * (step.extra % 4 == 3)

    def _leave(self, step: Step | None = None) -> None:
        for task, _, _ in self.streams:
            task.cancel()
        self.streams.clear()
        self.items.clear()

    def _collect(self) -> None:
        """Take in what the streams were sent, and look at what has become of the calls."""
        for _, peer, out in self.streams:
            self.items.extend(item for message in out.sent if (item := item_of(peer, message)) is not None)
            out.sent.clear()
        left = []
        for task in self.calls:
            if task.done():
                _check(task)
            else:
                left.append(task)
        self.calls = left

    # ------------------------------------------------------------ the end

    async def _probe(self) -> None:
        """Run a workflow, with an honest worker that also takes all that the story has left behind."""
        asked = pb.CreateInstanceRequest(instance_id="the probe", name="flow")
        call = _called("StartInstance", 0, "ipv4:probe")
        await self.node.run(self.unary[SERVICE + "StartInstance"](call, asked.SerializeToString()), "probe")  # type: ignore[arg-type]
        self._stream(Step("stream", extra=1, body=pb.GetWorkItemsRequest(max_activities=9).SerializeToString()))
        get = pb.GetInstanceRequest(instance_id="the probe").SerializeToString()
        loop = asyncio.get_running_loop()
        end = loop.time() + _PROBE_SECONDS
        while loop.time() < end:
            await asyncio.sleep(0.01)
            self._collect()
            for item in self.items:
                self._start(SERVICE + ANSWERS[item.kind], honestly(item), 0, item.peer)
            self.items.clear()
            answer = await self.node.run(self.unary[SERVICE + "GetInstance"](call, get), "probe")  # type: ignore[arg-type]
            if pb.GetInstanceResponse.FromString(answer).state.status == Life.COMPLETED:
                return
        raise AssertionError("after this the sidecar takes no workflow to its end")

    def _check_stored(self) -> None:
        """See that whatever waits has something that will end the waiting, also where nothing was changed of late."""
        try:
            self.node.watch.check([Changes(key=one.key) for one in self.node.disk.instances()])
        except Violation as violation:
            self.node.violations.append(violation)

    async def _end(self) -> None:
        await asyncio.sleep(0.1)
        self._collect()
        self._leave()
        for task in self.calls:
            task.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)
        self._check_stored()
        if self.node.violations:
            raise AssertionError(f"the stored data is not sound: {self.node.violations[0]}")
        for error in [*self.errors, *asyncio.get_running_loop().errors]:  # type: ignore[attr-defined]
            cause = error.get("exception") or error.get("exc_info")
            cause = cause[1] if isinstance(cause, tuple) else cause
            if not isinstance(cause, asyncio.CancelledError):
                text = f"logged: {error.get('event') or error.get('message')}: {error.get('error', '')} {cause!r}"
                raise AssertionError(text) from (cause if isinstance(cause, BaseException) else None)
        self.node.crash()
        self.node.disk.close()


def _check(task: "asyncio.Task[Any]") -> None:
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, Refused):
        accepted(error)
    elif error is not None:
        raise error


def _called(path: str, extra: int, peer: str) -> Call:
    deadline = (None, 0.5, 0.0, 5.0)[extra >> 3 & 3]
    return Call(path, METADATA[extra & 7], deadline, peer, NO_NAMES)


def _honest(body: bytes) -> bytes:
    """Return a peer's reply without the claim that it has failed itself: that is passed on as it is."""
    try:
        response = peer_pb2.Response.FromString(body)
    except DecodeError:
        return body
    return b"" if response.status in (2, 13) else body
