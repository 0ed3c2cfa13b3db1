"""The command line of `daprd`: its flags in all forms in which tools write them. Pure, and quick to import.

A flag has one dash or two, and its value stands behind `=` or is the next argument, which may be empty or begin with a
dash. Flags that nobody knows are read past, and named.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SWITCHES = frozenset(
    {
        *("version", "build-info", "help", "app-ssl", "log-as-json", "wait"),
        *("enable-api-logging", "enable-app-health-check", "enable-metrics", "enable-mtls", "enable-profiling"),
        "disable-builtin-k8s-secret-store",
    }
)
"""Flags whose value, true or false, can stand only behind `=`."""

_ABOUT_APP = (
    *("app-port", "app-protocol", "app-max-concurrency", "app-channel-address", "app-health-port"),
    *("app-health-check-path", "app-health-probe-interval", "app-health-probe-timeout", "app-health-threshold"),
)
_ABOUT_DAPR = (
    *("placement-host-address", "scheduler-host-address", "sentry-address"),
    *("control-plane-address", "control-plane-namespace", "control-plane-trust-domain", "sentry-request-jwt-audiences"),
    *("actors-service", "reminders-service", "mode", "profile-port", "metrics-listen-address"),
    *("dapr-public-port", "dapr-public-listen-address", "dapr-internal-grpc-listen-address"),
    *("dapr-http-read-buffer-size", "read-buffer-size", "dapr-block-shutdown-duration"),
    *("allowed-origins", "kubeconfig", "unix-domain-socket"),
)
USED = frozenset(
    {
        *("app-id", "dapr-http-port", "dapr-grpc-port", "dapr-internal-grpc-port", "dapr-listen-addresses"),
        *("log-level", "config", "resources-path", "components-path", "max-body-size", "dapr-http-max-request-size"),
        *("dapr-graceful-shutdown-seconds", "metrics-port"),
    }
)
"""Flags with a value that means something here."""

VALUED = frozenset({*USED, *_ABOUT_APP, *_ABOUT_DAPR})
_REPEATED = frozenset({"config", "resources-path"})
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


class Given(NamedTuple):
    """What a command line says: values by flag, in their order, and what is not known."""

    values: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]

    def text(self, name: str) -> str:
        """Return the value of a flag, the last one; "" if it is not given or empty."""
        return self.values.get(name, ("",))[-1]

    def texts(self, name: str) -> list[str]:
        """Return the values of a flag that may be given several times, or with commas, but for empty ones."""
        parts = [part.strip() for value in self.values.get(name, ()) for part in value.split(",")]
        return [part for part in parts if part]

    def on(self, name: str) -> bool:
        """Whether a switch is on. Raises ValueError."""
        word = self.text(name).lower()
        if word not in _TRUE | _FALSE | {""}:
            raise ValueError(f"--{name}: {word[:80]!r} is neither true nor false")
        return word in _TRUE


def parse(arguments: Sequence[str]) -> Given:
    """Read a command line."""
    values: dict[str, list[str]] = {}
    unknown: dict[str, None] = {}
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        if not _is_flag(argument):
            # It may be the value of an unknown flag, and a secret: it is not shown.
            unknown |= {"an argument that is no flag": None} if argument else {}
            continue
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if name not in SWITCHES | VALUED:
            unknown[f"--{name}"] = None
        if not equals:
            value = _value_of(name, rest)
        values.setdefault(name, []).append(value)
    return Given({name: tuple(found) for name, found in values.items()}, tuple(unknown))


def _value_of(name: str, rest: list[str]) -> str:
    """Take what belongs to a flag without `=` from the arguments behind it, whose next one is the last."""
    if name in SWITCHES:
        return "true"
    if name in VALUED:
        return rest.pop() if rest else ""
    # What an unknown flag takes is not known either: by Dapr's names and by what follows.
    if name.startswith(("enable-", "disable-")) or not rest or _is_flag(rest[-1]):
        return "true"
    return rest.pop()


def _is_flag(argument: str) -> bool:
    """Whether an argument is a flag, and not text or a negative number."""
    name = argument.removeprefix("-").removeprefix("-")
    return argument.startswith("-") and name[:1].isalpha()
