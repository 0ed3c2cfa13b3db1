"""`TaskHubSidecarService` for both SDK families: parse, ask the service, answer.

Malformed bytes and wrong arguments are the caller's mistake and end with INVALID_ARGUMENT; answers to work items that
come too late are OK, since SDKs try again on anything else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from sidecar.core import events
from sidecar.core.model import (
    DEFAULT_HUB,
    MalformedError,
    Outcome,
    Reply,
)
from sidecar.core.names import invalid_app_id, invalid_instance_id, invalid_name
from sidecar.core.operations import Identity, Start
from sidecar.edge import dialects
from sidecar.edge.dialects import completion, wire
from sidecar.edge.streams import Streams
from sidecar.edge.transport import Call, Handlers, Outflow, Refused, Status, Stream, Unary
from sidecar.edge.views import state_of
from sidecar.engine import Address
from sidecar.schema import taskhub_pb2 as pb
from sidecar.service import Service
from sidecar.store.protocol import UnavailableError

SERVICE = "/TaskHubSidecarService/"
_CHUNK_BYTES = 1024 * 1024
_STATUS = {
    Outcome.MISSING: Status.NOT_FOUND,
    Outcome.EXISTS: Status.ALREADY_EXISTS,
    Outcome.WRONG_STATE: Status.FAILED_PRECONDITION,
    Outcome.DENIED: Status.PERMISSION_DENIED,
    Outcome.INVALID: Status.INVALID_ARGUMENT,
}
# Answers to work items are taken while the sidecar stops; nothing else is.
_WHILE_STOPPING = ("CompleteOrchestratorTask", "CompleteWorkflowTask", "CompleteActivityTask")
M = TypeVar("M", bound=Message)
Method = Callable[[Call, M], Awaitable[bytes]]
log = structlog.get_logger(__name__)


class TaskHub:
    """The handlers of the service."""

    def __init__(self, service: Service, streams: Streams) -> None:
        self._service = service
        self._streams = streams
        self._me = service.engine.me
        self.stopping = asyncio.Event()
        self.closing = asyncio.Event()

    def handlers(self) -> Handlers:
        """Return the methods of the service by path."""
        unary = {
            "Hello": self._parsed(Empty, self._hello),
            "StartInstance": self._parsed(pb.CreateInstanceRequest, self._start),
            "GetInstance": self._parsed(pb.GetInstanceRequest, self._get),
            "WaitForInstanceStart": self._parsed(pb.GetInstanceRequest, self._wait_start),
            "WaitForInstanceCompletion": self._parsed(pb.GetInstanceRequest, self._wait_completion),
            "RaiseEvent": self._parsed(pb.RaiseEventRequest, self._raise),
            "TerminateInstance": self._parsed(pb.TerminateRequest, self._terminate),
            "SuspendInstance": self._parsed(pb.ReasonRequest, self._suspend),
            "ResumeInstance": self._parsed(pb.ReasonRequest, self._resume),
            "PurgeInstances": self._parsed(pb.PurgeInstancesRequest, self._purge),
            "GetInstanceHistory": self._parsed(pb.GetInstanceHistoryRequest, self._history),
            "CompleteActivityTask": self._parsed(pb.ActivityResponse, self._complete_activity),
            "CompleteOrchestratorTask": self._complete_turn,
            "CompleteWorkflowTask": self._complete_turn,
            "AbandonTaskActivityWorkItem": self._parsed(pb.AbandonRequest, self._abandon_activity),
            "AbandonTaskOrchestratorWorkItem": self._parsed(pb.AbandonRequest, self._abandon_turn),
        }
        stream = {"GetWorkItems": self._work_items, "StreamInstanceHistory": self._stream_history}
        return Handlers(
            unary={SERVICE + name: self._guarded(name, method) for name, method in unary.items()},
            stream={SERVICE + name: self._guarded_stream(method) for name, method in stream.items()},
        )

    # ------------------------------------------------------------ around every call

    def _guarded(self, name: str, method: Unary) -> Unary:
        """Wrap a method: refuse it while stopping, and turn the errors of the sidecar into statuses."""

        async def serve(call: Call, body: bytes) -> bytes:
            if self.stopping.is_set() and name not in _WHILE_STOPPING:
                raise Refused(Status.UNAVAILABLE, "the sidecar is stopping: try again in a moment")
            try:
                return await method(call, body)
            except MalformedError as error:
                raise Refused(Status.INVALID_ARGUMENT, str(error)) from error
            except UnavailableError as error:
                raise Refused(Status.UNAVAILABLE, f"the store is not available: {error}") from error

        return serve

    def _guarded_stream(self, method: Stream) -> Stream:
        async def serve(call: Call, body: bytes, out: Outflow) -> None:
            try:
                await method(call, body, out)
            except UnavailableError as error:
                raise Refused(Status.UNAVAILABLE, f"the store is not available: {error}") from error

        return serve

    def _parsed(self, kind: type[M], method: Method[M]) -> Unary:
        async def serve(call: Call, body: bytes) -> bytes:
            return await method(call, _parse(kind, body))

        return serve

    def _address(self, instance_id: str, router: pb.Router) -> Address:
        """Return whom a client means; an ID or app that cannot exist is refused, naming it."""
        wrong = invalid_instance_id(instance_id) or (router.target_app_id and invalid_app_id(router.target_app_id))
        if wrong:
            raise Refused(Status.INVALID_ARGUMENT, wrong)
        if router.target_app_id not in ("", self._me.app):
            text = f"client calls to another app ('{router.target_app_id}') are not supported yet: ask its own sidecar"
            raise Refused(Status.UNIMPLEMENTED, text)
        return (DEFAULT_HUB, instance_id)

    # ------------------------------------------------------------ clients

    async def _hello(self, call: Call, request: Empty) -> bytes:
        return b""

    async def _start(self, call: Call, request: pb.CreateInstanceRequest) -> bytes:
        ids = self._service.engine.ids
        instance_id = request.instance_id or ids.new_id()
        hub, _ = self._address(instance_id, request.router)
        wrong = invalid_name("workflow", request.name)
        if wrong:
            raise Refused(Status.INVALID_ARGUMENT, wrong)
        identity = Identity(hub, instance_id, request.execution_id.value or ids.new_id())
        _done(await self._service.start(_wish(request, identity, self._me.app)))
        return pb.CreateInstanceResponse(instance_id=instance_id).SerializeToString()

    async def _get(self, call: Call, request: pb.GetInstanceRequest) -> bytes:
        address = self._address(request.instance_id, request.router)
        return state_of(await self._service.view(address, request.get_inputs_and_outputs))

    async def _wait_start(self, call: Call, request: pb.GetInstanceRequest) -> bytes:
        return await self._wait(request, ended=False)

    async def _wait_completion(self, call: Call, request: pb.GetInstanceRequest) -> bytes:
        return await self._wait(request, ended=True)

    async def _wait(self, request: pb.GetInstanceRequest, *, ended: bool) -> bytes:
        """Wait for an instance, as long as the caller does and the sidecar is not closing."""
        address = self._address(request.instance_id, request.router)
        waiting = asyncio.ensure_future(
            self._service.wait(address, ended=ended, payloads=request.get_inputs_and_outputs)
        )
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refused(Status.UNAVAILABLE, "the sidecar is stopping: wait again in a moment")
            return state_of(waiting.result())
        finally:
            waiting.cancel()
            closing.cancel()

    async def _raise(self, call: Call, request: pb.RaiseEventRequest) -> bytes:
        address = self._address(request.instance_id, request.router)
        wrong = invalid_name("event", request.name)
        if wrong:
            raise Refused(Status.INVALID_ARGUMENT, wrong)
        data = request.input if request.HasField("input") else None
        return _done(await self._service.raise_event(address, request.name, data))

    async def _terminate(self, call: Call, request: pb.TerminateRequest) -> bytes:
        address = self._address(request.instance_id, request.router)
        output = request.output.value if request.HasField("output") else None
        return _done(await self._service.terminate(address, output, request.recursive))

    async def _suspend(self, call: Call, request: pb.ReasonRequest) -> bytes:
        address = self._address(request.instance_id, request.router)
        return _done(await self._service.suspend(address, request.reason.value or None))

    async def _resume(self, call: Call, request: pb.ReasonRequest) -> bytes:
        address = self._address(request.instance_id, request.router)
        return _done(await self._service.resume(address, request.reason.value or None))

    async def _purge(self, call: Call, request: pb.PurgeInstancesRequest) -> bytes:
        if not request.HasField("instance_id"):
            raise Refused(Status.UNIMPLEMENTED, "purge by filter or batch is not supported yet: give an instance ID")
        address = self._address(request.instance_id, request.router)
        reply, count = await self._service.purge(address, request.recursive, request.force)
        if reply.outcome is not Outcome.MISSING:
            _done(reply)
        response = pb.PurgeInstancesResponse(deleted_instance_count=count)
        response.is_complete.value = True
        return response.SerializeToString()

    async def _history(self, call: Call, request: pb.GetInstanceHistoryRequest) -> bytes:
        log_ = await self._service.history(self._address(request.instance_id, pb.Router()))
        if log_ is None:
            raise Refused(Status.NOT_FOUND, "no such instance exists")
        return b"".join(wire.frame(1, dialects.DAPR.event(event)) for event in log_)

    async def _stream_history(self, call: Call, body: bytes, out: Outflow) -> None:
        request = _parse(pb.GetInstanceHistoryRequest, body)
        log_ = await self._service.history(self._address(request.instance_id, pb.Router()))
        if log_ is None:
            raise Refused(Status.NOT_FOUND, "no such instance exists")
        chunk, size = [], 0
        for event in log_:
            chunk.append(wire.frame(1, event))
            size += len(event)
            if size > _CHUNK_BYTES:
                out.send(b"".join(chunk))
                await out.drained()
                chunk, size = [], 0
        out.send(b"".join(chunk))

    # ------------------------------------------------------------ workers

    async def _work_items(self, call: Call, body: bytes, out: Outflow) -> None:
        request = _parse(pb.GetWorkItemsRequest, body)
        await self._streams.serve(call, request, out, self.closing)

    async def _complete_turn(self, call: Call, body: bytes) -> bytes:
        response, family = completion.read(body)
        self._streams.learn(call.peer, family)
        if response.is_partial:
            raise Refused(Status.UNIMPLEMENTED, "answers in several parts are not supported yet")
        if response.requires_history:
            self._service.abandon_turn(response.completion_token)
            return b""
        return _done(await self._service.complete_turn(DEFAULT_HUB, call.peer, response))

    async def _complete_activity(self, call: Call, request: pb.ActivityResponse) -> bytes:
        return _done(await self._service.complete_activity(call.peer, request))

    async def _abandon_activity(self, call: Call, request: pb.AbandonRequest) -> bytes:
        self._service.abandon_activity(request.completion_token)
        return b""

    async def _abandon_turn(self, call: Call, request: pb.AbandonRequest) -> bytes:
        self._service.abandon_turn(request.completion_token)
        return b""


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Refused(Status.INVALID_ARGUMENT, f"the request is not a valid {kind.DESCRIPTOR.name}") from error


def _done(reply: Reply) -> bytes:
    """Return an empty answer, or end the call with the status that SDKs expect for the outcome."""
    status = _STATUS.get(reply.outcome)
    if status is not None:
        raise Refused(status, reply.text)
    return b""


def _wish(request: pb.CreateInstanceRequest, identity: Identity, app: str) -> Start:
    """Return a client's start in the terms of the core.

    An empty start time means now (both JavaScript SDKs send one); an empty version means none (Dapr's Python SDK).
    """
    started = pb.ExecutionStarted(name=request.name, tags=request.tags)
    if request.version.value:
        started.version.CopyFrom(request.version)
    if request.HasField("input"):
        started.input.CopyFrom(request.input)
    if request.HasField("parent_trace_context"):
        started.parent_trace_context.CopyFrom(request.parent_trace_context)
    started.instance.CopyFrom(pb.WorkflowInstance(instance_id=identity.id, app_id=app))
    started.instance.execution_id.value = identity.execution
    scheduled = None
    if request.HasField("scheduled_start"):
        scheduled = events.micros(request.scheduled_start)
        started.scheduled_start.CopyFrom(request.scheduled_start)
    policy = request.reuse_policy
    given = request.HasField("reuse_policy") and (policy.replaceable_status or policy.HasField("action"))
    return Start(
        identity,
        started,
        scheduled,
        replaceable=frozenset(policy.replaceable_status) if given else None,
        ignore_existing=policy.action == 1,
        unique=request.enforce_unique_instance_id,
    )
