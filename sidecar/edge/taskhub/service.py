"""`TaskHubSidecarService` for both SDK families: all its handlers, and what stands around each of them.

Malformed bytes and wrong arguments are the caller's mistake and end with INVALID_ARGUMENT; a store that fails is
UNAVAILABLE.
"""

import asyncio

import structlog

from sidecar.config.settings import Settings
from sidecar.core.errors import MalformedError
from sidecar.edge import methods
from sidecar.edge.peer.forward import Forwarder
from sidecar.edge.rpc import Methods, guarded
from sidecar.edge.taskhub.bulk import Many
from sidecar.edge.taskhub.clients import Clients
from sidecar.edge.taskhub.completions import Answers
from sidecar.edge.taskhub.entities import EntityCalls
from sidecar.edge.taskhub.hubs import Hubs
from sidecar.edge.taskhub.run_again import Again
from sidecar.edge.taskhub.streams import Streams
from sidecar.edge.transport.ports import Call, Handlers, Outflow, Refused, StatusCode, StreamHandler, UnaryHandler
from sidecar.services.services import Services
from sidecar.store.protocol import UnavailableError
from sidecar.work.memory import Memory

WORK = f"{methods.TASKHUB}GetWorkItems"
log = structlog.get_logger(__name__)
_NEW_WORK = frozenset({"StartInstance", "RaiseEvent", "SignalEntity", "RestartInstance", "RerunWorkflowFromEvent"})


class TaskHub:
    """The handlers of the service."""

    def __init__(
        self, services: Services, streams: Streams, forwarder: Forwarder, memory: Memory, settings: Settings
    ) -> None:
        self._forwarder = forwarder
        self._memory = memory
        self._streams = streams
        self.stopping = asyncio.Event()
        self.closing = asyncio.Event()
        self._hubs = Hubs(settings.task_hubs)
        self._clients = Clients(services.clients, streams, self.closing, settings.max_message_bytes)
        self._many = Many(services, self._hubs, settings)
        self._again = Again(services.clients, services.administration)
        self._answers = Answers(services.answers, streams, self.closing, settings.max_message_bytes)
        self._entities = EntityCalls(services.entities, settings.max_message_bytes)

    def handlers(self) -> Handlers:
        """Return the methods of the service by path."""
        unary = {name: self._forwarder.routed(name, method) for name, method in self.calls().items()}
        # Entities belong to their app: no other app's client reaches them.
        entities = {name: self._open(name, method) for name, method in self._entities.methods().items()}
        unary |= {name: guarded(method) for name, method in {**entities, **self._answers.methods()}.items()}
        stream = {"GetWorkItems": self._answers.work_items, "StreamInstanceHistory": self._clients.stream_history}
        return Handlers(
            unary={methods.TASKHUB + name: self._admitted(method) for name, method in unary.items()},
            stream={
                methods.TASKHUB + name: self._admitted_stream(_guarded_stream(method))
                for name, method in stream.items()
            },
        )

    def answers(self) -> frozenset[str]:
        """Return the paths by which workers answer."""
        return frozenset(methods.TASKHUB + name for name in self._answers.methods())

    def unread(self, call: Call, most_bytes: int) -> None:
        """Take note that the request of a call could not be received, which is of more than so many bytes or broke off.

        A worker whose answer that was may end its stream for it.
        """
        log.warning(
            "request was not received: too large, or broken off", method=call.method, peer=call.peer, limit=most_bytes
        )
        if call.method in self.answers():
            self._streams.unread(call.peer, most_bytes)

    def calls(self) -> Methods:
        """Return the calls of clients by RPC, as this app does them for itself or for another app's clients."""
        methods = {**self._clients.methods(), **self._many.methods(), **self._again.methods()}
        return {name: guarded(self._open(name, method)) for name, method in methods.items()}

    def _admitted(self, method: UnaryHandler) -> UnaryHandler:
        """Find out the task hub of a call before anything else is done with it."""

        async def serve(call: Call, body: bytes) -> bytes:
            return await method(self._hubs.admit(call), body)

        return serve

    def _admitted_stream(self, method: StreamHandler) -> StreamHandler:
        async def serve(call: Call, body: bytes, out: Outflow) -> None:
            await method(self._hubs.admit(call), body, out)

        return serve

    def _open(self, name: str, method: UnaryHandler) -> UnaryHandler:
        """Refuse a call while the sidecar stops, and new work while memory is short."""

        async def serve(call: Call, body: bytes) -> bytes:
            if name in _NEW_WORK and self._memory.refuses(len(body)):
                text = "the sidecar is short of memory: try again in a moment, or raise --memory-limit"
                raise Refused(StatusCode.RESOURCE_EXHAUSTED, text)
            if self.stopping.is_set():
                raise Refused(StatusCode.UNAVAILABLE, "the sidecar is stopping: try again in a moment")
            return await method(call, body)

        return serve


def _guarded_stream(method: StreamHandler) -> StreamHandler:
    async def serve(call: Call, body: bytes, out: Outflow) -> None:
        try:
            await method(call, body, out)
        except MalformedError as error:
            raise Refused(StatusCode.INVALID_ARGUMENT, str(error)) from error
        except UnavailableError as error:
            raise Refused(StatusCode.UNAVAILABLE, f"the store is not available: {error}") from error

    return serve
