"""The reminders for own workflows that are due soon.

The heap is a hint: it holds what is due within the horizon, may be dropped, and is filled again from the store. Of a
reminder it holds the time and the ID; those with a small payload are kept beside it as far as their bytes go.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from sidecar.actors.clock import Clock
from sidecar.actors.payloads import AtHand
from sidecar.core.model import Position, Reminder
from sidecar.store.protocol import Store, UnavailableError
from sidecar.store.reads import Reads

HORIZON_MICROS = 600_000_000
PAGE = 5_000
LIMIT = 50_000
_SLACK = 1_000  # dropped reminders that may stay in the heap
_AT_ONCE = 100  # reminders that are handed on before the first of them are delivered
_PATIENCE_SECONDS = 0.25  # how long a slow one of them may hold up the next
_LONGEST_NAP = 1.0  # wall time is looked at this often, in seconds: a monotonic clock stands still during sleep
Delivery = asyncio.Future[Any] | None
log = structlog.get_logger(__name__)


class Timers:
    """Hands each reminder to `deliver` when it is due, in order of due time and order number."""

    def __init__(self, store: Store, clock: Clock, deliver: Callable[[Reminder], Delivery]) -> None:
        self._store = store
        self._clock = clock
        self._deliver = deliver
        self._heap: list[tuple[int, int]] = []
        self.at_hand = AtHand()
        self._reads = Reads()
        self._known: set[int] = set()
        self._complete_until = 0  # every stored reminder due before this is in the heap
        self._changed = asyncio.Event()

    def add(self, reminder: Reminder) -> None:
        """Take a reminder that was committed."""
        if reminder.id in self._known or reminder.due >= self._complete_until:
            return
        self._known.add(reminder.id)
        heapq.heappush(self._heap, (reminder.due, reminder.id))
        self.at_hand.keep(reminder)
        if len(self._heap) >= 2 * LIMIT:
            self._trim()
        if self._heap[0][1] == reminder.id:
            self._changed.set()

    def discard(self, reminder_id: int) -> None:
        """Forget a reminder that was dropped."""
        self._reads.went(reminder_id)
        self._known.discard(reminder_id)
        self.at_hand.discard(reminder_id)
        if len(self._heap) > _SLACK + 2 * len(self._known):
            self._heap = [entry for entry in self._heap if entry[1] in self._known]
            heapq.heapify(self._heap)

    def _trim(self) -> None:
        """Keep the half that is due first; what comes later is read again when its time is near."""
        live = sorted(entry for entry in self._heap if entry[1] in self._known)
        self._heap = live[:LIMIT]
        self._known = {entry[1] for entry in self._heap}
        for _, reminder_id in live[LIMIT:]:
            self.at_hand.discard(reminder_id)
        if len(live) > LIMIT:
            self._complete_until = live[LIMIT][0]

    def reload(self) -> None:
        """Forget everything and read it from the store again."""
        self._forget()
        self._complete_until = 0
        self._changed.set()

    def _forget(self) -> None:
        self._heap.clear()
        self._known.clear()
        self.at_hand.clear()

    def pop_due(self, now: int, most: int = LIMIT) -> list[int]:
        """Take the reminders that are due, by ID; the first ones if there are more than `most`."""
        due: list[int] = []
        while self._heap and self._heap[0][0] <= now and len(due) < most:
            reminder_id = heapq.heappop(self._heap)[1]
            if reminder_id in self._known:
                self._known.discard(reminder_id)
                due.append(reminder_id)
        return due

    async def run(self) -> None:
        """Deliver what is due, for ever."""
        while True:
            await self._store.recovered()
            self._changed.clear()
            now = self._clock.now()
            if self._wants_fill(now):
                await self._fill(now)
            due = self.pop_due(self._clock.now(), _AT_ONCE)
            deliveries = [delivery async for delivery in self._delivered(due)]
            if len(due) < _AT_ONCE:
                await self._nap()
            elif deliveries:
                # Of a crowd that is due at once a part at a time, so that other work is not queued behind all of it.
                await asyncio.wait(deliveries, timeout=_PATIENCE_SECONDS)
            else:
                await asyncio.sleep(0)

    async def _delivered(self, due: list[int]) -> AsyncIterator[asyncio.Future[Any]]:
        """Deliver reminders; what is not at hand is read from the store first."""
        with self._reads.reading() as gone:
            for reminder_id in due:
                try:
                    reminder = self.at_hand.pop(reminder_id) or await self._store.reminder(reminder_id)
                except UnavailableError as error:
                    log.warning("cannot read a reminder", error=str(error))
                    self.reload()
                    return
                delivery = None if reminder is None or gone(reminder_id) else self._deliver(reminder)
                if delivery is not None:
                    yield delivery

    def _wants_fill(self, now: int) -> bool:
        """Whether more must be read: what is not in the heap is due after all that is, so half of it can go first."""
        return self._complete_until - now < HORIZON_MICROS // 2 and len(self._known) < LIMIT // 2

    async def _nap(self) -> None:
        wait = _LONGEST_NAP
        if self._heap:
            wait = min(wait, max(0.0, (self._heap[0][0] - self._clock.now()) / 1e6))
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _fill(self, now: int) -> None:
        """Read what is due within the horizon anew, or as much of it as may be held at once."""
        until = now + HORIZON_MICROS
        self._forget()
        self._complete_until = until + 1  # what is committed from now on is added by its committer
        position = Position(-1, 0)
        try:
            while len(self._heap) < LIMIT:
                page = await self._store.due(until, position, PAGE)
                for reminder in page:
                    self.add(reminder)
                if not page:
                    return
                position = Position(page[-1].due, page[-1].id)
            self._complete_until = min(self._complete_until, position.turn)
        except UnavailableError as error:
            log.warning("cannot read reminders", error=str(error))
            self.reload()
