"""From flags of `daprd`, its configuration and its variables to the settings of a sidecar. Pure.

What a flag says beats the sidecar's own variables and config file; those beat Dapr's configuration; and that beats
what a `daprd` has of itself: one port for SDKs, any port for other sidecars, its data and its list of peers in the home
of the user, so that a workflow goes on from whatever folder its app is started.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sidecar.config import addresses
from sidecar.config import settings as config
from sidecar.config.options import BY_FIELD
from sidecar.config.settings import ConfigError, Settings
from sidecar.daprd.configuration import Wish
from sidecar.daprd.flags import Given

_PORTS = {"dapr-http-port": "http_port", "dapr-grpc-port": "grpc_port", "dapr-internal-grpc-port": "peer_port"}
_LEVELS = {"warn": "warning", "fatal": "error", "panic": "error", "trace": "debug"}
_QUANTITY = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)([KMG]i?|k|)")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "Ki": 2**10, "M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30}
_LARGEST_MESSAGE = 2**31 - 1
_ONE_HOST = "one address can be listened on, or all by 0.0.0.0, or loopback"
_NO_SOCKETS = "there are no Unix sockets here: let the app use the ports"

Wishes = Mapping[str, Wish]


def of_flags(given: Given) -> dict[str, Wish]:
    """Return what flags say, by setting; an empty value says nothing.

    Raises:
        ConfigError: a value is wrong, or asks for what there is not.
    """
    if given.text("unix-domain-socket"):
        raise ConfigError(f"--unix-domain-socket: {_NO_SOCKETS}")
    found: dict[str, Wish] = {}
    if app_id := given.text("app-id"):
        found["app_id"] = Wish(app_id, "--app-id")
    for flag, field in _PORTS.items():
        if (port := given.text(flag)) and port != "-1":
            found[field] = Wish(port, f"--{flag}")
    if hosts := given.texts("dapr-listen-addresses"):
        found["listen_host"] = Wish(_host(hosts), "--dapr-listen-addresses")
    if level := given.text("log-level").lower():
        found["log_level"] = Wish(_LEVELS.get(level, level), "--log-level")
    if given.on("log-as-json"):
        found["log_format"] = Wish("json", "--log-as-json")
    if grace := given.text("dapr-graceful-shutdown-seconds"):
        found["drain_timeout"] = Wish("1ms" if grace.strip("-0") == "" else grace, "--dapr-graceful-shutdown-seconds")
    return found


def _host(hosts: list[str]) -> str:
    """Return the one host that stands for several addresses."""
    away = [host for host in hosts if not addresses.is_loopback(host.strip("[]"))]
    if not away:
        return "localhost"
    everywhere = [host for host in away if host in ("0.0.0.0", "::", "[::]")]  # noqa: S104 - compared, not bound
    if len(hosts) > 1 and not everywhere:
        raise ConfigError(f"--dapr-listen-addresses: {', '.join(hosts)}: {_ONE_HOST}")
    return (everywhere or away)[0]


def of_machine(environ: Mapping[str, str], home: Path) -> dict[str, Wish]:
    """Return what a `daprd` has of itself. Its data and its list of peers are in a folder `home` of the user's."""
    namespace = environ.get("NAMESPACE") or config.DEFAULTS.namespace
    return {
        "namespace": Wish(namespace, "NAMESPACE"),
        "grpc_port": Wish(config.DEFAULTS.grpc_port[:1], "default"),
        "peer_port": Wish(0, "default"),
        "log_format": Wish("console", "default"),
        "data_dir": Wish(home / "data", "default"),
    }


def settings(by_flags: Wishes, weaker: Wishes, environ: Mapping[str, str], home: Path) -> Settings:
    """Return the settings that come of it; the list of peers is one for each namespace.

    Raises:
        ConfigError: something is wrong; the line says where it stands.
    """
    strong = _checked(by_flags)
    if "app_id" not in strong and not environ.get("SIDECAR_APP_ID"):
        raise ConfigError("no app ID: give --app-id")
    given = config.resolve(strong, environ)
    unset = {name: wish for name, wish in weaker.items() if given.sources[name] == "default"}
    found = config.load({**_checked(unset), **strong}, environ)
    if found.peer_file is not None:
        return found
    return replace(found, peer_file=home / f"peers.{found.namespace}.yaml")


def _checked(wishes: Wishes) -> dict[str, object]:
    """Return what is wished, for `settings.load`, which would name the sidecar's own flag for what is wrong."""
    for field, wish in wishes.items():
        try:
            BY_FIELD[field].parse(wish.raw)
        except ValueError as error:
            raise ConfigError(f"{wish.source}: {error}") from error
    return {field: wish.raw for field, wish in wishes.items()}


def metrics_port(given: Given) -> int | None:
    """Return the port that metrics are wanted on beside that of HTTP, None for none.

    Raises:
        ConfigError: it is no port.
    """
    text = given.text("metrics-port")
    if not text or text == "-1" or given.text("enable-metrics").lower() in ("0", "f", "false"):
        return None
    try:
        return addresses.port(text)
    except ValueError as error:
        raise ConfigError(f"--metrics-port: {error}") from error


def with_message_size(given: Given, found: Settings) -> Settings:
    """Let messages be as large as the flags say, if that is more: 4Mi is what Dapr's tools give unasked.

    It holds for what workers receive too: Dapr's runtime sends them all that it has.

    Raises:
        ConfigError: a size is none.
    """
    sizes = [found.max_message_bytes]
    if text := given.text("max-body-size"):
        sizes.append(_bytes(text, "--max-body-size"))
    if text := given.text("dapr-http-max-request-size"):
        sizes.append(_bytes(text if text.startswith("-") else f"{text}Mi", "--dapr-http-max-request-size"))
    received = max(found.worker_receive_bytes, *sizes[1:], 0)
    return replace(found, max_message_bytes=max(sizes), worker_receive_bytes=received)


def _bytes(text: str, flag: str) -> int:
    """Return the bytes of a quantity as Kubernetes writes it; a negative one is any number."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ConfigError(f"{flag}: {text[:80]!r} is not a size: give bytes or such as 4Mi")
    amount = float(match[1]) * _UNITS[match[2]]
    return _LARGEST_MESSAGE if amount < 0 else min(int(amount), _LARGEST_MESSAGE)
