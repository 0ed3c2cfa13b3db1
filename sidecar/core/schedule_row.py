"""What is stored of a schedule, and a change of it."""

from typing import NamedTuple


class ScheduleRow(NamedTuple):
    """What is stored of a schedule: encoded `schedule.Schedule` and `schedule.Progress`.

    `reminder` is the one that brings its next step, 0 if no time does. `revision` grows with each change.
    """

    hub: str
    id: str
    revision: int
    definition: bytes
    progress: bytes
    reminder: int


class ScheduleStep(NamedTuple):
    """A change of a schedule that was at revision `expected` (0: there was none); `row` None removes it."""

    hub: str
    id: str
    expected: int
    row: ScheduleRow | None
