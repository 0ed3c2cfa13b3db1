"""Which other apps may do what here: an allow-list, asked with the app that a caller has proved to be."""

import enum
from dataclasses import dataclass
from fnmatch import fnmatchcase


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


@dataclass(frozen=True, slots=True)
class Rule:
    """Callers that fit a pattern of app IDs may do these operations on what fits a pattern of names.

    `kind` is "workflow" or "activity".
    """

    caller: str
    kind: str
    name: str
    operations: frozenset[Operation]

    def allows(self, caller: str, kind: str, name: str | None, operation: Operation) -> bool:
        """Whether the rule allows an operation; of an instance that does not exist (None) only if it allows any."""
        named = self.name == "*" if name is None else fnmatchcase(name, self.name)
        return self.kind == kind and named and operation in self.operations and fnmatchcase(caller, self.caller)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules of which any may allow a call. Own calls are always allowed, and are not asked about."""

    rules: tuple[Rule, ...]

    def allows(self, caller: str, kind: str, name: str | None, operation: Operation) -> bool:
        """Whether another app of this namespace may do it."""
        return any(rule.allows(caller, kind, name, operation) for rule in self.rules)
