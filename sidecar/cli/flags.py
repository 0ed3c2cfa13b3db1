"""The settings as flags of a command, made from the table in `config/options.py`.

Typer knows the options of a command from the parameters of its function, and offers no other way to name them. Five
commands have a flag for each of some forty settings: only here are parameters made instead of written.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated

import typer

from sidecar.config import options
from sidecar.config import settings as config

CONFIG_FILE = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="File with settings, in YAML or TOML."),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each setting, before the options of its own.

    What was given is the first argument of `command`: values by field name and "config", as `settings.load` takes
    them; None stands for a flag that was not given.
    """
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def with_flags(**given: object) -> None:
        command({name: given.pop(name) for name in _FLAGS}, **given)

    with_flags.__signature__ = inspect.Signature([*_FLAGS.values(), *own])  # type: ignore[attr-defined]
    return with_flags


def _flag(name: str, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _annotation(option: options.Option) -> object:
    """Return the type and the texts of a flag. Values stay text here: `config` checks those of every source alike."""
    text = option.help + _default(option)
    if not option.metavar:
        return Annotated[bool | None, typer.Option(f"{option.flag}/--no-{option.flag[2:]}", help=text)]
    if option.repeats:
        return Annotated[list[str] | None, typer.Option(option.flag, metavar=option.metavar, help=text)]
    return Annotated[str | None, typer.Option(option.flag, metavar=option.metavar, help=text)]


def _default(option: options.Option) -> str:
    if option.field == "log_format":
        return " [default: console on a terminal, else json]"
    default = config.shown(getattr(config.DEFAULTS, option.field))
    return f" [default: {default}]" if default else ""


_FLAGS: Mapping[str, inspect.Parameter] = MappingProxyType(
    {"config": _flag("config", CONFIG_FILE)}
    | {option.field: _flag(option.field, _annotation(option)) for option in options.OPTIONS if not option.secret}
)
