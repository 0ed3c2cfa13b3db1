"""The settings as flags of a command, made from the table in `config/options.py`.

Typer knows the options of a command from the parameters of its function, and offers no other way to name them. Some
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
    return _with_flags(command, _FLAGS, first=True)


def with_sidecar(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags that say which sidecar is asked, behind the options of its own.

    What was given is the first argument of `command`: values by field name, and "config", as `settings.some` takes
    them, with "target_app" and "target_namespace" for the app that the command is about.
    """
    return _with_flags(command, {**_REACH, **_TARGET}, first=False)


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_sidecar`, with the options that say which workflows: "names", "statuses", "max_age", "min_age"."""
    return _with_flags(command, {**_FILTER, **_REACH, **_TARGET}, first=False)


def with_choice(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_filter`, with "every" for all that the filter leaves, and "yes" for who is sure of it."""
    return _with_flags(command, {**_EVERY, **_FILTER, **_REACH, **_TARGET}, first=False)


def with_reach(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_sidecar`, for a command that is about the sidecar itself."""
    return _with_flags(command, _REACH, first=False)


def _with_flags(
    command: Callable[..., None], flags: Mapping[str, inspect.Parameter], *, first: bool
) -> Callable[..., None]:
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def with_flags(**given: object) -> None:
        command({name: given.pop(name) for name in flags}, **given)

    every = [*flags.values(), *own] if first else [*own, *flags.values()]
    with_flags.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
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
_REACH: Mapping[str, inspect.Parameter] = MappingProxyType(
    {name: _FLAGS[name] for name in ("config", "grpc_port", "listen_host", "api_token_file", "app_cert")}
)
_TARGET: Mapping[str, inspect.Parameter] = MappingProxyType(
    {
        "target_app": _flag(
            "target_app",
            Annotated[
                str | None,
                typer.Option("--app-id", "-a", metavar="APP", help="App of the workflow [default: the sidecar's own]."),
            ],
        ),
        "target_namespace": _flag(
            "target_namespace",
            Annotated[str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace of that app.")],
        ),
    }
)
_EVERY: Mapping[str, inspect.Parameter] = MappingProxyType(
    {
        "every": _flag(
            "every",
            Annotated[
                bool | None, typer.Option("--all", help="All to which it can be done, or those that the filters leave.")
            ],
        ),
        "yes": _flag(
            "yes", Annotated[bool | None, typer.Option("--yes", "-y", help="Do not ask before many are changed.")]
        ),
    }
)
_FILTER: Mapping[str, inspect.Parameter] = MappingProxyType(
    {
        "names": _flag(
            "names",
            Annotated[
                list[str] | None,
                typer.Option("--filter-name", "-w", metavar="NAME", help="Only of this name, or pattern; repeatable."),
            ],
        ),
        "statuses": _flag(
            "statuses",
            Annotated[
                list[str] | None,
                typer.Option(
                    "--filter-status", "-s", metavar="STATUS", help="Only in this status, such as FAILED; repeatable."
                ),
            ],
        ),
        "max_age": _flag(
            "max_age",
            Annotated[
                str | None,
                typer.Option(
                    "--filter-max-age", "-m", metavar="TIME", help="Only created since: 1h30m, 7d, 2026-11-30."
                ),
            ],
        ),
        "min_age": _flag(
            "min_age",
            Annotated[str | None, typer.Option("--filter-min-age", metavar="TIME", help="Only created before that.")],
        ),
    }
)
