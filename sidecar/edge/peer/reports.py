"""What two apps tell each other of work that waits: who has it says why, and who asked for it shows that.

A question and its answer are frames of the link, and change nothing: one that is lost comes again in a moment.
"""

from collections.abc import Iterable, Mapping

import structlog

from sidecar.core import causes, events
from sidecar.core.causes import Cause, Reason
from sidecar.core.ids import PeerId
from sidecar.edge.causes import message, read
from sidecar.peers.asked import ACTIVITY, MOST_LANES, WORKFLOW, AskedLane
from sidecar.peers.outbox import Outbox
from sidecar.schema import peer_pb2 as pb
from sidecar.services.waiting import Waiting

_SHORTEST = 1.0  # seconds between two questions of one app that are answered
_TOLD = (Reason.NO_WORKER, Reason.NAME_NOT_TAKEN)
log = structlog.get_logger(__name__)


class PeerReports:
    """Both ends: what is asked and kept, and what is answered. Implements `link.Reports` and `waiting.Reports`."""

    def __init__(self, outbox: Outbox, waiting: Waiting) -> None:
        self._outbox = outbox
        self._clock = outbox.engine.clock
        self._waiting = waiting
        self._said: dict[PeerId, Mapping[AskedLane, Cause]] = {}
        self._answered: dict[PeerId, float] = {}  # when a question was, on the monotonic clock
        self._told: dict[PeerId, set[tuple[str, str]]] = {}

    def cause(self, peer: PeerId, kind: str, name: str) -> Cause | None:
        """See `waiting.Reports`."""
        return self._said.get(peer, {}).get(AskedLane(kind, name))

    def of(self, peer: PeerId) -> list[Cause]:
        """Return all that an app has said last."""
        return list(self._said.get(peer, {}).values())

    def question(self, peer: PeerId) -> pb.Frame | None:
        """See `link.Reports`: an app is asked about what it was given."""
        queue = self._outbox.queues.get(peer)
        lanes = [] if queue is None else [pb.Lane(kind=lane.kind, name=lane.name) for lane in queue.asked.lanes()]
        return pb.Frame(why=pb.Lanes(lanes=lanes)) if lanes else None

    def answer(self, peer: PeerId, why: pb.Lanes) -> pb.Frame:
        """See `link.Reports`. To look takes a moment: who asks too often gets no more than a sign of life."""
        now = self._clock.monotonic()
        if now - self._answered.get(peer, -_SHORTEST) < _SHORTEST:
            return pb.Frame(pong=True)
        self._answered[peer] = now
        return pb.Frame(because=pb.Lanes(lanes=self._lanes(peer, why.lanes[:MOST_LANES])))

    def _lanes(self, peer: PeerId, asked: Iterable[pb.Lane]) -> Iterable[pb.Lane]:
        by_kind = {kind: [lane.name for lane in asked if lane.kind == kind] for kind in (ACTIVITY, WORKFLOW)}
        for kind, names in by_kind.items():
            for name, cause in self._waiting.at_home(peer[1], kind, names).items():
                yield pb.Lane(kind=kind, name=name, cause=message(cause))

    def keep(self, peer: PeerId, because: pb.Lanes) -> None:
        """See `link.Reports`: only what was asked about is kept."""
        asked = set(self._outbox.queues[peer].asked.lanes()) if peer in self._outbox.queues else set()
        said = {AskedLane(lane.kind, lane.name): read(lane.cause, peer[1]) for lane in because.lanes}
        self._said[peer] = {
            lane: causes.at(peer[1], cause) for lane, cause in said.items() if cause is not None and lane in asked
        }
        self._tell(peer)

    def lost(self, peer: PeerId) -> None:
        """Take note that there is no link: what an app has said may be so no more."""
        self._said.pop(peer, None)

    def _tell(self, peer: PeerId) -> None:
        """Log what an app waits for at another, once when it begins and once when it ends."""
        now: set[tuple[str, str]] = set()
        told = self._told.get(peer, set())
        for lane, cause in self._said[peer].items():
            key = ("", "") if cause.reason is Reason.NO_WORKER else lane
            if cause.reason not in _TOLD or key in now:
                continue
            now.add(key)
            if key not in told:
                since = events.timestamp(cause.since).ToJsonString() if cause.since else None
                log.warning("work waits at another app", app=peer[1], kind=lane.kind, name=lane.name, why=cause.text,
                            since=since, advice=cause.advice)  # fmt: skip
        if told - now:
            log.info("work waits no longer at another app", app=peer[1])
        self._told[peer] = now
