"""What a setting may look like: one parser for each kind of value.

A parser takes what a flag (text or a list of texts), a variable (text) or a config file (any value) gave. It
returns the checked value, or raises ValueError whose text says what is wrong and what to write instead. It
must not know which setting it reads or where the value came from.
"""

import ipaddress
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_LONGEST_TOKEN = 4096
_TOKEN = re.compile(rf"[!-~]{{1,{_LONGEST_TOKEN}}}")
_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+):([0-9]{1,5})")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_ADDRESS_EXAMPLE = "write host:port, such as 127.0.0.1:50012 or [::1]:50012"

_MAX_PORT = 65535
_MIN_MEMORY_BYTES = 128 * 2**20
_MIN_MESSAGE_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_SECONDS = 366 * 86400.0
_QUOTED_CHARACTERS = 80
_ROUTE_KINDS = ("activity", "workflow")
_SIZES = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_DURATIONS = {"": 1.0, "MS": 0.001, "S": 1.0, "M": 60.0, "H": 3600.0, "D": 86400.0}
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ENDS = ("completed", "failed", "terminated", "canceled", "any")
_LONGEST_RETENTION = 100 * 366 * 86400.0
_LIMITED = {"workflows": "workflow:*", "activities": "activity:*"}
_SWITCH_WORDS = {"true", "1", "yes", "on", "false", "0", "no", "off"}
_SWITCHED_ON = {"true", "1", "yes", "on"}


# A value of a file may be very deep, or very large by its references; `repr` would write all of it.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxother, _SHORT.maxstring = 4, 1_000, 1_000


def quoted(raw: object) -> str:
    """`raw` for an error text: one line, control characters escaped, cut."""
    text = _SHORT.repr(raw)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…"


def app_id(raw: object) -> str:
    """An app ID or a namespace."""
    if not isinstance(raw, str):
        raise ValueError(f"{quoted(raw)} is not text: put it in quotes")
    if not _ID.fullmatch(raw):
        allowed = "letters (a-z, A-Z), digits, '-' and '_'"
        raise ValueError(f"{quoted(raw)} is not allowed: use only {allowed}, 1 to 64 characters")
    return raw


def port(raw: object) -> int:
    """A port to listen on, 0 to 65535."""
    digits = str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else ""
    if not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > _MAX_PORT:
        hint = f"give a number from 0 to {_MAX_PORT}, 0 for any free one"
        raise ValueError(f"{quoted(raw)} is not a port: {hint}")
    return int(digits)


def ports(raw: object) -> tuple[int, ...]:
    """One port or several, in a list or separated by commas."""
    if found := tuple(port(item) for item in _items(raw)):
        return found
    raise ValueError("the list is empty: name at least one port, 0 for any free one")


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that no output shows: whoever needs it asks for `value`."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "(hidden)"


def secret(raw: object) -> Secret:
    """A token that fits into a header. The error does not show it."""
    if not isinstance(raw, str) or not _TOKEN.fullmatch(raw):
        raise ValueError(f"a token is 1 to {_LONGEST_TOKEN:,} printable ASCII characters without spaces")
    return Secret(raw)


def host(raw: object) -> str:
    """A host name or an IP address; IPv6 comes back without brackets."""
    text = raw if isinstance(raw, str) else ""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if re.fullmatch(r"[0-9.]*", text) or not _HOST_NAME.fullmatch(text):
            hint = "give a name or an IP address, without a port"
            raise ValueError(f"{quoted(raw)} is not a host: {hint}") from None
    return text


def peers(raw: object) -> Mapping[str, tuple[str, ...]]:
    """App ID → addresses (host:port), read-only.

    From `{app: address or list of addresses}`, or from the flag's form: items `app=address`, in a list or
    separated by commas, where an item without `app=` is a further address of the app before it.
    """
    found: dict[str, list[str]] = {}
    spelling: dict[str, str] = {}
    for app, address in _peer_pairs(raw):
        first = spelling.setdefault(app.lower(), app)
        if first != app:
            raise ValueError(f"{first!r} and {app!r} differ only in case: keep one of them")
        try:
            found.setdefault(app, []).append(_address(address))
        except ValueError as error:
            raise ValueError(f"{app}: {error}") from None
    return MappingProxyType({app: tuple(dict.fromkeys(addresses)) for app, addresses in found.items()})


class Route(NamedTuple):
    """Calls of a kind ("activity" or "workflow") whose name fits a pattern go to an app."""

    kind: str
    pattern: str
    app: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.pattern}={self.app}"


def routes(raw: object) -> tuple[Route, ...]:
    """Routes in order.

    From `[{activity: "gpu-*", app: ml}]`, or from the flag's form: items `activity:gpu-*=ml`, in a list or separated
    by commas.
    """
    return tuple(_route(item) for item in _items(raw))


def _route(item: object) -> Route:
    fields = item if isinstance(item, Mapping) else _route_fields(item)
    kind = next((kind for kind in _ROUTE_KINDS if kind in fields), "")
    pattern = fields.get(kind)
    if set(fields) != {kind, "app"} or not isinstance(pattern, str) or not pattern:
        hint = "write {activity: NAME, app: APP} or {workflow: NAME, app: APP}, as a flag activity:NAME=APP"
        raise ValueError(f"{quoted(item)} is not a route: {hint}")
    return Route(kind, pattern, app_id(fields["app"]))


def _route_fields(item: object) -> Mapping[str, str]:
    rule, _, app = (item if isinstance(item, str) else "").rpartition("=")
    kind, _, pattern = rule.partition(":")
    return {kind.strip(): pattern.strip(), "app": app.strip()}


def limits(raw: object) -> Mapping[str, int]:
    """How many items may be out at once, by `<kind>:<pattern of names>`, read-only.

    From `{workflows: 100, activity: {gpu-*: 1}}`, or from the flag's form: items `workflows=100` and
    `activity:gpu-*=1`, in a list or separated by commas.
    """
    found: dict[str, int] = {}
    for key, most in _limit_pairs(raw):
        kind, _, pattern = (_LIMITED.get(key) or key).partition(":")
        if f"{kind}:*" not in _LIMITED.values() or not pattern:
            hint = "write workflows, activities, workflow:NAME or activity:NAME"
            raise ValueError(f"{quoted(key)} cannot be limited: {hint}, such as activity:gpu-*=1")
        try:
            found[f"{kind}:{pattern}"] = count(most)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return MappingProxyType(found)


def count(raw: object) -> int:
    """A number from 1."""
    digits = str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else ""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", digits):
        raise ValueError(f"{quoted(raw)} is not a number from 1")
    return int(digits)


def choice(*allowed: str) -> Callable[[object], str]:
    """A parser that takes one of these lower-case words, in any case."""

    def parse(raw: object) -> str:
        word = raw.lower() if isinstance(raw, str) else ""
        if word not in allowed:
            raise ValueError(f"{quoted(raw)} is not one of {', '.join(allowed)}")
        return word

    return parse


def switch(raw: object) -> bool:
    """True or false, also as 1/0, yes/no, on/off."""
    word = str(raw).lower()
    if word not in _SWITCH_WORDS:
        raise ValueError(f"{quoted(raw)} is neither true nor false")
    return word in _SWITCHED_ON


def size(raw: object) -> int:
    """The size of a message in bytes, also with a unit: 64MiB."""
    found = _amount(raw, _SIZES)
    if found is None or not _MIN_MESSAGE_BYTES <= found <= _MAX_MESSAGE_BYTES:
        hint = "give bytes or such as 64MiB, from 64KiB to under 2GiB"
        raise ValueError(f"{quoted(raw)} is not a message size: {hint}")
    return int(found)


def memory(raw: object) -> int:
    """An amount of memory in bytes, also with a unit: 512MiB."""
    found = _amount(raw, _SIZES)
    if found is None or not _MIN_MEMORY_BYTES <= found < 2**60:
        raise ValueError(f"{quoted(raw)} is no amount of memory: give bytes or such as 512MiB, from 128MiB")
    return int(found)


def seconds(raw: object) -> float:
    """A duration over zero in seconds, also with a unit: 500ms, 90s, 2m, 1h, 7d."""
    return _duration(raw, _MAX_SECONDS, "366 days")


def _duration(raw: object, most: float, most_in_words: str) -> float:
    found = _amount(raw, _DURATIONS)
    if found is None or not 0 < found <= most:
        hint = f"give seconds over 0 or such as 500ms, 90s, 2m, 1h, 7d, at most {most_in_words}"
        raise ValueError(f"{quoted(raw)} is not a duration: {hint}")
    return found


def seconds_or_none(raw: object) -> float | None:
    """As `seconds`; the word none means no limit."""
    return None if raw == "none" else seconds(raw)


def count_or_none(raw: object) -> int | None:
    """A whole number from 1; the word none means any number."""
    if raw == "none":
        return None
    if isinstance(raw, bool) or not re.fullmatch(r"[1-9][0-9]{0,8}", str(raw)):
        raise ValueError(f"{quoted(raw)} is not a count: give a whole number from 1, or none")
    return int(str(raw))


def retention(raw: object) -> Mapping[str, float]:
    """Status → seconds, read-only, from `{status: duration}` or from items `status=duration`."""
    found: dict[str, float] = {}
    for status, duration in _pairs(raw):
        if status not in _ENDS:
            raise ValueError(f"{quoted(status)} is not an end of a workflow: use {', '.join(_ENDS)}")
        if status in found:
            raise ValueError(f"{status} is given twice: keep one of them")
        try:
            found[status] = _duration(duration, _LONGEST_RETENTION, "100 years")
        except ValueError as error:
            raise ValueError(f"{status}: {error}") from None
    return MappingProxyType(found)


def _pairs(raw: object) -> Iterable[tuple[object, object]]:
    if isinstance(raw, Mapping):
        yield from raw.items()
        return
    for item in _items(raw):
        name, equals, value = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals:
            raise ValueError(f"{quoted(item)} is not of the form status=time, such as completed=7d")
        yield name.strip(), value.strip()


def task_hubs(raw: object) -> str | tuple[str, ...]:
    """The word ignore or separate, or the names of hubs, in a list or separated by commas."""
    names = _items(raw)
    for name in names:
        if not isinstance(name, str) or not _HUB.fullmatch(name):
            hint = "give ignore, separate, or names of letters, digits, '-', '_' and '.'"
            raise ValueError(f"{quoted(name)} is not the name of a task hub: {hint}")
    words = {"ignore", "separate"}.intersection(map(str, names))
    if words and len(names) > 1:
        raise ValueError(f"{min(words)} stands alone: give it without names, or the names without it")
    if not names:
        raise ValueError("the list is empty: give ignore, separate, or names")
    return min(words) if words else tuple(dict.fromkeys(map(str, names)))


def peer_pattern(raw: object) -> str:
    """An address in which {app}, and {namespace} if wanted, stand for those of a peer; "" for none."""
    if raw in ("", "none"):
        return ""
    text = raw if isinstance(raw, str) else ""
    try:
        _address(text.replace("{app}", "app").replace("{namespace}", "namespace"))
    except ValueError:
        text = ""
    if "{app}" not in text:
        raise ValueError(f"{quoted(raw)} is not a pattern of addresses: write such as {{app}}-sidecar:50002")
    return text


def trust_domain(raw: object) -> str:
    """The trust domain of SPIFFE IDs: lower-case letters, digits, '.', '-' and '_'."""
    if not isinstance(raw, str) or not _TRUST_DOMAIN.fullmatch(raw):
        raise ValueError(f"{quoted(raw)} is not a trust domain: use lower-case letters, digits, '.', '-' and '_'")
    return raw


def path(raw: object) -> Path:
    """A file or directory that need not exist yet; `~` is the home directory."""
    if not isinstance(raw, str | Path) or not str(raw) or not str(raw).isprintable():
        raise ValueError(f"{quoted(raw)} is not the name of a file or directory")
    return Path(raw).expanduser()


def _items(raw: object) -> list[object]:
    """The parts of a list, of a comma-separated text, or of a list of such texts."""
    if isinstance(raw, str):
        return [part.strip() for part in raw.split(",")]
    if isinstance(raw, list | tuple):
        return [part for item in raw for part in (_items(item) if isinstance(item, str) else [item])]
    return [raw]


def _peer_pairs(raw: object) -> Iterable[tuple[str, object]]:
    if isinstance(raw, Mapping):
        for key, addresses in raw.items():
            app = app_id(key)
            yield from ((app, address) for address in _items(addresses) or [None])
        return
    app = ""
    for item in _items(raw):
        name, equals, address = item.partition("=") if isinstance(item, str) else ("", "", "")
        if equals:
            app = app_id(name.strip())
        elif not app:
            raise ValueError(f"{quoted(item)} names no app: write app=host:port, such as ml=127.0.0.1:50012")
        yield app, address.strip() if equals else item


def _limit_pairs(raw: object) -> Iterable[tuple[str, object]]:
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            names = value if isinstance(value, Mapping) else {None: value}
            yield from ((str(key) if name is None else f"{key}:{name}", count) for name, count in names.items())
        return
    for item in _items(raw):
        key, _, count = str(item).rpartition("=")
        if not key:
            raise ValueError(f"{quoted(item)} names no limit: write such as activities=50 or activity:gpu-*=1")
        yield key.strip(), count.strip()


def _address(raw: object) -> str:
    match = _ADDRESS.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError(f"{quoted(raw)} is not an address: {_ADDRESS_EXAMPLE}")
    name, number = match[1], int(match[2])
    try:
        bracketed = ":" in host(name)
    except ValueError:
        raise ValueError(f"{quoted(raw)} is not an address: {_ADDRESS_EXAMPLE}") from None
    if not 1 <= number <= _MAX_PORT or bracketed != name.startswith("["):
        raise ValueError(f"{quoted(raw)} is not an address: {_ADDRESS_EXAMPLE}, port 1 to {_MAX_PORT}")
    return f"{name}:{number}"


def _amount(raw: object, units: Mapping[str, float]) -> float | None:
    """A number with one of `units` (or none) behind it, in base units; None if it is not that."""
    match = _AMOUNT.fullmatch(str(raw)) if isinstance(raw, int | float | str) else None
    if match is None or isinstance(raw, bool) or match[2].upper() not in units:
        return None
    return float(match[1]) * units[match[2].upper()]
