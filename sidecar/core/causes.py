"""Why something waits: one vocabulary for all who say so, in lists, trees, states, metadata and the log. Pure.

Each cause has a reason, which programs may compare, a text for people, since when it holds, and what can be done.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from sidecar.core.model import DEFAULT_HUB

_MOST_NAMES = 20
_MOST_COMPARED = 50  # names among which one that is alike is looked for


class Reason(StrEnum):
    """The words of the vocabulary. Shown to programs, and sent to other apps: never change one."""

    NO_WORKER = "no-worker"
    NAME_NOT_TAKEN = "name-not-taken"
    WORKERS_BUSY = "workers-busy"
    OVER_LIMIT = "over-limit"
    TOO_LARGE = "too-large"
    GIVEN_BACK = "given-back"
    NO_ADDRESS = "no-address"
    UNREACHABLE = "unreachable"
    REFUSED_FOR_NOW = "refused-for-now"
    SUSPENDED = "suspended"
    STALLED = "stalled"
    PARKED = "parked"
    LOCKED = "locked"


_ADVICE: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.NO_WORKER: "start the app, and see that its SDK connects to its sidecar",
        Reason.NAME_NOT_TAKEN: "register the name in the app, or correct it where it is called",
        Reason.WORKERS_BUSY: "wait, or run more workers",
        Reason.OVER_LIMIT: "wait, or raise the limit (--limit)",
        Reason.TOO_LARGE: "let a worker receive larger messages, or make the payloads smaller",
        Reason.GIVEN_BACK: "see in the log of the workers why they give it back",
        Reason.NO_ADDRESS: "give the address with --peer, --peer-file or --peer-pattern, or correct the app ID",
        Reason.UNREACHABLE: "start the sidecar of that app, or correct its address",
        Reason.REFUSED_FOR_NOW: "see in the log of that app's sidecar why it takes nothing now",
        Reason.SUSPENDED: "resume it",
        Reason.STALLED: "run a worker that can take it, or terminate it",
        Reason.PARKED: "find out why workers are lost with it, then resume it",
        Reason.LOCKED: "wait for the workflow that has the lock, or terminate it",
    }
)


class Cause(NamedTuple):
    """Why something waits: `since` is a time (0: not known), `app` the other app at which it is so ("": here)."""

    reason: Reason
    text: str
    since: int = 0
    app: str = ""

    @property
    def advice(self) -> str:
        """What can be done."""
        return _ADVICE[self.reason]


def _in_hub(hub: str) -> str:
    return "" if hub == DEFAULT_HUB else f" in task hub '{hub}'"


def no_worker(hub: str) -> Cause:
    """No worker is connected at all."""
    return Cause(Reason.NO_WORKER, f"no worker is connected{_in_hub(hub)}")


def name_not_taken(kind: str, name: str, version: str, hub: str, taken: Iterable[str]) -> Cause:
    """Workers are connected, and none takes this name; `taken` are the names of this kind that they take."""
    names = sorted(set(taken))
    text = f"no connected worker{_in_hub(hub)} takes {kind} '{name}'" + (f" in version '{version}'" if version else "")
    return Cause(Reason.NAME_NOT_TAKEN, f"{text}: {_taken(name, names)}")


def _taken(name: str, names: Sequence[str]) -> str:
    if not names:
        return "they take none"
    shown = ", ".join(f"'{one}'" for one in names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    close = difflib.get_close_matches(name, names, n=1) if name not in names and len(names) <= _MOST_COMPARED else ()
    return f"they take {shown}{more}" + (f"; was '{close[0]}' meant?" if close else "")


def workers_busy(count: int) -> Cause:
    """Every worker that takes it has as much as it wants."""
    return Cause(Reason.WORKERS_BUSY, f"the {count} connected worker(s) that take it have all that they take at once")


def over_limit(pattern: str, most: int) -> Cause:
    """A limit of the settings is reached."""
    return Cause(Reason.OVER_LIMIT, f"the limit for '{pattern}' is reached: {most} at once")


def too_large(size: int, most: int) -> Cause:
    """No worker that takes it receives so much. Both sizes are in bytes."""
    return Cause(Reason.TOO_LARGE, f"it has {size} bytes, and a connected worker receives at most {most}")


def given_back() -> Cause:
    """The workers that take it have given it back, or may be what it has cost: it is offered again after a pause."""
    return Cause(Reason.GIVEN_BACK, "the connected workers have given it back, or have another that cost workers")


def no_address(app: str) -> Cause:
    """It is not known where another app is."""
    return Cause(Reason.NO_ADDRESS, f"the address of app '{app}' was not found", app=app)


def unreachable(app: str, errors: Mapping[str, str], since: int = 0) -> Cause:
    """There is no link to another app; `errors` are what the last attempts failed of, by address."""
    if not errors:
        return Cause(Reason.UNREACHABLE, f"app '{app}' is not connected", since, app)
    tried = "; ".join(f"{address}: {error}" for address, error in errors.items())
    return Cause(Reason.UNREACHABLE, f"app '{app}' is not connected: {tried}", since, app)


def unanswered(app: str, error: str) -> Cause:
    """There was a link to another app, and messages got no answer: they are sent again."""
    return Cause(Reason.REFUSED_FOR_NOW, error, app=app)


def refused_for_now(app: str, text: str) -> Cause:
    """Another app's sidecar is there and takes the message later."""
    return Cause(Reason.REFUSED_FOR_NOW, f"app '{app}' takes it later: {text}", app=app)


def suspended() -> Cause:
    """A person or a parent has said so."""
    return Cause(Reason.SUSPENDED, "it is suspended")


def stalled(why: str, since: int = 0) -> Cause:
    """No connected worker can run it, for a reason that its history has."""
    return Cause(Reason.STALLED, f"it is stalled: {why}", since)


def parked(why: str, since: int = 0) -> Cause:
    """Workers were lost with it too often: no worker gets it until a person says so."""
    return Cause(Reason.PARKED, f"it is parked: {why}", since)


def locked(entity: str, owner: str) -> Cause:
    """A workflow has locked the entity."""
    return Cause(Reason.LOCKED, f"entity '{entity}' is locked by workflow '{owner}'")


def at(app: str, cause: Cause) -> Cause:
    """What another app says of work that it has: the reason is its own."""
    return cause._replace(text=f"app '{app}' has it, and says: {cause.text}", app=app)
