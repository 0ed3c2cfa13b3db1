"""The steps of schedules: taken one at a time for each, when a time comes, a run ends, or somebody changes it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import NamedTuple
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo

import structlog
from google.protobuf.message import DecodeError

from sidecar.actors.engine import Engine
from sidecar.actors.residents import Address
from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import DONE, Decision, Outcome, Reminder, Reply, State
from sidecar.core.schedule import definition, firing, progress, times
from sidecar.core.schedule.progress import Plan, Step
from sidecar.core.schedule_row import ScheduleRow
from sidecar.schema import schedule_pb2 as pb
from sidecar.services.clients import ClientService
from sidecar.store.protocol import DamagedError, UnavailableError

_PAGE = 50  # each may have a large input
_MOST_TRIES = 8
_AGAIN_SECONDS = 1.0
log = structlog.get_logger(__name__)


class Found(NamedTuple):
    """A schedule as it is stored, and the times that come next."""

    schedule: pb.Schedule
    progress: pb.Progress
    upcoming: tuple[int, ...] = ()


class Edit(NamedTuple):
    """What a step begins with: the definition and progress, and the overlap policy of a run that is wanted now."""

    schedule: pb.Schedule
    progress: pb.Progress
    triggered: int | None = None


class Taken(NamedTuple):
    """How a step came out: the reply, the ID of the run that it has started, "" if none, and why there is none.

    `queued` is how many times wait behind it.
    """

    reply: Reply
    instance_id: str = ""
    error: str = ""
    queued: int = 0


Change = Callable[[Found | None, int], Edit | Reply]
Told = Callable[[str, str, int], None]  # the schedule, what became of times of it, of how many
MISSING = Reply(Outcome.MISSING, "no such schedule exists")


class Steps:
    """Takes the steps. `told` counts what becomes of times."""

    def __init__(self, engine: Engine, clients: ClientService) -> None:
        self.engine = engine
        self.clients = clients
        self._locks: WeakValueDictionary[Address, asyncio.Lock] = WeakValueDictionary()
        self._watched: dict[Address, bool] = {}  # those that wait for a run; True: to be looked at once more
        self.told: Told = lambda schedule_id, outcome, number: None

    def _lock(self, address: Address) -> asyncio.Lock:
        """Return what is to be held while a schedule is changed."""
        return self._locks.setdefault(address, asyncio.Lock())

    async def start(self) -> None:
        """Take up those that wait for the end of a run: no time brings their next step. Raises UnavailableError."""
        after = ("", "")
        while page := await self.engine.store.schedules(after, _PAGE):
            for row in page:
                found = decoded(row)
                if found.progress.queue or found.progress.backfills:
                    self._watch((row.hub, row.id))
            after = (page[-1].hub, page[-1].id)

    def deliver(self, reminder: Reminder) -> "asyncio.Future[None]":
        """Take the step of a schedule that is due."""
        return self.engine.tasks.start(self._due(reminder), f"schedule {reminder.target.id[:40]}")

    async def _due(self, reminder: Reminder) -> None:
        address = (reminder.target.hub, reminder.target.id)
        try:
            await self.change(address, _as_it_is, due=reminder.id)
        except UnavailableError as error:
            if not self.engine.closing.is_set():
                log.warning("a schedule cannot take its step now", schedule=address[1], error=str(error))
                self.engine.effects.store_failed()  # it is due still, and is found again
        except Exception as error:
            # The timers find it again in minutes.
            log.error("a schedule cannot take its step", schedule=address[1], error=str(error) or type(error).__name__)

    def _watch(self, address: Address) -> None:
        """See to it that a schedule goes on when the runs that it waits for have ended."""
        if address in self._watched:
            self._watched[address] = True
            return
        self._watched[address] = False
        self.engine.side.spawn(self._when_free(address), f"schedule {address[1][:40]} waits")

    async def _when_free(self, address: Address) -> None:
        try:
            while True:
                self._watched[address] = False
                try:
                    waits = await self._waited(address)
                except UnavailableError:
                    if self.engine.closing.is_set():
                        return
                    await self.engine.clock.sleep(_AGAIN_SECONDS)
                    continue
                if not waits and not self._watched[address]:
                    return
        finally:
            del self._watched[address]

    async def _waited(self, address: Address) -> bool:
        """Wait until a run of a schedule may have ended and take its step; False: it waits for none."""
        row = await self.engine.store.schedule(*address)
        if row is None:
            return False
        found = decoded(row)
        runs = tuple(run.instance_id for run in found.progress.recent if not run.ended)
        plan = plan_of(self.engine.me, found.schedule)
        if not Step(plan, self.engine.clock.now(), found.progress, runs).waits:
            return False
        # Before it is looked whether they have ended: no end may come between.
        changed = [self.engine.watch((address[0], run)) for run in runs]
        try:
            if await self._active(address[0], plan, found.progress):
                await asyncio.wait(changed, return_when=asyncio.FIRST_COMPLETED)
            else:
                await self.change(address, _as_it_is)
        finally:
            for future in changed:
                future.cancel()
        return True

    # ------------------------------------------------------------ steps

    async def change(self, address: Address, change: Change, due: int = 0) -> Taken:
        """Take a step of a schedule with what a change makes of it. `due`: only if this reminder brings its next one.

        Raises:
            MalformedError: it would be none that may be.
            UnavailableError: whether it was taken is not known.
        """
        async with self._lock(address):
            for _ in range(_MOST_TRIES):
                before = await self.engine.store.schedule(*address)
                if due and (before is None or before.reminder != due):
                    return Taken(DONE)
                edit = change(None if before is None else decoded(before), self.engine.clock.now())
                if isinstance(edit, Reply):
                    return Taken(edit)
                step = await self._step(address[0], edit)
                try:
                    outcome = await self._taken(address, before, step)
                finally:  # it may be stored though that is not known
                    if step.waits:
                        self._watch(address)
                if outcome is not None:
                    return outcome
        raise UnavailableError(f"schedule '{address[1]}' is changed by others all the time")

    async def remove(self, address: Address) -> Reply:
        """Remove a schedule. Raises UnavailableError."""
        async with self._lock(address):
            row = await self.engine.store.schedule(*address)
            if row is None:
                return MISSING
            outcome = await self.engine.commit(firing.removed(row))
        return DONE if outcome is None else Reply(Outcome.UNAVAILABLE, outcome.value)

    async def _step(self, hub: str, edit: Edit) -> Step:
        plan = plan_of(self.engine.me, edit.schedule)
        active = await self._active(hub, plan, edit.progress)
        return progress.step(plan, edit.progress, active, self.engine.clock.now(), triggered=edit.triggered)

    async def _active(self, hub: str, plan: Plan, of_it: pb.Progress) -> list[str]:
        """Return the IDs of the recent runs that have not ended."""
        return [run.instance_id for run in of_it.recent if not run.ended and await self._runs(hub, plan, run)]

    async def _runs(self, hub: str, plan: Plan, run: pb.Run) -> bool:
        """Whether a run has not ended; one of the same ID that somebody else has started is none."""
        instance = await self.clients.instance((hub, run.instance_id))
        started = definition.execution_id(plan.me, hub, plan.schedule, run.time)
        return instance is not None and not instance.status.terminal and instance.origin == started

    async def _taken(self, address: Address, before: ScheduleRow | None, step: Step) -> Taken | None:
        """Commit a step; return how it came out, None when the schedule has moved meanwhile."""
        engine, hub = self.engine, address[0]
        old = pb.Progress() if before is None else pb.Progress.FromString(before.progress)
        if step.start is None or definition.is_elsewhere(engine.me, step.plan.schedule):
            if await engine.commit(firing.moved(engine.context(), hub, before, step)) is not None:
                return None
            self._tell(address, old, step)
            started = "" if step.start is None else step.start.instance_id
            return Taken(DONE, started, queued=len(step.progress.queue))
        decided: list[Step] = []

        def decide(at: Context, state: State | None) -> Decision:
            decision = firing.begun(at, state, hub, before, step)
            decided[:] = [step if decision.reply is DONE else step.not_started(decision.reply.text)]
            return decision

        reply = await engine.submit((hub, step.start.instance_id), decide)
        if reply.outcome is Outcome.STALE:
            return None
        self._tell(address, old, decided[0])
        run = decided[0].progress.recent[-1]
        return Taken(DONE, "" if run.error else run.instance_id, run.error)

    def _tell(self, address: Address, old: pb.Progress, step: Step) -> None:
        """Log and count what has become of times in a step."""
        new = step.progress
        if step.start is not None:
            log.info("schedule has started a workflow", schedule=address[1], instance=step.start.instance_id)
        for outcome, number in (
            ("started", new.started - old.started),
            ("skipped", new.skipped - old.skipped),
            ("missed", new.missed - old.missed),
            ("failed", new.failed - old.failed),
        ):
            if number > 0:
                self.told(address[1], outcome, number)
            if number > 0 and outcome == "skipped":
                log.info("times of a schedule skipped", schedule=address[1], times=number)
            elif number > 0 and outcome != "started":
                why = "too late for them" if outcome == "missed" else new.recent[-1].error
                log.warning(f"times of a schedule {outcome}", schedule=address[1], times=number, why=why)


def _as_it_is(found: Found | None, now: int) -> Edit | Reply:
    return MISSING if found is None else Edit(found.schedule, found.progress)


def decoded(row: ScheduleRow) -> Found:
    """Read what is stored of a schedule. Raises DamagedError."""
    try:
        return Found(pb.Schedule.FromString(row.definition), pb.Progress.FromString(row.progress))
    except DecodeError as error:
        raise DamagedError(
            f"what is stored of schedule '{row.id}' cannot be read: run `sidecar store check`"
        ) from error


def plan_of(me: AppIdentity, schedule: pb.Schedule) -> Plan:
    """Return what steps of a schedule are taken by. Raises MalformedError: its times cannot be known."""
    try:
        return Plan(me, schedule, times.of(schedule, zone_of(schedule.time_zone)))
    except ValueError as error:
        raise MalformedError(f"schedule '{schedule.id}': {error}") from error


def zone_of(name: str) -> tzinfo:
    """Return the time zone of a name of the IANA, "" for UTC. Raises ValueError."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name[:80]!r} is no time zone: give such as Europe/Berlin") from error
