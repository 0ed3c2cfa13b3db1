"""Which other apps may do what here: an allow-list, asked with the app that a caller has proved to be."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple


class Operation(enum.Enum):
    """What an app may ask of another; activities are only scheduled."""

    SCHEDULE = "schedule"
    GET = "get"
    RAISE = "raise"
    PAUSE = "pause"
    RESUME = "resume"
    TERMINATE = "terminate"
    PURGE = "purge"
    RERUN = "rerun"


class Happened(NamedTuple):
    """One thing that a history tells.

    `kind` is "activity", "workflow" (a child) or "event"; `outcome` is "scheduled", "completed" or "failed", of an
    event "raised"; `app` is where a call went, for an event the app that got it.
    """

    kind: str
    name: str
    outcome: str
    app: str


class Required(NamedTuple):
    """What must have happened: `name` and `app` are patterns."""

    kind: str
    name: str
    outcome: str
    app: str = "*"

    def met_by(self, one: Happened) -> bool:
        """Whether it is this that has happened."""
        same = (self.kind, self.outcome) == (one.kind, one.outcome)
        return same and fnmatchcase(one.name, self.name) and fnmatchcase(one.app, self.app)


CallerHistory = Callable[[], Iterable[Happened]]  # read only when a rule asks for it: histories are long


def no_past() -> Iterable[Happened]:
    """Return the history of a caller that has shown none."""
    return ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Callers that fit a pattern of app IDs may do these operations on what fits a pattern of names.

    `kind` is "workflow" or "activity". All of `requires` must have happened at the caller, in this order; other
    things may have happened between.
    """

    caller: str
    kind: str
    name: str
    operations: frozenset[Operation]
    requires: tuple[Required, ...] = ()

    def fits(self, caller: str, kind: str, name: str | None, operation: Operation) -> bool:
        """Whether the rule is about an operation; about an instance that does not exist (None) only if about any."""
        named = self.name == "*" if name is None else fnmatchcase(name, self.name)
        return self.kind == kind and named and operation in self.operations and fnmatchcase(caller, self.caller)

    def met_by(self, past: CallerHistory) -> bool:
        """Whether what it requires has happened, in order."""
        if not self.requires:
            return True
        happened = iter(past())
        return all(any(required.met_by(one) for one in happened) for required in self.requires)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules of which any may allow a call. Own calls are always allowed, and are not asked about."""

    rules: tuple[Rule, ...]

    def fitting(self, caller: str, kind: str, name: str | None, operation: Operation) -> list[Rule]:
        """Return the rules that allow it to another app of this namespace if what they require has happened."""
        return [rule for rule in self.rules if rule.fits(caller, kind, name, operation)]
