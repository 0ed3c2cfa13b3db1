"""`sidecar schedule`: workflows that are started at times. The words are those of Temporal's schedules.

What the commands do is in `operate`, which loads gRPC and is imported only by a command that runs.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli.exits import Exit, Failure
from sidecar.cli.flags import with_reach
from sidecar.cli.forms import Form

if TYPE_CHECKING:
    from sidecar.cli.operate.client import Client

_EXITS = (
    "Exit codes: 0 done; 1 the answer is no (no run was started); 2 a wrong option, setting or file; 3 no such "
    "schedule; 4 refused by the sidecar; 5 no sidecar answers."
)

app = typer.Typer(help="Start workflows at times: cron, intervals.", rich_markup_mode=None, epilog=_EXITS)
_Id = Annotated[str, typer.Argument(metavar="ID", help="ID of the schedule.", show_default=False)]
_Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="IDs of the schedules.", show_default=False)]
_Output = Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")]
_Workflow = Annotated[str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Name of the workflow.")]
_Cron = Annotated[
    list[str] | None,
    typer.Option("--cron", metavar="EXPR", help="Times, such as '0 2 * * MON-FRI' or @daily; repeatable."),
]
_Zone = Annotated[
    str | None, typer.Option("--time-zone", metavar="ZONE", help="Zone of the cron expressions [default: UTC].")
]
_Every = Annotated[str | None, typer.Option("--every", metavar="TIME", help="An interval, such as 90s or 1h30m.")]
_Offset = Annotated[
    str | None, typer.Option("--offset", metavar="TIME", help="How far its times are from the even ones.")
]
_Jitter = Annotated[str | None, typer.Option("--jitter", metavar="TIME", help="Put each time off by up to so much.")]
_Start = Annotated[str | None, typer.Option("--start", metavar="TIME", help="No time before: a date (UTC), or in 2h.")]
_End = Annotated[str | None, typer.Option("--end", metavar="TIME", help="No time after.")]
_Version = Annotated[str | None, typer.Option("--version", metavar="VERSION", help="Version of the workflow.")]
_Input = Annotated[str | None, typer.Option("--input", "-x", metavar="JSON", help="Its input, as JSON.")]
_Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.")]
_App = Annotated[str | None, typer.Option("--app-id", "-a", metavar="APP", help="App that runs it [default: own].")]
_Template = Annotated[
    str | None,
    typer.Option("--instance-id", "-i", metavar="TEMPLATE", help="IDs of the runs [default: {schedule}-{time}]."),
]
_Overlap = Annotated[
    str | None,
    typer.Option(
        "--overlap", metavar="POLICY", help="While a run is active: skip, queue-one, queue-all, terminate, allow."
    ),
]
_CatchUp = Annotated[
    str | None, typer.Option("--catch-up", metavar="TIME", help="How late a time may still start [default: 24h].")
]


def _defines(name: str, does: str) -> None:
    """Add the command of a name, which is given a definition, or what is to change of one."""

    @app.command(name, help=does)
    @with_reach
    def command(  # noqa: PLR0913 - its options
        flags: dict[str, object],
        *,
        schedule_id: _Id,
        workflow: _Workflow = None,
        cron: _Cron = None,
        time_zone: _Zone = None,
        every: _Every = None,
        offset: _Offset = None,
        jitter: _Jitter = None,
        start: _Start = None,
        end: _End = None,
        version: _Version = None,
        data: _Input = None,
        tags: _Tags = None,
        target: _App = None,
        instance_id: _Template = None,
        overlap: _Overlap = None,
        catch_up: _CatchUp = None,
        output: _Output = Form.SHORT,
    ) -> None:
        given = _given(locals())
        from sidecar.cli.operate import schedules  # noqa: PLC0415 - gRPC takes most of the import time

        do = {"create": schedules.create, "update": schedules.update}[name]
        do(_client(flags), given, output)


_KEYS = {
    "schedule_id": "id",
    "workflow": "workflow",
    "cron": "cron",
    "time_zone": "timeZone",
    "every": "every",
    "offset": "offset",
    "jitter": "jitter",
    "start": "start",
    "end": "end",
    "version": "version",
    "data": "inputText",
    "target": "appID",
    "instance_id": "instanceID",
    "overlap": "overlap",
    "catch_up": "catchUp",
}


def _given(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a definition by the keys that files have for them."""
    given = {key: options[name] for name, key in _KEYS.items()}
    tags = options["tags"]
    if isinstance(tags, list):
        pairs = [str(one).partition("=") for one in tags]
        wrong = next((key for key, equals, _ in pairs if not key or not equals), None)
        if wrong is not None:
            raise Failure(Exit.WRONG, f"--tag: {wrong[:80]!r} is no tag: give KEY=VALUE")
        given["tags"] = {key: value for key, _, value in pairs}
    return given


_defines("create", "Make a schedule.")
_defines("update", "Change what is given of a schedule.\n\nAn empty text takes away what there was.")


@app.command("apply")
@with_reach
def _apply(
    flags: dict[str, object],
    *,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="YAML or TOML; - for stdin.")],
    prune: Annotated[bool, typer.Option("--prune", help="Delete schedules that are not in the file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: _Output = Form.SHORT,
) -> None:
    """Make the schedules those of a file, after showing what changes.

    All of them are checked before any is changed.
    """
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.apply(_client(flags), file, prune=prune, dry_run=dry_run, sure=yes, form=output)


@app.command("list")
@with_reach
def _list(flags: dict[str, object], *, output: _Output = Form.SHORT) -> None:
    """List the schedules, with the next time and the last run of each."""
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.listing(_client(flags), output)


@app.command("get")
@with_reach
def _get(
    flags: dict[str, object],
    *,
    schedule_id: _Id,
    upcoming: Annotated[int, typer.Option("--next", min=1, max=50, metavar="COUNT", help="Next times shown.")] = 5,
    output: _Output = Form.SHORT,
) -> None:
    """Show all of one schedule.

    Its next times, its last runs, what was skipped and missed.
    """
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.single(_client(flags), schedule_id, upcoming, output)


@app.command("pause")
@with_reach
def _pause(
    flags: dict[str, object],
    *,
    ids: _Ids,
    reason: Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; `get` shows it.")] = "",
) -> None:
    """Start nothing until resumed; times of the pause do not come later."""
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.pause(_client(flags), ids, reason)


@app.command("resume")
@with_reach
def _resume(flags: dict[str, object], *, ids: _Ids) -> None:
    """Let paused schedules go on."""
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.resume(_client(flags), ids)


@app.command("trigger")
@with_reach
def _trigger(
    flags: dict[str, object], *, schedule_id: _Id, overlap: _Overlap = None, output: _Output = Form.SHORT
) -> None:
    """Start a run now and print its ID, also of a paused schedule."""
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.trigger(_client(flags), schedule_id, overlap or "", output)


@app.command("backfill")
@with_reach
def _backfill(
    flags: dict[str, object],
    *,
    schedule_id: _Id,
    first: Annotated[str, typer.Option("--from", metavar="TIME", help="A date (UTC), or so long ago (2d).")],
    last: Annotated[str, typer.Option("--to", metavar="TIME", help="The end of the range, which belongs to it.")],
    overlap: _Overlap = None,
) -> None:
    """Deal with past times as if they came now, one after the other.

    A time whose run is still there is not run again.
    """
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.backfill(_client(flags), schedule_id, first, last, overlap or "")


@app.command("delete")
@with_reach
def _delete(flags: dict[str, object], *, ids: _Ids) -> None:
    """Remove schedules; what they have started goes on."""
    from sidecar.cli.operate import schedules  # noqa: PLC0415 - as above

    schedules.delete(_client(flags), ids)


def _client(flags: Mapping[str, object]) -> "Client":
    from sidecar.cli.operate.client import Client  # noqa: PLC0415 - as above

    return Client(flags, os.environ)
