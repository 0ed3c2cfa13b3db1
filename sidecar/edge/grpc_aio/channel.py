"""The client's side of the transport on grpc.aio."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import grpc

from sidecar.edge.grpc_aio.common import (
    COMMON_OPTIONS,
    EOF,
    KEEPALIVE_SECONDS,
    MAX_RECEIVE_BYTES,
    this_task_is_cancelled,
)
from sidecar.edge.grpc_aio.words import plain
from sidecar.edge.transport import ports
from sidecar.edge.transport.ports import Closed, Metadata, Refused, StatusCode, Tls

_CHANNEL_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # Each channel has its own connection, so that closing one is felt by its peer.
    ("grpc.use_local_subchannel_pool", 1),
    # Peers are reached directly, whatever proxy the environment names for other traffic.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Also how long a first attempt may take: a TLS handshake over a slow line needs more than the pause.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class GrpcChannel:
    """`transport.Channel` to `target`, "host:port": in plaintext, or with `tls` to a server that proves to be `name`.

    keepalive is the number of seconds between pings, None for no pings.
    """

    def __init__(
        self,
        target: str,
        *,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        keepalive: float | None = KEEPALIVE_SECONDS,
        tls: Tls | None = None,
        name: str = "",
    ) -> None:
        options: list[tuple[str, int | str]] = [*_CHANNEL_OPTIONS]
        options.append(("grpc.max_receive_message_length", max_receive_bytes))
        if keepalive is not None:
            options.append(("grpc.keepalive_time_ms", int(keepalive * 1000)))
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            options.append(("grpc.ssl_target_name_override", name))
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key or None, tls.certificate or None)
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: Metadata = (),
        timeout: float | None = None,  # noqa: ASYNC109 - the other side must learn of it
    ) -> bytes:
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
            return await call(request, metadata=metadata, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _refused(error.code(), error.details(), error.trailing_metadata()) from error
        except grpc.aio.UsageError as error:
            raise Refused(StatusCode.CANCELLED, "the channel is closed") from error
        except asyncio.CancelledError as error:
            if this_task_is_cancelled():
                raise
            raise Refused(StatusCode.CANCELLED, "the call was cancelled") from error

    def duplex(self, method: str, metadata: Metadata = ()) -> ports.DuplexCall:
        try:
            return _DuplexCall(self._channel.stream_stream(method)(metadata=metadata))
        except grpc.aio.UsageError as error:
            raise Refused(StatusCode.CANCELLED, "the channel is closed") from error

    async def close(self) -> None:
        await self._channel.close()


class _DuplexCall:
    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call

    async def send(self, message: bytes) -> None:
        await self._sending(self._call.write(message))

    async def done_sending(self) -> None:
        await self._sending(self._call.done_writing())

    async def receive(self) -> bytes | None:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _refused(error.code(), error.details(), error.trailing_metadata()) from error
        except asyncio.CancelledError as error:
            if this_task_is_cancelled():
                raise
            raise await self._ended() from error
        return None if message is EOF else cast(bytes, message)

    def cancel(self) -> None:
        self._call.cancel()

    async def _ended(self) -> Refused:
        call = self._call
        return _refused(await call.code(), await call.details(), await call.trailing_metadata())

    async def _sending(self, operation: Coroutine[Any, Any, None]) -> None:
        try:
            await operation
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise Closed("the call has ended, or is done sending") from error
        except asyncio.CancelledError as error:
            if this_task_is_cancelled():
                raise
            raise Closed("the call was cancelled") from error


def _refused(code: grpc.StatusCode, details: str | None, trailers: Any) -> Refused:
    return Refused(
        StatusCode(code.value[0]), plain(details or ""), tuple((key, value) for key, value in trailers or ())
    )
