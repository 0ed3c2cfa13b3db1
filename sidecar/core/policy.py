"""Which other apps may do what here: an allow-list. The app of a caller is the one that its link has proved."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple


class Operation(enum.Enum):
    """What an app may ask of another. Of activities only SCHEDULE can be asked."""

    SCHEDULE = "schedule"
    GET = "get"
    RAISE = "raise"
    PAUSE = "pause"
    RESUME = "resume"
    TERMINATE = "terminate"
    PURGE = "purge"
    RERUN = "rerun"


class Happened(NamedTuple):
    """One thing that has happened in a history.

    `kind` is "activity", "workflow" (a child) or "event". `outcome` is "scheduled", "completed" or "failed", for an
    event "raised". `app` is the app that a call went to, for an event the app that received it.
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
        """Whether this is what is required."""
        same = (self.kind, self.outcome) == (one.kind, one.outcome)
        return same and fnmatchcase(one.name, self.name) and fnmatchcase(one.app, self.app)


CallerHistory = Callable[[], Iterable[Happened]]  # read only when a rule asks for it: histories are long


def no_past() -> Iterable[Happened]:
    """Return the history of a caller that has sent none."""
    return ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Callers whose app ID fits a pattern may do these operations on what has a name that fits a pattern.

    `kind` is "workflow" or "activity". All of `requires` must have happened in the caller's history, in this order
    unless `in_order` is false; other things may have happened in between.
    """

    caller: str
    kind: str
    name: str
    operations: frozenset[Operation]
    requires: tuple[Required, ...] = ()
    in_order: bool = True

    def is_about(self, caller: str, kind: str, operation: Operation) -> bool:
        """Whether the rule is about an operation, whatever the name."""
        return self.kind == kind and operation in self.operations and fnmatchcase(caller, self.caller)

    def fits(self, caller: str, kind: str, name: str | None, operation: Operation) -> bool:
        """Whether the rule is about an operation. `name` None, no such instance: only a rule about all names fits."""
        named = self.name == "*" if name is None else fnmatchcase(name, self.name)
        return named and self.is_about(caller, kind, operation)

    def met_by(self, past: CallerHistory) -> bool:
        """Whether all that the rule requires has happened."""
        if not self.requires:
            return True
        # In order: what follows must be found behind what was found before it, so all look at one iterator.
        happened = iter(past()) if self.in_order else list(past())
        return all(any(required.met_by(one) for one in happened) for required in self.requires)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, each of which may allow a call. Calls inside this app are always allowed and are not checked."""

    rules: tuple[Rule, ...]

    def about(self, caller: str, kind: str, operation: Operation) -> list[Rule]:
        """Return the rules that are about an operation of an app of this namespace, whatever the name."""
        return [rule for rule in self.rules if rule.is_about(caller, kind, operation)]

    def fitting(self, caller: str, kind: str, name: str | None, operation: Operation) -> list[Rule]:
        """Return the rules that allow an app of this namespace an operation, if what they require has happened."""
        return [rule for rule in self.rules if rule.fits(caller, kind, name, operation)]
