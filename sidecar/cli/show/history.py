"""The history of a workflow: read into what ran when and where, drawn as a timeline, in a table, and as data. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from rich.console import Group, RenderableType
from rich.text import Text

from sidecar.cli.show import words
from sidecar.cli.show.instances import STYLES, Home, failure_data
from sidecar.cli.show.tables import Cell, Column, table
from sidecar.core.model import Status
from sidecar.schema import taskhub_pb2 as pb

_TYPES = {"child_created": "SubOrchCreated", "child_completed": "SubOrchCompleted", "child_failed": "SubOrchFailed"}
_BEGINS = {"task_scheduled": "activity", "child_created": "child", "timer_created": "timer", "entity_called": "entity",
           "entity_lock_requested": "lock"}  # fmt: skip
_ENDS = {"task_completed": "activity", "task_failed": "activity", "child_completed": "child", "child_failed": "child",
         "timer_fired": "timer", "entity_completed": "entity", "entity_failed": "entity",
         "entity_lock_granted": "lock"}  # fmt: skip
_POINTS = {
    "event_raised": "event",
    "event_sent": "event sent:",
    "entity_signaled": "signal to",
    "entity_unlock_sent": "unlock",
    "execution_suspended": "suspended",
    "execution_resumed": "resumed",
    "execution_terminated": "terminated",
    "execution_stalled": "stalled",
    "execution_rewound": "rewound",
    "detached_created": "detached",
}
_FAILED = frozenset({"task_failed", "child_failed", "entity_failed"})
_LEAST_BAR, _PIPE_BAR, _LONGEST_BAR, _LONGEST_NAME = 8, 40, 100, 30
_AROUND = 6  # columns of the gaps between those of a timeline
_LONGEST = 120


class Marks(NamedTuple):
    """What lines are drawn with: done, not done, and a moment."""

    done: str = "━"
    open: str = "┅"
    point: str = "●"


DRAWN, ASCII = Marks(), Marks("=", "-", "*")


class Span(NamedTuple):
    """Something that ran, or happened at one moment: `end` is None while it runs, and `begin` of a moment."""

    app: str
    what: str
    begin: int
    end: int | None
    state: str = ""  # such as "failed", "running", and "left": it ran when the workflow ended

    @property
    def is_moment(self) -> bool:
        """Whether it took no time by its nature."""
        return self.end == self.begin and not self.state


def kind_of(event: pb.HistoryEvent) -> str:
    """Return the kind of an event, in the word of the schema."""
    return event.WhichOneof("kind") or "unknown"


def app_of(event: pb.HistoryEvent, home: str) -> str:
    """Return the app in which it happens: that of a call and of its answer is the one that does it."""
    router = event.router if event.HasField("router") else pb.Router.FromString(event.slot_30)
    return router.target_app_id or home


def spans(log: Sequence[pb.HistoryEvent], home: str) -> list[Span]:
    """Return what a history says that ran, in the order in which it began; the workflow itself is the first."""
    found: list[Span] = []
    running: dict[tuple[str, str], int] = {}
    for event in log:
        kind, at = kind_of(event), words.micros(event.timestamp)
        if kind == "execution_started":
            found.append(Span(home, name_of(event), at, None, "running"))
        elif kind == "execution_completed" and found:
            found[0] = found[0]._replace(end=at, state=_end_of(event.execution_completed.status))
            found[1:] = [one._replace(end=at, state="left") if one.end is None else one for one in found[1:]]
        elif kind in _BEGINS:
            running[_BEGINS[kind], _call(event)] = len(found)
            found.append(Span(app_of(event, home), f"{_BEGINS[kind]} {name_of(event)}".strip(), at, None, "running"))
        elif kind in _ENDS:
            number = running.pop((_ENDS[kind], _call(event)), None)
            if number is not None:
                state = "failed" if kind in _FAILED else "done"
                found[number] = found[number]._replace(end=at, state=state)
        elif kind in _POINTS:
            found.append(Span(app_of(event, home), f"{_POINTS[kind]} {name_of(event)}".strip(), at, at))
    return found


def _end_of(number: int) -> str:
    word = next((one.name.lower() for one in Status if one == number), str(number))
    return "done" if word == "completed" else word


def _call(event: pb.HistoryEvent) -> str:
    """Return what a call and its answer have in common."""
    body: Any = getattr(event, kind_of(event))
    for field in ("task_scheduled_id", "timer_id", "request_id", "critical_section_id"):
        if field in body.DESCRIPTOR.fields_by_name:
            return str(getattr(body, field))
    return str(event.event_id)


def name_of(event: pb.HistoryEvent) -> str:
    """Return what an event is about: the name of an activity, a child, an event, an operation of an entity."""
    kind = kind_of(event)
    if kind in ("entity_called", "entity_signaled"):
        body = getattr(event, kind)
        return words.clean(f"{body.target_instance_id.value} {body.operation}")
    if kind == "entity_lock_requested":
        return words.clean(", ".join(event.entity_lock_requested.lock_set))
    if kind == "timer_created":
        return words.span(words.micros(event.timer_created.fire_at) - words.micros(event.timestamp))
    body = getattr(event, kind, None)
    field = next((one for one in ("name", "instance_id") if _is_text(body, one)), "")
    return words.clean(str(getattr(body, field))) if field else ""


def _is_text(body: Message | None, field: str) -> bool:
    found = None if body is None else body.DESCRIPTOR.fields_by_name.get(field)
    return found is not None and found.message_type is None


def timeline(
    log: Sequence[pb.HistoryEvent], home: Home, now: int, width: int | None, marks: Marks = DRAWN
) -> RenderableType:
    """Return what ran when and in which app, a line each, over one scale of time."""
    found = spans(log, home.app)
    if not found:
        return Text("it has not begun")
    first = min(one.begin for one in found)
    last = max(first + 1, *(now if one.end is None else one.end for one in found))
    words_of = [(one.app, one.what, _took(one, now)) for one in found]
    beside = sum(min(_LONGEST_NAME, max(len(row[number]) for row in words_of)) for number in range(3))
    room = _PIPE_BAR if width is None else max(_LEAST_BAR, min(_LONGEST_BAR, width - beside - _AROUND))
    columns = (Column("APP", 6), Column("WHAT", 10, True), Column("TOOK", 7, True),
               Column(words.span(last - first), _LEAST_BAR, most=room))  # fmt: skip
    rows = [
        (*row[:2], Cell(row[2], _style(one)), Cell(bar(one, (first, last, now), room, marks), _style(one)))
        for row, one in zip(words_of, found, strict=True)
    ]
    return table(columns, rows, width)


def bar(one: Span, scale: tuple[int, int, int], room: int, marks: Marks) -> str:
    """Return a line of at most `room` marks; the scale is its first and last moment, and now."""
    first, last, now = scale
    begin = (one.begin - first) * (room - 1) // (last - first)
    if one.is_moment:
        return " " * begin + marks.point
    end = ((now if one.end is None else one.end) - first) * (room - 1) // (last - first)
    return " " * begin + (marks.open if one.end is None else marks.done) * max(1, end - begin + 1)


def _took(one: Span, now: int) -> str:
    if one.is_moment:
        return ""
    took = words.span((now if one.end is None else one.end) - one.begin)
    return took if one.state == "done" else f"{took}, {one.state}"


def _style(one: Span) -> str:
    return {"": "", "done": "green", "running": "cyan", "failed": "red", "left": "dim"}.get(one.state, "yellow")


def listed(log: Sequence[pb.HistoryEvent], home: Home, width: int | None) -> RenderableType:
    """Return a table of all events."""
    columns = (Column("TIME", 19), Column("ELAPSED", 8), Column("TYPE", 14), Column("ID", 4), Column("NAME", 10, True),
               Column("APP", 6), Column("DETAILS", 20, True))  # fmt: skip
    first = words.micros(log[0].timestamp) if log else 0
    rows = [
        (
            words.local(event.timestamp),
            words.span(words.micros(event.timestamp) - first),
            Cell(type_of(event), "red" if kind_of(event) in _FAILED else ""),
            _number(event),
            name_of(event),
            app_of(event, home.app),
            words.cut(details(event), _LONGEST),
        )
        for event in log
    ]
    return table(columns, rows, width)


def type_of(event: pb.HistoryEvent) -> str:
    """Return the kind of an event in the words of Dapr's command."""
    kind = kind_of(event)
    return _TYPES.get(kind) or "".join(part.capitalize() for part in kind.split("_"))


def _number(event: pb.HistoryEvent) -> str:
    kind = kind_of(event)
    if kind in _ENDS:
        return _call(event) if kind not in ("entity_completed", "entity_failed", "entity_lock_granted") else ""
    return str(event.event_id) if kind in _BEGINS or event.event_id > 0 else ""


def details(event: pb.HistoryEvent) -> str:
    """Return what an event carries, in a line."""
    body: Any = getattr(event, kind_of(event), None)
    if body is None:
        return ""
    failure = _failure(body)
    if failure is not None:
        return f"{failure.error_type}: {failure.error_message}"
    if kind_of(event) == "execution_completed":
        return f"{_end_of(body.status)} {body.result.value}".strip()
    if kind_of(event) == "execution_stalled":
        return str(body.description)
    return payload(event) or ""


def payload(event: pb.HistoryEvent) -> str | None:
    """Return the input or the result that an event carries."""
    body: Any = getattr(event, kind_of(event), None)
    for field in ("input", "result", "output"):
        if body is not None and field in body.DESCRIPTOR.fields_by_name and body.HasField(field):
            return str(getattr(body, field).value)
    return None


def _failure(body: Any) -> pb.FailureDetails | None:
    has = "failure" in body.DESCRIPTOR.fields_by_name and body.HasField("failure")
    return body.failure if has else None


def data(log: Sequence[pb.HistoryEvent], home: Home) -> list[dict[str, Any]]:
    """Return the events for programs: the keys are always all there."""
    rows: list[dict[str, Any]] = []
    play, before = 0, words.micros(log[0].timestamp) if log else 0
    for event in log:
        play += kind_of(event) == "orchestrator_started"
        at, body = words.micros(event.timestamp), getattr(event, kind_of(event), None)
        failure = None if body is None else _failure(body)
        number = _number(event)
        rows.append(
            {
                "namespace": home.namespace,
                "appID": app_of(event, home.app),
                "play": play,
                "type": type_of(event),
                "name": name_of(event),
                "eventId": int(number) if number.lstrip("-").isdecimal() else None,
                "timestamp": words.iso(event.timestamp),
                "elapsedMs": (at - before) // 1000,
                "details": details(event),
                "payload": payload(event),
                "failure": None if failure is None else failure_data(failure),
            }
        )
        before = at
    return rows


def headed(state: pb.InstanceState, status: str, now: int, below: RenderableType) -> RenderableType:
    """Return what is shown of a history below a line that names its workflow."""
    title = Text(words.clean(state.instance_id), style="bold")
    title.append(f"  {words.clean(state.name)}  ", style="not bold")
    title.append(status, style=f"not bold {STYLES.get(status, '')}")
    title.append(f"  created {words.ago(words.micros(state.created), now)}", style="not bold dim")
    return Group(title, Text(), below)
