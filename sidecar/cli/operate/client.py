"""One sidecar, as the commands ask it. What it refuses ends a command with an exit code."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from sidecar import system
from sidecar.cli import dial
from sidecar.cli.exits import Exit, Failure
from sidecar.cli.show.instances import Home
from sidecar.config import settings as config
from sidecar.config.own_address import reached
from sidecar.edge import methods
from sidecar.edge.dialects import wire
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import taskhub_pb2 as pb

_SETTINGS = ("grpc_port", "listen_host", "app_cert", "api_token", "api_token_file")
_HELLO_SECONDS, _SECONDS, _PURGE_SECONDS = 5.0, 30.0, 300.0
_PAGE = 1_000
_BATCH_FIELD = 4  # of a purge: Microsoft's batch of IDs
_EXITS = {
    StatusCode.NOT_FOUND: Exit.MISSING,
    StatusCode.UNAUTHENTICATED: Exit.UNREACHED,
    StatusCode.UNAVAILABLE: Exit.UNREACHED,
    StatusCode.DEADLINE_EXCEEDED: Exit.TIME_OVER,
}
M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Client:
    """A sidecar that was reached. `home` is the app whose workflows are meant."""

    def __init__(self, flags: Mapping[str, object], environ: Mapping[str, str]) -> None:
        """Read where the sidecar is. Raises ConfigError, StartError and Failure."""
        given = {name: flags.get(name) for name in ("config", *_SETTINGS) if name != "api_token"}
        found = config.some(_SETTINGS, given, environ)
        port = found["grpc_port"][0]
        if port == 0:
            raise Failure(Exit.WRONG, "the gRPC port is 0, any free one", "name the real one with --grpc-port")
        self.address = f"{reached(found['listen_host'])}:{port}"
        self._shown = dial.credentials(found["api_token"], found["api_token_file"])
        self._reach = (found["listen_host"], port, found["app_cert"])
        self._target = (str(flags.get("target_app") or ""), str(flags.get("target_namespace") or ""))
        self.status = admin.GetStatusResponse()

    async def __aenter__(self) -> Self:
        """Connect. Raises Failure: nobody answers, or what answers is none of these sidecars."""
        self._channel = dial.channel(*self._reach)
        try:
            body = await self._channel.unary(methods.STATUS, b"", self._shown, timeout=_HELLO_SECONDS)
        except Refused as refused:
            await self._channel.close()
            raise _unreached(self.address, refused) from refused
        self.status = admin.GetStatusResponse.FromString(body)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    @property
    def own(self) -> Home:
        """The app of the sidecar that is asked."""
        return Home(self.status.app_id, self.status.namespace)

    @property
    def home(self) -> Home:
        """The app whose workflows are meant."""
        app, namespace = self._target
        return Home(app or self.own.app, namespace or self.own.namespace)

    @property
    def metadata(self) -> dict[str, Any]:
        """What `GET /v1.0/metadata` of the sidecar says."""
        found: dict[str, Any] = json.loads(self.status.metadata)
        return found

    def own_only(self, what: str) -> None:
        """Raise Failure if another app is meant, of whose workflows a sidecar cannot do that."""
        if self.home != self.own:
            text = f"the sidecar at {self.address} is that of app '{self.own.app}', and {what} of another app's"
            raise self._ask_itself(f"{text} workflows is not passed on")

    def _ask_itself(self, text: str) -> Failure:
        hint = f"ask the sidecar of '{self.home.app}' itself: name its port with --grpc-port"
        return Failure(Exit.REFUSED, text, hint)

    # ------------------------------------------------------------ calls

    async def call(
        self, method: str, request: Message, kind: type[M], seconds: float | None = _SECONDS, more: bytes = b""
    ) -> M:
        """Ask, for the app that is meant; `more` are fields of the request that the schema has as something else.

        Raises Failure.
        """
        body = self._routed(method, request).SerializeToString() + more
        try:
            return kind.FromString(await self._channel.unary(method, body, self._shown, timeout=seconds))
        except Refused as refused:
            named = _instance_of(request)
            if refused.status is StatusCode.NOT_FOUND and named:
                raise self.missing(named) from refused
            if refused.status is StatusCode.UNIMPLEMENTED and self.home != self.own:
                text = f"the sidecar of app '{self.home.app}' does that for its own clients alone ({refused.message})"
                raise self._ask_itself(text) from refused
            raise Failure(_EXITS.get(refused.status, Exit.REFUSED), refused.message) from refused

    def _routed(self, method: str, request: Message) -> Message:
        """Return a request with the app that is meant. Raises Failure: the sidecar would take it as one of its own."""
        if self.home == self.own or "router" not in request.DESCRIPTOR.fields_by_name:
            return request
        if method.rpartition("/")[2] not in self.status.passed_on:
            text = f"the sidecar at {self.address} is of version {self.status.version}, which does not pass that on"
            raise self._ask_itself(text)
        router = request.router  # type: ignore[attr-defined]
        router.target_app_id, router.target_namespace = self.home.app, self.home.namespace
        return request

    async def start(self, request: pb.CreateInstanceRequest) -> str:
        """Start a workflow; return its ID."""
        return (await self.call(f"{methods.TASKHUB}StartInstance", request, pb.CreateInstanceResponse)).instance_id

    async def get(self, instance_id: str, *, payloads: bool = True) -> pb.InstanceState:
        """Return a workflow. Raises Failure: there is none of this ID."""
        request = pb.GetInstanceRequest(instance_id=instance_id, get_inputs_and_outputs=payloads)
        answer = await self.call(f"{methods.TASKHUB}GetInstance", request, pb.GetInstanceResponse)
        if not answer.exists:
            raise self.missing(instance_id)
        return answer.state

    def missing(self, instance_id: str) -> Failure:
        """Return the failure that there is no such workflow."""
        hint = "`sidecar workflow list` shows those of its own app" if self.home == self.own else "is the app ID right?"
        return Failure(Exit.MISSING, f"app '{self.home.app}' has no workflow '{instance_id}'", hint)

    async def wait(self, instance_id: str, *, ended: bool, seconds: float | None) -> pb.InstanceState:
        """Return a workflow once it has ended, or begun."""
        method = "WaitForInstanceCompletion" if ended else "WaitForInstanceStart"
        request = pb.GetInstanceRequest(instance_id=instance_id, get_inputs_and_outputs=True)
        return (await self.call(methods.TASKHUB + method, request, pb.GetInstanceResponse, seconds)).state

    async def pages(self, query: pb.InstanceQuery) -> AsyncIterator[Sequence[pb.InstanceState]]:
        """Yield the workflows that a query finds, in pages, the oldest first."""
        query.max_instance_count = _PAGE
        while True:
            request = pb.QueryInstancesRequest(query=query)
            answer = await self.call(f"{methods.TASKHUB}QueryInstances", request, pb.QueryInstancesResponse)
            yield answer.states
            if not answer.continuation_token.value:
                return
            query.continuation_token.value = answer.continuation_token.value

    async def history(self, instance_id: str) -> Sequence[pb.HistoryEvent]:
        """Return the history of a workflow."""
        request = pb.GetInstanceHistoryRequest(instance_id=instance_id)
        return (await self.call(f"{methods.TASKHUB}GetInstanceHistory", request, pb.GetInstanceHistoryResponse)).events

    async def tree(self, instance_id: str, depth: int) -> admin.TreeNode:
        """Return a workflow with its children in all apps."""
        home = self.home if self.home != self.own else Home("", "")
        request = admin.GetTreeRequest(instance_id=instance_id, depth=depth, app_id=home.app, namespace=home.namespace)
        return await self.call(f"{methods.ADMIN}GetTree", request, admin.TreeNode)

    async def purge(self, ids: Sequence[str], *, recursive: bool, force: bool) -> tuple[int, bool]:
        """Purge workflows; return how many went, in all apps, and whether every app that has a part was reached."""
        request = pb.PurgeInstancesRequest(recursive=recursive, force=force)
        batch = wire.frame(_BATCH_FIELD, pb.InstanceBatch(instance_ids=ids).SerializeToString())
        method, kind = f"{methods.TASKHUB}PurgeInstances", pb.PurgeInstancesResponse
        answer = await self.call(method, request, kind, _PURGE_SECONDS, batch)
        return answer.deleted_instance_count, answer.is_complete.value

    async def purge_one(self, instance_id: str, *, recursive: bool, force: bool) -> int:
        """Purge a workflow; return how many went with it. Raises Failure, with the reason if it may not go."""
        request = pb.PurgeInstancesRequest(instance_id=instance_id, recursive=recursive, force=force)
        answer = await self.call(f"{methods.TASKHUB}PurgeInstances", request, pb.PurgeInstancesResponse, _PURGE_SECONDS)
        if not answer.deleted_instance_count:
            raise self.missing(instance_id)
        return answer.deleted_instance_count

    async def command(self, method: str, request: Message) -> None:
        """Give a command that has no answer."""
        await self.call(method, request, Empty)


def _instance_of(request: Message) -> str:
    """Return the workflow that a request is about."""
    fields = request.DESCRIPTOR.fields_by_name
    return next((str(getattr(request, one)) for one in ("instance_id", "source_instance_id") if one in fields), "")


def _unreached(address: str, refused: Refused) -> Failure:
    if refused.status is StatusCode.UNAUTHENTICATED:
        hint = "give it by --api-token-file, or in SIDECAR_API_TOKEN or DAPR_API_TOKEN"
        return Failure(Exit.UNREACHED, f"the sidecar at {address} asks for its token ({refused.message})", hint)
    if refused.status is StatusCode.UNIMPLEMENTED:
        text = f"what answers at {address} is no sidecar of this kind, or one of an older version"
        return Failure(Exit.UNREACHED, text, "name the port of the right one with --grpc-port, or take its own command")
    why = "no answer in 5 s" if refused.status is StatusCode.DEADLINE_EXCEEDED else refused.message
    hint = f"start it with `sidecar run`, or name its port with --grpc-port, and how it is reached with {dial.HOW}"
    return Failure(Exit.UNREACHED, f"no sidecar answers at {address} ({why})", hint)


def asking(client: Client, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do something with a sidecar, from code that does not wait."""

    async def run() -> T:
        async with client:
            try:
                return await work(client)
            except asyncio.CancelledError:  # so Ctrl-C ends it: one more must not cut the closing short
                system.ignore_signals(system.INTERRUPT_SIGNALS)
                raise

    return asyncio.run(run())
