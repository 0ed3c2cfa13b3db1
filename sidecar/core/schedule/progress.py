"""What becomes of the times of a schedule: one step takes one after the other until a run is to start. Pure.

A time is taken once, by `upto`, which only grows. So it is started, put into the queue, skipped or missed, whatever the
clock does and however often the sidecar is started again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.core.identity import AppIdentity
from sidecar.core.schedule import definition
from sidecar.core.schedule.times import Times
from sidecar.schema import schedule_pb2 as pb

MOST_QUEUED = 1_000
MOST_RECENT = 20
MOST_AT_ONCE = 200  # times that one step takes: some milliseconds
_QUEUES: Mapping[int, int] = {pb.OVERLAP_QUEUE_ONE: 1, pb.OVERLAP_QUEUE_ALL: MOST_QUEUED}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step is taken by: the definition of a schedule and its times, and the app that has it."""

    me: AppIdentity
    schedule: pb.Schedule
    times: Times


@dataclass(frozen=True, slots=True)
class Step:
    """Where a schedule is after a step. `active` are its runs that are not known to have ended, the new one too.

    `start` is the run to start, the last of `progress.recent`; `ends` the IDs of the runs that it ends. `wake` is when
    the next step is due, None when no time brings it. `waits`: the end of an active run brings it.
    """

    plan: Plan
    now: int
    progress: pb.Progress
    active: tuple[str, ...]
    start: pb.Run | None = None
    ends: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether something waits for the end of a run."""
        held = bool(self.progress.queue) and not self.progress.paused
        return bool(self.active) and (held or _is_held(self.progress, self.active))

    @property
    def wake(self) -> int | None:
        """When the next step is due."""
        progress, times = self.progress, self.plan.times
        if progress.queue and not progress.paused and not self.active:
            return self.now
        if progress.backfills and not _is_held(progress, self.active):
            return self.now
        time = None if progress.paused else times.after(progress.upto)
        return None if time is None else max(times.moment(time), self.now)

    def not_started(self, why: str) -> "Step":
        """Return the step when its run could not be started; "": it was started before."""
        progress = _copy(self.progress)
        run = progress.recent[-1]
        run.error, run.ended = why or "it was started before", True
        progress.started -= 1
        progress.failed += bool(why)
        progress.skipped += not why
        active = tuple(one for one in self.active if one != run.instance_id)
        return replace(self, progress=progress, active=active, start=None, ends=())


def begun(now: int) -> pb.Progress:
    """Return the progress of a new schedule: times before it are not its."""
    return pb.Progress(created=now, updated=now, upto=now)


def redefined(progress: pb.Progress, now: int, *, moved: bool) -> pb.Progress:
    """Return the progress under another definition; `moved`: its times are others, of which the past ones are none."""
    changed = _copy(progress)
    changed.updated = now
    if moved:
        changed.upto = max(changed.upto, now)
    return changed


def paused(progress: pb.Progress, reason: str) -> pb.Progress:
    """Return the progress of a schedule that is paused."""
    changed = _copy(progress)
    changed.paused, changed.reason = True, reason
    return changed


def resumed(progress: pb.Progress, now: int) -> pb.Progress:
    """Return the progress of a schedule that goes on: times of the pause are none."""
    changed = _copy(progress)
    if changed.paused:
        changed.upto = max(changed.upto, now)
    changed.paused, changed.reason = False, ""
    return changed


def backfilled(progress: pb.Progress, first: int, last: int, overlap: int) -> pb.Progress:
    """Return the progress of a schedule that is to deal with the times of a range, both its ends among them."""
    changed = _copy(progress)
    changed.backfills.add(after=first - 1, until=last, overlap=pb.Overlap.ValueType(overlap))
    return changed


def step(plan: Plan, progress: pb.Progress, active: Sequence[str], now: int, *, triggered: int | None = None) -> Step:
    """Take the times that are due, until a run is to start.

    With `triggered`, an overlap policy, one that is now is taken and no other.
    `active` are the IDs of the recent runs that have not ended.
    """
    walk = _Walk(plan, _copy(progress), tuple(active), now)
    for run in walk.progress.recent:
        run.ended = run.ended or run.instance_id not in active
    if triggered is not None:
        walk.progress.triggered = max(now, progress.triggered + 1)
        walk.deal(pb.Due(time=walk.progress.triggered, cause=pb.CAUSE_TRIGGER), triggered)
        walk.left = 0
    while walk.start is None and walk.left > 0 and walk.take():
        walk.left -= 1
    return Step(plan, now, walk.progress, walk.active, walk.start, walk.ends)


@dataclass(slots=True)
class _Walk:
    """A step while it is taken; `left` is how many more times it may look at."""

    plan: Plan
    progress: pb.Progress
    active: tuple[str, ...]
    now: int
    start: pb.Run | None = None
    ends: tuple[str, ...] = ()
    left: int = field(default=MOST_AT_ONCE)

    def take(self) -> bool:
        """Deal with one thing that is due: what waits first, then what is filled in, then the times."""
        return self._queued() or self._filled_in() or self._timed()

    def _queued(self) -> bool:
        queue = self.progress.queue
        if not queue or self.active or self.progress.paused:
            return False
        self._begin(queue.pop(0))
        return True

    def _filled_in(self) -> bool:
        backfills = self.progress.backfills
        if not backfills or _is_held(self.progress, self.active):
            return False
        time = self.plan.times.after(backfills[0].after)
        if time is None or time > backfills[0].until:
            del backfills[0]
        else:
            backfills[0].after = time
            self.deal(pb.Due(time=time, cause=pb.CAUSE_BACKFILL), backfills[0].overlap)
        return True

    def _timed(self) -> bool:
        progress, times = self.progress, self.plan.times
        time = None if progress.paused else times.after(progress.upto)
        if time is None or (due := times.moment(time)) > self.now:
            return False
        progress.upto = time
        if self.now - due > (self.plan.schedule.catch_up or definition.DEFAULT_CATCH_UP):
            progress.missed += 1
        else:
            self.deal(pb.Due(time=time, cause=pb.CAUSE_TIME), pb.OVERLAP_UNSPECIFIED)
        return True

    def deal(self, due: pb.Due, given: int) -> None:
        """Start a run for a time, or do what the overlap policy says."""
        overlap = definition.overlap_of(self.plan.me, self.plan.schedule, given)
        if not self.active or overlap == pb.OVERLAP_ALLOW:
            self._begin(due)
        elif overlap == pb.OVERLAP_TERMINATE:
            self.ends = self.active
            self._begin(due)
        elif len(self.progress.queue) < _QUEUES.get(overlap, 0):
            self.progress.queue.append(due)
        else:
            self.progress.skipped += 1

    def _begin(self, due: pb.Due) -> None:
        schedule, recent = self.plan.schedule, self.progress.recent
        elsewhere = definition.is_elsewhere(self.plan.me, schedule)
        instance_id = definition.run_id(schedule, due.time)
        self.start = pb.Run(instance_id=instance_id, time=due.time, cause=due.cause, started=self.now, ended=elsewhere)
        recent.append(self.start)
        self.active = self.active if elsewhere else (*self.active, instance_id)
        self.progress.started += 1
        while len(recent) > MOST_RECENT:
            del recent[next((number for number, run in enumerate(recent) if run.ended), 0)]


def _is_held(progress: pb.Progress, active: Collection[str]) -> bool:
    """Whether the first backfill waits for the end of a run: its queue is the range itself."""
    return bool(active and progress.backfills) and progress.backfills[0].overlap == pb.OVERLAP_QUEUE_ALL


def _copy(progress: pb.Progress) -> pb.Progress:
    changed = pb.Progress()
    changed.CopyFrom(progress)
    return changed
