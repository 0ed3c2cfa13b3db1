"""What is to be started, worked out beforehand: settings with real ports, peers, commands, variables."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sidecar.config import app_environment, own_address
from sidecar.config import settings as config
from sidecar.config.options import BY_FIELD
from sidecar.config.run_file import Destination, Restart, RunApp
from sidecar.config.settings import ConfigError, Resolved, Settings, StartError

_STEP = 10  # between the ports of two apps
_MAX_PORT = 65535
# `-P`: a folder of the user's that is called as the package must not be taken for it.
_SIDECAR = (sys.executable, "-P", "-m", "sidecar", "run")
_TOKEN = "SIDECAR_API_TOKEN"  # noqa: S105 - the name of a variable

IsFree = Callable[[str, int], bool]
"""Whether a host and a port can be listened on."""


class Command(NamedTuple):
    """A process to start; `directory` None is that of this process."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """An app and its sidecar. `app` is None where only the sidecar is wanted."""

    settings: Settings
    sidecar: Command
    app: Command | None
    restart: Restart = Restart.NO
    app_log: Destination = Destination.CONSOLE
    sidecar_log: Destination = Destination.CONSOLE

    @property
    def name(self) -> str:
        return self.settings.app_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What holds for all: flags by setting, the variables of this process, and values of settings that nobody gives.

    `token` returns what callers of a sidecar with these settings show, "" for nothing.
    """

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    defaults: Mapping[str, object]
    is_free: IsFree
    token: Callable[[Settings], str]


def units(apps: Sequence[RunApp], wishes: Wishes) -> list[Unit]:
    """Work out what to start.

    Raises:
        ConfigError: a setting is wrong; the line names the app.
        StartError: a port that was asked for is taken.
    """
    resolved = [_resolved(app, wishes) for app in apps]
    claimed: dict[int, str] = {}
    for app, one in zip(apps, resolved, strict=True):
        _claim_asked(app.app_id, one, wishes.is_free, claimed)
    placed = [_placed(one, wishes.is_free, claimed) for one in resolved]
    return [_unit(app, _with_peers(one, placed), wishes) for app, one in zip(apps, placed, strict=True)]


def _resolved(app: RunApp, wishes: Wishes) -> Resolved:
    given = {name: value for name, value in wishes.flags.items() if value not in (None, [], ())}
    try:
        found = config.resolve({**app.settings, **given, "app_id": app.app_id}, wishes.environ)
    except ConfigError as error:
        raise ConfigError(f"{app.app_id}: {error}") from error
    unset = {name: value for name, value in wishes.defaults.items() if found.sources[name] == "default"}
    return _changed(found, unset)


def _changed(resolved: Resolved, values: Mapping[str, object]) -> Resolved:
    sources = {**resolved.sources, **dict.fromkeys(values, "here")}
    return Resolved(replace(resolved.settings, **values), sources)  # type: ignore[arg-type]


# --- ports ----------------------------------------------------------------------------------------------------------


def _listeners(settings: Settings) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return setting, host and ports of each listener."""
    return [
        ("grpc_port", settings.listen_host, settings.grpc_port),
        ("http_port", settings.listen_host, (settings.http_port,)),
        ("peer_port", settings.peer_host, (settings.peer_port,)),
    ]


def _is_asked(resolved: Resolved, name: str, ports: tuple[int, ...]) -> bool:
    return resolved.sources[name] not in ("default", "here") and 0 not in ports


def _claim_asked(app: str, resolved: Resolved, is_free: IsFree, claimed: dict[int, str]) -> None:
    for name, host, ports in _listeners(resolved.settings):
        for port in ports if _is_asked(resolved, name, ports) else ():
            where = f"{app}: port {port} ({resolved.sources[name]})"
            if port in claimed:
                raise ConfigError(f"{where} is that of {claimed[port]} too: give each listener its own")
            if not is_free(host, port):
                raise StartError(f"{where} is taken: stop what listens there, or choose another")
            claimed[port] = app


def _placed(resolved: Resolved, is_free: IsFree, claimed: dict[int, str]) -> Resolved:
    """Give a port to each listener that asked for none: the usual one or, if it is taken, one that is ten higher."""
    usual = config.DEFAULTS
    firsts = {"grpc_port": usual.grpc_port, "http_port": (usual.http_port,), "peer_port": (usual.peer_port,)}
    chosen: dict[str, object] = {}
    for name, host, ports in _listeners(resolved.settings):
        if not _is_asked(resolved, name, ports):
            wanted = [port or first for port, first in zip(ports, firsts[name], strict=False)]
            found = tuple(_next_free(host, port, is_free, claimed, resolved.settings.app_id) for port in wanted)
            chosen[name] = found if name == "grpc_port" else found[0]
    return _changed(resolved, chosen)


def _next_free(host: str, first: int, is_free: IsFree, claimed: dict[int, str], app: str) -> int:
    for port in count(first, _STEP):
        if port > _MAX_PORT:
            break
        if port not in claimed and is_free(host, port):
            claimed[port] = app
            return port
    raise StartError(f"{app}: there is no free port of {first}, {first + _STEP}, …: name one")


# --- peers, commands ------------------------------------------------------------------------------------------------


def _with_peers(resolved: Resolved, placed: Iterable[Resolved]) -> Resolved:
    """Tell a sidecar where the others are; an address that was given beats that."""
    own = resolved.settings
    others = [one.settings for one in placed if one.settings is not own and one.settings.namespace == own.namespace]
    found = {other.app_id: (_peer_address(other),) for other in others}
    return _changed(resolved, {"peers": MappingProxyType({**found, **own.peers})}) if found else resolved


def _peer_address(settings: Settings) -> str:
    return f"{own_address.in_address(own_address.reached(settings.peer_host))}:{settings.peer_port}"


def _unit(app: RunApp, resolved: Resolved, wishes: Wishes) -> Unit:
    settings, given = resolved.settings, [name for name, source in resolved.sources.items() if source != "default"]
    secret = {} if settings.api_token is None else {_TOKEN: settings.api_token.value}
    found = app_environment.variables(settings, token=wishes.token(settings), app_port=app.app_port)
    # A program that writes into a pipe keeps its output back: in Python this says not to.
    own = {"PYTHONUNBUFFERED": "1", **wishes.environ, **found, **app.env}
    return Unit(
        settings=settings,
        sidecar=Command((*_SIDECAR, *arguments(settings, given)), {**wishes.environ, **secret}),
        app=Command(app.command, own, app.directory) if app.command else None,
        restart=app.restart,
        app_log=app.app_log,
        sidecar_log=app.sidecar_log,
    )


def arguments(settings: Settings, names: Iterable[str]) -> list[str]:
    """Return the flags that give another process these settings; secrets have none."""
    found: list[str] = []
    for option in (BY_FIELD[name] for name in names):
        value = getattr(settings, option.field)
        if option.secret:
            continue
        if isinstance(value, bool):
            found.append(option.flag if value else f"--no-{option.flag[2:]}")
        else:
            found += [option.flag, config.shown(value)]
    return found
