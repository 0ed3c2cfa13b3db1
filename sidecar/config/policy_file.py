"""The file of an access policy: who may call what here.

default: deny
allow:
  - {caller: orders, activity: score}
  - {caller: "shop-*", workflow: "ship*", operations: [schedule, get, raise]}
  - {caller: orders, activity: charge, requires: [{activity: validate}, {event: approved}]}
"""

from collections.abc import Mapping
from pathlib import Path

from sidecar.config import parsers, settings
from sidecar.config.settings import ConfigError
from sidecar.config.watched import Watched
from sidecar.core.policy import Operation, Policy, Required, Rule

_SCHEDULE = frozenset({Operation.SCHEDULE})
_KINDS = {"workflow": frozenset(Operation), "activity": _SCHEDULE}
_CALLS = ("activity", "workflow")
_OUTCOMES = ("scheduled", "completed", "failed")
_HINT = (
    "write {activity: NAME}, {workflow: NAME} or {event: NAME}; the first two may have an app and an outcome: "
    + ", ".join(_OUTCOMES)
)


def read(path: Path) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: the file cannot be read or says something else; one line that names what.
    """
    content = settings.read_file(path, "--policy")
    unknown = set(content) - {"default", "allow"}
    if unknown or content.get("default", "deny") != "deny":
        raise ConfigError(f"{path}: a policy has `allow`, a list of rules, and `default: deny`; nothing else")
    rules = content.get("allow") or []
    if not isinstance(rules, list):
        raise ConfigError(f"{path}: `allow` is a list of rules")
    return Policy(tuple(_rule(path, number, rule) for number, rule in enumerate(rules, 1)))


def watched(path: Path) -> Watched[Policy]:
    """Return the policy in a file as it is read again. Raises as `read` does."""
    return Watched((path,), lambda: read(path), lambda policy: f"{len(policy.rules)} rules")


def _rule(path: Path, number: int, given: object) -> Rule:
    fields = given if isinstance(given, Mapping) else {}
    kinds = [kind for kind in _KINDS if kind in fields]
    texts = [fields.get("caller"), *(fields[kind] for kind in kinds)]
    foreign = set(fields) - {"caller", "operations", "requires", *kinds}
    if len(kinds) != 1 or foreign or not all(isinstance(text, str) and text for text in texts):
        hint = "write {caller: APP, workflow: NAME} or {caller: APP, activity: NAME}, and operations if not all"
        raise ConfigError(f"{path}: rule {number}: {parsers.quoted(given)} is not a rule: {hint}")
    kind, at = kinds[0], f"{path}: rule {number}"
    operations, requires = _operations(at, kind, fields.get("operations")), _requires(at, fields)
    if requires and fields.get("operations") is None:
        operations = _SCHEDULE
    if requires and operations != _SCHEDULE:
        raise ConfigError(f"{at}: `requires` is for `operations: schedule` alone: other operations show no history")
    return Rule(str(fields["caller"]), kind, str(fields[kind]), operations, requires)


def _operations(at: str, kind: str, given: object) -> frozenset[Operation]:
    known = _KINDS[kind]
    if given is None:
        return known
    names = given if isinstance(given, list) else [given]
    by_name: dict[object, Operation] = {operation.value: operation for operation in known}
    wrong = [name for name in names if not isinstance(name, str) or name not in by_name]
    if wrong or not names:
        what = parsers.quoted(wrong[0]) if wrong else "an empty list"
        allowed = ", ".join(sorted(operation.value for operation in known))
        raise ConfigError(f"{at}: {what} names no operation: of {kind} calls they are {allowed}")
    return frozenset(by_name[name] for name in names)


def _requires(at: str, fields: Mapping[str, object]) -> tuple[Required, ...]:
    if "requires" not in fields:
        return ()
    given = fields["requires"]
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{at}: `requires` is a list of what must have happened, in order: {_HINT}")
    return tuple(_required(at, entry) for entry in given)


def _required(at: str, given: object) -> Required:
    fields = given if isinstance(given, Mapping) else {}
    known = {"event", "outcome", "app", *_CALLS}
    kinds = [kind for kind in (*_CALLS, "event") if kind in fields]
    texts = all(isinstance(text, str) and text for text in fields.values())
    called = kinds != ["event"]
    outcome = str(fields.get("outcome", "completed")) if called else "raised"
    wrong = outcome not in _OUTCOMES if called else len(fields) > 1
    if len(kinds) != 1 or not texts or set(fields) - known or wrong:
        raise ConfigError(f"{at}: {parsers.quoted(given)} is not what may be required: {_HINT}")
    return Required(kinds[0], str(fields[kinds[0]]), outcome, str(fields.get("app", "*")))
