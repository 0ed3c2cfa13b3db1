"""Reminders for other apps leave here; nothing else knows that there is a network.

Each peer has its own queue and its own pace, so that one that is slow or down costs the others nothing. Messages of
one actor to one actor go in order. A reminder leaves the queue when the peer has accepted it or given a final answer;
else it is tried again, for ever.
"""

import structlog

from sidecar.actors.engine import Engine
from sidecar.actors.payloads import AtHand
from sidecar.core import causes, undeliverable
from sidecar.core.causes import Cause, Reason
from sidecar.core.ids import PeerId
from sidecar.core.model import ActorId, Changes, Kind, Outcome, Reminder, Reply
from sidecar.core.receipts import Delivered, Lost
from sidecar.peers import peer_queue, refusals
from sidecar.peers.calls_under_way import CallsUnderWay
from sidecar.peers.directory import Directory
from sidecar.peers.peer_queue import Blocked, PeerQueue, Queued
from sidecar.peers.ports import Link, LinkBrokenError, LinkFinder
from sidecar.peers.rounds import Rounds
from sidecar.peers.unmet import Unmet
from sidecar.store.protocol import PAGE_BYTES, UnavailableError
from sidecar.store.reads import Reads

REMEMBERED = 1_000  # calls that others were given before a start, whose names they are asked about
_FINAL_FAILURES = {Outcome.DENIED, Outcome.INVALID, Outcome.MISSING}
NOWHERE: PeerId = ("", "")
log = structlog.get_logger(__name__)


class Outbox:
    """The queues of all peers. Implements `dispatch.Outgoing`."""

    def __init__(
        self,
        engine: Engine,
        directory: Directory,
        links: LinkFinder,
        *,
        unknown_app_fails: bool,
    ) -> None:
        self.engine = engine
        self.directory = directory
        self.links = links
        self.queues: dict[PeerId, PeerQueue] = {}
        self.calls = CallsUnderWay()  # of other apps
        self._unknown_app_fails = unknown_app_fails
        self._where: dict[int, PeerId] = {}
        self._at_hand = AtHand(largest=PAGE_BYTES)
        self._first = engine.ids.next_order  # of the messages that are set from this start on
        self._reads = Reads()
        self._unmet = Unmet(engine, directory, self.queues)
        self._rounds = Rounds(links.link, self._look)
        self.wake = self._rounds.wake

    # ------------------------------------------------------------ Outgoing

    def offer(self, reminder: Reminder) -> None:
        """See `Outgoing`."""
        if self._unmet.refuses(reminder):
            return
        queue = self.queue((reminder.target.namespace, reminder.target.app))
        unsent = queue.unsent.get(reminder.call) if reminder.kind is Kind.WITHDRAW else None
        if unsent is not None:
            self._done(queue, unsent)
            self.engine.side.spawn(
                refusals.annul(self.engine, unsent, reminder.id), "take back a call that has not left"
            )
            return
        if queue.add(reminder, queue.room(len(self._where))):
            self._where[reminder.id] = queue.peer
            if queue.linked:
                self._at_hand.keep(reminder)
        self.wake(queue)

    def discard(self, reminder_id: int) -> None:
        """See `Outgoing`."""
        self._reads.went(reminder_id)
        queue = self.queues.get(self._where.get(reminder_id, NOWHERE))
        if queue is not None:
            self._done(queue, reminder_id)

    def why(self, target: ActorId, reminder_id: int) -> Cause | None:
        """See `Outgoing`."""
        queue = self.queues.get((target.namespace, target.app))
        return None if queue is None else queue.why(reminder_id)

    async def reload(self) -> None:
        """See `Outgoing`."""
        await self.start()
        for queue in self.queues.values():
            self._begin_anew(queue)

    def queue(self, peer: PeerId) -> PeerQueue:
        """Return the queue of a peer, made when it is the first time."""
        found = self.queues.get(peer)
        if found is None:
            found = self.queues[peer] = PeerQueue(peer)
            self.wake(found)
        return found

    def retry(self, app: str) -> list[str]:
        """Try to reach an app at once ("": all of them); return those for which something waits."""
        wanted = [queue for (_, name), queue in self.queues.items() if app in ("", name)]
        for queue in wanted:
            queue.failures = 0
            queue.blocked.clear()
            self.wake(queue)
            self.links.knock(*queue.peer)
        return sorted(queue.peer[1] for queue in wanted if queue.pending or not queue.complete)

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Take up what the store holds for other apps."""
        for peer in await self.engine.store.destinations():
            self.queue(peer)
        if self.queues:
            for call in await self.engine.store.waiting("", 0, REMEMBERED):
                queue = self.queues.get((call.target.namespace, call.target.app))
                if queue is not None and call.delivered:
                    queue.asked.add(call.kind, call.name)

    async def stop(self) -> None:
        """Send nothing more."""
        await self._rounds.stop()

    async def link_up(self, link: Link) -> None:
        """Take note that a peer is there: what it had accepted in another session is sent again."""
        queue = self.queue(link.peer)
        queue.met = True
        await self.engine.commit(Changes(lost=(Lost(*link.peer, link.store, link.session),)))
        queue.failures = 0
        queue.note(None, self.engine.clock.now())
        self._begin_anew(queue)

    def _begin_anew(self, queue: PeerQueue) -> None:
        for reminder_id in queue.begin_anew():
            self._done(queue, reminder_id)
        self.wake(queue)

    async def _look(self, queue: PeerQueue, link: Link | None) -> float | None:
        """Do what can be done for a peer; return how long to wait before the next try, None: until something comes."""
        queue.linked = link is not None
        try:
            pause = await (self._alone(queue) if link is None else self._once(queue, link))
        except UnavailableError:  # of the own store, which says so itself
            pause = queue.failed(None, self.engine.clock)
        except LinkBrokenError as error:
            pause = queue.failed(causes.unanswered(queue.peer[1], str(error)), self.engine.clock)
        except Exception:  # whatever it is: what waits for an app must not wait unseen, for ever
            log.exception("sending to an app failed", app=queue.peer[1])
            pause = queue.failed(causes.unanswered(queue.peer[1], "internal error"), self.engine.clock)
        if pause is None and queue.is_over():
            del self.queues[queue.peer]
        return pause

    async def _once(self, queue: PeerQueue, link: Link) -> float | None:
        """Send one batch."""
        queue.met = True
        most = min(peer_queue.BATCH_BYTES, link.limit.room)
        while not (batch := queue.next_batch(self.engine.clock.monotonic(), most)).full:
            if queue.complete or len(queue.pending) >= peer_queue.QUEUE_LIMIT:
                break
            await self._fill(queue)
        if not batch.queued:
            return peer_queue.SHORTEST_PAUSE if queue.pending else None
        await self._send(queue, link, await self._read(queue, batch.queued))
        return 0.0

    async def _read(self, queue: PeerQueue, batch: list[Queued]) -> list[Reminder]:
        """Return what is queued with its payloads."""
        found = []
        for queued in batch:
            reminder = self._at_hand.get(queued.id) or await self.engine.store.reminder(queued.id)
            if reminder is None:
                self._done(queue, queued.id)
            elif queued.id in queue.pending:
                found.append(reminder)
        return found

    async def _fill(self, queue: PeerQueue) -> None:
        """Read a page of what is stored behind what is here."""
        after, the_pass = queue.begin_read()
        with self._reads.reading() as gone:
            found = await self.engine.store.outbound(*queue.peer, after, queue.room(len(self._where)))
            if not queue.end_read(found[-1].id if found else peer_queue.EVERYTHING, the_pass):
                return
            for reminder in (one for one in found if not gone(one.id)):
                queue.put(reminder, fresh=reminder.id >= self._first)
                self._where[reminder.id] = queue.peer
                if queue.linked:
                    self._at_hand.keep(reminder)  # else each is read once more when it leaves

    async def _alone(self, queue: PeerQueue) -> float | None:
        """Look at what waits for a peer that there is no link to."""
        if not queue.complete and len(queue.pending) < queue.room(len(self._where)) // 2:
            await self._fill(queue)
        if not queue.pending:
            return None if queue.complete else 0.0
        cause = self.links.why(*queue.peer)
        if cause.reason is Reason.NO_ADDRESS and not queue.met and self._unknown_app_fails:
            # Calls alone: an app that calls this one and has no address here is merely away, and gets the rest later.
            for reminder in await self._read(queue, [one for one in queue.pending.values() if one.is_call]):
                await self._end(queue, reminder, Reply(Outcome.MISSING, cause.text))
        return queue.failed(cause, self.engine.clock) if queue.pending else 0.0

    # ------------------------------------------------------------ sending

    async def _send(self, queue: PeerQueue, link: Link, batch: list[Reminder]) -> None:
        stored: list[Reminder] = []
        sent: list[Reminder] = []
        for reminder in batch:
            message, why = refusals.as_sent(reminder, link.limit, self.engine.clock.now())
            if message is None:  # it has its end here: it holds up nothing behind it
                await self._end(queue, reminder, Reply(Outcome.INVALID, why), undeliverable.TOO_LARGE)
            else:
                stored.append(reminder)
                sent.append(message)
        if not sent:
            return
        with self.calls.leaving(queue.peer, stored):
            answers = await link.deliver(sent, queue.floor)
            queue.failures = 0
            there = self.links.link(*queue.peer)
            if there is not None and there.session != link.session:
                return  # what was taken in another session may be lost
            await self._settle(queue, link, list(zip(stored, answers, strict=True)))

    async def _settle(self, queue: PeerQueue, link: Link, answered: list[tuple[Reminder, Reply]]) -> None:
        """Act on the answers: those accepted are marked in one commit."""
        accepted: list[Delivered] = []
        now = self.engine.clock.monotonic()
        for reminder, reply in answered:
            if reply.outcome is Outcome.UNAVAILABLE:
                why = Blocked(now + self.engine.clock.jitter(1.0), reply.text)
                queue.blocked[reminder.source, reminder.target] = why
            elif reply.outcome not in _FINAL_FAILURES and not self.calls.goes_again(queue.peer, reminder, reply):
                accepted.append(Delivered(reminder.id, link.session))
        if accepted:
            await self.engine.commit(Changes(delivered=tuple(accepted)))
            for delivered in accepted:
                queued = queue.pending.get(delivered.reminder)
                if queued is not None:
                    queue.asked.add(queued.kind, queued.name)
                self._done(queue, delivered.reminder)
        for reminder, reply in answered:
            if reply.outcome in _FINAL_FAILURES and not self.calls.goes_again(queue.peer, reminder, reply):
                await self._end(queue, reminder, reply)
        queue.blocked = {lane: one for lane, one in queue.blocked.items() if one.until > now}
        refused = [reply.text for _, reply in answered if reply.outcome is Outcome.UNAVAILABLE]
        still = queue.cause if queue.blocked else None
        cause = causes.refused_for_now(queue.peer[1], refused[0]) if refused else still
        queue.note(cause, self.engine.clock.now())

    def _done(self, queue: PeerQueue, reminder_id: int) -> None:
        queue.remove(reminder_id)
        self._where.pop(reminder_id, None)
        self._at_hand.discard(reminder_id)

    async def _end(self, queue: PeerQueue, reminder: Reminder, reply: Reply, failure: str = "") -> None:
        await refusals.end(self.engine, reminder, reply, failure)
        self._done(queue, reminder.id)
