"""The server of the transport on grpc.aio."""

import asyncio
import urllib.parse
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeAlias, cast

import grpc
import structlog

from sidecar.actors.tasks import kept_up
from sidecar.config.own_address import in_address
from sidecar.edge.grpc_aio.common import (
    COMMON_OPTIONS,
    EOF,
    KEEPALIVE_SECONDS,
    MAX_RECEIVE_BYTES,
    MIB,
    this_task_is_cancelled,
)
from sidecar.edge.grpc_aio.connections import Connections
from sidecar.edge.grpc_aio.credentials import server_credentials
from sidecar.edge.transport import ports
from sidecar.edge.transport.ports import Call, Closed, Metadata, PeerNames, Refused, StatusCode, Tls
from sidecar.edge.transport.send_queue import SendQueue

MAX_MESSAGE_BYTES = 2_000
MOST_METADATA_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 120.0
MAX_CONNECTIONS = 2_000
SETTLE_SECONDS = 0.01
WATCH_SECONDS = 0.25
RETIREMENT_SECONDS = 1e8
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_SERVER_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
    # Above that a call is refused before its handler is asked; below, the limit is the handler's.
    ("grpc.max_metadata_size", MOST_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MOST_METADATA_BYTES),
    # A guard against one hostile connection. Who is honest meets the limits of the handlers first, which say so.
    ("grpc.max_concurrent_streams", 20_000),
    # Workers ping as often as they like; by default that ends their connection.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # otherwise a second server binds a taken port without an error
    # By default a burst of a thousand calls loses some.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
)

_Context = grpc.aio.ServicerContext[bytes, bytes]
_Method: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
_Start = Callable[[Call, ports.Outflow], Awaitable[None]]

log = structlog.get_logger(__name__)


class GrpcServer:
    """`transport.Server`; its outflows are full above `high_water_bytes` or `high_water_messages`.

    At most `max_connections` are open at each address: more are closed at once. So is one that has not said what it
    speaks after `handshake` seconds, or has had no call for `idle` seconds; a call begins with its last header.
    """

    def __init__(
        self,
        handlers: ports.Handlers,
        *,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        high_water_bytes: int = 4 * MIB,
        high_water_messages: int = 1_000,
        max_connections: int = MAX_CONNECTIONS,
        handshake: float = HANDSHAKE_SECONDS,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self._marks = (high_water_bytes, high_water_messages)
        self._running: set[asyncio.Task[Any]] = set()
        self._max_receive_bytes = max_receive_bytes
        self.unread: Callable[[Call, int], None] = lambda call, most_bytes: None
        self._connections = Connections()
        methods = {
            **{method: self._unary(method, handler) for method, handler in handlers.unary.items()},
            **{method: self._stream(method, handler) for method, handler in handlers.stream.items()},
            **{method: self._duplex(method, handler) for method, handler in handlers.duplex.items()},
        }
        self._admit = handlers.admit
        self._methods = _Methods(methods)
        self._options = [
            *_SERVER_OPTIONS,
            ("grpc.max_receive_message_length", max_receive_bytes),
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.server_handshake_timeout_ms", int(handshake * 1000)),
            ("grpc.max_connection_idle_ms", int(idle * 1000)),
        ]
        self._addresses: list[tuple[str, Callable[[], Tls] | None]] = []
        self._current = self._build()
        self._retired: dict[grpc.aio.Server, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int, tls: Callable[[], Tls] | None = None) -> int:
        name = in_address(host)
        bound = _bind(self._current, f"{name}:{port}", tls)
        self._addresses.append((f"{name}:{bound}", tls))
        return bound

    async def start(self) -> None:
        await self._current.start()
        name = "grpc server watch"
        self._watching = asyncio.create_task(kept_up(self._watch_server, name, asyncio.sleep), name=name)

    async def stop(self, grace: float) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await asyncio.gather(*(server.stop(grace) for server in (self._current, *self._retired)))
        await asyncio.gather(*self._retired.values())
        # grpc is done when the calls are; their handlers may still be tidying up.
        while self._running:
            await asyncio.wait(self._running)

    def _build(self) -> grpc.aio.Server:
        return grpc.aio.server(handlers=[self._methods], options=self._options)

    async def _watch_server(self) -> None:
        """Put a new server in the place of one that has died.

        A single call whose path is not UTF-8 ends the loop in which grpc accepts calls. Those that run go on.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                # Raises what the server died of; what it returns has changed its meaning between versions.
                await self._current.wait_for_termination(0.001)
            except Exception as error:
                log.error("grpc_server_died", exc_info=error)
                await self._replace()

    async def _replace(self) -> None:
        old, self._current = self._current, self._build()
        self._retired[old] = asyncio.create_task(old.stop(RETIREMENT_SECONDS), name="grpc server retirement")
        self._retired[old].add_done_callback(lambda _: self._retired.pop(old))
        for address, tls in self._addresses:
            while True:
                try:
                    _bind(self._current, address, tls)
                    break
                except ports.AddressInUse as error:
                    log.warning("grpc_server_waits_for_address", error=str(error))
                    await asyncio.sleep(WATCH_SECONDS)
        await self._current.start()

    def _unary(self, method: str, handler: ports.UnaryHandler) -> _Method:
        async def serve(_requests: object, context: _Context) -> bytes:
            self._track()
            try:
                call = _call(method, context)
                with self._admitted(call):
                    return await handler(call, await self._request(call, context))
            except (Exception, asyncio.CancelledError) as error:
                await _end(method, context, error)

        # A handler of this kind is there before the request: it may leave it unread, and learns if that is too large.
        return grpc.stream_unary_rpc_method_handler(cast(Any, serve))

    async def _request(self, call: Call, context: _Context) -> bytes:
        request = await context.read()
        if request is not EOF:
            return request
        try:
            # Of a request that is too large, as of a cancelled call, grpc knows only a moment later.
            await asyncio.sleep(SETTLE_SECONDS)
        except asyncio.CancelledError:
            self.unread(call, self._max_receive_bytes)
            raise
        raise Refused(StatusCode.INVALID_ARGUMENT, "the call has no request")

    def _stream(self, method: str, handler: ports.StreamHandler) -> _Method:
        async def serve(_requests: object, context: _Context) -> None:
            async def start(call: Call, outflow: ports.Outflow) -> None:
                await handler(call, await self._request(call, context), outflow)

            await self._flow(method, context, start)

        return grpc.stream_stream_rpc_method_handler(cast(Any, serve))

    def _duplex(self, method: str, handler: ports.DuplexHandler) -> _Method:
        async def serve(_requests: object, context: _Context) -> None:
            await self._flow(method, context, lambda call, outflow: handler(call, _Inflow(context), outflow))

        return grpc.stream_stream_rpc_method_handler(cast(Any, serve))

    async def _flow(self, method: str, context: _Context, start: _Start) -> None:
        """Run a handler beside the writer of its outflow, until both are done or the client is gone."""
        self._track()
        number = self._connections.begin()
        outflow = SendQueue(*self._marks)
        handling = asyncio.create_task(self._run(method, context, start, outflow), name=method)
        handling.add_done_callback(lambda _: outflow.close())
        try:
            # Without headers at once, a client cannot tell a quiet stream from one that was not accepted.
            await context.send_initial_metadata(())
            await outflow.pump(context.write)
        except (Exception, asyncio.CancelledError) as error:
            # Looked at first of all: a caller that stops closes its connection a moment later.
            outflow.cancelled = self._connections.is_open(_peer(context), number)
            outflow.close()
            await _abandon(method, handling)
            if isinstance(error, grpc.aio.BaseError):
                raise asyncio.CancelledError from error
            await _end(method, context, error)
        try:
            handling.result()
        except (Exception, asyncio.CancelledError) as error:
            await _end(method, context, error)

    async def _run(self, method: str, context: _Context, start: _Start, outflow: ports.Outflow) -> None:
        call = _call(method, context)
        with self._admitted(call):
            await start(call, outflow)

    def _admitted(self, call: Call) -> AbstractContextManager[None]:
        admit = self._admit.get(call.method)
        return nullcontext() if admit is None else admit(call)

    def _track(self) -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _bind(server: grpc.aio.Server, address: str, tls: Callable[[], Tls] | None) -> int:
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise ports.AddressInUse(f"cannot listen on {address}: in use, or not ours") from error


class _Methods(grpc.GenericRpcHandler):
    """Finds the handler of a method by its exact path."""

    def __init__(self, methods: dict[str, _Method]) -> None:
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Method:
        method = handler_call_details.method
        return self._methods.get(method) or _unknown(method)


def _unknown(method: str) -> _Method:
    async def serve(_requests: object, context: _Context) -> None:
        await _abort(context, Refused(StatusCode.UNIMPLEMENTED, f"unknown method {method}"))

    # A handler of this kind answers before it has read anything, so it suits callers of every kind.
    return grpc.stream_stream_rpc_method_handler(cast(Any, serve))


class _Inflow:
    """The requests of a duplex call."""

    def __init__(self, context: _Context) -> None:
        self._context = context

    def __aiter__(self) -> "_Inflow":
        return self

    async def __anext__(self) -> bytes:
        message = await self._context.read()
        if message is EOF:
            # A cancelled call first reads like a half-closed one; a moment later grpc knows, and cancels.
            await asyncio.sleep(SETTLE_SECONDS)
            await self._context.read()
            raise StopAsyncIteration
        return message


def _call(method: str, context: _Context) -> Call:
    proved = context.auth_context()
    uris, dns = (tuple(name.decode() for name in proved.get(kind, ())) for kind in ("peer_uri", "peer_dns"))
    return Call(
        method=method,
        metadata=dict(cast(Metadata, context.invocation_metadata() or ())),
        deadline=context.time_remaining(),
        peer=_peer(context),
        identity=PeerNames(uris, dns),
    )


def _peer(context: _Context) -> str:
    return urllib.parse.unquote(context.peer())


async def _abandon(method: str, handling: "asyncio.Task[None]") -> None:
    """Cancel a stream's handler whose client is gone, and wait for it."""
    handling.cancel()
    await asyncio.wait([handling])
    if not handling.cancelled():
        _report(method, handling.exception())


async def _end(method: str, context: _Context, error: BaseException) -> NoReturn:
    """End a call as its handler's error asks for. Raises what grpc expects."""
    if isinstance(error, asyncio.CancelledError) and _cancelled_by(context):
        raise error
    _report(method, error)
    if context.cancelled():
        raise asyncio.CancelledError from error
    refused = error if isinstance(error, Refused) else Refused(StatusCode.INTERNAL, "internal error")
    await _abort(context, refused)


def _cancelled_by(context: _Context) -> bool:
    # A handler that waits for something cancelled raises the same error with its caller still there.
    return context.cancelled() or this_task_is_cancelled()


def _report(method: str, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, Refused | Closed):
        log.error("handler_failed", method=method, exc_info=error)


async def _abort(context: _Context, refused: Refused) -> NoReturn:
    message = refused.message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
    await context.abort(_CODES[refused.status], message, refused.trailers)
