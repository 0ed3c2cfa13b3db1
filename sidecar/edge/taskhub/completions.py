"""The calls of workers: their stream of work, and their answers to it.

An answer that comes too late is OK, since SDKs try again on anything else.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sidecar.core import events
from sidecar.core.workflow import stalls
from sidecar.edge import dialects
from sidecar.edge.dialects import completion, inputs, unknown_names, wire
from sidecar.edge.rpc import Methods, done, hub_of, parse, parsed
from sidecar.edge.taskhub.streams import Streams
from sidecar.edge.transport.ports import Call, Outflow, UnaryHandler
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.worker_answers import WorkerAnswers

_BY_DAPR = "/CompleteWorkflowTask"  # Go's since 0.12, which says nothing else of itself if it has no patches
# The fields that say what is answered, of a message whose others are not read.
_TOLD_BY_TURN, _TOLD_BY_ACTIVITY, _TOLD_BY_BATCH = (1, 4), (1, 2, 5), (5,)
log = structlog.get_logger(__name__)


class Answers:
    """Handlers; `closing` is set when the sidecar ends the streams of its workers.

    An answer of more than `most_bytes` is not taken. Its worker gets an OK all the same, since SDKs try again on an
    error, or drop all that they have; what it answers fails or stalls, and says why.
    """

    def __init__(self, answers: WorkerAnswers, streams: Streams, closing: asyncio.Event, most_bytes: int) -> None:
        self._answers = answers
        self._streams = streams
        self._closing = closing
        self._most_bytes = most_bytes

    def methods(self) -> Methods:
        """Return the handlers by RPC; all of them are served while the sidecar stops."""
        complete_turn = self._judged(self._complete_turn, self._large_turn)
        methods = {
            "CompleteActivityTask": self._judged(
                parsed(pb.ActivityResponse, self._complete_activity), self._large_activity
            ),
            "CompleteOrchestratorTask": complete_turn,
            "CompleteWorkflowTask": complete_turn,
            "AbandonTaskActivityWorkItem": parsed(pb.AbandonRequest, self._abandon_activity),
            "AbandonTaskOrchestratorWorkItem": parsed(pb.AbandonRequest, self._abandon_turn),
            "CompleteEntityTask": self._judged(parsed(pb.EntityBatchResult, self._complete_batch), self._large_batch),
            "AbandonTaskEntityWorkItem": parsed(pb.AbandonRequest, self._abandon_batch),
        }
        return {name: self._watched(method) for name, method in methods.items()}

    def _watched(self, method: UnaryHandler) -> UnaryHandler:
        """Take note of answers that end with an error: one SDK then ends its stream, and has not crashed."""

        async def serve(call: Call, body: bytes) -> bytes:
            try:
                return await method(call, body)
            except Exception:
                self._streams.refused(call.peer)
                raise

        return serve

    def _judged(self, method: UnaryHandler, large: Callable[[Call, bytes, str], Awaitable[bytes]]) -> UnaryHandler:
        """Return a handler that lets an answer which is too large count as what it then is."""

        async def serve(call: Call, body: bytes) -> bytes:
            if len(body) <= self._most_bytes:
                return await method(call, body)
            size, limit = len(body), self._most_bytes
            log.warning("answer is too large", method=call.method, peer=call.peer, bytes=size, limit=limit)
            text = f"the worker's answer has {size} bytes, and at most {limit} are taken (--max-message-bytes)"
            return await large(call, body, text)

        return serve

    async def _large_turn(self, call: Call, body: bytes, text: str) -> bytes:
        response = parse(pb.OrchestratorResponse, wire.only(body, _TOLD_BY_TURN))
        why = stalls.answer_too_large(text)
        return done(await self._answers.stall_turn(hub_of(call), call.peer, response, why))

    async def _large_activity(self, call: Call, body: bytes, text: str) -> bytes:
        response = parse(pb.ActivityResponse, wire.only(body, _TOLD_BY_ACTIVITY))
        response.failure.CopyFrom(events.failure("PayloadSizeExceeded", text, retriable=False))
        return await self._complete_activity(call, response)

    async def _large_batch(self, call: Call, body: bytes, text: str) -> bytes:
        """All operations of the batch fail, and the entity keeps the state that it had before them."""
        result = parse(pb.EntityBatchResult, wire.only(body, _TOLD_BY_BATCH))
        result.failure.CopyFrom(events.failure("PayloadSizeExceeded", text, retriable=False))
        return await self._complete_batch(call, result)

    async def work_items(self, call: Call, body: bytes, out: Outflow) -> None:
        """Serve `GetWorkItems`."""
        request = parse(pb.GetWorkItemsRequest, body)
        await self._streams.serve(call, request, out, self._closing)

    async def _complete_turn(self, call: Call, body: bytes) -> bytes:
        known = self._streams.family(call.peer) or (dialects.DAPR if call.method.endswith(_BY_DAPR) else None)
        response, family = completion.read(body, known, inputs.form_of(call.metadata))
        self._streams.learn(call.peer, family)
        if dialects.is_microsoft_dotnet(call.metadata) and not response.HasField("custom_status"):
            response.without_custom_status = True  # others say nothing of a status that stays as it is
        if response.requires_history:
            self._answers.resend_turn(response.completion_token)
            return b""
        unknown = unknown_names.of_turn(response)
        return done(await self._answers.complete_turn(hub_of(call), call.peer, response, unknown))

    async def _complete_activity(self, call: Call, request: pb.ActivityResponse) -> bytes:
        unknown = unknown_names.unknown_name(request.failure) if request.HasField("failure") else None
        return done(await self._answers.complete_activity(hub_of(call), call.peer, request, unknown))

    async def _abandon_activity(self, call: Call, request: pb.AbandonRequest) -> bytes:
        self._answers.abandon_activity(request.completion_token)
        return b""

    async def _abandon_turn(self, call: Call, request: pb.AbandonRequest) -> bytes:
        self._answers.abandon_turn(request.completion_token)
        return b""

    async def _complete_batch(self, call: Call, request: pb.EntityBatchResult) -> bytes:
        if request.requires_state:
            self._answers.abandon_batch(request.completion_token)  # it is handed out again, with its state as always
            return b""
        unknown = unknown_names.of_batch(request)
        return done(await self._answers.complete_batch(call.peer, request, unknown))

    async def _abandon_batch(self, call: Call, request: pb.AbandonRequest) -> bytes:
        self._answers.abandon_batch(request.completion_token)
        return b""
