"""Both ends of the peer link: handshake, batches and their answers, calls of clients, heartbeats.

A link is one stream of frames each way. Either side may send over it, whoever opened it: so an app that has no address
for its caller answers over the link that the caller opened.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog
from google.protobuf.message import DecodeError

from sidecar.core.model import Changes, Forgotten, MalformedError, Outcome, Received, Reminder, Reply, Self
from sidecar.directory import Directory
from sidecar.edge.forward import Served
from sidecar.edge.handshake import check_hello, hello, read_hello
from sidecar.edge.messages import answer_of, message_of, reminder_of, reply_of
from sidecar.edge.transport import Call, Channel, Closed, Outflow, Refused, Status
from sidecar.router import LONGEST_PAUSE, SHORTEST_PAUSE, LinkBrokenError, Peer
from sidecar.schema import peer_pb2 as pb
from sidecar.service import Service
from sidecar.store.protocol import UnavailableError

METHOD = "/sidecar.peer.PeerService/Link"
HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
HANDSHAKE_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # messages without an answer are sent again: each counts once at its receiver
Proof = Callable[[tuple[str, ...], str, str], bool]  # names of a certificate, namespace, app ID
log = structlog.get_logger(__name__)


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

    def __init__(self, me: Self, wire: Wire, greeting: pb.Hello, service: Service, served: Served) -> None:
        self.peer: Peer = (greeting.namespace, greeting.app_id)
        self.store = greeting.store_id
        self._me = me
        self._wire = wire
        self._service = service
        self._served = served
        self._sequence = 0
        self._answers: dict[int, asyncio.Future[list[Reply]]] = {}
        self._calls: dict[str, asyncio.Future[pb.Response]] = {}
        self._sending = asyncio.Lock()  # a wire takes one message at a time
        self._tasks: set[asyncio.Task[None]] = set()

    async def deliver(self, batch: Sequence[Reminder], floor: int) -> list[Reply]:
        """See `router.Link`."""
        self._sequence += 1
        sequence = self._sequence
        answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._answers[sequence] = answer
        frame = pb.Frame(batch=pb.Batch(sequence=sequence, floor=floor, messages=[message_of(r) for r in batch]))
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

    async def call(self, request: pb.Request) -> pb.Response:
        """See `forward.CallLink`."""
        reply: asyncio.Future[pb.Response] = asyncio.get_running_loop().create_future()
        self._calls[request.id] = reply
        try:
            await self._send(pb.Frame(request=request))
            return await reply
        except (Closed, Refused) as error:
            raise LinkBrokenError(f"the link to app '{self.peer[1]}' broke: {error}") from error
        finally:
            self._calls.pop(request.id, None)

    def release(self, call_id: str) -> None:
        """See `forward.CallLink`."""
        self._spawn(self._try_send(pb.Frame(released=call_id)), "release")

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
            waiting: list[asyncio.Future[Any]] = [*self._answers.values(), *self._calls.values()]
            for future in waiting:
                if not future.done():
                    future.set_exception(LinkBrokenError(f"the link to app '{self.peer[1]}' broke"))

    async def _send(self, frame: pb.Frame) -> None:
        async with self._sending:
            await self._wire.send(frame.SerializeToString())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._try_send(pb.Frame(ping=True))

    async def _handle(self, frame: pb.Frame) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "ping":
            await self._send(pb.Frame(pong=True))
        elif kind == "answers":
            answer = self._answers.get(frame.answers.sequence)
            if answer is not None and not answer.done():
                answer.set_result([reply_of(entry) for entry in frame.answers.answers])
        elif kind == "batch":
            self._spawn(self._accept(frame.batch), "batch")
        elif kind == "request":
            self._spawn(self._serve(frame.request), "call")
        elif kind == "response":
            reply = self._calls.get(frame.response.id)
            if reply is not None and not reply.done():
                reply.set_result(frame.response)
        elif kind == "released":
            self._served.release(self.peer, frame.released)

    def _spawn(self, work: Coroutine[object, object, None], what: str) -> None:
        task = asyncio.create_task(work, name=f"{what}, app {self.peer[1]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: pb.Request) -> None:
        await self._try_send(pb.Frame(response=await self._served.serve(self.peer, self.store, request)))

    async def _try_send(self, frame: pb.Frame) -> None:
        """Send a frame whose loss is met by the other side: it asks again, or the link ends."""
        with suppress(Closed, Refused):
            await self._send(frame)

    async def _accept(self, batch: pb.Batch) -> None:
        """Take the messages of a batch in, in order for each actor, and answer them together."""
        replies = await asyncio.gather(*(self._accept_one(message) for message in batch.messages))
        answers = pb.Answers(sequence=batch.sequence)
        for message, reply in zip(batch.messages, replies, strict=True):
            answers.answers.append(answer_of(message.id, reply))
        try:
            await self._send(pb.Frame(answers=answers))
            if batch.floor:
                await self._service.engine.commit(Changes(forgotten=(Forgotten(self.store, batch.floor),)))
        except (Closed, UnavailableError):
            return

    async def _accept_one(self, message: pb.Message) -> Reply:
        try:
            reminder = reminder_of(self._me, self.peer, message)
            received = Received(*self.peer, self.store, message.id)
            return await self._service.deliver(reminder, received)
        except MalformedError as error:
            return Reply(Outcome.INVALID, str(error))
        except UnavailableError as error:
            return Reply(Outcome.UNAVAILABLE, str(error))
        except Exception:
            log.exception("message of a peer failed", app=self.peer[1])
            return Reply(Outcome.UNAVAILABLE, "internal error")


class Peers:
    """All links of one sidecar: those it opens, to every app with an address, and those that others open."""

    def __init__(
        self,
        service: Service,
        directory: Directory,
        connect: Callable[[str, Peer], Channel],
        link_up: Callable[[Peer, str], Awaitable[None]],
        *,
        served: Served,
        proves: Proof | None = None,
    ) -> None:
        """`proves` says whether the names of a certificate are those of an app; None: links are not encrypted."""
        self._me = service.engine.me
        self._service = service
        self._directory = directory
        self._connect = connect
        self._link_up = link_up
        self._served = served
        self._proves = proves
        self._waiting: dict[Peer, list[asyncio.Future[PeerLink]]] = {}
        self._opened: dict[Peer, PeerLink] = {}
        self._accepted: dict[Peer, PeerLink] = {}
        self._knock: dict[str, asyncio.Event] = {}
        self._dialers: list[asyncio.Task[None]] = []

    def link(self, namespace: str, app: str) -> PeerLink | None:
        """See `router.Links`."""
        peer = (namespace, app)
        return self._opened.get(peer) or self._accepted.get(peer)

    async def linked(self, peer: Peer) -> PeerLink:
        """See `forward.Links`."""
        link = self.link(*peer)
        if link is not None:
            return link
        waiting = self._waiting.setdefault(peer, [])
        ready: asyncio.Future[PeerLink] = asyncio.get_running_loop().create_future()
        waiting.append(ready)
        if peer[1] in self._knock:
            self._knock[peer[1]].set()
        try:
            return await ready
        finally:
            waiting.remove(ready)

    def known(self, namespace: str, app: str) -> bool:
        """See `forward.Links`."""
        return bool(self._directory.addresses(namespace, app)) or self.link(namespace, app) is not None

    def alike(self, app: str) -> str | None:
        """See `forward.Links`."""
        known = {self._me.app, *self._directory.apps(), *self.connected()}
        return next((one for one in sorted(known) if one.lower() == app.lower() and one != app), None)

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
        peer = (self._me.namespace, app)
        channel = self._connect(address, peer)
        call = channel.duplex(METHOD)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await call.send(self._hello())
                greeting = read_hello(await call.receive())
            check_hello(self._me, greeting, app)
            await self._serve(PeerLink(self._me, call, greeting, self._service, self._served), self._opened)
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
        for ready in self._waiting.pop(link.peer, []):
            if not ready.done():
                ready.set_result(link)
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
        return hello(self._me, self._service.engine.store.identity)

    # ------------------------------------------------------------ the side that is called

    async def accept(self, call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        """Serve a link that another sidecar opened."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                greeting = read_hello(await anext(requests, None))
            check_hello(self._me, greeting, None)
            if self._proves is not None and not self._proves(call.identity, greeting.namespace, greeting.app_id):
                raise MalformedError(f"the certificate is not that of app '{greeting.app_id}'")
        except TimeoutError:
            raise Refused(Status.DEADLINE_EXCEEDED, "no hello came") from None
        except (MalformedError, DecodeError) as error:
            log.warning("peer refused", peer=call.peer, error=str(error))
            out.send(pb.Frame(refused=str(error)).SerializeToString())
            return
        out.send(self._hello())
        if greeting.app_id in self._knock:
            self._knock[greeting.app_id].set()
        try:
            link = PeerLink(self._me, Incoming(requests, out), greeting, self._service, self._served)
            await self._serve(link, self._accepted)
        except (TimeoutError, Closed, DecodeError, UnavailableError) as error:
            raise Refused(Status.UNAVAILABLE, str(error) or "the link fell silent") from None
