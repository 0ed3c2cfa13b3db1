"""Schedules in lists, one by one, as data, and what applying a file changes. Pure."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sidecar.cli import schedule_form
from sidecar.cli.show import words
from sidecar.cli.show.instances import STYLES
from sidecar.cli.show.tables import Cell, Column, Row, pairs, table
from sidecar.config import durations
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import schedule_pb2 as pb

_CAUSES = {pb.CAUSE_TIME: "time", pb.CAUSE_TRIGGER: "trigger", pb.CAUSE_BACKFILL: "backfill"}
_MARKS = {"created": ("+", "green"), "deleted": ("-", "red"), "updated": ("~", "yellow")}
_LONGEST = 200  # characters of a value in a difference


def state(view: admin.ScheduleView) -> str:
    """Return what a schedule does, in a word."""
    if view.progress.paused:
        return "PAUSED"
    return "ACTIVE" if view.upcoming or view.progress.queue or view.progress.backfills else "OVER"


def rule(schedule: pb.Schedule) -> str:
    """Return when a schedule has times, in a line."""
    zone = f" ({schedule.time_zone})" if schedule.time_zone else ""
    parts = [f"{', '.join(schedule.cron)}{zone}"] if schedule.cron else []
    if schedule.every:
        offset = f" + {durations.written(schedule.offset)}" if schedule.offset else ""
        parts.append(f"every {durations.written(schedule.every)}{offset}")
    if schedule.jitter:
        parts.append(f"jitter {durations.written(schedule.jitter)}")
    return words.clean("; ".join(parts))


def short(views: Sequence[admin.ScheduleView], now: int, width: int | None) -> RenderableType:
    """Return a list with what one looks for first."""
    columns = [Column("ID", 12, True), Column("WORKFLOW", 10), Column("TIMES", 12, True), Column("STATE", 6)]
    columns += [Column("NEXT", 8), Column("LAST RUN", 10), Column("MISSED", 6)]
    rows = [
        (
            *(words.clean(one.schedule.id), words.clean(one.schedule.workflow), rule(one.schedule), _state(one)),
            *(_next(one, now), _last(one, now), _bad(one)),
        )
        for one in views
    ]
    return table(columns, rows, width)


def wide(views: Sequence[admin.ScheduleView], app: str, width: int | None) -> RenderableType:
    """Return a list with all that fits a line."""
    columns = [Column("ID", 12, True), Column("APP ID"), Column("WORKFLOW", 10), Column("TIMES", 12, True)]
    columns += [Column("OVERLAP", 9), Column("STATE", 6), Column("NEXT", 20), Column("LAST RUN", 20, True)]
    columns += [Column(name, 7) for name in ("STARTED", "SKIPPED", "MISSED", "FAILED", "QUEUED")]
    rows: list[Row] = []
    for one in views:
        schedule, progress = one.schedule, one.progress
        last = progress.recent[-1].instance_id if progress.recent else ""
        counts = (progress.started, progress.skipped, progress.missed, progress.failed, len(progress.queue))
        rows.append(
            (
                *(words.clean(schedule.id), words.clean(schedule.app_id or app), words.clean(schedule.workflow)),
                *(rule(schedule), _overlap(schedule, app), _state(one)),
                *(schedule_form.shown(one.upcoming[0]) if one.upcoming else "", words.clean(last)),
                *(f"{count:,}" for count in counts),
            )
        )
    return table(columns, rows, width)


def single(view: admin.ScheduleView, app: str, now: int, *, whole: bool) -> RenderableType:
    """Return all of one schedule; unless it is to be `whole`, a long input is cut."""
    schedule, progress = view.schedule, view.progress
    found = schedule_form.data(schedule)
    given = str(schedule.input.value)
    rows: list[tuple[str, Cell | str]] = [
        ("schedule", words.clean(schedule.id)),
        ("workflow", words.clean(schedule.workflow + (f" ({schedule.version.value})" * schedule.HasField("version")))),
        ("app", words.clean(schedule.app_id or app)),
        ("times", rule(schedule)),
        ("overlap", _overlap(schedule, app)),
        *((key, str(found[key])) for key in ("start", "end", "catchUp", "instanceID") if key in found),
        ("tags", words.clean(", ".join(f"{key}={value}" for key, value in sorted(schedule.tags.items())))),
        ("input", words.cut(given, len(given) if whole else _LONGEST)),
        ("state", _state(view)),
        ("reason", words.clean(progress.reason)),
        ("next", ", ".join(f"{schedule_form.shown(one)} ({words.ago(one, now)})" for one in view.upcoming)),
        ("started", f"{progress.started:,}"),
        ("skipped", _counted(progress.skipped, "a run was active")),
        ("missed", Cell(_counted(progress.missed, "it was too late for them"), "red")),
        ("failed", Cell(_counted(progress.failed, "the workflow could not be started"), "red")),
        ("waiting", _waiting(progress)),
    ]
    return Group(pairs(rows), *_runs(view, now))


def _runs(view: admin.ScheduleView, now: int) -> Iterator[RenderableType]:
    if not view.progress.recent:
        return
    columns = (Column("RUN", 16, True), Column("TIME", 20), Column("CAUSE", 8), Column("STARTED", 10), Column("STATUS"))
    rows = [
        (
            *(words.clean(run.instance_id), schedule_form.shown(run.time), _CAUSES.get(run.cause, "")),
            *(words.ago(run.started, now), Cell(words.cut(run.error or status, 80), STYLES.get(status, ""))),
        )
        for run, status in zip(view.progress.recent, view.statuses, strict=False)
    ]
    yield Text()
    yield table(columns, rows[::-1], None)


def data(view: admin.ScheduleView) -> dict[str, Any]:
    """Return a schedule for programs: its definition, which can be applied again, and how it goes with it."""
    progress = view.progress
    return schedule_form.data(view.schedule) | {
        "status": {
            "state": state(view),
            "reason": progress.reason,
            "created": schedule_form.shown(progress.created),
            "updated": schedule_form.shown(progress.updated),
            "next": [schedule_form.shown(one) for one in view.upcoming],
            "started": progress.started,
            "skipped": progress.skipped,
            "missed": progress.missed,
            "failed": progress.failed,
            "queue": [schedule_form.shown(one.time) for one in progress.queue],
            "backfills": [
                {"after": schedule_form.shown(one.after), "until": schedule_form.shown(one.until)}
                for one in progress.backfills
            ],
            "recent": [_run_data(*one) for one in zip(progress.recent, view.statuses, strict=False)],
        }
    }


def _run_data(run: pb.Run, status: str) -> dict[str, Any]:
    return {
        "instanceID": run.instance_id,
        "time": schedule_form.shown(run.time),
        "cause": _CAUSES.get(run.cause, ""),
        "started": schedule_form.shown(run.started),
        "runtimeStatus": status,
        "error": run.error,
    }


def differences(found: Sequence[admin.ScheduleDifference]) -> RenderableType:
    """Return what applying a file changes, a block for each schedule that is changed."""
    lines: list[Text] = []
    for one in found:
        if one.change in _MARKS:
            mark, style = _MARKS[one.change]
            lines.append(Text(f"{mark} {words.clean(one.id)}", style=style))
            lines += [Text(f"    {line}", style=style) for line in _changed(one)]
    same = sum(one.change not in _MARKS for one in found)
    return Group(*lines, *([Text(f"{words.count(same, 'schedule')} unchanged")] if same else []))


def difference_data(one: admin.ScheduleDifference) -> dict[str, Any]:
    """Return what applying a definition changes, for programs."""
    before, after = (
        schedule_form.data(getattr(one, name)) if one.HasField(name) else None for name in ("before", "after")
    )
    return {"id": one.id, "change": one.change, "before": before, "after": after}


def _changed(one: admin.ScheduleDifference) -> Iterator[str]:
    before, after = schedule_form.data(one.before), schedule_form.data(one.after)
    if one.change != "updated":
        shown = after if one.change == "created" else before
        yield from (f"{key}: {_value(value)}" for key, value in shown.items() if key != "id")
        return
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            yield f"{key}: {_value(before.get(key))} -> {_value(after.get(key))}"


def _value(value: object) -> str:
    if value is None:
        return "(none)"
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words.cut(shown, _LONGEST)


def _overlap(schedule: pb.Schedule, app: str) -> str:
    usual = "skip" if schedule.app_id in ("", app) else "allow"
    return schedule_form.overlap_word(schedule.overlap) or usual


def _state(view: admin.ScheduleView) -> Cell:
    word = state(view)
    return Cell(word, {"ACTIVE": "green", "PAUSED": "yellow"}.get(word, ""))


def _next(view: admin.ScheduleView, now: int) -> str:
    return words.ago(view.upcoming[0], now) if view.upcoming else ""


def _last(view: admin.ScheduleView, now: int) -> Cell | str:
    if not view.progress.recent:
        return ""
    status = next(iter(view.statuses), "")
    return Cell(f"{words.ago(view.progress.recent[-1].started, now)} {status}".strip(), STYLES.get(status, ""))


def _bad(view: admin.ScheduleView) -> Cell | str:
    number = view.progress.missed + view.progress.failed
    return Cell(f"{number:,}", "red") if number else ""


def _counted(number: int, why: str) -> str:
    return f"{number:,} ({why})" if number else ""


def _waiting(progress: pb.Progress) -> str:
    parts = [words.count(len(progress.queue), "time")] if progress.queue else []
    ranges = (f"{schedule_form.shown(one.after)} to {schedule_form.shown(one.until)}" for one in progress.backfills)
    return "; ".join([*parts, *(f"the times from {one}" for one in ranges)])
