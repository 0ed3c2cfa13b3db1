"""What a command writes: on stdout what was asked for, as a table or as data; on stderr how it goes.

Colours only on a terminal, and not where NO_COLOR is set. In a pipe nothing is cut to a width.
"""

import json
import os
import shutil
import sys
from typing import IO, Any

import typer
import yaml
from rich.console import Console, RenderableType

from sidecar.cli.forms import Form

_ENDLESS = 100_000  # columns of what goes into a pipe
_NARROWEST = 40


def width() -> int | None:
    """Return the columns of the terminal; None if stdout is none."""
    return columns() if sys.stdout.isatty() else None


def columns() -> int:
    """Return the columns of the terminal that there is."""
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def in_ascii() -> bool:
    """Whether stdout takes ASCII alone."""
    return not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def show(shown: RenderableType) -> None:
    """Write a table, a tree or a text. What stdout has no mark for becomes a question mark."""
    to = console(sys.stdout, width())
    with to.capture() as written:
        to.print(shown)
    typer.echo("\n".join(line.rstrip(" ") for line in written.get().splitlines()), color=True)


def console(out: IO[str], columns: int | None) -> Console:
    """Return a console that writes as `out` can be read."""
    plain = columns is None or bool(os.environ.get("NO_COLOR"))
    reconfigure = getattr(out, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return Console(
        file=out,
        width=_ENDLESS if columns is None else columns,
        color_system=None if plain else "auto",
        no_color=plain,
        highlight=False,
        markup=False,
        emoji=False,
    )


def write(value: Any, form: Form) -> None:
    """Write data for programs."""
    if form is Form.YAML:
        typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(json.dumps(value, indent=2))


def note(text: str) -> None:
    """Say something beside what was asked for, in a line on stderr."""
    typer.echo(f"sidecar: {' '.join(text.split())}", err=True)


def is_asked_by_a_person() -> bool:
    """Whether somebody is there who can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()
