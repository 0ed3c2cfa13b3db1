"""The settings of one sidecar: read from flags, environment and file, checked once, then frozen.

Owns the defaults and the rules between settings; `options.py` has their names. Reads the config file and nothing
else; must not know who uses a setting.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from sidecar.config import addresses, formats, parsers
from sidecar.config.options import BY_FIELD, OPTIONS, Option
from sidecar.config.own_address import HTTP_PORT, reached
from sidecar.config.parsers import MOST_IN_CERTIFICATE, quoted

_CONFIG_VARIABLE = "SIDECAR_CONFIG"
_ALSO = MappingProxyType({"DAPR_API_TOKEN": "SIDECAR_API_TOKEN"})  # the first counts if the second is not given
# Kubernetes sets these for a Service whose name starts with "sidecar". They are not meant as settings, even where their
# name is that of one: a Service "sidecar-http" gives SIDECAR_HTTP_PORT=tcp://10.0.0.1:80.
_SERVICE_LINK = re.compile(
    r"SIDECAR_(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)=.*|PORT_\d+_(?:TCP|UDP|SCTP)\w*=.*|PORT=(?:tcp|udp|sctp)://.*)",
    re.DOTALL,
)
_PLAINTEXT = (
    "is not loopback: give --peer-cert, --peer-key and --peer-ca (`sidecar dev-ca` makes them for development), or "
    "accept plaintext peers with --insecure-peers"
)


class ConfigError(Exception):
    """A setting is missing or wrong. The text is one line: where it was given, what is wrong, what to do."""


class StartError(Exception):
    """The settings are sound, but the start failed (a taken port, a locked data directory). One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings. Durations are seconds, sizes bytes; port 0 means any free port."""

    app_id: str
    namespace: str = "default"
    grpc_port: tuple[int, ...] = (50001, 4001)
    http_port: int = HTTP_PORT
    listen_host: str = "localhost"  # both loopback addresses; an IPv6 address stands here without brackets
    insecure_listen: bool = False
    api_token: parsers.Secret | None = None
    api_token_file: Path | None = None
    app_cert: Path | None = None
    app_key: Path | None = None
    peer_port: int = 50002
    peer_host: str = "127.0.0.1"  # an IPv6 address stands here without brackets
    peer_cert: Path | None = None
    peer_key: Path | None = None
    peer_ca: Path | None = None
    trust_domain: str = "sidecar.local"
    insecure_peers: bool = False
    data_dir: Path = Path("sidecar-data")
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    peer_pattern: str = ""
    peer_file: Path | None = None
    routes: tuple[parsers.Route, ...] = ()
    policy: Path | None = None
    log_format: Literal["console", "json"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    workflow_log_level: Literal["debug", "info", "warning", "error", "off"] = "info"
    trace_otlp: str = ""
    trace_zipkin: str = ""
    reuse: Literal["terminal", "never"] = "terminal"
    max_message_bytes: int = 64 * 2**20
    worker_receive_bytes: int = 4 * 2**20
    memory_limit: int | None = None  # that of the control group
    max_connections: int = 2_000
    max_calls: int = 10_000
    max_workers: int = 1_000
    turn_timeout: float = 120.0
    activity_timeout: float | None = None
    entity_timeout: float | None = None
    max_deliveries: int | None = 10
    drain_timeout: float = 5.0
    unknown_app: Literal["wait", "fail"] = "wait"
    cascade_suspend: bool = False
    task_hubs: str | tuple[str, ...] = "ignore"  # or "separate", or the names that are accepted
    allow_hub_deletion: bool = False
    retention: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def traces(self) -> bool:
        """Whether spans are exported."""
        return bool(self.trace_otlp or self.trace_zipkin)

    @property
    def peers_stay_here(self) -> bool:
        """Whether peers may be on this machine alone: they prove nothing, and nobody has accepted that."""
        return self.peer_cert is None and not self.insecure_peers


class Resolved(NamedTuple):
    """Settings, and for each field where its value came from ("default" if nobody gave one)."""

    settings: Settings
    sources: Mapping[str, str]


class _Given(NamedTuple):
    raw: object
    source: str


def load(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """The settings from `flags` (by field name, and "config"; None or an empty list = not given), then the
    SIDECAR_* variables of `environ` (an empty one = not given), then the config file, then the defaults.

    The stronger source replaces the whole value, also of a list. Raises ConfigError.
    """
    return resolve(flags, environ).settings


def resolve(flags: Mapping[str, object], environ: Mapping[str, str]) -> Resolved:
    """As `load`, with the source of each value. Raises ConfigError."""
    given = _given(flags, environ)
    parsed: dict[str, Any] = {name: _parsed(BY_FIELD[name], item) for name, item in given.items()}
    if "app_id" not in parsed:
        raise ConfigError("no app ID: give --app-id, SIDECAR_APP_ID, or app_id in the config file")
    parsed.setdefault("log_format", "console" if sys.stderr.isatty() else "json")
    sources = {name: given[name].source if name in given else "default" for name in BY_FIELD}
    if "peers" in parsed:
        parsed["peers"] = _without(parsed["peers"], parsed["app_id"])
    settings = Settings(**parsed)
    _check_ports(settings, sources)
    _check_listening(settings, sources)
    _check_peers(settings, sources)
    return Resolved(settings, sources)


def read_peers(path: Path, stay_here: bool = False) -> Mapping[str, tuple[str, ...]]:
    """The addresses in a file of peers, by app ID; with `stay_here` all must be on this machine.

    Raises ValueError: one line that says what is wrong.
    """
    try:
        found = addresses.peers(read_file(path, "--peer-file"))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    away = addresses.off_loopback(found) if stay_here else None
    if away is not None:
        raise ValueError(f"{path}: {away!r} {_PLAINTEXT}")
    return found


def http_address(flags: Mapping[str, object], environ: Mapping[str, str]) -> tuple[str, int]:
    """Where this machine finds the HTTP port, so that a health check needs no other setting. Raises ConfigError."""
    found = some(("listen_host", "http_port"), flags, environ)
    return (reached(found["listen_host"]), found["http_port"])


def some(names: Iterable[str], flags: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of some settings, by field name, when the others need be neither given nor right.

    Raises ConfigError.
    """
    given = _given(flags, environ)
    return {name: _parsed(BY_FIELD[name], given[name]) if name in given else getattr(DEFAULTS, name) for name in names}


def shown(value: object) -> str:
    """A setting's value as a person would write it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.12g}s"
        case tuple():
            return ",".join(str(item) for item in value)
        case Mapping():
            return ",".join(f"{name}={shown(item)}" for name, item in value.items())
    return str(value)


def version() -> str:
    """The version of the installed package; "0.0.0" when run from a tree that is not installed."""
    from importlib import metadata  # noqa: PLC0415 - slow to import, and only some callers ask

    try:
        return metadata.version("multiapp-workflow-sidecar")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def _given(flags: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    if flags.get("config") is not None:
        given |= _from_file(Path(str(flags["config"])), "--config")
    elif environ.get(_CONFIG_VARIABLE):
        given |= _from_file(Path(environ[_CONFIG_VARIABLE]), _CONFIG_VARIABLE)
    return given | _from_environment(environ) | _from_flags(flags)


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for name, raw in flags.items():
        if name not in BY_FIELD and name != "config":
            raise ConfigError(f"{parsers.quoted(name)} is not a setting{_did_you_mean(name, BY_FIELD)}")
        if name != "config" and raw not in (None, [], ()):
            given[name] = _Given(raw, BY_FIELD[name].flag)
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    known = {option.variable: option for option in OPTIONS}
    given: dict[str, _Given] = {}
    for name, own in _ALSO.items():
        if environ.get(name):
            given[known[own].field] = _Given(environ[name], name)
    for name, raw in environ.items():
        if _SERVICE_LINK.fullmatch(f"{name}={raw}"):
            continue
        if option := known.get(name):
            if raw:
                given[option.field] = _Given(raw, name)
        elif name.startswith("SIDECAR_") and name != _CONFIG_VARIABLE:
            hint = _did_you_mean(name, [*known, _CONFIG_VARIABLE])
            raise ConfigError(f"{parsers.quoted(name)} is not a variable of the sidecar{hint}")
    return given


def _from_file(path: Path, origin: str) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for key, raw in read_file(path, origin).items():
        if key not in BY_FIELD:
            hint = _did_you_mean(str(key), BY_FIELD)
            raise ConfigError(f"{path}: {parsers.quoted(key)} is not a setting{hint}")
        if raw is not None:
            given[key] = _Given(raw, f"{path}: {key}")
    return given


def read_file(path: Path, origin: str) -> dict[Any, Any]:
    """The mapping in a YAML or TOML file that `origin` names. Raises ConfigError."""
    parse = formats.BY_SUFFIX.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"{origin}: {path}: the name of a config file ends in .yaml, .yml or .toml")
    try:
        content = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{origin}: cannot read {path}: {reason}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: not a list of settings: write one `key: value` a line")
    return content or {}


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), by_lower, n=1)
    return f": did you mean {by_lower[close[0]]}?" if close else ": `sidecar run --help` lists them all"


def _parsed(option: Option, given: _Given) -> Any:
    try:
        return option.parse(given.raw)
    except ValueError as error:
        raise ConfigError(f"{given.source}: {error}") from error


def _check_ports(settings: Settings, sources: Mapping[str, str]) -> None:
    users: dict[int, str] = {}
    uses = [("grpc_port", port) for port in settings.grpc_port]
    for name, port in [*uses, ("http_port", settings.http_port), ("peer_port", settings.peer_port)]:
        if port and port in users:
            first, second = (f"{user} ({sources[user]})" for user in (users[port], name))
            raise ConfigError(f"port {port} is given twice, by {first} and {second}: give each listener its own")
        users[port] = name


def _check_listening(settings: Settings, sources: Mapping[str, str]) -> None:
    if (settings.app_cert is None) != (settings.app_key is None):
        given, missing = ("app_cert", "app_key") if settings.app_cert else ("app_key", "app_cert")
        raise ConfigError(f"{sources[given]}: a certificate and its key belong together: give {BY_FIELD[missing].flag}")
    guarded = settings.api_token or settings.api_token_file or settings.app_cert or settings.insecure_listen
    if not guarded and not addresses.is_loopback(settings.listen_host):
        raise ConfigError(
            f"{sources['listen_host']}: {settings.listen_host!r} is not loopback: whoever reaches it could start and "
            "read workflows; give --api-token-file (or SIDECAR_API_TOKEN), better with --app-cert and --app-key, "
            "or accept that with --insecure-listen"
        )


def _without(peers: Mapping[str, tuple[str, ...]], own: str) -> Mapping[str, tuple[str, ...]]:
    """The peers without this app, so that every sidecar of a deployment can be given the same list."""
    return MappingProxyType({app: addresses for app, addresses in peers.items() if app != own})


def _check_peers(settings: Settings, sources: Mapping[str, str]) -> None:
    own = settings.app_id
    for app in settings.peers:
        if app.lower() == own.lower():
            raise ConfigError(f"{sources['peers']}: {app!r} and this sidecar's app ID {own!r} differ only in case")
    files = {name: getattr(settings, name) for name in ("peer_cert", "peer_key", "peer_ca")}
    given = [name for name, file in files.items() if file is not None]
    if given and len(given) < len(files):
        missing = ", ".join(BY_FIELD[name].flag for name in files if name not in given)
        raise ConfigError(f"{sources[given[0]]}: a peer certificate needs its key and the CA too: give {missing}")
    for name in ("app_id", "namespace") if given else ():
        if len(getattr(settings, name)) > MOST_IN_CERTIFICATE:
            text = f"a peer certificate names at most {MOST_IN_CERTIFICATE} characters of it"
            raise ConfigError(f"{sources[name]}: {quoted(getattr(settings, name))} is too long: {text}")
    if given and settings.insecure_peers:
        text = "peers are either certified or not: remove it, or the certificate"
        raise ConfigError(f"{sources['insecure_peers']}: {text}")
    if settings.peers_stay_here:
        _check_peers_stay_here(settings, sources)


def _check_peers_stay_here(settings: Settings, sources: Mapping[str, str]) -> None:
    """Where peers prove nothing, the link is not to leave this machine, whichever side opens it."""
    pattern = {"": (settings.peer_pattern,)} if settings.peer_pattern else {}
    wrong = {
        "peer_host": None if addresses.is_loopback(settings.peer_host) else settings.peer_host,
        "peers": addresses.off_loopback(settings.peers),
        "peer_pattern": settings.peer_pattern if addresses.off_loopback(pattern) else None,
    }
    for name, value in wrong.items():
        if value is not None:
            raise ConfigError(f"{sources[name]}: {value!r} {_PLAINTEXT}")


DEFAULTS = Settings(app_id="")
