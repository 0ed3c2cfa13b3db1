"""What a setting may look like: one parser for each kind of value.

A parser takes what a flag (text or a list of texts), a variable (text) or a config file (any value) gave. It
returns the checked value, or raises ValueError whose text says what is wrong and what to write instead. It
must not know which setting it reads or where the value came from.
"""

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sidecar.core.names import MAX_ID_LENGTH, invalid_app_id

MOST_IN_CERTIFICATE = 63  # characters of a name that a certificate gives: it is a label of a host name there
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_LONGEST_TOKEN = 4096
_TOKEN = re.compile(rf"[!-~]{{1,{_LONGEST_TOKEN}}}")

_QUOTED_CHARACTERS = 80
_ROUTE_KINDS = ("activity", "workflow")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
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
    if invalid_app_id(raw):
        allowed = "letters (a-z, A-Z), digits, '-' and '_'"
        raise ValueError(f"{quoted(raw)} is not allowed: use only {allowed}, 1 to {MAX_ID_LENGTH} characters")
    return raw


def certified_name(raw: object) -> str:
    """An app ID or a namespace that a certificate names."""
    name = app_id(raw)
    if len(name) > MOST_IN_CERTIFICATE:
        raise ValueError(f"{quoted(raw)} is too long for a certificate: at most {MOST_IN_CERTIFICATE} characters")
    return name


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
    return tuple(_route(item) for item in items(raw))


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


def task_hubs(raw: object) -> str | tuple[str, ...]:
    """The word ignore or separate, or the names of hubs, in a list or separated by commas."""
    names = items(raw)
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


def items(raw: object) -> list[object]:
    """The parts of a list, of a comma-separated text, or of a list of such texts."""
    if isinstance(raw, str):
        return [part.strip() for part in raw.split(",")]
    if isinstance(raw, list | tuple):
        return [part for item in raw for part in (items(item) if isinstance(item, str) else [item])]
    return [raw]
