"""Schedules of workflows: what people may do with them. What follows of it, and of time, is in `schedule_steps.py`."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from sidecar.actors.residents import Address
from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity
from sidecar.core.model import DONE, Reply
from sidecar.core.schedule import definition, progress, times
from sidecar.core.schedule_row import ScheduleRow
from sidecar.schema import schedule_pb2 as pb
from sidecar.services.schedule_steps import MISSING, Edit, Found, Steps, Taken, decoded, plan_of

MOST_BACKFILLED = 2_000  # times of one range: the next ones are counted in a blink
_PAGE = 50
log = structlog.get_logger(__name__)
_WAITS = "a run is active: this one starts when that has ended"
_SKIPPED = "a run is active: by the overlap policy of the schedule this one is skipped"
_MOVES = ("cron", "time_zone", "every", "offset", "start", "end")  # fields by which times become others


@dataclass(frozen=True, slots=True)
class Difference:
    """What applying a definition changes: `before` None: it is new; `after` None: it is removed."""

    id: str
    before: pb.Schedule | None
    after: pb.Schedule | None

    @property
    def word(self) -> str:
        """Say it in a word."""
        if self.before is None:
            return "created"
        if self.after is None:
            return "deleted"
        return "unchanged" if self.before == self.after else "updated"


class Schedules:
    """The schedules of one sidecar."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._engine = steps.engine

    async def get(self, address: Address, upcoming: int = 1) -> Found | None:
        """Return a schedule with so many of its next times, None if there is none."""
        row = await self._engine.store.schedule(*address)
        return None if row is None else self._shown(row, upcoming)

    async def statuses(self, found: Found, hub: str) -> Sequence[str]:
        """Return the status of each recent run of this app, "" of one that is not here."""
        elsewhere = definition.is_elsewhere(self._engine.me, found.schedule)
        return [
            "" if elsewhere or run.error else await self._status((hub, run.instance_id))
            for run in found.progress.recent
        ]

    async def _status(self, address: Address) -> str:
        instance = await self.steps.clients.instance(address)
        return "" if instance is None else instance.status.name

    async def list(self, hub: str, after: str, limit: int) -> Sequence[Found]:
        """Return schedules of a hub, by ID, from behind `after`, each with its next time."""
        rows = await self._engine.store.schedules((hub, after), limit)
        return [self._shown(row, 1) for row in rows if row.hub == hub]

    def _shown(self, row: ScheduleRow, upcoming: int) -> Found:
        found = decoded(row)
        if found.progress.paused:
            return found
        try:
            of_it = plan_of(self._engine.me, found.schedule).times
        except MalformedError:
            return found
        comes: list[int] = []
        time = of_it.after(found.progress.upto)
        while time is not None and len(comes) < upcoming:
            comes.append(time)
            time = of_it.after(time)
        return found._replace(upcoming=tuple(comes))

    async def delete(self, address: Address) -> Reply:
        """Remove a schedule; what it has started goes on."""
        return _noted(address, "deleted", await self.steps.remove(address))

    async def pause(self, address: Address, reason: str) -> Reply:
        """Let no times come until it is resumed."""

        def edit(one: Edit, now: int) -> Edit:
            return one._replace(progress=progress.paused(one.progress, reason))

        return _noted(address, "paused", await self._edit(address, edit))

    async def resume(self, address: Address) -> Reply:
        """Let times come again; those of the pause are none."""

        def edit(one: Edit, now: int) -> Edit:
            return one._replace(progress=progress.resumed(one.progress, now))

        return _noted(address, "resumed", await self._edit(address, edit))

    async def trigger(self, address: Address, overlap: int) -> Taken:
        """Start a run now, or as the overlap policy says; 0: that of the schedule. `error` says why there is none."""
        queued = 0

        def change(found: Found | None, now: int) -> Edit | Reply:
            if found is None:
                return MISSING
            _refuse(definition.wrong_overlap(self._engine.me, found.schedule, overlap))
            nonlocal queued
            queued = len(found.progress.queue)
            return Edit(found.schedule, found.progress, overlap)

        taken = await self.steps.change(address, change)
        if taken.reply is not DONE or taken.instance_id or taken.error:
            return taken
        return taken._replace(error=_WAITS if taken.queued > queued else _SKIPPED)

    async def backfill(self, address: Address, first: int, last: int, overlap: int) -> Reply:
        """Deal with the times from `first` to `last` once more, as if they came one after the other."""

        def edit(one: Edit, now: int) -> Edit:
            me = self._engine.me
            _refuse(definition.wrong_overlap(me, one.schedule, overlap))
            _refuse(_wrong_range(plan_of(me, one.schedule).times, first, last))
            given = definition.overlap_of(me, one.schedule, overlap)
            return one._replace(progress=progress.backfilled(one.progress, first, last, given))

        return _noted(address, "filled in", await self._edit(address, edit))

    async def _edit(self, address: Address, edit: Callable[[Edit, int], Edit]) -> Reply:
        def change(found: Found | None, now: int) -> Edit | Reply:
            return MISSING if found is None else edit(Edit(found.schedule, found.progress), now)

        return (await self.steps.change(address, change)).reply

    async def differences(self, hub: str, wanted: Sequence[pb.Schedule], *, prune: bool) -> Sequence[Difference]:
        """Return what applying these definitions would change; `prune`: the others are removed.

        Raises:
            MalformedError: one of them may not be; it is named.
        """
        _check(self._engine.me, wanted, self._engine.clock.now())
        found = []
        for one in wanted:
            row = await self._engine.store.schedule(hub, one.id)
            found.append(Difference(one.id, None if row is None else decoded(row).schedule, one))
        if prune:
            found += await self._others(hub, {one.id for one in wanted})
        return found

    async def _others(self, hub: str, kept: Collection[str]) -> Sequence[Difference]:
        found: list[Difference] = []
        after = (hub, "")
        while page := await self._engine.store.schedules(after, _PAGE):
            rows = [row for row in page if row.hub == hub and row.id not in kept]
            found += [Difference(row.id, decoded(row).schedule, None) for row in rows]
            after = (page[-1].hub, page[-1].id)
        return found

    async def put(self, hub: str, wanted: pb.Schedule) -> Reply:
        """Write a definition that `differences` has found to be right."""
        reply = (await self.steps.change((hub, wanted.id), partial(_put, wanted))).reply
        return _noted((hub, wanted.id), "defined", reply)


def _noted(address: Address, what: str, reply: Reply) -> Reply:
    """Log what somebody did with a schedule, if it was done."""
    if reply is DONE:
        log.info(f"schedule {what}", schedule=address[1])
    return reply


def _put(wanted: pb.Schedule, found: Found | None, now: int) -> Edit | Reply:
    if found is None:
        return Edit(wanted, progress.begun(now))
    if found.schedule == wanted:
        return DONE
    moved = any(getattr(found.schedule, field) != getattr(wanted, field) for field in _MOVES)
    return Edit(wanted, progress.redefined(found.progress, now, moved=moved))


def _check(me: AppIdentity, wanted: Sequence[pb.Schedule], now: int) -> None:
    """Refuse definitions that may not be; all are looked at before any is written."""
    seen: set[str] = set()
    for one in wanted:
        wrong = definition.wrong(me, one) or ("it is given twice" if one.id in seen else None)
        wrong = wrong or definition.wrong_times(plan_of(me, one).times, now)
        _refuse(wrong and f"schedule '{one.id[:80]}': {wrong}")
        seen.add(one.id)


def _wrong_range(of_it: times.Times, first: int, last: int) -> str | None:
    """Say why a range may not be filled in, or return None."""
    if not 0 <= first <= last < times.LATEST:
        return "a range begins before its end, both since 1970"
    time, number = of_it.after(first - 1), 0
    while time is not None and time <= last:
        number += 1
        if number > MOST_BACKFILLED:
            return f"the range has more than {MOST_BACKFILLED:,} times: give smaller ones, one after the other"
        time = of_it.after(time)
    return None if number else "the range has no times of the schedule"


def _refuse(wrong: str | None) -> None:
    if wrong:
        raise MalformedError(wrong)
