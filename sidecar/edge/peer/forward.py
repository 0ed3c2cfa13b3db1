"""Calls of clients that are addressed to another app: sent on over the peer link, and served at its other end.

At most one hop: what came over a link is answered here. A call has an ID, so that it can be tried again after a broken
link: the receiver keeps its reply under that ID until the sender says that nobody waits for it any more.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import structlog
from google.protobuf.message import DecodeError

from sidecar.actors.clock import usable
from sidecar.actors.engine import Engine
from sidecar.actors.tasks import log_failure
from sidecar.core.causes import Cause
from sidecar.core.ids import PeerId
from sidecar.core.names import invalid_app_id
from sidecar.core.receipts import Forgotten, Received
from sidecar.edge.dialects import wire
from sidecar.edge.peer.passed_on import READS, ROUTER_FIELDS, named
from sidecar.edge.peer.shares import Shares
from sidecar.edge.rpc import Forwarded
from sidecar.edge.transport.ports import NO_NAMES, Call, Refused, StatusCode, UnaryHandler
from sidecar.peers.limits import Limit
from sidecar.peers.ports import LinkBrokenError
from sidecar.schema import peer_pb2, taskhub_pb2

REACH_SECONDS = 60.0  # how long an app is tried for a caller without a deadline
KEPT_SECONDS = 60.0  # how long a call outlives the link that it came over
MOST_CALLS = 10_000
MOST_BYTES = 256 * 1024 * 1024  # of the requests and replies that are kept, beyond the first of each app
_NUMBER_BITS = 61
_LONGEST_ID = 64
_LONGEST_TEXT = 1900  # of a refusal, in characters
_STATUSES = frozenset(int(status) for status in StatusCode)
_BROKEN_SECONDS = 0.05  # a link that has just broken may still be the one that is found: let it be taken down
log = structlog.get_logger(__name__)


class CallLink(Protocol):
    """A link that takes calls."""

    @property
    def limit(self) -> Limit:
        """How much it carries at once."""

    async def call(self, request: peer_pb2.Request) -> peer_pb2.Response:
        """Have a call done by the app behind the link. Raises LinkBrokenError."""

    def release(self, call_id: str) -> None:
        """Tell the other side that nobody waits for the call any more."""


class OpenLinks(Protocol):
    """Finds links to other apps."""

    def known(self, namespace: str, app: str) -> bool:
        """Whether the app has an address, or a link."""

    def why(self, namespace: str, app: str) -> Cause:
        """Say why there is no link to an app."""

    def alike(self, app: str) -> str | None:
        """Return the app ID that is known here and differs from `app` in case alone, if there is one."""

    async def linked(self, peer: PeerId) -> CallLink:
        """Return a link to an app, once there is one."""


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Sends calls on."""

    engine: Engine
    links: OpenLinks
    unknown_app_fails: bool

    def routed(self, name: str, method: UnaryHandler) -> UnaryHandler:
        """Return a handler that sends a call for another app there, and has others done by `method`."""
        number = ROUTER_FIELDS.get(name)
        if number is None:
            return method

        async def serve(call: Call, body: bytes) -> bytes:
            peer = self._target(body, number)
            return await method(call, body) if peer is None else await self._forward(peer, call, name, body)

        return serve

    def _target(self, body: bytes, number: int) -> PeerId | None:
        """Return the app that a call is for, None for this one; an app ID that cannot exist is refused."""
        try:
            router = taskhub_pb2.Router.FromString(wire.field(body, number) or b"")
        except DecodeError:
            return None  # Microsoft's requests have something else there
        app, namespace = router.target_app_id or self.engine.me.app, router.target_namespace or self.engine.me.namespace
        wrong = invalid_app_id(app) or invalid_app_id(namespace)
        alike = self.links.alike(app)
        if wrong is None and alike is not None:
            wrong = f"app ID '{app}' is invalid: there is an app '{alike}', and two may not differ in case alone"
        if wrong:
            raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
        return None if (namespace, app) == (self.engine.me.namespace, self.engine.me.app) else (namespace, app)

    async def ask(self, peer: PeerId, name: str, body: bytes, seconds: float, reach: float | None = None) -> bytes:
        """Have another app's sidecar answer within a time; `reach` is how long it is tried if no link is up.

        Raises:
            Refused: it has, or there is no answer in time.
        """
        request = peer_pb2.Request(id=self.engine.ids.new_id(), method=name, body=body)
        try:
            async with asyncio.timeout(seconds):
                return await self._send(peer, seconds, request, seconds if reach is None else reach)
        except TimeoutError:
            cause = self.links.why(*peer)
            text = f"app '{peer[1]}' could not be reached, or gave no answer, for {seconds:.1f} s"
            text += f": {cause.text}" if cause.since else ""
            raise Refused(StatusCode.UNAVAILABLE, text) from None

    async def _forward(self, peer: PeerId, call: Call, name: str, body: bytes) -> bytes:
        request = peer_pb2.Request(id=self.engine.ids.new_id(), method=name, body=named(name, body, self.engine.ids))
        return await self._send(peer, call.deadline, request, REACH_SECONDS if call.deadline is None else call.deadline)

    async def _send(self, peer: PeerId, deadline: float | None, request: peer_pb2.Request, reach: float) -> bytes:
        response = await self._insist(peer, deadline, request, reach)
        if not response.status:
            return response.body
        if response.status not in _STATUSES:
            text = f"app '{peer[1]}' answered with status {response.status}, which there is not"
            raise Refused(StatusCode.UNAVAILABLE, text)
        raise Refused(StatusCode(response.status), response.text[:_LONGEST_TEXT])

    async def _insist(
        self, peer: PeerId, deadline: float | None, request: peer_pb2.Request, reach: float
    ) -> peer_pb2.Response:
        """Try until there is a reply; give up when there is no link for `reach`, or shortly before the deadline."""
        clock = self.engine.clock
        began = clock.monotonic()
        end = math.inf if deadline is None else began + usable(deadline)
        error = ""
        if self.unknown_app_fails and not self.links.known(*peer):
            raise Refused(StatusCode.UNAVAILABLE, self.links.why(*peer).text)
        link: CallLink | None = None
        limit = min(end, began + reach)  # a monotonic time
        try:
            while True:
                try:
                    async with asyncio.timeout(max(0.0, limit - clock.monotonic())):
                        link = await self.links.linked(peer)
                    _check_size(request, link.limit)
                    if deadline is not None:
                        request.milliseconds = max(1, int((began + deadline - clock.monotonic()) * 1000))
                    return await link.call(request)
                except LinkBrokenError as broken:
                    error = str(broken)
                    limit = min(end, clock.monotonic() + reach)
                    await clock.sleep(_BROKEN_SECONDS)
        except TimeoutError:
            error = error or self.links.why(*peer).text
            raise Refused(StatusCode.UNAVAILABLE, f"app '{peer[1]}' could not be reached: {error}") from None
        finally:
            if link is not None:
                link.release(request.id)


def _check_size(request: peer_pb2.Request, limit: Limit) -> None:
    if len(request.body) > limit.room:
        raise Refused(StatusCode.RESOURCE_EXHAUSTED, limit.refusal("the call", len(request.body)))


def bounded(response: peer_pb2.Response, limit: Limit) -> peer_pb2.Response:
    """Return a reply as a link can carry it: a refusal if it is too large."""
    if len(response.body) <= limit.room:
        return response
    text = limit.refusal("the reply", len(response.body))
    return _refusal(response.id, Refused(StatusCode.RESOURCE_EXHAUSTED, text))


class _Key(NamedTuple):
    peer: PeerId
    id: str


@dataclass(slots=True)
class _Served:
    """A call that is being served or was, how many links wait for it, and its mark in the store."""

    task: asyncio.Task[peer_pb2.Response]
    key: Received
    size: int  # bytes of the request, and of the reply once there is one
    is_read: bool
    waiting: int = 0
    expiry: asyncio.TimerHandle | None = None  # since nobody waits

    def stay(self) -> None:
        """It expires no more, for now."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None


class Served:
    """The calls of other apps that are served here, each once however often it comes.

    `methods` are all that may be called, `reads` those that change nothing. `release` commits that the mark of a call
    is no longer needed.
    """

    def __init__(self, release: Callable[[Forgotten], Coroutine[object, object, None]]) -> None:
        self.methods: dict[str, UnaryHandler] = {}
        self.reads = READS
        self._release = release
        self._calls: dict[_Key, _Served] = {}
        self._shares = Shares(MOST_CALLS, MOST_BYTES)
        self._releases: set[asyncio.Task[None]] = set()

    async def serve(self, peer: PeerId, store: str, request: peer_pb2.Request) -> peer_pb2.Response:
        """Return the reply to a call; the same one when the call comes again."""
        key = _Key(peer, request.id)
        served = self._calls.get(key)
        if served is None:
            try:
                served = self._begin(peer, Received(*peer, store, _number(request.id)), request)
            except Refused as refused:
                return _refusal(request.id, refused)
            self._calls[key] = served
            served.task.add_done_callback(partial(self._answered, key, served))
        served.stay()
        served.waiting += 1
        try:
            return await asyncio.shield(served.task)
        finally:
            served.waiting -= 1
            if not served.waiting and self._calls.get(key) is served:
                self._leave(key, served)

    def _begin(self, peer: PeerId, key: Received, request: peer_pb2.Request) -> _Served:
        method = self.methods.get(request.method)
        if method is None:
            raise Refused(StatusCode.UNIMPLEMENTED, f"this sidecar takes no call '{request.method[:64]}' from a peer")
        size = len(request.body)
        if not self._shares.has_room(peer, size):
            calls, held = self._shares.held(peer)
            text = f"{calls} calls of app '{peer[1]}', of {held} bytes, are being served, as much as is its share"
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"{text}: try again in a moment")
        call = Forwarded(
            method=request.method,
            metadata={},
            deadline=request.milliseconds / 1000 if request.milliseconds else None,
            peer=f"app {peer[1]}",
            identity=NO_NAMES,
            received=key,
        )
        self._shares.add(peer, 1, size)
        task = asyncio.create_task(self._answer(method, call, request), name="forwarded call")
        return _Served(task, key, size, request.method in self.reads)

    async def _answer(self, method: UnaryHandler, call: Forwarded, request: peer_pb2.Request) -> peer_pb2.Response:
        try:
            body = await method(call, request.body)
        except Refused as refused:
            return _refusal(request.id, refused)
        except Exception:
            log.exception("forwarded call failed", method=request.method)
            return _refusal(request.id, Refused(StatusCode.INTERNAL, "internal error"))
        return peer_pb2.Response(id=request.id, body=body)

    def _answered(self, key: _Key, served: _Served, task: asyncio.Task[peer_pb2.Response]) -> None:
        if self._calls.get(key) is served and not task.cancelled():
            served.size += len(task.result().body)
            self._shares.add(key.peer, 0, len(task.result().body))

    def release(self, peer: PeerId, call_id: str) -> None:
        """Forget a call: nobody waits for it."""
        served = self._calls.pop(_Key(peer, call_id), None)
        if served is None:
            return
        served.stay()
        served.task.cancel()
        self._shares.add(peer, -1, -served.size)
        if not served.is_read:
            first = served.key.id
            release = asyncio.create_task(self._release(Forgotten(served.key.store, first + 1, first)))
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)
            release.add_done_callback(log_failure)

    def _leave(self, key: _Key, served: _Served) -> None:
        """Nobody waits for a call: one that may come again is kept for a while, from this moment on."""
        if served.is_read:
            self.release(*key)
        else:
            served.expiry = asyncio.get_running_loop().call_later(KEPT_SECONDS, self.release, *key)


def _refusal(call_id: str, refused: Refused) -> peer_pb2.Response:
    return peer_pb2.Response(id=call_id, status=int(refused.status), text=refused.message[:_LONGEST_TEXT])


def _number(call_id: str) -> int:
    """Return the number that marks a call in the store, above every order number of a reminder.

    Raises:
        Refused: the ID is none; it is kept for a while, so a peer may not choose how long it is.
    """
    if len(call_id) > _LONGEST_ID:
        text = f"the ID of a forwarded call has {len(call_id)} characters; at most {_LONGEST_ID} are allowed"
        raise Refused(StatusCode.INVALID_ARGUMENT, text)
    try:
        return int(call_id, 16) % (1 << _NUMBER_BITS) | 1 << (_NUMBER_BITS + 1)
    except ValueError:
        raise Refused(StatusCode.INVALID_ARGUMENT, "the ID of a forwarded call is not hexadecimal") from None
