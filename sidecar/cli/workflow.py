"""`sidecar workflow`: the verbs, flags and words of `dapr workflow`, and some beside them.

What they do is in `operate`, which loads gRPC and is imported only by a command that runs.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli import exits
from sidecar.cli.flags import with_choice, with_filter, with_sidecar
from sidecar.cli.forms import Form

if TYPE_CHECKING:
    from sidecar.cli.operate.changes import Chosen
    from sidecar.cli.operate.client import Client
    from sidecar.cli.operate.filters import Filter

app = typer.Typer(
    help="List, see, start and steer the workflows of an app, by its sidecar.", rich_markup_mode=None, epilog=exits.TEXT
)
_Id = Annotated[str, typer.Argument(metavar="ID", help="ID of the workflow.", show_default=False)]
_Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="IDs of the workflows.", show_default=False)]
_Output = Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")]
_Input = Annotated[str | None, typer.Option("--input", "-x", metavar="JSON", help="Data, as JSON.")]
_Reason = Annotated[str | None, typer.Option("--reason", "-r", metavar="TEXT", help="Why; the history keeps it.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before many are changed.")]
_Timeout = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="How long to wait, such as 90s [default: for ever].")
]
_Recursive = Annotated[bool, typer.Option(help="With the children, in every app.")]


@app.command("list")
@with_filter
def _list(
    flags: dict[str, object],
    *,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="COUNT", help="At most so many; 0: all [default: 1000 in a table].")
    ] = None,
    output: _Output = Form.SHORT,
) -> None:
    """List workflows, and why each waits.

    The oldest are the first.
    """
    from sidecar.cli.operate import reads  # noqa: PLC0415 - gRPC takes most of the import time

    reads.listing(_client(flags), _filter(flags), output, limit)


@app.command("get")
@with_sidecar
def _get(flags: dict[str, object], *, instance_id: _Id, output: _Output = Form.SHORT) -> None:
    """Show all of one workflow.

    Status, times, input, output, failure, and why it waits and what to do.
    """
    from sidecar.cli.operate import reads  # noqa: PLC0415 - as above

    reads.single(_client(flags), instance_id, output)


@app.command("history")
@with_sidecar
def _history(flags: dict[str, object], *, instance_id: _Id, output: _Output = Form.SHORT) -> None:
    """Draw what ran when, and in which app.

    As a timeline; with -o wide all events are in a table.
    """
    from sidecar.cli.operate import reads  # noqa: PLC0415 - as above

    reads.past(_client(flags), instance_id, output)


@app.command("tree")
@with_sidecar
def _tree(
    flags: dict[str, object],
    *,
    instance_id: _Id,
    depth: Annotated[int, typer.Option(min=1, max=64, help="Levels that are shown.")] = 16,
    output: _Output = Form.SHORT,
) -> None:
    """Show it with its children in all apps.

    For each part: what it waits for, why, since when, and what to do.
    """
    from sidecar.cli.operate import reads  # noqa: PLC0415 - as above

    reads.whole(_client(flags), instance_id, depth, output)


@app.command("wait")
@with_sidecar
def _wait(
    flags: dict[str, object],
    *,
    instance_id: _Id,
    start: Annotated[bool, typer.Option("--start", help="Wait until it has begun, and not for its end.")] = False,
    timeout: _Timeout = "",
    output: _Output = Form.SHORT,
) -> None:
    """Wait until a workflow has ended.

    Then show it. Exit code 0 if it has completed, 1 if it has ended in another way, 6 if the time is over.
    """
    from sidecar.cli.operate import reads  # noqa: PLC0415 - as above

    reads.wait(_client(flags), instance_id, begun=start, seconds=_seconds(timeout), form=output)


@app.command("run")
@with_sidecar
def _run(  # noqa: PLR0913 - its options
    flags: dict[str, object],
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the workflow.", show_default=False)],
    instance_id: Annotated[
        str, typer.Option("--instance-id", "-i", metavar="ID", help="Its ID [default: a fresh one].")
    ] = "",
    data: _Input = None,
    start_time: Annotated[
        str, typer.Option("--start-time", "-s", metavar="TIME", help="When it starts: a date, or in so long (10m).")
    ] = "",
    version: Annotated[str | None, typer.Option("--version", metavar="VERSION", help="Its version.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and show it.")] = False,
    timeout: _Timeout = "",
    output: _Output = Form.SHORT,
) -> None:
    """Start a workflow and print its ID."""
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    wanted = changes.Start(name, instance_id, data, start_time, version, tuple(tags or ()))
    changes.start(_client(flags), wanted, waits=wait, seconds=_seconds(timeout), form=output)


@app.command("raise-event")
@with_choice
def _raise_event(
    flags: dict[str, object],
    *,
    target: Annotated[
        str,
        typer.Argument(
            metavar="ID/EVENT", help="ID and name of the event; with --all the name alone.", show_default=False
        ),
    ],
    data: _Input = None,
) -> None:
    """Send an external event to a workflow."""
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    every = bool(flags["every"])
    instance_id, _, event = ("", "", target) if every else target.rpartition("/")
    if not event or not (instance_id or every):
        raise typer.BadParameter(f"{target!r} is not ID/EVENT", param_hint="ID/EVENT")
    ids = None if every else [instance_id]
    chosen = _chosen(flags, ids)
    changes.raise_event(_client(flags), chosen, event, data)


@app.command("suspend")
@with_choice
def _suspend(
    flags: dict[str, object],
    *,
    ids: _Ids = None,
    reason: _Reason = None,
) -> None:
    """Pause workflows until they are resumed."""
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    chosen = _chosen(flags, ids)
    changes.suspend(_client(flags), chosen, reason)


@app.command("resume")
@with_choice
def _resume(
    flags: dict[str, object],
    *,
    ids: _Ids = None,
    reason: _Reason = None,
) -> None:
    """Let paused or parked workflows go on.

    Parked are those that have cost workers too often.
    """
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    chosen = _chosen(flags, ids)
    changes.resume(_client(flags), chosen, reason)


@app.command("terminate")
@with_choice
def _terminate(
    flags: dict[str, object],
    *,
    ids: _Ids = None,
    result: Annotated[str | None, typer.Option("--output", "-o", metavar="JSON", help="Their output.")] = None,
    recursive: _Recursive = True,
    force: Annotated[bool, typer.Option("--force", help="Also those that are stalled.")] = False,
) -> None:
    """End workflows now."""
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    chosen = _chosen(flags, ids)
    changes.terminate(_client(flags), chosen, result, recursive=recursive, force=force)


@app.command("purge")
@with_sidecar
def _purge(  # noqa: PLR0913 - its options
    flags: dict[str, object],
    *,
    ids: _Ids = None,
    every: Annotated[bool, typer.Option("--all", help="All that have ended.")] = False,
    older_than: Annotated[
        str,
        typer.Option(
            "--all-older-than", metavar="TIME", help="All that have ended, created before that (24h, a date)."
        ),
    ] = "",
    statuses: Annotated[
        list[str] | None,
        typer.Option("--all-filter-status", "-s", metavar="STATUS", help="Of those only in this status; repeatable."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--all-filter-name", "-w", metavar="NAME", help="Of those only of this name; repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also those that have not ended.")] = False,
    recursive: _Recursive = True,
    yes: _Yes = False,
) -> None:
    """Remove workflows that have ended.

    Their histories go too, and their children in every app.
    """
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    given = {
        "every": every or bool(older_than),
        "names": names,
        "statuses": statuses,
        "min_age": older_than,
        "yes": yes,
    }
    chosen = _chosen(given, ids)
    changes.purge(_client(flags), chosen, recursive=recursive, force=force)


@app.command("rerun")
@with_sidecar
def _rerun(
    flags: dict[str, object],
    *,
    instance_id: _Id,
    event: Annotated[
        int, typer.Option("--event-id", "-e", min=0, metavar="EVENT", help="Number of the event in its history.")
    ] = 0,
    new_id: Annotated[
        str | None, typer.Option("--new-instance-id", metavar="ID", help="ID of the new one [default: a fresh one].")
    ] = None,
    data: _Input = None,
    output: _Output = Form.SHORT,
) -> None:
    """Run a workflow again from an event.

    A new one is made, whose ID is printed.
    """
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    changes.rerun(_client(flags), changes.Rerun(instance_id, event, new_id, data), output)


@app.command("restart")
@with_choice
def _restart(
    flags: dict[str, object],
    *,
    ids: _Ids = None,
    new_id: Annotated[bool, typer.Option("--new-instance-id", help="Under a fresh ID.")] = False,
) -> None:
    """Start workflows once more.

    With the same name, input and tags; their IDs are printed.
    """
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    chosen = _chosen(flags, ids)
    changes.restart(_client(flags), chosen, new_id=new_id)


@app.command("rewind")
@with_choice
def _rewind(
    flags: dict[str, object],
    *,
    ids: _Ids = None,
    reason: _Reason = None,
) -> None:
    """Let failed ones go on.

    From before their failures: what was done is not done again.
    """
    from sidecar.cli.operate import changes  # noqa: PLC0415 - as above

    chosen = _chosen(flags, ids)
    changes.rewind(_client(flags), chosen, reason)


def _client(flags: Mapping[str, object]) -> "Client":
    from sidecar.cli.operate.client import Client  # noqa: PLC0415 - as above

    return Client(flags, os.environ)


def _filter(flags: Mapping[str, object]) -> "Filter":
    from sidecar.cli.operate.filters import Filter, joined  # noqa: PLC0415 - as above

    names, statuses = (joined(flags.get(name)) for name in ("names", "statuses"))
    return Filter(names, statuses, str(flags.get("max_age") or ""), str(flags.get("min_age") or ""))


def _chosen(flags: Mapping[str, object], ids: list[str] | None) -> "Chosen":
    from sidecar.cli.operate.changes import Chosen  # noqa: PLC0415 - as above

    return Chosen(tuple(ids or ()), bool(flags["every"]), _filter(flags), bool(flags["yes"]))


def _seconds(text: str) -> float | None:
    from sidecar.config import durations  # noqa: PLC0415 - as above

    try:
        return durations.duration(text) / 1e6 if text else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from error
