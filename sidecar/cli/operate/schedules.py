"""The commands about schedules."""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from google.protobuf.message import Message

from sidecar.actors.clock import Clock
from sidecar.cli import schedule_form, screen
from sidecar.cli.exits import Exit, Failure
from sidecar.cli.forms import Form
from sidecar.cli.operate.client import Client, asking
from sidecar.cli.show import schedules, words
from sidecar.config import formats
from sidecar.edge import methods
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import schedule_pb2 as pb

_ANY, _NEW, _EXISTING = 0, 1, 2
_PAGE = 100


def listing(client: Client, form: Form) -> None:
    """Write all schedules."""
    views = asking(client, _all)
    if form.is_data:
        screen.write([schedules.data(one) for one in views], form)
    elif not views:
        screen.note(f"app '{client.home.app}' has no schedules: `sidecar schedule create` makes one")
    elif form is Form.WIDE:
        screen.show(schedules.wide(views, client.home.app, screen.width()))
    else:
        screen.show(schedules.short(views, Clock().now(), screen.width()))


async def _all(client: Client) -> list[admin.ScheduleView]:
    views: list[admin.ScheduleView] = []
    while True:
        request = admin.ListSchedulesRequest(after=views[-1].schedule.id if views else "", limit=_PAGE)
        page = (await client.call(f"{methods.ADMIN}ListSchedules", request, admin.ListSchedulesResponse)).schedules
        if not page:
            return views
        views += page


def single(client: Client, schedule_id: str, upcoming: int, form: Form) -> None:
    """Write all of one schedule."""
    view = asking(client, lambda reached: _get(reached, schedule_id, upcoming))
    if form.is_data:
        screen.write(schedules.data(view), form)
    else:
        screen.show(schedules.single(view, client.home.app, Clock().now(), whole=form is Form.WIDE))


async def _get(client: Client, schedule_id: str, upcoming: int = 1) -> admin.ScheduleView:
    request = admin.GetScheduleRequest(id=schedule_id, upcoming=upcoming)
    view: admin.ScheduleView = await _ask(client, "GetSchedule", request, admin.ScheduleView)
    return view


async def _ask(client: Client, method: str, request: Any, kind: type[Any]) -> Any:
    """Ask about one schedule. Raises Failure, which names it if there is none."""
    try:
        return await client.call(methods.ADMIN + method, request, kind)
    except Failure as failure:
        if failure.code is not Exit.MISSING:
            raise
        text = f"app '{client.home.app}' has no schedule '{words.clean(request.id)}'"
        raise Failure(Exit.MISSING, text, "`sidecar schedule list` shows those that there are") from failure


def create(client: Client, given: Mapping[str, object], form: Form) -> None:
    """Make a schedule of what flags say."""
    schedule = _from_flags(given)
    asking(client, lambda reached: _apply(reached, [schedule], mode=_NEW))
    _tell(client, schedule.id, "created", form)


def update(client: Client, given: Mapping[str, object], form: Form) -> None:
    """Change of a schedule what flags say; an empty text takes away what there was."""

    async def ask(reached: Client) -> None:
        now = schedule_form.data((await _get(reached, str(given["id"]))).schedule)
        if given.get("inputText") is not None:
            now.pop("input", None)
        schedule = _from_flags(now | {key: value for key, value in given.items() if value not in (None, [], {})})
        await _apply(reached, [schedule], mode=_EXISTING)

    asking(client, ask)
    _tell(client, str(given["id"]), "updated", form)


def _tell(client: Client, schedule_id: str, done: str, form: Form) -> None:
    screen.note(f"schedule '{words.clean(schedule_id)}' of app '{client.home.app}' {done}")
    if form.is_data or form is Form.WIDE:
        single(client, schedule_id, 5, form)


def _from_flags(given: Mapping[str, object]) -> pb.Schedule:
    """Return what flags say. Raises Failure: one of them is wrong."""
    said = {key: value for key, value in given.items() if value not in (None, "", [], {}, [""])}
    try:
        return schedule_form.from_data(said, Clock().now())
    except ValueError as error:
        raise Failure(Exit.WRONG, str(error)) from error


async def _apply(
    client: Client, wanted: Sequence[pb.Schedule], *, mode: int = _ANY, prune: bool = False, dry_run: bool = False
) -> Sequence[admin.ScheduleDifference]:
    request = admin.ApplySchedulesRequest(
        schedules=wanted, mode=admin.ApplySchedulesRequest.Mode.ValueType(mode), prune=prune, dry_run=dry_run
    )
    return (await client.call(f"{methods.ADMIN}ApplySchedules", request, admin.ApplySchedulesResponse)).differences


def apply(client: Client, file: str, *, prune: bool, dry_run: bool, sure: bool, form: Form) -> None:
    """Make the schedules those of a file, after the difference was shown and, at a terminal, agreed to."""
    wanted = read_file(file)

    async def ask(reached: Client) -> tuple[Sequence[admin.ScheduleDifference], bool]:
        found = await _apply(reached, wanted, prune=prune, dry_run=True)
        changes = [one for one in found if one.change != "unchanged"]
        if form.is_data:
            screen.write([schedules.difference_data(one) for one in found], form)
        else:
            screen.show(schedules.differences(found))
        if dry_run or not changes:
            return changes, False
        question = f"Change {words.count(len(changes), 'schedule')} of app '{reached.home.app}'?"
        if not sure and screen.is_asked_by_a_person() and not typer.confirm(question, err=True):
            raise Failure(Exit.NO, "nothing was done")
        await _apply(reached, wanted, prune=prune)
        return changes, True

    changes, applied = asking(client, ask)
    number = words.count(len(changes), "schedule")
    screen.note(f"{number} changed" if applied else f"{number} would change" if changes else "nothing to change")


def read_file(name: str) -> list[pb.Schedule]:
    """Return the schedules of a file, "-" for stdin. Raises Failure: it cannot be read, or what is in it is wrong."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        read = formats.BY_SUFFIX.get(Path(name).suffix.lower(), formats.yaml)
        found = read(text)
        given = found.get("schedules") if isinstance(found, Mapping) else found
        if not isinstance(given, list) or (isinstance(found, Mapping) and set(found) != {"schedules"}):
            raise ValueError("it must have one key, schedules, with a list")
        return [_numbered(number, one) for number, one in enumerate(given, start=1)]
    except OSError as error:
        raise Failure(Exit.WRONG, f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        raise Failure(Exit.WRONG, f"{name}: {error}") from error


def _numbered(number: int, given: object) -> pb.Schedule:
    if isinstance(given, Mapping):  # what `get` shows of it beside its definition is no part of that
        given = {key: value for key, value in given.items() if key != "status"}
    try:
        return schedule_form.from_data(given, Clock().now())
    except ValueError as error:
        named = f" ('{given['id']}')" if isinstance(given, Mapping) and "id" in given else ""
        raise ValueError(f"schedule {number}{named}: {error}") from error


def pause(client: Client, ids: Sequence[str], reason: str) -> None:
    """Let no times come until they are resumed."""
    _each(client, ids, "paused", "PauseSchedule", lambda one: admin.PauseScheduleRequest(id=one, reason=reason))


def resume(client: Client, ids: Sequence[str]) -> None:
    """Let times come again."""
    _each(client, ids, "resumed", "ResumeSchedule", lambda one: admin.ResumeScheduleRequest(id=one))


def delete(client: Client, ids: Sequence[str]) -> None:
    """Remove schedules; their runs go on."""
    _each(client, ids, "deleted", "DeleteSchedule", lambda one: admin.DeleteScheduleRequest(id=one))


def _each(client: Client, ids: Sequence[str], done: str, method: str, request: Callable[[str], Message]) -> None:
    async def ask(reached: Client) -> None:
        for one in ids:
            await _ask(reached, method, request(one), admin.DeleteScheduleResponse)
            screen.note(f"schedule '{words.clean(one)}' of app '{reached.home.app}' {done}")

    asking(client, ask)


def trigger(client: Client, schedule_id: str, overlap: str, form: Form) -> None:
    """Start a run now and write its ID. Raises Failure: none was started."""
    request = admin.TriggerScheduleRequest(id=schedule_id, overlap=_overlap(overlap))
    answer = asking(client, lambda reached: _ask(reached, "TriggerSchedule", request, admin.TriggerScheduleResponse))
    if form.is_data:
        screen.write({"instanceID": answer.instance_id, "appID": client.home.app, "text": answer.text}, form)
    elif answer.instance_id:
        typer.echo(answer.instance_id)
    if not answer.instance_id:
        raise Failure(Exit.NO, f"no run of schedule '{words.clean(schedule_id)}' was started now: {answer.text}")


def backfill(client: Client, schedule_id: str, first: str, last: str, overlap: str) -> None:
    """Deal once more with the times of a range."""
    now = Clock().now()
    try:
        begins, ends = (schedule_form.moment(text, now, -1) for text in (first, last))
    except ValueError as error:
        raise Failure(Exit.WRONG, f"--from, --to: {error}") from error
    request = admin.BackfillScheduleRequest(id=schedule_id, first=begins, last=ends, overlap=_overlap(overlap))

    def ask(reached: Client) -> Awaitable[Any]:
        return _ask(reached, "BackfillSchedule", request, admin.BackfillScheduleResponse)

    asking(client, ask)
    text = f"its times from {schedule_form.shown(begins)} to {schedule_form.shown(ends)} are dealt with"
    screen.note(f"schedule '{words.clean(schedule_id)}' of app '{client.home.app}': {text}")


def _overlap(text: str) -> pb.Overlap.ValueType:
    try:
        return pb.Overlap.ValueType(schedule_form.overlap(text))
    except ValueError as error:
        raise Failure(Exit.WRONG, f"--overlap: {error}") from error
