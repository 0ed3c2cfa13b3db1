"""The file of `sidecar run -f`: several apps, and what runs each. Dapr's `dapr.yaml` is one, with its names.

version: 1
common:                             # what all apps have, unless they say otherwise
  env: {LOG: debug}
apps:
  - appID: orders
    appDirPath: ./orders            # seen from the file, as all paths in it
    command: [python, app.py]
    daprGRPCPort: 50001
    restart: on-failure             # ours, as are the next ones: no, on-failure, always
    peers: {ml: 10.0.0.7:50002}     # apps that are not in the file
    sidecar: {retention: {completed: 7d}}   # any setting, by its key in a config file
"""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from sidecar.config import addresses, parsers
from sidecar.config.options import BY_FIELD
from sidecar.config.parsers import quoted
from sidecar.config.settings import ConfigError, read_file

E = TypeVar("E", bound=StrEnum)
FILE_NAME = "dapr.yaml"
_OF_FILE = ("version", "common", "apps")
_SETTINGS = MappingProxyType(
    {"daprGRPCPort": "grpc_port", "daprHTTPPort": "http_port", "daprInternalGRPCPort": "peer_port"}
)
_OURS = ("restart", "peers", "sidecar")
_USED = (
    *_SETTINGS,
    *("appID", "appDirPath", "appPort", "env", "command", "logLevel", "appLogDestination", "daprdLogDestination"),
    *_OURS,
)
_SLIP = 0.85  # how like a name must be to be meant
_LEVELS = MappingProxyType({"warn": "warning", "fatal": "error", "panic": "error"})


class Restart(StrEnum):
    """When a process that has ended is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Destination(StrEnum):
    """Where the output of a process goes."""

    CONSOLE = "console"
    FILE = "file"
    BOTH = "fileAndConsole"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunApp:
    """One app: what runs it, where, and what its sidecar is to have. Without a command it has a sidecar alone."""

    app_id: str
    directory: Path
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    app_port: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)  # of the sidecar, by key, as a config file has them
    restart: Restart = Restart.NO
    app_log: Destination = Destination.CONSOLE
    sidecar_log: Destination = Destination.CONSOLE


class RunFile(NamedTuple):
    """The apps of a file, in its order, and the keys in it that nothing is done with."""

    apps: tuple[RunApp, ...]
    unused: tuple[str, ...]


def read(path: Path) -> RunFile:
    """Read the file, or the `dapr.yaml` of a folder.

    Raises:
        ConfigError: it cannot be read or is wrong; one line that says where.
    """
    file = path / FILE_NAME if path.is_dir() else path
    content = read_file(file, "--run-file")
    try:
        return _read(file.parent, content)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error


def _read(folder: Path, content: Mapping[str, object]) -> RunFile:
    _known(content, _OF_FILE, f"it may have {', '.join(_OF_FILE)}")
    if content.get("version", 1) != 1:
        raise ValueError(f"version: {quoted(content['version'])} is not known here: it is 1")
    common, listed = content.get("common") or {}, content.get("apps")
    if not isinstance(common, dict):
        raise ValueError("common: write the keys of an app, for all of them")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise ValueError("apps: write a list of apps, each with its appID and its command")
    unused = _unused((common, *listed))
    apps = tuple(_app(folder, number, _merged(common, one)) for number, one in enumerate(listed, 1))
    _check_names(apps)
    return RunFile(apps, unused)


def _merged(common: Mapping[str, object], app: Mapping[str, object]) -> dict[str, object]:
    """What an app has, with what all have: of mappings both count, of the rest what the app says."""
    found = dict(common)
    for key, value in app.items():
        shared = common.get(key)
        found[key] = {**shared, **value} if isinstance(shared, Mapping) and isinstance(value, Mapping) else value
    return found


def _app(folder: Path, number: int, given: Mapping[str, object]) -> RunApp:
    where = given.get("appDirPath") or "."
    if not isinstance(where, str):
        raise ValueError(f"app {number}: appDirPath: {quoted(where)} is not a path")
    directory = folder / where
    name = given.get("appID") or directory.resolve().name
    port = given.get("appPort")
    try:
        app_id = parsers.app_id(name)
        return RunApp(
            app_id=app_id,
            directory=directory,
            command=_command(given.get("command")),
            env=_environment(given.get("env")),
            app_port=None if _is_any(port) else addresses.port(port),
            settings=_settings(folder, given),
            restart=_choice(Restart, given, "restart", Restart.NO),
            app_log=_choice(Destination, given, "appLogDestination", Destination.CONSOLE),
            sidecar_log=_choice(Destination, given, "daprdLogDestination", Destination.CONSOLE),
        )
    except ValueError as error:
        raise ValueError(f"app {quoted(name)}: {error}") from error


def _settings(folder: Path, given: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings of a sidecar under their keys in a config file; what stands in `sidecar` beats the rest."""
    own = given.get("sidecar") or {}
    if not isinstance(own, Mapping):
        raise ValueError("sidecar: write settings as in a config file, such as {data_dir: data}")
    _known(own, [name for name in BY_FIELD if name != "app_id"], "`sidecar run --help` lists them all")
    found: dict[str, object] = {name: given[key] for key, name in _SETTINGS.items() if not _is_any(given.get(key))}
    if given.get("logLevel"):
        found["log_level"] = _LEVELS.get(str(given["logLevel"]), given["logLevel"])
    if given.get("peers"):
        found["peers"] = given["peers"]
    return MappingProxyType({**found, **{str(name): _from(folder, str(name), raw) for name, raw in own.items()}})


def _from(folder: Path, name: str, raw: object) -> object:
    """Return a setting; one that is a path is seen from the file."""
    return str(folder / raw) if BY_FIELD[name].parse is parsers.path and isinstance(raw, str) and raw else raw


def _is_any(port: object) -> bool:
    """Whether a port is left to us: Dapr's file says so by 0 or a number below it."""
    return port is None or (isinstance(port, int) and not isinstance(port, bool) and port <= 0)


def _command(raw: object) -> tuple[str, ...]:
    if raw is None:
        return ()
    if isinstance(raw, str):
        return tuple(shlex.split(raw))
    if isinstance(raw, list) and all(isinstance(part, str | int | float) for part in raw):
        return tuple(str(part) for part in raw)
    raise ValueError(f"command: {quoted(raw)} is not a command: write a list, such as [python, app.py]")


def _environment(raw: object) -> Mapping[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or any(isinstance(value, Mapping | list) for value in raw.values()):
        raise ValueError("env: write name: value, one a line")
    return {str(name): _as_text(value) for name, value in raw.items()}


def _as_text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
    return str(value)


def _choice(kind: type[E], given: Mapping[str, object], key: str, default: E) -> E:
    raw = given.get(key)
    if raw is None:
        return default
    word = "no" if raw is False else raw  # what YAML makes of a bare `no`
    if word not in list(kind):
        raise ValueError(f"{key}: {quoted(raw)} is none of {', '.join(kind)}")
    return kind(str(word))


def _known(given: Mapping[Any, object], known: Sequence[str], else_hint: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else else_hint
            raise ValueError(f"{quoted(key)} is not known: {hint}")


def _unused(parts: Iterable[Mapping[object, object]]) -> tuple[str, ...]:
    """Return the keys that nothing is done with; what can only be a slip is refused."""
    found = {str(key): None for part in parts for key in part if key not in _USED}
    for key in found:
        if close := difflib.get_close_matches(key, _USED, n=1, cutoff=_SLIP):
            raise ValueError(f"{quoted(key)} is not known: did you mean {close[0]}?")
    return tuple(found)


def _check_names(apps: tuple[RunApp, ...]) -> None:
    seen: set[str] = set()
    for app in apps:
        if app.app_id.lower() in seen:
            raise ValueError(f"{app.app_id!r} is there twice (case does not count): give each app its own appID")
        seen.add(app.app_id.lower())
