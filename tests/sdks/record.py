"""A pass-through between a program and its sidecar that keeps what the program sends, for the tests of the decoding.

It forwards bytes and knows no schema. What is kept is one request of each shape: the same method with the same fields.
"""

import asyncio
import base64
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tests.sdks import wire
from tests.sdks.programs import HOST
from tests.sdks.sdks import ROOT

CORPUS = ROOT / "tests" / "edge" / "corpus"
_SERVICE = "/TaskHubSidecarService/"
_STREAMS = {"GetWorkItems", "StreamInstanceHistory"}
_PER_METHOD = 40
_LARGEST = 64 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # SDKs ping every 30 s, with and without calls.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
    ("grpc.http2.max_ping_strikes", 0),
]


class Recording:
    """The distinct requests of one SDK, kept in its file of the corpus."""

    def __init__(self, sdk: str) -> None:
        self.path = CORPUS / f"{sdk}.jsonl"
        self._shapes: set[tuple[str, str]] = set()
        self._counts: Counter[str] = Counter()
        self._kept: list[tuple[str, bytes]] = []

    def add(self, method: str, body: bytes) -> None:
        shape = (method, wire.shape(body))
        if len(body) > _LARGEST or shape in self._shapes or self._counts[method] >= _PER_METHOD:
            return
        self._shapes.add(shape)
        self._counts[method] += 1
        self._kept.append((method, _anonymous(body)))

    def save(self) -> None:
        CORPUS.mkdir(parents=True, exist_ok=True)
        rows = [{"method": method, "body": base64.b64encode(body).decode()} for method, body in sorted(self._kept)]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Recorder:
    """A server of its own thread before one sidecar; `port` is where the program is sent to."""

    def __init__(self, recording: Recording, target: int) -> None:
        self._recording = recording
        self._target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], daemon=True)

    def __enter__(self) -> "Recorder":
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(options=_OPTIONS)
        through = _PassThrough(self._recording, f"{HOST}:{self._target}")
        server.add_generic_rpc_handlers([through])
        self.port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        self._up.set()
        await self._end.wait()
        await server.stop(0)
        await through.close()


class _PassThrough(grpc.GenericRpcHandler):
    def __init__(self, recording: Recording, target: str) -> None:
        self._recording = recording
        self._target = target
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, context: grpc.aio.ServicerContext) -> grpc.aio.Channel:
        """A channel that calls itself as the caller does: the sidecar knows some SDKs by that."""
        agent = str(dict(context.invocation_metadata() or ()).get("user-agent", ""))
        if agent not in self._channels:
            options = [*_OPTIONS, ("grpc.primary_user_agent", agent)]
            self._channels[agent] = grpc.aio.insecure_channel(self._target, options=options)
        return self._channels[agent]

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = details.method
        if path.removeprefix(_SERVICE) in _STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._stream(path))
        return grpc.unary_unary_rpc_method_handler(self._unary(path))

    def _unary(self, path: str) -> Any:
        async def serve(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
            self._keep(path, body)
            call = self._channel(context).unary_unary(path)
            try:
                return await call(body, metadata=_forwarded(context), timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        return serve

    def _stream(self, path: str) -> Any:
        async def serve(body: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            self._keep(path, body)
            call = self._channel(context).unary_stream(path)
            try:
                async for answer in call(body, metadata=_forwarded(context), timeout=context.time_remaining()):
                    yield answer
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        return serve

    def _keep(self, path: str, body: bytes) -> None:
        if path.startswith(_SERVICE):
            self._recording.add(path.removeprefix(_SERVICE), body)


def _forwarded(context: grpc.aio.ServicerContext) -> list[tuple[str, Any]]:
    """The caller's metadata; what gRPC itself writes is written anew."""
    own = ("grpc-", "te", "content-type", "accept-encoding", "user-agent")
    return [(key, value) for key, value in context.invocation_metadata() or () if not key.startswith(own)]


def _anonymous(body: bytes) -> bytes:
    """Without the folder and the machine of the recording, and as long as before."""
    for word in (str(ROOT), socket.gethostname()):
        body = body.replace(word.encode(), b"x" * len(word))
    return body
