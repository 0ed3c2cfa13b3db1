"""What every call to the app's ports passes before its request is read: its caller's token, and room for it.

The checks belong to the handler that will run, whatever the path was that led to it. gRPC's health service needs no
token, and neither does what no handler is for. An answer of a worker is never refused for want of room: one SDK fails
the workflow when it is, another drops the answer.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.edge.transport.ports import (
    Call,
    DuplexHandler,
    Handlers,
    Outflow,
    Refused,
    StatusCode,
    StreamHandler,
    UnaryHandler,
)

MOST_METADATA_BYTES = 16 * 1024
MOST_WATCHES = 100  # of the health, which anybody may open
_LOOK_SECONDS = 1.0
_BYTES_A_HEADER = 32  # as HTTP/2 counts (RFC 9113, 6.5.2)
_Room = AbstractContextManager[None]


class _Places:
    """A number of places; who enters takes one, or is refused when none is free."""

    def __init__(self, most: int, text: str) -> None:
        self._free = most
        self._text = text

    def __enter__(self) -> None:
        if not self._free:
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, self._text)
        self._free -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free += 1


class Admission:
    """Puts the checks around handlers.

    At most so many calls are under way at once, each of at most so many bytes, and so many workers connected.
    """

    def __init__(self, tokens: ApiTokens, *, most_bytes: int, most_calls: int, most_workers: int) -> None:
        self._tokens = tokens
        self._most_bytes = most_bytes
        again = "try again in a moment, or raise"
        self._calls = _Places(most_calls, f"{most_calls} calls are under way, as many as may be: {again} --max-calls")
        text = f"{most_workers} workers are connected, as many as may be: {again} --max-workers"
        self._workers = _Places(most_workers, text)
        text = f"{MOST_WATCHES} watches of the health are open, as many as may be: ask with Check"
        self._watches = _Places(MOST_WATCHES, text)

    def shows_token(self, call: Call) -> bool:
        """Whether the caller has the token, or needs none."""
        return self._tokens.refusal(call.metadata) is None

    def limited(self, handlers: Handlers, *, streams: Collection[str]) -> Handlers:
        """Return handlers that anybody may call, with at most so many streams of those on these paths at once."""
        return replace(handlers, admit={path: lambda _: self._watches for path in streams})

    def guarded(self, handlers: Handlers, *, answers: Collection[str], workers: Collection[str]) -> Handlers:
        """Return handlers that admit a call before they serve it.

        `answers` are the paths that are never refused for want of room or for their size, `workers` those whose calls
        are workers.
        """

        def room(path: str) -> _Room:
            if path in workers:
                return self._workers
            return nullcontext() if path in answers else self._calls

        return Handlers(
            unary={
                path: handler if path in answers else self._sized(handler) for path, handler in handlers.unary.items()
            },
            stream={path: self._stream(handler) for path, handler in handlers.stream.items()},
            duplex={path: self._duplex(handler) for path, handler in handlers.duplex.items()},
            admit={
                path: partial(self._admitted, room(path))
                for path in (*handlers.unary, *handlers.stream, *handlers.duplex)
            },
        )

    @contextmanager
    def _admitted(self, room: _Room, call: Call) -> Iterator[None]:
        self._check(call)
        with room:
            yield

    def _check(self, call: Call) -> None:
        """Refuse a call that is too large, or whose caller has no token."""
        size = sum(len(key) + len(value) + _BYTES_A_HEADER for key, value in call.metadata.items())
        if size > MOST_METADATA_BYTES:
            text = f"the metadata of the call has {size} bytes, at most {MOST_METADATA_BYTES} are taken: send less"
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, text)
        self._check_token(call)

    def _check_token(self, call: Call) -> None:
        wrong = self._tokens.refusal(call.metadata)
        if wrong:
            raise Refused(StatusCode.UNAUTHENTICATED, wrong)

    async def _while_valid(self, call: Call, serving: Coroutine[Any, Any, None]) -> None:
        """Serve until it is done, or the caller's token is void: else its stream would go on for ever."""
        if not self._tokens.asked_for:
            await serving
            return
        task = asyncio.create_task(serving)
        try:
            while not (await asyncio.wait([task], timeout=_LOOK_SECONDS))[0]:
                self._check_token(call)
        except (Refused, asyncio.CancelledError):
            task.cancel()
            await asyncio.wait([task])
            raise
        await task

    def _sized(self, handler: UnaryHandler) -> UnaryHandler:
        async def serve(call: Call, request: bytes) -> bytes:
            self._check_size(request)
            return await handler(call, request)

        return serve

    def _check_size(self, request: bytes) -> None:
        if len(request) > self._most_bytes:
            text = f"the request has {len(request)} bytes, at most {self._most_bytes} are taken"
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"{text}: send less, or raise --max-message-bytes")

    def _stream(self, handler: StreamHandler) -> StreamHandler:
        async def serve(call: Call, request: bytes, out: Outflow) -> None:
            self._check_size(request)
            await self._while_valid(call, handler(call, request, out))

        return serve

    def _duplex(self, handler: DuplexHandler) -> DuplexHandler:
        async def serve(call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
            await self._while_valid(call, handler(call, requests, out))

        return serve
