"""The calls of workers: their stream of work, and their answers to it.

An answer that comes too late is OK, since SDKs try again on anything else.
"""

import asyncio

from sidecar.edge import dialects
from sidecar.edge.dialects import completion, inputs
from sidecar.edge.rpc import Methods, done, hub_of, parse, parsed
from sidecar.edge.taskhub.streams import Streams
from sidecar.edge.transport.ports import Call, Outflow
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.worker_answers import WorkerAnswers


class Answers:
    """Handlers; `closing` is set when the sidecar ends the streams of its workers."""

    def __init__(self, answers: WorkerAnswers, streams: Streams, closing: asyncio.Event) -> None:
        self._answers = answers
        self._streams = streams
        self._closing = closing

    def methods(self) -> Methods:
        """Return the handlers by RPC; all of them are served while the sidecar stops."""
        return {
            "CompleteActivityTask": parsed(pb.ActivityResponse, self._complete_activity),
            "CompleteOrchestratorTask": self._complete_turn,
            "CompleteWorkflowTask": self._complete_turn,
            "AbandonTaskActivityWorkItem": parsed(pb.AbandonRequest, self._abandon_activity),
            "AbandonTaskOrchestratorWorkItem": parsed(pb.AbandonRequest, self._abandon_turn),
            "CompleteEntityTask": parsed(pb.EntityBatchResult, self._complete_batch),
            "AbandonTaskEntityWorkItem": parsed(pb.AbandonRequest, self._abandon_batch),
        }

    async def work_items(self, call: Call, body: bytes, out: Outflow) -> None:
        """Serve `GetWorkItems`."""
        request = parse(pb.GetWorkItemsRequest, body)
        await self._streams.serve(call, request, out, self._closing)

    async def _complete_turn(self, call: Call, body: bytes) -> bytes:
        response, family = completion.read(body, self._streams.family(call.peer), inputs.form_of(call.metadata))
        self._streams.learn(call.peer, family)
        if dialects.is_microsoft_dotnet(call.metadata) and not response.HasField("custom_status"):
            response.without_custom_status = True  # others say nothing of a status that stays as it is
        if response.requires_history:
            self._answers.resend_turn(response.completion_token)
            return b""
        return done(await self._answers.complete_turn(hub_of(call), call.peer, response))

    async def _complete_activity(self, call: Call, request: pb.ActivityResponse) -> bytes:
        return done(await self._answers.complete_activity(hub_of(call), call.peer, request))

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
        return done(await self._answers.complete_batch(call.peer, request))

    async def _abandon_batch(self, call: Call, request: pb.AbandonRequest) -> bytes:
        self._answers.abandon_batch(request.completion_token)
        return b""
