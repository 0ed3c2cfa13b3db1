"""The `GetWorkItems` streams: each is a worker, and each is written in its own dialect."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import structlog

from sidecar.core.work_items import EntityItem, TurnItem, WorkItem
from sidecar.edge import dialects
from sidecar.edge.dialects import Family, Profile, inputs
from sidecar.edge.rpc import hub_of
from sidecar.edge.transport import processes
from sidecar.edge.transport.ports import Call, Closed, Outflow, Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from sidecar.work.dispatch import Dispatch
from sidecar.work.workers import Filter, Worker

_AFTER_REFUSAL = 5.0  # seconds in which a worker whose answer was refused ends its stream for that reason
_PARTED = 1_000
log = structlog.get_logger(__name__)


class WorkerStream:
    """One open stream: turns items into the bytes that its worker reads."""

    def __init__(self, profile: Profile, out: Outflow, metadata: Mapping[str, str | bytes]) -> None:
        self.family = profile.family
        self.input_form = inputs.form_of(metadata)
        self.fails_on_empty = inputs.fails_on_empty(metadata)
        self.profile = profile
        self.filled = asyncio.Event()
        self.out = out
        self.sent_items = 0
        self.sent_bytes = 0
        self.worker: Worker | None = None
        self.refused_at = -_AFTER_REFUSAL  # the monotonic time at which an answer of its worker ended with an error

    def send(self, item: WorkItem) -> int:
        """Write an item; return 0, or its size when the worker could not receive it.

        One for a stream that has just ended goes back to the queue when its worker is removed.
        """
        message = self._written(item)
        if len(message) > self.profile.max_bytes:
            return len(message)
        try:
            self.out.send(message)
        except Closed:
            return 0
        self.sent_items += 1
        self.sent_bytes += len(message)
        if self.out.full:
            self.filled.set()
        return 0

    def fits(self, item: TurnItem) -> int:
        """Return how many of the new events of a turn the worker can receive."""
        profile = self.profile
        return dialects.fitting_events(self._reading, item, profile.max_bytes, streams=profile.streams_history)

    def shows(self, item: TurnItem) -> int:
        """Return of how many events of its past a turn can tell the worker at once."""
        return dialects.fitting_past(self._reading, item, self.profile.max_bytes)

    def _written(self, item: WorkItem) -> bytes:
        if isinstance(item, TurnItem):
            return self._turn(item)
        if isinstance(item, EntityItem):
            return dialects.encode_entity(item)
        return dialects.encode_activity(self._reading, item, self.input_form)

    def _turn(self, item: TurnItem) -> bytes:
        """Return a turn; without its past, which is asked for later, when that does not fit and the worker can ask."""
        family = self._reading
        message = dialects.encode_turn(family, item)
        if len(message) > self.profile.max_bytes and self.profile.streams_history:
            return dialects.encode_turn(family, item, streamed=True)
        return message

    @property
    def _reading(self) -> Family:
        """The family that turns and activities are written for."""
        return dialects.reading(self.family, self.input_form, fails_on_empty=self.fails_on_empty)

    async def idle(self, closing: asyncio.Event) -> bool:
        """Wait until there is something to do: room to make, or a ping to send. False when closing."""
        waiting = [asyncio.ensure_future(self.filled.wait()), asyncio.ensure_future(closing.wait())]
        try:
            await asyncio.wait(waiting, timeout=dialects.PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
        return not closing.is_set()


class Streams:
    """All streams of one sidecar."""

    def __init__(self, dispatch: Dispatch, limits: dialects.Limits) -> None:
        self._dispatch = dispatch
        self._limits = limits
        self._numbers = itertools.count(1)
        self._processes = processes.Finder()
        self._by_peer: dict[str, list[WorkerStream]] = {}
        self._last: list[WorkerStream] = []  # the one that ended last
        self._parted: OrderedDict[str, None] = OrderedDict()  # connections whose worker has ended a stream itself

    def family(self, peer: str) -> Family | None:
        """Return what is known of the family of the worker at a connection; None: nothing."""
        known = {stream.family for stream in self._by_peer.get(peer, ())} - {dialects.NEUTRAL}
        return known.pop() if len(known) == 1 else None

    def learn(self, peer: str, family: Family | None) -> None:
        """Take note of the family that the answers over a connection have shown."""
        if family is not None:
            for stream in self._by_peer.get(peer, ()):
                if stream.family is not family:
                    stream.family = family
                    self._dispatch.pump()
                if stream.worker is not None and not family.entities:
                    stream.worker.max_entities = 0

    def refused(self, peer: str) -> None:
        """An answer that came over a connection ended with an error."""
        for stream in self._by_peer.get(peer, ()):
            stream.refused_at = self._dispatch.engine.clock.monotonic()

    def unread(self, peer: str, most_bytes: int) -> None:
        """An answer could not even be received: if its worker goes for it, what it had shall say so."""
        for stream in self._by_peer.get(peer, ()):
            if stream.worker is not None:
                stream.worker.trouble = f", after an answer of more than {most_bytes} bytes, or one that broke off"

    def _was_refused(self, stream: WorkerStream) -> bool:
        """Whether a worker may have ended its stream because an answer of it was refused."""
        return self._dispatch.engine.clock.monotonic() - stream.refused_at < _AFTER_REFUSAL

    def family_of(self, call: Call) -> Family:
        """Return the family of a client: as its call tells, else as the workers that are here, or were, have shown."""
        told = dialects.client_family(call.metadata)
        if told is not None:
            return told
        here = self._by_peer.get(call.peer) or [stream for streams in self._by_peer.values() for stream in streams]
        families = {stream.family for stream in here or self._last}
        return families.pop() if len(families) == 1 else dialects.NEUTRAL

    async def serve(self, call: Call, request: pb.GetWorkItemsRequest, out: Outflow, closing: asyncio.Event) -> None:
        """Be a worker until the stream ends: also when the sidecar closes, with OK for a worker that needs it.

        Raises:
            Refused: the sidecar closes; others come back at once after an error.
            MalformedError: the worker says of itself what cannot be.
        """
        profile = dialects.detect(call.metadata, request, self._limits)
        stream = WorkerStream(profile, out, call.metadata)
        worker = _worker(f"worker {next(self._numbers)}", call, request, stream)
        stream.worker = worker
        returned = call.peer in self._parted
        # Before it gets anything, since that may be what ends its process.
        await self._find_process(worker)
        log.info("worker connected", worker=worker.name, peer=call.peer, dialect=profile.family.name)
        self._by_peer.setdefault(call.peer, []).append(stream)
        self._dispatch.add_worker(worker)
        try:
            while await stream.idle(closing):
                if out.full:
                    stream.filled.clear()
                    await out.drained()
                    self._dispatch.pump()
                elif profile.ping:
                    out.send(dialects.encode_ping(profile))
            if not profile.ends_with_ok:
                raise Refused(StatusCode.UNAVAILABLE, "the sidecar is stopping: connect again in a moment")
        finally:
            self._forget(call.peer, stream)
            farewell = self._let_go(call.peer, stream, worker, returned=returned)
            log.info(
                "worker disconnected",
                worker=worker.name,
                peer=call.peer,
                farewell=farewell,
                sent_items=stream.sent_items,
                sent_bytes=stream.sent_bytes,
            )

    def _let_go(self, peer: str, stream: WorkerStream, worker: Worker, *, returned: bool) -> bool:
        """Take back what a worker had whose stream has ended, or wait for it; return whether it has said goodbye."""
        ended = self._parts(peer, stream.out)
        # One that came back over the same connection did not stop: what it is sent may be what ends its streams.
        farewell = self._was_refused(stream) or (ended and not returned)
        if farewell or ended or worker.trouble:
            self._dispatch.remove_worker(worker, farewell=farewell)
        else:
            self._dispatch.departures.lose(worker)
        return farewell

    async def _find_process(self, worker: Worker) -> None:
        worker.process = await self._processes.find(worker.peer)

    def _forget(self, peer: str, stream: WorkerStream) -> None:
        self._last = [stream]
        self._by_peer[peer].remove(stream)
        if not self._by_peer[peer]:
            del self._by_peer[peer]

    def _parts(self, peer: str, out: Outflow) -> bool:
        """Whether a worker has ended its stream itself, which is what it does when it stops; remember that it has."""
        if out.cancelled:
            self._parted[peer] = None
            if len(self._parted) > _PARTED:
                self._parted.popitem(last=False)
        return out.cancelled


def _worker(name: str, call: Call, request: pb.GetWorkItemsRequest, stream: WorkerStream) -> Worker:
    """Return the worker that a stream is, with the limits that it asked for (0: it did not say)."""
    in_flight = stream.profile.in_flight
    filters = request.filters
    # Some SDKs always send filters: without any name they mean none.
    given = bool(filters.orchestrations or filters.activities or filters.entities)
    any_case = dialects.is_microsoft_dotnet(call.metadata)
    return Worker(
        name=name,
        peer=call.peer,
        origin=_origin(call),
        hub=hub_of(call),
        max_turns=request.max_orchestrations if request.max_orchestrations > 0 else in_flight,
        max_activities=request.max_activities if request.max_activities > 0 else in_flight,
        max_bytes=stream.profile.max_bytes,
        turn_filter=_filter(filters.orchestrations, any_case=any_case) if given else Filter(),
        activity_filter=_filter(filters.activities, any_case=any_case) if given else Filter(),
        is_full=lambda: stream.out.full,
        send=stream.send,
        fits=stream.fits,
        shows=stream.shows,
        keeps_history=stream.profile.keeps_history,
        streams_history=stream.profile.streams_history,
        max_entities=dialects.entities_at_once(call.metadata, request, stream.profile),
        entity_filter=_entity_filter(filters.entities) if given else Filter(),
    )


def _origin(call: Call) -> str:
    """Return what a worker has in common with itself when it connects once more: its machine and its software."""
    agents = [str(call.metadata.get(name, "")) for name in ("user-agent", "x-user-agent")]
    return " ".join((call.peer.rpartition(":")[0], *agents))


def _entity_filter(entries: Iterable[pb.WorkItemFilter]) -> Filter:
    return Filter({entry.name.lower(): frozenset() for entry in entries})


def _filter(entries: Iterable[pb.WorkItemFilter], *, any_case: bool) -> Filter:
    names: dict[str, frozenset[str]] = {}
    for entry in entries:
        name = entry.name.lower() if any_case else entry.name
        versions = frozenset(entry.versions)
        before = names.get(name, versions)
        # A name without versions takes all of them, whatever else is said of it.
        names[name] = before | versions if before and versions else frozenset()
    return Filter(names, any_case)
