"""Both ends of the peer link: handshake, batches and their answers, heartbeats.

A link is one stream of frames each way. Either side may send batches over it, whoever opened it: so an app that has
no address for its caller answers over the link that the caller opened.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from sidecar.core.model import (
    DEFAULT_HUB,
    ActorId,
    CallId,
    Changes,
    Forgotten,
    Kind,
    MalformedError,
    Outcome,
    Received,
    Reminder,
    Reply,
    Self,
)
from sidecar.core.names import invalid_app_id, invalid_instance_id
from sidecar.directory import Directory
from sidecar.edge.transport import Call, Channel, Closed, Outflow, Refused, Status
from sidecar.router import LONGEST_PAUSE, SHORTEST_PAUSE, Link, LinkBrokenError, Peer
from sidecar.schema import peer_pb2 as pb
from sidecar.service import Service
from sidecar.store.protocol import UnavailableError

METHOD = "/sidecar.peer.PeerService/Link"
PROTOCOL = 1
HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
HANDSHAKE_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # messages without an answer are sent again: each counts once at its receiver
log = structlog.get_logger(__name__)

# The numbers cross the link: never renumber.
_VERDICTS = {
    Outcome.DONE: 0,
    Outcome.DUPLICATE: 1,
    Outcome.STALE: 2,
    Outcome.MISSING: 3,
    Outcome.EXISTS: 4,
    Outcome.WRONG_STATE: 5,
    Outcome.DENIED: 6,
    Outcome.INVALID: 7,
    Outcome.UNAVAILABLE: 8,
}
_OUTCOMES = {number: outcome for outcome, number in _VERDICTS.items()}


class Wire(Protocol):
    """The stream under a link."""

    async def send(self, message: bytes) -> None:
        """Send a frame, waiting for room. Raises Closed."""

    async def receive(self) -> bytes | None:
        """Return the next frame, None at the end. Raises Refused."""


class Incoming:
    """A `Wire` over a stream that the other side opened."""

    def __init__(self, requests: AsyncIterator[bytes], out: Outflow) -> None:
        self._requests = requests
        self._out = out

    async def send(self, message: bytes) -> None:
        """See `Wire`."""
        if self._out.full:
            await self._out.drained()
        self._out.send(message)

    async def receive(self) -> bytes | None:
        """See `Wire`."""
        return await anext(self._requests, None)


class PeerLink:
    """One link that is up, whichever side opened it. Implements `router.Link`."""

    def __init__(self, me: Self, wire: Wire, hello: pb.Hello, service: Service) -> None:
        self.peer: Peer = (hello.namespace, hello.app_id)
        self.store = hello.store_id
        self._me = me
        self._wire = wire
        self._service = service
        self._sequence = 0
        self._answers: dict[int, asyncio.Future[list[Reply]]] = {}
        self._sending = asyncio.Lock()  # a wire takes one message at a time
        self._tasks: set[asyncio.Task[None]] = set()

    async def deliver(self, batch: Sequence[Reminder], floor: int) -> list[Reply]:
        """See `router.Link`."""
        self._sequence += 1
        sequence = self._sequence
        answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._answers[sequence] = answer
        frame = pb.Frame(batch=pb.Batch(sequence=sequence, floor=floor, messages=[_message(r) for r in batch]))
        try:
            await self._send(frame)
            async with asyncio.timeout(ANSWER_SECONDS):
                replies = await answer
        except TimeoutError as error:
            raise LinkBrokenError(f"app '{self.peer[1]}' did not answer for {ANSWER_SECONDS:.0f} s") from error
        except (Closed, Refused) as error:
            raise LinkBrokenError(f"the link to app '{self.peer[1]}' broke: {error}") from error
        finally:
            self._answers.pop(sequence, None)
        if len(replies) != len(batch):
            raise LinkBrokenError(f"app '{self.peer[1]}' answered {len(replies)} of {len(batch)} messages")
        return replies

    async def run(self) -> None:
        """Read frames until the link ends or falls silent."""
        beats = asyncio.create_task(self._beat(), name=f"heartbeat {self.peer[1]}")
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await self._wire.receive()
                if message is None:
                    return
                await self._handle(pb.Frame.FromString(message))
        finally:
            beats.cancel()
            for task in self._tasks:
                task.cancel()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(LinkBrokenError(f"the link to app '{self.peer[1]}' broke"))

    async def _send(self, frame: pb.Frame) -> None:
        async with self._sending:
            await self._wire.send(frame.SerializeToString())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._send(pb.Frame(ping=True))
            except (Closed, Refused):
                return

    async def _handle(self, frame: pb.Frame) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "ping":
            await self._send(pb.Frame(pong=True))
        elif kind == "answers":
            answer = self._answers.get(frame.answers.sequence)
            if answer is not None and not answer.done():
                answer.set_result([_reply(entry) for entry in frame.answers.answers])
        elif kind == "batch":
            task = asyncio.create_task(self._accept(frame.batch), name=f"batch from {self.peer[1]}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _accept(self, batch: pb.Batch) -> None:
        """Take the messages of a batch in, in order for each actor, and answer them together."""
        replies = await asyncio.gather(*(self._accept_one(message) for message in batch.messages))
        answers = pb.Answers(sequence=batch.sequence)
        for message, reply in zip(batch.messages, replies, strict=True):
            answers.answers.append(pb.Answer(id=message.id, verdict=_VERDICTS[reply.outcome], text=reply.text[:500]))
        try:
            await self._send(pb.Frame(answers=answers))
            if batch.floor:
                await self._service.engine.commit(Changes(forgotten=(Forgotten(self.store, batch.floor),)))
        except (Closed, UnavailableError):
            return

    async def _accept_one(self, message: pb.Message) -> Reply:
        try:
            reminder = _reminder(self._me, self.peer, message)
            received = Received(*self.peer, self.store, message.id)
            return await self._service.deliver(reminder, received)
        except MalformedError as error:
            return Reply(Outcome.INVALID, str(error))
        except UnavailableError as error:
            return Reply(Outcome.UNAVAILABLE, str(error))
        except Exception:
            log.exception("message of a peer failed", app=self.peer[1])
            return Reply(Outcome.UNAVAILABLE, "internal error")


def _actor(actor: ActorId) -> pb.Actor:
    return pb.Actor(namespace=actor.namespace, app_id=actor.app, kind=actor.kind, hub=actor.hub, id=actor.id)


def _message(reminder: Reminder) -> pb.Message:
    execution, turn, task = reminder.call
    return pb.Message(
        id=reminder.id,
        kind=int(reminder.kind),
        target=_actor(reminder.target),
        source=_actor(reminder.source),
        call=pb.Call(execution_id=execution, turn=turn, task_id=task),
        name=reminder.name,
        payload=reminder.payload,
    )


_FOR_OTHERS = {Kind.ACTIVITY, Kind.CREATE, Kind.RESULT, Kind.EVENT, Kind.TERMINATE, Kind.PURGE, Kind.WITHDRAW}


def _reminder(me: Self, peer: Peer, message: pb.Message) -> Reminder:
    """Return what a peer sent, with the app it comes from stamped on it, whatever it claims to be.

    Raises:
        MalformedError: it is not for this app, or no message that another app may send.
    """
    target = message.target
    if (target.namespace, target.app_id) != (me.namespace, me.app):
        raise MalformedError(f"the message is for app '{target.app_id[:64]}', this is '{me.app}'")
    if message.kind not in _FOR_OTHERS:
        raise MalformedError(f"a peer may not send a message of kind {message.kind}")
    kind = Kind(message.kind)
    wrong = None if kind in (Kind.ACTIVITY, Kind.WITHDRAW) else invalid_instance_id(target.id)
    if wrong:
        raise MalformedError(wrong)
    # Only the answer to a call finds its way to another hub: the one that made the call.
    hub = target.hub if kind is Kind.RESULT else DEFAULT_HUB
    call = message.call
    return Reminder(
        id=message.id,
        kind=kind,
        owner=0,
        target=ActorId(me.namespace, me.app, target.kind, hub, target.id),
        source=ActorId(*peer, message.source.kind, message.source.hub, message.source.id),
        call=CallId(call.execution_id, call.turn, call.task_id),
        due=0,
        name=message.name,
        payload=message.payload,
    )


def _reply(answer: pb.Answer) -> Reply:
    return Reply(_OUTCOMES.get(answer.verdict, Outcome.UNAVAILABLE), answer.text)


class Peers:
    """All links of one sidecar: those it opens, to every app with an address, and those that others open."""

    def __init__(
        self,
        service: Service,
        directory: Directory,
        connect: Callable[[str], Channel],
        link_up: Callable[[Peer, str], Awaitable[None]],
    ) -> None:
        self._me = service.engine.me
        self._service = service
        self._directory = directory
        self._connect = connect
        self._link_up = link_up
        self._opened: dict[Peer, PeerLink] = {}
        self._accepted: dict[Peer, PeerLink] = {}
        self._knock: dict[str, asyncio.Event] = {}
        self._dialers: list[asyncio.Task[None]] = []

    def link(self, namespace: str, app: str) -> Link | None:
        """See `router.Links`."""
        peer = (namespace, app)
        return self._opened.get(peer) or self._accepted.get(peer)

    def connected(self) -> list[str]:
        """Return the app IDs that a link is up with."""
        return sorted({app for _, app in (*self._opened, *self._accepted)})

    def start(self) -> None:
        """Open a link to each app that has an address, and keep it open."""
        for app in self._directory.apps():
            self._knock[app] = asyncio.Event()
            self._dialers.append(asyncio.create_task(self._keep(app), name=f"link to {app}"))

    async def stop(self) -> None:
        """Close the links that this side opened."""
        for task in self._dialers:
            task.cancel()
        await asyncio.gather(*self._dialers, return_exceptions=True)

    # ------------------------------------------------------------ the side that opens

    async def _keep(self, app: str) -> None:
        failures = 0
        clock = self._service.engine.clock
        while True:
            for address in self._directory.addresses(self._me.namespace, app):
                began = clock.monotonic()
                await self._dial(app, address)
                failures = 0 if clock.monotonic() - began > LONGEST_PAUSE else failures + 1
            pause = clock.jitter(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(failures, 10)))
            self._knock[app].clear()
            try:
                async with asyncio.timeout(pause):
                    await self._knock[app].wait()
            except TimeoutError:
                pass

    async def _dial(self, app: str, address: str) -> None:
        """Open one link and serve it until it ends; whatever went wrong is logged."""
        channel = self._connect(address)
        call = channel.duplex(METHOD)
        peer = (self._me.namespace, app)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await call.send(self._hello())
                hello = _read_hello(await call.receive())
            _check_hello(self._me, hello, app)
            await self._serve(PeerLink(self._me, call, hello, self._service), self._opened)
        except (Refused, Closed, TimeoutError, MalformedError, DecodeError, UnavailableError) as error:
            log.debug("no link", app=app, address=address, error=str(error) or type(error).__name__)
            if isinstance(error, MalformedError):
                log.warning("peer refused", app=app, address=address, error=str(error))
        finally:
            self._opened.pop(peer, None)
            call.cancel()
            await channel.close()

    async def _serve(self, link: PeerLink, links: dict[Peer, PeerLink]) -> None:
        links[link.peer] = link
        log.info("peer connected", app=link.peer[1], opened=links is self._opened)
        try:
            running = asyncio.ensure_future(link.run())
            try:
                await self._link_up(link.peer, link.store)
                await running
            finally:
                running.cancel()
        finally:
            if links.get(link.peer) is link:
                del links[link.peer]
            log.info("peer disconnected", app=link.peer[1], opened=links is self._opened)

    def _hello(self) -> bytes:
        hello = pb.Hello(
            protocol=PROTOCOL,
            namespace=self._me.namespace,
            app_id=self._me.app,
            store_id=self._service.engine.store.identity,
        )
        return pb.Frame(hello=hello).SerializeToString()

    # ------------------------------------------------------------ the side that is called

    async def accept(self, call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        """Serve a link that another sidecar opened."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                hello = _read_hello(await anext(requests, None))
            _check_hello(self._me, hello, None)
        except TimeoutError:
            raise Refused(Status.DEADLINE_EXCEEDED, "no hello came") from None
        except (MalformedError, DecodeError) as error:
            log.warning("peer refused", peer=call.peer, error=str(error))
            out.send(pb.Frame(refused=str(error)).SerializeToString())
            return
        out.send(self._hello())
        if hello.app_id in self._knock:
            self._knock[hello.app_id].set()
        try:
            link = PeerLink(self._me, Incoming(requests, out), hello, self._service)
            await self._serve(link, self._accepted)
        except (TimeoutError, Closed, DecodeError, UnavailableError) as error:
            raise Refused(Status.UNAVAILABLE, str(error) or "the link fell silent") from None


def _read_hello(message: bytes | None) -> pb.Hello:
    if message is None:
        raise MalformedError("the peer said nothing")
    frame = pb.Frame.FromString(message)
    if frame.WhichOneof("frame") == "refused":
        raise MalformedError(f"the peer refused: {frame.refused[:500]}")
    if frame.WhichOneof("frame") != "hello":
        raise MalformedError("the peer did not begin with a hello")
    return frame.hello


def _check_hello(me: Self, hello: pb.Hello, expected: str | None) -> None:
    """Refuse a peer that is not who it should be, before any payload goes either way."""
    wrong = invalid_app_id(hello.app_id)
    if wrong:
        raise MalformedError(wrong)
    if hello.protocol < 1 or not hello.store_id:
        raise MalformedError("the peer speaks no version of the peer protocol that is known here")
    if hello.namespace != me.namespace:
        raise MalformedError(f"the peer is of namespace '{hello.namespace[:64]}', this is '{me.namespace}'")
    if expected is not None and hello.app_id != expected:
        raise MalformedError(f"the peer at this address is app '{hello.app_id}', not '{expected}'")
    if hello.app_id.lower() == me.app.lower():
        raise MalformedError(f"the peer says that it is app '{hello.app_id}' too: two sidecars have one app ID")
