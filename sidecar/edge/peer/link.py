"""Both ends of the peer link: handshake, batches and their answers, calls of clients, heartbeats.

A link is one stream of frames each way. Either side may send over it, whoever opened it: so an app that has no address
for its caller answers over the link that the caller opened.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from sidecar.actors.tasks import log_failure
from sidecar.core.delivery import KNOWN_BY_CALL
from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import LARGEST_NUMBER, PeerId
from sidecar.core.model import Kind, Outcome, Reminder, Reply
from sidecar.core.receipts import Received
from sidecar.edge.peer.codec import answer_of, call_of, longest_text, message_of, reminder_of, reply_of
from sidecar.edge.peer.forward import Served, bounded
from sidecar.edge.peer.handshake import limit_of
from sidecar.edge.transport.ports import Closed, Outflow, Refused
from sidecar.peers.calls_under_way import CallUnderWay
from sidecar.peers.ports import LinkBrokenError
from sidecar.schema import peer_pb2 as pb
from sidecar.services.peer_messages import PeerMessages
from sidecar.store.protocol import DamagedError, UnavailableError

METHOD = "/sidecar.peer.PeerService/Link"
HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
MOST_BATCHES = 8  # of a peer at once on a link; a sidecar sends one, and the next when that is answered or overdue
_SESSION_PART = 12  # characters of the name of each process: a session is stored with every call that is accepted
ANSWER_SECONDS = 30.0  # messages without an answer are sent again: each counts once at its receiver
_CALLS = frozenset({Kind.ACTIVITY, Kind.CREATE, Kind.REWIND})  # what is sent again until it is answered
log = structlog.get_logger(__name__)


class Wire(Protocol):
    """The stream under a link."""

    async def send(self, message: bytes) -> None:
        """Send a frame, waiting for room. Raises Closed."""

    async def receive(self) -> bytes | None:
        """Return the next frame, None at the end. Raises Refused."""


class Reports(Protocol):
    """What the two ends of a link tell each other of work that waits."""

    def question(self, peer: PeerId) -> pb.Frame | None:
        """Return what an app is to be asked now, None for nothing."""

    def answer(self, peer: PeerId, why: pb.Lanes) -> pb.Frame:
        """Return the answer to a question."""

    def keep(self, peer: PeerId, because: pb.Lanes) -> None:
        """Take an answer in."""


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
    """One link that is up, whichever side opened it. Implements `peers.ports.Link`."""

    def __init__(
        self,
        me: AppIdentity,
        wire: Wire,
        greeting: pb.Hello,
        messages: PeerMessages,
        served: Served,
        *,
        receives: int,
        reports: Reports,
    ) -> None:
        """`receives` is how many bytes the largest frame has that can be received here."""
        self.limit = limit_of(me, receives, greeting)
        self.peer: PeerId = (greeting.namespace, greeting.app_id)
        # What a peer says of its store holds for that app alone: another may say the same.
        self.store = "/".join((*self.peer, greeting.store_id))
        self.process = greeting.process_id
        self._store_id = greeting.store_id
        self.session = f"{self.store}/{self.process[:_SESSION_PART]}.{messages.engine.start_id[:_SESSION_PART]}"
        self.over = ""  # why this link is to end
        self._me = me
        self._wire = wire
        self._messages = messages
        self._served = served
        self._reports = reports
        self._sequence = 0
        self._answers: dict[int, asyncio.Future[list[Reply]]] = {}
        self._calls: dict[str, asyncio.Future[pb.Response]] = {}
        self._sending = asyncio.Lock()  # a wire takes one message at a time
        self._tasks: dict[asyncio.Task[None], None] = {}  # in the order in which they were started
        self._batches = 0  # that are being taken in

    async def deliver(self, batch: Sequence[Reminder], floor: int) -> list[Reply]:
        """See `peers.ports.Link`."""
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
        beats.add_done_callback(log_failure)
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await self._wire.receive()
                if message is None:
                    return
                if self.over:
                    raise Closed(self.over)
                await self._handle(pb.Frame.FromString(message))
        finally:
            beats.cancel()
            for task in list(self._tasks):
                task.cancel()
            waiting: list[asyncio.Future[Any]] = [*self._answers.values(), *self._calls.values()]
            for future in waiting:
                if not future.done():
                    future.set_exception(LinkBrokenError(f"the link to app '{self.peer[1]}' broke"))
                    future.exception()  # one whose frame could not even be sent does not wait for it

    async def _send(self, frame: pb.Frame) -> None:
        async with self._sending:
            await self._wire.send(frame.SerializeToString())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._try_send(self._reports.question(self.peer) or pb.Frame(ping=True))

    async def _handle(self, frame: pb.Frame) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "ping":
            await self._send(pb.Frame(pong=True))
        elif kind == "answers":
            self._answered(frame.answers)
        elif kind == "batch":
            self._take(frame.batch)
        elif kind == "request":
            self._spawn(self._serve(frame.request), "call")
        elif kind == "response":
            reply = self._calls.get(frame.response.id)
            if reply is not None and not reply.done():
                reply.set_result(frame.response)
        elif kind == "released":
            self._served.release(self.peer, frame.released)
        elif kind == "why":
            await self._send(self._reports.answer(self.peer, frame.why))
        elif kind == "because":
            self._reports.keep(self.peer, frame.because)

    def _answered(self, answers: pb.Answers) -> None:
        self._messages.highest.note(self.peer, self._store_id, answers.order)
        answer = self._answers.get(answers.sequence)
        if answer is not None and not answer.done():
            answer.set_result([reply_of(entry) for entry in answers.answers])

    def _take(self, batch: pb.Batch) -> None:
        if self._batches >= MOST_BATCHES:
            raise Closed(f"app '{self.peer[1]}' sends batches without waiting for their answers")
        self._batches += 1
        arrived = self._messages.calls.arrived  # it is noted before any answer of the peer that came later is acted on
        calls = {one.id: arrived(self.peer, call_of(one)) for one in batch.messages if one.kind in _CALLS}
        self._spawn(self._accept(batch, calls), "batch")

    def _spawn(self, work: Coroutine[object, object, None], what: str) -> None:
        task = asyncio.create_task(work, name=f"{what}, app {self.peer[1]}")
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        task.add_done_callback(log_failure)

    async def _serve(self, request: pb.Request) -> None:
        response = await self._served.serve(self.peer, self.store, request)
        await self._try_send(pb.Frame(response=bounded(response, self.limit)))

    async def _try_send(self, frame: pb.Frame) -> None:
        """Send a frame whose loss is met by the other side: it asks again, or the link ends."""
        with suppress(Closed, Refused):
            await self._send(frame)

    async def _accept(self, batch: pb.Batch, calls: Mapping[int, CallUnderWay]) -> None:
        """Take the messages of a batch in, in order for each actor, and answer them together."""
        self._messages.highest.note(self.peer, self._store_id, max((one.id for one in batch.messages), default=0))
        lanes: dict[tuple[bytes, bytes], list[pb.Message]] = {}
        for message in batch.messages:
            lane = message.source.SerializeToString(), message.target.SerializeToString()
            lanes.setdefault(lane, []).append(message)
        try:
            accepted = await asyncio.gather(*(self._accept_lane(lane, calls) for lane in lanes.values()))
        finally:
            self._batches -= 1
        replies = {number: reply for lane in accepted for number, reply in lane.items()}
        answers = pb.Answers(sequence=batch.sequence, order=self._messages.engine.ids.stored)
        longest = longest_text(self.limit.room, len(batch.messages))
        answers.answers.extend(answer_of(message.id, replies[message.id], longest) for message in batch.messages)
        try:
            await self._send(pb.Frame(answers=answers))
            if batch.floor:
                floor = min(batch.floor, LARGEST_NUMBER)
                await self._messages.dedup_keys.forget(self.peer, (self.store, self.session), floor)
        except (Closed, Refused, UnavailableError):
            return

    async def _accept_lane(self, messages: Sequence[pb.Message], calls: Mapping[int, CallUnderWay]) -> dict[int, Reply]:
        """Take what one actor sends to another, one after the other; behind what must be tried again nothing is."""
        replies: dict[int, Reply] = {}
        for message in messages:
            reply = replies[message.id] = await self._accept_one(message, calls.get(message.id))
            if reply.outcome is Outcome.UNAVAILABLE:
                return dict.fromkeys((each.id for each in messages), reply) | replies
        return replies

    async def _accept_one(self, message: pb.Message, call: CallUnderWay | None) -> Reply:
        try:
            reminder = reminder_of(self._me, self.peer, message)
            name = self.session if reminder.kind in KNOWN_BY_CALL else self.store
            received = Received(*self.peer, name, message.id)
            return await self._messages.deliver(reminder, received, call)
        except MalformedError as error:
            return Reply(Outcome.INVALID, str(error))
        except (UnavailableError, DamagedError) as error:
            return Reply(Outcome.UNAVAILABLE, str(error))
        except Exception:
            log.exception("message of a peer failed", app=self.peer[1])
            return Reply(Outcome.UNAVAILABLE, "internal error")
