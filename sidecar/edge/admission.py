"""What every call to the app's ports passes before its handler runs: has its caller the token?

The check stands around the handler that will run, whatever the path was that led to it. gRPC's health service stays
outside, and so does what no handler is for.
"""

from collections.abc import AsyncIterator

from sidecar.edge.api_tokens import ApiTokens
from sidecar.edge.transport import Call, Duplex, Handlers, Outflow, Refused, Status, Stream, Unary


class Admission:
    """Puts the checks around handlers."""

    def __init__(self, tokens: ApiTokens) -> None:
        self._tokens = tokens

    def guarded(self, handlers: Handlers) -> Handlers:
        """Return handlers that admit a call before they serve it."""
        return Handlers(
            unary={path: self._unary(handler) for path, handler in handlers.unary.items()},
            stream={path: self._stream(handler) for path, handler in handlers.stream.items()},
            duplex={path: self._duplex(handler) for path, handler in handlers.duplex.items()},
        )

    def _admit(self, call: Call) -> None:
        wrong = self._tokens.refusal(call.metadata)
        if wrong:
            raise Refused(Status.UNAUTHENTICATED, wrong)

    def _unary(self, handler: Unary) -> Unary:
        async def serve(call: Call, request: bytes) -> bytes:
            self._admit(call)
            return await handler(call, request)

        return serve

    def _stream(self, handler: Stream) -> Stream:
        async def serve(call: Call, request: bytes, out: Outflow) -> None:
            self._admit(call)
            await handler(call, request, out)

        return serve

    def _duplex(self, handler: Duplex) -> Duplex:
        async def serve(call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
            self._admit(call)
            await handler(call, requests, out)

        return serve
