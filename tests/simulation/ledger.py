"""What must hold of every step of a schedule: its times are accounted for, and runs begin in the commits of theirs."""

from sidecar.core.model import Changes, Kind
from sidecar.core.schedule import times
from sidecar.core.schedule_row import ScheduleRow
from sidecar.schema import schedule_pb2 as pb
from sidecar.services.schedule_steps import zone_of
from tests.simulation.faulty_store import Disk
from tests.simulation.plan import EXACT
from tests.simulation.programs import Violation


class Ledger:
    """What became of the times of the schedules of one store."""

    def __init__(self, disk: Disk) -> None:
        self._last = {(row.hub, row.id): row for row in disk.schedules()}
        self._runs: set[str] = set()

    def check(self, changes: Changes) -> None:
        """Check a step of a schedule. Raises Violation."""
        step = changes.schedule
        if step is None:
            return
        before, after = self._last.pop((step.hub, step.id), None), step.row
        if after is None:
            return
        self._last[step.hub, step.id] = after
        old = pb.Progress() if before is None else pb.Progress.FromString(before.progress)
        new = pb.Progress.FromString(after.progress)
        self._check_run(changes, old, new)
        if before is not None and before.definition == after.definition:
            _check_times(after, old, new)

    def _check_run(self, changes: Changes, old: pb.Progress, new: pb.Progress) -> None:
        """See that a run that a step counts begins in its commit, for a time that had none."""
        if new.started == old.started:
            return
        run = new.recent[-1].instance_id
        begins = changes.instance is not None and (changes.instance.id, changes.expected) == (run, 0)
        leaves = any(one.kind is Kind.DETACHED and one.target.id == run for one in changes.set)
        if new.started != old.started + 1 or not (begins or leaves):
            raise Violation(f"schedule counts {new.started - old.started} runs, and {run} does not begin with it")
        if run in self._runs:
            raise Violation(f"run {run} begins a second time")
        self._runs.add(run)


def _check_times(row: ScheduleRow, old: pb.Progress, new: pb.Progress) -> None:
    """See that each time between two steps is accounted for, and no other but one that was asked for."""
    if new.upto < old.upto:
        raise Violation(f"schedule {row.id} has gone back")
    of_it = _times_of(row)
    wanted = 0 if old.paused and not new.paused else _between(of_it, old.upto, new.upto)
    wanted += new.triggered != old.triggered
    taken = _taken(new) - _taken(old)
    if taken < wanted or (taken > wanted and row.id.startswith(EXACT)):
        raise Violation(f"schedule {row.id}: {taken} times are accounted for, of {wanted}")


def _times_of(row: ScheduleRow) -> times.Times:
    schedule = pb.Schedule.FromString(row.definition)
    return times.of(schedule, zone_of(schedule.time_zone))


def _between(of_it: times.Times, after: int, upto: int) -> int:
    number, time = 0, of_it.after(after)
    while time is not None and time <= upto:
        number, time = number + 1, of_it.after(time)
    return number


def _taken(progress: pb.Progress) -> int:
    return progress.started + progress.skipped + progress.missed + progress.failed + len(progress.queue)


def at_rest(name: str, disk: Disk) -> None:
    """See that all times have come, and nothing waits. Raises Violation."""
    for row in disk.schedules():
        progress = pb.Progress.FromString(row.progress)
        of_it = _times_of(row)
        if row.reminder or progress.queue or progress.backfills or of_it.after(progress.upto) is not None:
            raise Violation(f"{name}: schedule {row.id} still has something to do: {progress}")
