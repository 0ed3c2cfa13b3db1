"""The calls of clients: start, look at, wait for and command an instance."""

import asyncio
from typing import Any

from google.protobuf.empty_pb2 import Empty

from sidecar.core import events
from sidecar.core.names import invalid_name, invalid_tags
from sidecar.core.operations import Start
from sidecar.core.workflow.creation import Identity
from sidecar.edge import dialects
from sidecar.edge.dialects import inputs, wire
from sidecar.edge.dialects.inputs import InputForm
from sidecar.edge.left_out import fitted
from sidecar.edge.rpc import Forwarded, Methods, address_of, caller_of, done, new_address, parse, parsed
from sidecar.edge.taskhub import read_back
from sidecar.edge.taskhub.streams import Streams
from sidecar.edge.taskhub.views import answer
from sidecar.edge.transport.ports import Call, Outflow, Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.clients import ClientService

_IGNORE, _TERMINATE = 1, 2  # actions of the older reuse policy
_CHUNK_BYTES = 1024 * 1024
_UNIQUE = 10  # of a start: Dapr's flag, where Microsoft has a time


class Clients:
    """Handlers; `closing` is set when the sidecar lets go of those who wait; `limit` is its own for messages."""

    def __init__(self, service: ClientService, streams: Streams, closing: asyncio.Event, limit: int) -> None:
        self._limit = limit
        self._service = service
        self._streams = streams
        self._me = service.engine.me
        self._ids = service.engine.ids
        self._closing = closing

    def methods(self) -> Methods:
        """Return the handlers by RPC."""
        return {
            "Hello": parsed(Empty, self._hello),
            "StartInstance": parsed(pb.CreateInstanceRequest, self._start),
            "GetInstance": parsed(pb.GetInstanceRequest, self._get),
            "WaitForInstanceStart": parsed(pb.GetInstanceRequest, self._wait_start),
            "WaitForInstanceCompletion": parsed(pb.GetInstanceRequest, self._wait_completion),
            "RaiseEvent": parsed(pb.RaiseEventRequest, self._raise),
            "TerminateInstance": parsed(pb.TerminateRequest, self._terminate),
            "SuspendInstance": parsed(pb.ReasonRequest, self._suspend),
            "ResumeInstance": parsed(pb.ReasonRequest, self._resume),
            "GetInstanceHistory": parsed(pb.GetInstanceHistoryRequest, self._history),
        }

    async def _hello(self, call: Call, request: Empty) -> bytes:
        return b""

    async def _start(self, call: Call, request: pb.CreateInstanceRequest) -> bytes:
        ids = self._ids
        instance_id = request.instance_id or ids.new_id()
        hub, _ = new_address(call, instance_id)
        wrong = invalid_name("workflow", request.name) or invalid_tags(request.tags)
        if wrong:
            raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
        identity = Identity(hub, instance_id, request.execution_id.value or ids.new_id())
        start = _start_of(request, identity, self._me.app, older=dialects.means_older_reuse(call.metadata))
        done(await self._service.start(start, caller_of(call), call.deadline))
        return pb.CreateInstanceResponse(instance_id=instance_id).SerializeToString()

    async def _get(self, call: Call, request: pb.GetInstanceRequest) -> bytes:
        address = address_of(call, request.instance_id)
        view = await self._service.view(address, request.get_inputs_and_outputs, caller_of(call))
        return answer(view, self._streams.family_of(call), bare=_bare(call, request))

    async def _wait_start(self, call: Call, request: pb.GetInstanceRequest) -> bytes:
        return await self._wait(call, request, ended=False)

    async def _wait_completion(self, call: Call, request: pb.GetInstanceRequest) -> bytes:
        return await self._wait(call, request, ended=True)

    async def _wait(self, call: Call, request: pb.GetInstanceRequest, *, ended: bool) -> bytes:
        """Wait for an instance, as long as the caller does and the sidecar is not closing.

        One that does not exist yet is waited for, as SDKs expect that look right after a start, or before it. It is
        answered at once where the SDK documents that, and for another app's client, who may have named the wrong app.
        """
        address = address_of(call, request.instance_id)
        told = isinstance(call, Forwarded) or dialects.is_told_of_missing(call.metadata)
        waiting = asyncio.ensure_future(
            self._service.wait(
                address,
                ended=ended,
                payloads=request.get_inputs_and_outputs,
                missing=not told,
                caller=caller_of(call),
            )
        )
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refused(StatusCode.UNAVAILABLE, "the sidecar is stopping: wait again in a moment")
            view = waiting.result()
            if view is None and dialects.is_microsoft_dotnet(call.metadata):  # which reads the state unseen
                raise Refused(StatusCode.NOT_FOUND, "the instance was purged while it was waited for")
            return answer(view, self._streams.family_of(call), bare=_bare(call, request))
        finally:
            waiting.cancel()
            closing.cancel()

    async def _raise(self, call: Call, request: pb.RaiseEventRequest) -> bytes:
        address = address_of(call, request.instance_id)
        wrong = invalid_name("event", request.name)
        if wrong:
            raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
        data = request.input if request.HasField("input") else None
        return done(await self._service.raise_event(address, request.name, data, caller_of(call)))

    async def _terminate(self, call: Call, request: pb.TerminateRequest) -> bytes:
        address = address_of(call, request.instance_id)
        output = request.output.value if request.HasField("output") else None
        return done(await self._service.terminate(address, output, request.recursive, caller_of(call)))

    async def _suspend(self, call: Call, request: pb.ReasonRequest) -> bytes:
        address = address_of(call, request.instance_id)
        return done(await self._service.suspend(address, request.reason.value or None, caller_of(call)))

    async def _resume(self, call: Call, request: pb.ReasonRequest) -> bytes:
        address = address_of(call, request.instance_id)
        return done(await self._service.resume(address, request.reason.value or None, caller_of(call)))

    async def _history(self, call: Call, request: pb.GetInstanceHistoryRequest) -> bytes:
        log_ = await self._service.history(address_of(call, request.instance_id), caller=caller_of(call))
        if log_ is None:
            raise Refused(StatusCode.NOT_FOUND, "no such instance exists")
        # A worker that reads what it has lost must find the events that it would have been sent.
        family = dialects.DAPR if self._streams.family(call.peer) is dialects.DAPR else dialects.DAPR_DETACHING
        family = dialects.reading(family, InputForm.BARE, fails_on_empty=inputs.fails_on_empty(call.metadata))
        return b"".join(dialects.encode_event(family, 1, event) for event in read_back.shown(log_, self._me.app))

    async def stream_history(self, call: Call, body: bytes, out: Outflow) -> None:
        """Serve `StreamInstanceHistory`; only the execution that runs, or was the last, has a history."""
        request = parse(pb.GetInstanceHistoryRequest, body)
        address = address_of(call, request.instance_id)
        execution = request.execution_id.value
        log_ = await self._service.history(address, for_turn=request.for_work_item_processing, execution=execution)
        if log_ is None:
            text = f"the instance has no execution '{execution[:80]}'" if execution else "no such instance exists"
            raise Refused(StatusCode.NOT_FOUND, text)
        readers = dialects.MICROSOFT if request.for_work_item_processing else dialects.MICROSOFT_READERS
        family = dialects.reading(readers, inputs.form_of(call.metadata))
        most = dialects.most_received(call.metadata, self._limit)
        chunk: list[bytes] = []
        for event in log_:
            shown = event if request.for_work_item_processing else _readable(event, most)
            encoded = dialects.encode_event(family, 1, shown)
            if chunk and sum(map(len, chunk)) + len(encoded) > _CHUNK_BYTES:
                out.send(b"".join(chunk))
                await out.drained()
                chunk = []
            chunk.append(encoded)
        out.send(b"".join(chunk))


def _readable(event: bytes, most_bytes: int) -> bytes:
    """Return an event as a client can receive it: a worker replays it, and gets all of it or nothing."""
    return event if len(event) <= most_bytes else events.encode(fitted(events.decode(event), most_bytes))


def _bare(call: Call, request: pb.GetInstanceRequest) -> bool:
    """Whether a client wants neither failure nor custom status: one SDK says that they come with the payloads."""
    return dialects.is_microsoft_dotnet(call.metadata) and not request.get_inputs_and_outputs


def _start_of(request: pb.CreateInstanceRequest, identity: Identity, app: str, *, older: bool) -> Start:
    """Return a client's start in the terms of the core; `older`: its SDK means the older reuse policy.

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
    unique = any(wire.unknown(request, _UNIQUE, wire.INTEGER))
    return Start(identity, started, scheduled, unique=unique, **_reuse(request, older))


def _reuse(request: pb.CreateInstanceRequest, older: bool) -> dict[str, Any]:
    """Return what the reuse policy of a start means, of either generation.

    The older one says what becomes of an instance in a listed status: a start fails, is ignored, or ends it first. In
    another status it is as without a policy. The newer one lists the statuses that are replaced, and no others are:
    one that lists none (Microsoft's Python 1.12 and JavaScript send it) says that an ID is never used again.
    The action "fail" is 0, which no SDK writes: only who sends a policy without an action tells the two apart.
    """
    policy = request.reuse_policy
    listed = frozenset(policy.replaceable_status)
    if older or policy.HasField("action"):
        fails = policy.action not in (_IGNORE, _TERMINATE)
        return {} if fails else {"replaceable": listed, "ignore_existing": policy.action == _IGNORE, "or_ended": True}
    return {"replaceable": listed} if request.HasField("reuse_policy") else {}
