"""The bytes-only boundary between the sidecar and whatever carries its calls.

It owns the words (call, status, outflow, handlers, server, channel) and their contracts, and no behaviour: an
adapter implements the protocols, `tests/edge/transport` holds it to them. Nothing here or above may
know which adapter it is. All of it belongs to one event loop; nothing may be called from another thread.
"""

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of lower-case key and value: printable ASCII, or `bytes` when the key ends in "-bin"."""


class StatusCode(enum.IntEnum):
    """How a call ended; the numbers are those on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Refused(Exception):  # noqa: N818 - an outcome of a call, not always an error
    """A call ended with a status other than OK. Handlers raise it to end theirs; client calls raise it.

    A message of more than 2,000 bytes of UTF-8 is cut on its way: clients drop a reply whose headers are
    large.
    """

    def __init__(self, status: StatusCode, message: str, trailers: Metadata = ()) -> None:
        if status is StatusCode.OK:
            raise ValueError("a refusal needs a status other than OK")
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message
        self.trailers = tuple(trailers)


class Closed(Exception):  # noqa: N818 - a state
    """Nothing more can be sent: the call has ended, or this side has said that it is done sending."""


class AddressInUse(OSError):  # noqa: N818 - says it as the system does
    """An address cannot be listened on; the message names it as host:port."""


class PeerNames(NamedTuple):
    """The names in the certificate that a peer proved to own, by their kind: a DNS name may look like a URI."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


NO_NAMES = PeerNames()


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call when it comes in.

    method is the full path, "/Service/Method". Of a metadata key that was sent twice the last value counts.
    deadline is the number of seconds that were left, None without a deadline. identity is empty without TLS.
    """

    method: str
    metadata: Mapping[str, str | bytes]
    deadline: float | None
    peer: str
    identity: PeerNames


class Outflow(Protocol):
    """The sending side of a stream, with one writer. Messages arrive whole, in order, unchanged."""

    def send(self, message: bytes) -> None:
        """Queue a message, without a limit and without blocking. Raises Closed when the stream has ended."""

    @property
    def full(self) -> bool:
        """Whether more is queued than the high-water mark: time to stop and await `drained`."""

    async def drained(self) -> None:
        """Return when not full; a writer that had to wait has room for several. Raises Closed like `send`."""

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled while its connection lived: not by the end of the caller's process.

        False as long as the call runs, and where that cannot be told.
        """


UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
StreamHandler = Callable[[Call, bytes, Outflow], Coroutine[Any, Any, None]]
DuplexHandler = Callable[[Call, AsyncIterator[bytes], Outflow], Coroutine[Any, Any, None]]
Admit = Callable[[Call], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Handlers:
    """Which function answers which method path; a path occurs in one of the three tables.

    A handler that returns ends its call with OK, one that raises Refused with that status, and any other
    exception becomes INTERNAL without details; each after all that the handler has queued. A handler is
    cancelled as soon as its caller is gone, has cancelled, or has let its deadline pass; its outflow is
    closed by then. The requests of a duplex call end when the client has half-closed; one read at a time, and
    a read that is cancelled may lose a message.

    `admit` says for some of the paths who is served: it is entered before anything of the request is received, and left
    when the call has ended. It raises Refused like a handler.
    """

    unary: Mapping[str, UnaryHandler] = field(default_factory=dict)
    stream: Mapping[str, StreamHandler] = field(default_factory=dict)
    duplex: Mapping[str, DuplexHandler] = field(default_factory=dict)
    admit: Mapping[str, Admit] = field(default_factory=dict)


def merged(*parts: Handlers) -> Handlers:
    """Return the handlers of all parts together."""
    return Handlers(
        unary={path: handler for part in parts for path, handler in part.unary.items()},
        stream={path: handler for part in parts for path, handler in part.stream.items()},
        duplex={path: handler for part in parts for path, handler in part.duplex.items()},
        admit={path: admit for part in parts for path, admit in part.admit.items()},
    )


class Tls(NamedTuple):
    """What one side of a connection proves and trusts: a certificate chain, its private key, and CAs, all in PEM.

    A server without a CA asks callers for no certificate.
    """

    certificate: bytes
    key: bytes
    ca: bytes | None


class Server(Protocol):
    """Answers calls on its addresses. Built inside the running loop; started and stopped once.

    `unread` is told of each call whose one request could not be received, and how many bytes it may have: this one had
    more, or broke off.
    """

    unread: Callable[[Call, int], None]

    async def listen(self, host: str, port: int, tls: Callable[[], Tls] | None = None) -> int:
        """Bind an address before `start`, and return the port; 0 takes a free one.

        With `tls` callers must have a certificate of one of its CAs, if it has any; it is asked anew for each
        connection. Without it the address is in plaintext. Raises AddressInUse when it cannot be bound.
        """

    async def start(self) -> None:
        """Begin to accept calls."""

    async def stop(self, grace: float) -> None:
        """Refuse new calls at once, cancel those that still run after `grace` seconds.

        Returns when every handler has ended. A handler that returns in time ends its call as always.
        """


class DuplexCall(Protocol):
    """The client's side of a call with messages both ways.

    One `send` and one `receive` may wait at a time. Cancelling a task that waits in either cancels the call.
    A method that answers one request with a stream is called this way too: send once, then `done_sending`.
    """

    async def send(self, message: bytes) -> None:
        """Hand a message to the network, waiting for room.

        Raises Closed when the call has ended, and then `receive` says how.
        """

    async def done_sending(self) -> None:
        """Half-close: the server's requests end after what was sent. A second time does nothing."""

    async def receive(self) -> bytes | None:
        """Return the next message, None when the call has ended with OK. Raises Refused if otherwise."""

    def cancel(self) -> None:
        """End the call now; `receive` then raises Refused(CANCELLED). A call that has ended stays so."""


class Channel(Protocol):
    """A connection to one server, made when needed and when lost. Built inside the running loop."""

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: Metadata = (),
        timeout: float | None = None,  # noqa: ASYNC109 - the other side must learn of it
    ) -> bytes:
        """Return the reply, which must come within `timeout` seconds. Raises Refused.

        Cancelling the task that waits cancels the call.
        """

    def duplex(self, method: str, metadata: Metadata = ()) -> DuplexCall:
        """Open a call with messages both ways. Raises Refused only when the channel is closed."""

    async def close(self) -> None:
        """Cancel the calls under way and disconnect."""
