"""Waits for external events, as workers show them: by a timer whose origin is the event that is waited for.

An SDK that shows its waits does so for all of them: the timer of one without a time-out never fires. Of the waits for
one name the oldest gets the next event. When its event has come, the timer of a wait has nothing more to do.

Some SDKs tell names apart by case and some do not, so a wait is met only by its name as it is written, and only if it
is the oldest for the name in any case. A wait that counts as open though it is not costs a timer; one that counted as
met though it is not would never time out.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from sidecar.core import events
from sidecar.core.model import CallKind, OpenCall, Row
from sidecar.schema import taskhub_pb2 as pb

_KINDS = (CallKind.TIMER, CallKind.WAIT)


class Wait(NamedTuple):
    """A wait by the number of its timer, and the name of the event."""

    task: int
    name: str


def awaited(timer: pb.TimerCreated) -> str:
    """Return the name of the event that a timer limits the wait for, "" if it is a timer of its own."""
    try:
        return pb.EventRaised.FromString(timer.external_event).name
    except DecodeError:
        return ""


class Waits:
    """The waits that are open, the oldest first."""

    def __init__(self) -> None:
        self._open: dict[str, list[Wait]] = {}

    def add(self, wait: Wait) -> None:
        """Begin a wait; one for no event is none."""
        if wait.name:
            self._open.setdefault(wait.name.casefold(), []).append(wait)

    def follow(self, event: pb.HistoryEvent) -> int | None:
        """Take the next event of a history; return the wait that it meets."""
        kind = event.WhichOneof("kind")
        if kind == "timer_fired":
            fired = event.timer_fired
            waiting = self._open.get(fired.awaited.casefold(), [])
            waiting[:] = [wait for wait in waiting if wait.task != fired.timer_id]
        elif kind == "event_raised":
            name = event.event_raised.name
            waiting = self._open.get(name.casefold(), [])
            if waiting and waiting[0].name == name:
                return waiting.pop(0).task
        return None


def met(open_calls: Mapping[int, OpenCall], rows: Iterable[Row], behind: Iterable[Row]) -> Iterator[int]:
    """Yield the waits that the events of a turn meet, of those that were open before it.

    A time-out that has come is no open call; its wait was open until then, which may be `behind` the turn.
    """
    waiting = [Wait(task, call.name) for task, call in open_calls.items() if call.kind in _KINDS and call.name]
    if not waiting:
        return
    news = [events.decode(row.event) for row in rows]
    later = [events.decode(row.event) for row in behind]
    timed_out = [event.timer_fired for event in (*news, *later) if event.timer_fired.awaited]
    waiting += [Wait(fired.timer_id, fired.awaited) for fired in timed_out]
    waits = Waits()
    for wait in sorted(waiting):
        waits.add(wait)
    for event in news:
        task = waits.follow(event)
        if task is not None and task in open_calls:
            yield task
