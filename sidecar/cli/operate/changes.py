"""The commands that change workflows: one at a time, several, or all that a filter finds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import typer
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.clock import Clock
from sidecar.cli import screen, when
from sidecar.cli.exits import Exit, Failure
from sidecar.cli.forms import Form
from sidecar.cli.operate import reads
from sidecar.cli.operate.client import Client, asking
from sidecar.cli.operate.filters import Filter, found
from sidecar.cli.progress import progress
from sidecar.cli.show import words
from sidecar.core.model import Status
from sidecar.edge import methods
from sidecar.schema import admin_pb2 as admin
from sidecar.schema import taskhub_pb2 as pb

_AT_ONCE = 20
_MOST_TOLD = 20  # refusals that are written one by one
_PURGED_AT_ONCE = 100
_ENDED = tuple(one.name for one in Status if one.terminal)
_ACTIVE = tuple(one.name for one in Status if not one.terminal)


class Chosen(NamedTuple):
    """The workflows that a command is about: these, or, with `every`, all that a filter finds."""

    ids: tuple[str, ...]
    every: bool
    wanted: Filter
    sure: bool  # nobody is asked

    def check(self) -> None:
        """Raise Failure if nothing is named, or too much."""
        if self.ids and self.every:
            raise Failure(Exit.WRONG, "give IDs, or --all with filters, and not both")
        if not self.ids and not self.every:
            raise Failure(Exit.WRONG, "no workflow is named", "give their IDs, or --all, with filters for some of them")
        if self.wanted != Filter() and not self.every:
            raise Failure(Exit.WRONG, "a filter goes with --all, and not with IDs")


class Verb(NamedTuple):
    """What is done: as a question asks it, as a report says it, and to workflows in which status, if none is named."""

    asked: str
    done: str
    statuses: tuple[str, ...] = _ACTIVE


Change = Callable[[Client, str], Awaitable[Any]]


def each(client: Client, chosen: Chosen, verb: Verb, change: Change) -> None:
    """Do something with each of the workflows, and say for how many it was done.

    Raises Failure: of one, what the sidecar has refused; of several, that some were refused, which are named on stderr.
    """
    chosen.check()

    async def ask(reached: Client) -> list[tuple[str, Failure]]:
        ids = await _ids(reached, chosen, verb)
        refused: list[tuple[str, Failure]] = []
        with progress(f"workflows {verb.done}") as told:
            for start in range(0, len(ids), _AT_ONCE):
                part = ids[start : start + _AT_ONCE]
                ends = await asyncio.gather(*(_ended(change, reached, one) for one in part))
                refused += [(one, end) for one, end in zip(part, ends, strict=True) if end is not None]
                told(start + len(part), len(ids))
        screen.note(f"{words.count(len(ids) - len(refused), 'workflow')} {verb.done}")
        return refused

    if len(chosen.ids) == 1:
        asking(client, lambda reached: change(reached, chosen.ids[0]))
        screen.note(f"workflow '{chosen.ids[0]}' of app '{client.home.app}' {verb.done}")
        return
    _tell(asking(client, ask))


async def _ended(change: Change, client: Client, instance_id: str) -> Failure | None:
    try:
        await change(client, instance_id)
    except Failure as failure:
        return failure
    return None


def _tell(refused: Sequence[tuple[str, Failure]]) -> None:
    for instance_id, failure in refused[:_MOST_TOLD]:
        screen.note(f"{instance_id}: {failure}")
    if refused:
        more = len(refused) - _MOST_TOLD
        raise Failure(
            Exit.NO, f"{words.count(len(refused), 'workflow')} refused" + (f", {more} not shown" if more > 0 else "")
        )


async def _ids(client: Client, chosen: Chosen, verb: Verb) -> Sequence[str]:
    """Return the IDs of those that are meant; a person is asked first if they were not named."""
    if not chosen.every:
        return list(dict.fromkeys(chosen.ids))
    wanted = chosen.wanted if chosen.wanted.statuses else chosen.wanted._replace(statuses=verb.statuses)
    ids: list[str] = []
    with progress("workflows found") as told:
        async for state in found(client, wanted, Clock().now()):
            ids.append(state.instance_id)
            told(len(ids), None)
    question = f"{verb.asked} {words.count(len(ids), 'workflow')} of app '{client.home.app}'?"
    if ids and not chosen.sure and screen.is_asked_by_a_person() and not typer.confirm(question, err=True):
        raise Failure(Exit.NO, "nothing was done")
    return ids


def raise_event(client: Client, chosen: Chosen, name: str, data: str | None) -> None:
    """Send an external event."""

    def change(reached: Client, instance_id: str) -> Awaitable[None]:
        request = pb.RaiseEventRequest(instance_id=instance_id, name=name, input=_text(data))
        return reached.command(f"{methods.TASKHUB}RaiseEvent", request)

    each(client, chosen, Verb(f"Send event '{name}' to", f"got event '{words.clean(name)}'"), change)


def suspend(client: Client, chosen: Chosen, reason: str | None) -> None:
    """Pause workflows."""
    each(client, chosen, Verb("Suspend", "suspended"), _reasoned(f"{methods.TASKHUB}SuspendInstance", reason))


def resume(client: Client, chosen: Chosen, reason: str | None) -> None:
    """Let paused workflows go on."""
    each(client, chosen, Verb("Resume", "resumed"), _reasoned(f"{methods.TASKHUB}ResumeInstance", reason))


def _reasoned(method: str, reason: str | None) -> Change:
    def change(reached: Client, instance_id: str) -> Awaitable[None]:
        return reached.command(method, pb.ReasonRequest(instance_id=instance_id, reason=_text(reason)))

    return change


def terminate(client: Client, chosen: Chosen, output: str | None, *, recursive: bool, force: bool) -> None:
    """End workflows, with what below them runs; by force also those that are stalled."""

    def change(reached: Client, instance_id: str) -> Awaitable[None]:
        if force:
            reached.own_only("a terminate by force")
            reason = output or "terminated by an operator"
            by_force = admin.TerminateRequest(instance_id=instance_id, reason=reason, recursive=recursive)
            return reached.command(f"{methods.ADMIN}Terminate", by_force)
        request = pb.TerminateRequest(instance_id=instance_id, output=_text(output), recursive=recursive)
        return reached.command(f"{methods.TASKHUB}TerminateInstance", request)

    each(client, chosen, Verb("Terminate", "terminated"), change)


def rewind(client: Client, chosen: Chosen, reason: str | None) -> None:
    """Let workflows that have failed go on from before their failures."""

    def change(reached: Client, instance_id: str) -> Awaitable[None]:
        return reached.command(
            f"{methods.TASKHUB}RewindInstance", pb.RewindInstanceRequest(instance_id=instance_id, reason=_text(reason))
        )

    each(client, chosen, Verb("Rewind", "rewound", (Status.FAILED.name,)), change)


def restart(client: Client, chosen: Chosen, *, new_id: bool) -> None:
    """Start once more what workflows were started with."""

    async def change(reached: Client, instance_id: str) -> None:
        request = pb.RestartInstanceRequest(instance_id=instance_id, with_new_instance_id=new_id)
        made = await reached.call(f"{methods.TASKHUB}RestartInstance", request, pb.RestartInstanceResponse)
        typer.echo(made.instance_id)

    each(client, chosen, Verb("Restart", "restarted", _ENDED), change)


def purge(client: Client, chosen: Chosen, *, recursive: bool, force: bool) -> None:
    """Remove workflows. Of all that a filter finds those that have not ended are left alone, unless by force."""
    chosen.check()
    if not chosen.every:
        _purge_named(client, chosen, recursive=recursive, force=force)
        return
    verb = Verb("Purge", "purged", () if force else _ENDED)

    async def ask(reached: Client) -> tuple[int, bool]:
        ids = await _ids(reached, chosen, verb)
        removed, complete = 0, True
        with progress("workflows purged") as told:
            for start in range(0, len(ids), _PURGED_AT_ONCE):
                part = ids[start : start + _PURGED_AT_ONCE]
                gone, reached_all = await reached.purge(part, recursive=recursive, force=force)
                removed, complete = removed + gone, complete and reached_all
                told(start + len(part), len(ids))
        return removed, complete

    removed, complete = asking(client, ask)
    screen.note(f"{words.count(removed, 'workflow')} purged, children included")
    if not complete:
        text = "some are kept: an app that has children of theirs could not be reached"
        raise Failure(Exit.NO, text, "`sidecar peers` shows which; purge once more when it can be")


def _purge_named(client: Client, chosen: Chosen, *, recursive: bool, force: bool) -> None:
    def change(reached: Client, instance_id: str) -> Awaitable[int]:
        return reached.purge_one(instance_id, recursive=recursive, force=force)

    each(client, chosen, Verb("Purge", "purged", _ENDED), change)


class Start(NamedTuple):
    """What `run` starts."""

    name: str
    instance_id: str
    data: str | None
    start_time: str
    version: str | None
    tags: tuple[str, ...]


def start(client: Client, wanted: Start, *, waits: bool, seconds: float | None, form: Form) -> None:
    """Start a workflow and write its ID, or wait for its end and write that."""
    request = _start_request(wanted)
    instance_id = asking(client, lambda reached: reached.start(request))
    text = f"workflow '{words.clean(wanted.name)}' started in app '{client.home.app}'"
    screen.note(f"{text}: `sidecar workflow get {instance_id}` shows it")
    if waits:
        reads.wait(client, instance_id, begun=False, seconds=seconds, form=form)
    elif form.is_data:
        screen.write({"instanceID": instance_id, "appID": client.home.app, "namespace": client.home.namespace}, form)
    else:
        typer.echo(instance_id)


def _start_request(wanted: Start) -> pb.CreateInstanceRequest:
    request = pb.CreateInstanceRequest(
        instance_id=wanted.instance_id, name=wanted.name, input=_text(wanted.data), version=_text(wanted.version)
    )
    for tag in wanted.tags:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise Failure(Exit.WRONG, f"--tag: {tag[:80]!r} is no tag: give KEY=VALUE")
        request.tags[key] = value
    if wanted.start_time:
        try:
            request.scheduled_start.FromMicroseconds(when.moment(wanted.start_time, Clock().now(), 1))
        except ValueError as error:
            raise Failure(Exit.WRONG, f"--start-time: {error}") from error
    return request


class Rerun(NamedTuple):
    """What `rerun` does: from which event of which workflow, under which ID, with which input for what began there."""

    instance_id: str
    event: int
    new_id: str | None
    data: str | None


def rerun(client: Client, wanted: Rerun, form: Form) -> None:
    """Run a workflow again from an event of its history, and write the ID of the new one."""
    request = pb.RerunRequest(
        source_instance_id=wanted.instance_id,
        event_id=wanted.event,
        new_instance_id=wanted.new_id,
        input=_text(wanted.data),
        overwrite_input=wanted.data is not None,
    )
    made = asking(
        client, lambda reached: reached.call(f"{methods.TASKHUB}RerunWorkflowFromEvent", request, pb.RerunResponse)
    )
    screen.note(f"workflow '{wanted.instance_id}' runs again from event {wanted.event} under a new ID")
    if form.is_data:
        screen.write({"instanceID": made.new_instance_id, "appID": client.home.app}, form)
    else:
        typer.echo(made.new_instance_id)


def _text(given: str | None) -> StringValue | None:
    return None if given is None else StringValue(value=given)
