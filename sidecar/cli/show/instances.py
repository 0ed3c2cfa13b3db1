"""Workflows in lists, one by one, and as data. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from rich.console import RenderableType

from sidecar.cli.show import words
from sidecar.cli.show.tables import Cell, Column, pairs, table
from sidecar.core.model import Status
from sidecar.schema import cause_pb2
from sidecar.schema import taskhub_pb2 as pb

_STALLED = "WorkflowStalled"  # the error that says it to clients without a word for that status
_LONGEST = 2_000  # characters of a payload that a table shows
STYLES = {
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELED": "yellow",
    "TERMINATED": "yellow",
    "STALLED": "red",
    "SUSPENDED": "yellow",
    "RUNNING": "cyan",
}


class Home(NamedTuple):
    """The app that has what is shown."""

    app: str
    namespace: str


def status(state: pb.InstanceState) -> str:
    """Return the status of a workflow in the word of the protocol."""
    try:
        found = Status(state.status)
    except ValueError:
        return str(state.status)
    return "STALLED" if found is Status.RUNNING and state.failure.error_type == _STALLED else found.name


def why(causes: Sequence[cause_pb2.Cause], now: int) -> str:
    """Return why something waits, in a line: the first cause and how many there are besides."""
    if not causes:
        return ""
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    return cause(causes[0], now) + more


def cause(one: cause_pb2.Cause, now: int) -> str:
    """Return a cause in a line, with since when it is so."""
    since = f", for {words.span(now - words.micros(one.since))}" if one.HasField("since") else ""
    return words.clean(one.text) + since


def short(states: Sequence[pb.InstanceState], now: int, width: int | None) -> RenderableType:
    """Return a list with what one looks for first."""
    columns = (Column("NAME", 10), Column("ID", 16, True), Column("STATUS", 10), Column("AGE", 9))
    rows = [
        (words.clean(one.name), words.clean(one.instance_id), _status(one), _age(one, now), why(one.causes, now))
        for one in states
    ]
    if not any(row[-1] for row in rows):
        return table(columns, [row[:-1] for row in rows], width)
    return table((*columns, Column("WAITS BECAUSE", 16, True)), rows, width)


def wide(states: Sequence[pb.InstanceState], home: Home, now: int, width: int | None) -> RenderableType:
    """Return a list with all that fits a line."""
    columns = [Column("NAMESPACE"), Column("APP ID"), Column("NAME", 10), Column("ID", 16, True)]
    columns += [
        Column("CREATED", 19),
        Column("LAST UPDATE", 19),
        Column("STATUS", 10),
        Column("CUSTOM STATUS", 13, True),
    ]
    columns += [Column("FAILURE", 20, True), Column("WAITS BECAUSE", 16, True)]
    rows = [
        (
            *(home.namespace, home.app, words.clean(one.name), words.clean(one.instance_id)),
            *(words.local(one.created), words.local(one.last_updated), _status(one)),
            *(words.cut(one.custom_status.value, 60), words.cut(_failure(one), 120), why(one.causes, now)),
        )
        for one in states
    ]
    return table(columns, rows, width)


def single(state: pb.InstanceState, home: Home, now: int, *, whole: bool) -> RenderableType:
    """Return all of one workflow; unless it is to be `whole`, long payloads are cut."""
    most = 1 << 30 if whole else _LONGEST
    rows: list[tuple[str, Cell | str]] = [
        (
            "workflow",
            words.clean(state.name) + (f" (version {words.clean(state.version.value)})" if state.version.value else ""),
        ),
        ("ID", words.clean(state.instance_id)),
        ("app", home.app if home.namespace == "default" else f"{home.app} in namespace {home.namespace}"),
        ("status", _status(state)),
        ("custom status", words.cut(state.custom_status.value, most)),
        *((name, _moment(state, field, now)) for name, field in _TIMES),
        ("parent", words.clean(_parent(state))),
        ("tags", words.clean(", ".join(f"{key}={value}" for key, value in sorted(state.tags.items())))),
        ("input", words.cut(state.input.value, most)),
        ("output", words.cut(state.output.value, most)),
        ("failure", Cell(words.cut(_failure(state), most), "red")),
    ]
    for one in state.causes:
        rows += [("waits because", Cell(cause(one, now), "yellow")), ("what to do", words.clean(one.advice))]
    return pairs(rows)


_TIMES = (
    ("scheduled", "scheduled_start"),
    ("created", "created"),
    ("started", "started"),
    ("updated", "last_updated"),
    ("ended", "completed"),
)


def data(state: pb.InstanceState, home: Home) -> dict[str, Any]:
    """Return a workflow for programs: the keys are always all there."""
    return {
        "namespace": home.namespace,
        "appID": home.app,
        "name": state.name,
        "instanceID": state.instance_id,
        "created": words.iso(state.created),
        "lastUpdate": words.iso(state.last_updated),
        "runtimeStatus": status(state),
        "customStatus": state.custom_status.value,
        "failureMessage": state.failure.error_message,
        "executionID": state.execution_id.value,
        "version": _optional(state, "version"),
        "scheduledStart": _time(state, "scheduled_start"),
        "started": _time(state, "started"),
        "completed": _time(state, "completed"),
        "parentInstanceID": _optional(state, "parent_instance_id"),
        "parentAppID": _optional(state, "parent_app_id"),
        "tags": dict(sorted(state.tags.items())),
        "causes": [cause_data(one) for one in state.causes],
    }


def whole_data(state: pb.InstanceState, home: Home) -> dict[str, Any]:
    """Return a workflow for programs with its payloads, which are text as its worker wrote it."""
    failure = state.failure if state.HasField("failure") else None
    return data(state, home) | {
        "input": _optional(state, "input"),
        "output": _optional(state, "output"),
        "failure": None if failure is None else failure_data(failure),
    }


def failure_data(failure: pb.FailureDetails) -> dict[str, Any]:
    """Return a failure for programs, with what it came from."""
    inner = failure_data(failure.inner_failure) if failure.HasField("inner_failure") else None
    return {
        "type": failure.error_type,
        "message": failure.error_message,
        "stackTrace": failure.stack_trace.value if failure.HasField("stack_trace") else None,
        "inner": inner,
    }


def cause_data(one: cause_pb2.Cause) -> dict[str, Any]:
    """Return a cause for programs."""
    since = words.iso(one.since) if one.HasField("since") else None
    return {"reason": one.reason, "text": one.text, "since": since, "appID": one.app_id, "advice": one.advice}


def _status(state: pb.InstanceState) -> Cell:
    word = status(state)
    return Cell(word, STYLES.get(word, ""))


def _age(state: pb.InstanceState, now: int) -> str:
    return words.span(now - words.micros(state.created))


def _failure(state: pb.InstanceState) -> str:
    failure = state.failure
    kind = failure.error_type if failure.error_type != _STALLED else ""
    return ": ".join(part for part in (kind, failure.error_message) if part) if status(state) != "STALLED" else ""


def _parent(state: pb.InstanceState) -> str:
    app = state.parent_app_id.value
    return state.parent_instance_id.value + (f" of app {app}" if app and state.parent_instance_id.value else "")


def _moment(state: pb.InstanceState, field: str, now: int) -> str:
    if not state.HasField(field):  # type: ignore[arg-type]
        return ""
    moment: Timestamp = getattr(state, field)
    return f"{words.local(moment)} ({words.ago(words.micros(moment), now)})"


def _time(state: pb.InstanceState, field: str) -> str | None:
    return words.iso(getattr(state, field)) if state.HasField(field) else None  # type: ignore[arg-type]


def _optional(state: pb.InstanceState, field: str) -> str | None:
    value: StringValue = getattr(state, field)
    return value.value if state.HasField(field) else None  # type: ignore[arg-type]
