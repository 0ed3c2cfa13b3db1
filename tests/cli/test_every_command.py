"""Every command there is: in a narrow and a wide terminal, in a pipe, without colour, and in each form of its answer.

The tables have all commands: one without a row fails.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sidecar.cli import main
from tests.cli.live import Command, Ended
from tests.inprocess.sidecars import Node

pytestmark = pytest.mark.slow

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
Arguments = Callable[[Node, str, Path], list[str]]


def own(node: Node, *more: str) -> list[str]:
    """What a command is told that is about one app's own settings or store."""
    where = ["--app-id", node.sidecar.settings.app_id, "--data-dir", str(node.sidecar.settings.data_dir)]
    return [*where, "--http-port", str(node.ports.http), *more]


def file_of_schedules(folder: Path, one: str) -> str:
    """A file with one schedule."""
    file = folder / f"{one}.yaml"
    file.write_text(f"schedules: [{{id: {one}-f, every: 1h, workflow: idle}}]")
    return str(file)


SCHEDULE, HOURLY = "hourly", ["--workflow", "idle", "--every", "1h"]
# What is written is a table, a tree, a timeline: it fits the terminal. `one` is an instance of that name that runs.
DRAWN: dict[str, Arguments] = {
    "workflow list": lambda node, one, folder: [],
    "workflow get": lambda node, one, folder: ["c"],
    "workflow history": lambda node, one, folder: ["a"],
    "workflow tree": lambda node, one, folder: ["c"],
    "workflow wait": lambda node, one, folder: ["a"],
    "peers": lambda node, one, folder: [],
    "workers": lambda node, one, folder: [],
    "version": lambda node, one, folder: [],
    "doctor": lambda node, one, folder: own(node),
    "schedule list": lambda node, one, folder: [],
    "schedule get": lambda node, one, folder: [SCHEDULE],
    "config": lambda node, one, folder: own(node),
}
# One line for each thing that was done, or nothing but a word on stderr.
TOLD: dict[str, Arguments] = {
    "workflow suspend": lambda node, one, folder: [one],
    "workflow resume": lambda node, one, folder: [one],
    "workflow raise-event": lambda node, one, folder: [f"{one}/other"],
    "workflow terminate": lambda node, one, folder: [one],
    "workflow restart": lambda node, one, folder: [one, "--new-instance-id"],
    "workflow purge": lambda node, one, folder: [one],
    "workflow run": lambda node, one, folder: ["idle", "-i", f"{one}-new"],
    "workflow rerun": lambda node, one, folder: ["a", "-e", "1", "--new-instance-id", f"{one}-again"],
    "workflow rewind": lambda node, one, folder: ["b"],
    "schedule create": lambda node, one, folder: [f"{one}-s", *HOURLY],
    "schedule pause": lambda node, one, folder: [f"{one}-s"],
    "schedule resume": lambda node, one, folder: [f"{one}-s"],
    "schedule trigger": lambda node, one, folder: [f"{one}-s"],
    "schedule backfill": lambda node, one, folder: [f"{one}-s", "--from", "2h", "--to", "1m"],
    "schedule update": lambda node, one, folder: [f"{one}-s", "--every", "2h"],
    "schedule apply": lambda node, one, folder: ["-f", file_of_schedules(folder, one), "--yes"],
    "schedule delete": lambda node, one, folder: [f"{one}-s"],
    "store check": lambda node, one, folder: own(node),
    "store backup": lambda node, one, folder: own(node, "--name", f"{one}.db"),
    "store restore": lambda node, one, folder: [
        *("--app-id", "orders", "--data-dir", str(folder / one)),
        str(node.sidecar.settings.data_dir / "backups" / f"{one}.db"),
    ],
    "health": lambda node, one, folder: ["--http-port", str(node.ports.http)],
    "dev-ca": lambda node, one, folder: ["--out", str(folder / one), "orders"],
}
ELSEWHERE = {"run": "it serves until it is stopped: tests/blackbox/test_run.py and tests/launch"}
NO_PORT = ("config", "health", "dev-ca")  # they take no --grpc-port, or need none


def names(command: Any, before: str = "") -> Iterator[str]:
    """All commands, each with those that it is below."""
    if not hasattr(command, "commands"):
        yield before
        return
    for name, below in command.commands.items():
        yield from names(below, f"{before} {name}".strip())


def test_the_tables_have_every_command() -> None:
    assert {*names(typer.main.get_command(main.app))} == {*DRAWN, *TOLD, *ELSEWHERE}


async def every(node: Node, run: Command, folder: Path, one: str, width: int) -> dict[str, Ended]:
    """How each command ends at a width; those that change something have an instance of their own."""
    await node.begin(one, "idle")
    await run("schedule", "create", SCHEDULE, *HOURLY)
    ended = {}
    for name, arguments in {**DRAWN, **TOLD}.items():
        if name == "workflow rewind":
            await node.outcome("b")
        at = name not in NO_PORT and name != "store restore"
        ended[name] = await run(*name.split(), *arguments(node, one, folder), width=width, at=at)
    return ended


@pytest.mark.parametrize("width", [40, 200])
async def test_in_a_terminal_what_is_drawn_fits_it(shop: Node, run: Command, tmp_path: Path, width: int) -> None:
    for name, ended in (await every(shop, run, tmp_path, f"i{width}", width)).items():
        assert ended.code == 0, (name, ended.err)
        lines = ESCAPE.sub("", ended.out).splitlines()
        assert "\x1b" not in "".join(lines), name
        if name in DRAWN:
            assert lines, name
            assert max(map(len, lines)) <= width, name


@pytest.mark.parametrize("plain", ["a pipe", "no colour"])
async def test_in_a_pipe_or_without_colour_there_are_no_escapes(
    shop: Node, run: Command, tmp_path: Path, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = plain == "a pipe"
    if not piped:
        monkeypatch.setenv("NO_COLOR", "1")
    for name, ended in (await every(shop, run, tmp_path, "i", 0 if piped else 80)).items():
        assert ended.code == 0, (name, ended.err)
        assert "\x1b" not in ended.out + ended.err, name
        assert not piped or "…" not in ended.out, name
        assert not any(line.endswith(" ") for line in ended.out.splitlines()), name


async def test_each_form_of_an_answer_is_there_for_every_command_that_lists(
    shop: Node, run: Command, tmp_path: Path
) -> None:
    """JSON and YAML say the same."""
    await run("schedule", "create", SCHEDULE, *HOURLY)
    for name, arguments in DRAWN.items():
        given = arguments(shop, "", tmp_path)
        forms = {
            form: await run(*name.split(), *given, "-o", form, at=name not in NO_PORT)
            for form in ("short", "wide", "json", "yaml")
        }
        assert {form: ended.code for form, ended in forms.items()} == dict.fromkeys(forms, 0), name
        read = json.loads(forms["json"].out), yaml.safe_load(forms["yaml"].out)
        assert shape(read[0]) == shape(read[1]), name
        assert all(ended.out for ended in forms.values()), name


def shape(value: Any) -> Any:
    """The keys of data, without values, which change with the time."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else None


def test_a_wrong_option_is_exit_code_2_for_every_command() -> None:
    for name in (*DRAWN, *TOLD):
        ended = main.main([*name.split(), "--no-such-option"])
        assert ended == 2, name
