"""The file of an access policy: who may call what here.

default: deny
allow:
  - {caller: orders, activity: score}
  - {caller: "shop-*", workflow: "ship*", operations: [schedule, get, raise]}
"""

from collections.abc import Mapping
from pathlib import Path

from sidecar import config, values
from sidecar.config import ConfigError
from sidecar.core.policy import Operation, Policy, Rule

_KINDS = {"workflow": frozenset(Operation), "activity": frozenset({Operation.SCHEDULE})}


def read(path: Path) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: the file cannot be read or says something else; one line that names what.
    """
    content = config.read_file(path, "--policy")
    unknown = set(content) - {"default", "allow"}
    if unknown or content.get("default", "deny") != "deny":
        raise ConfigError(f"{path}: a policy has `allow`, a list of rules, and `default: deny`; nothing else")
    rules = content.get("allow") or []
    if not isinstance(rules, list):
        raise ConfigError(f"{path}: `allow` is a list of rules")
    return Policy(tuple(_rule(path, number, rule) for number, rule in enumerate(rules, 1)))


def _rule(path: Path, number: int, given: object) -> Rule:
    fields = given if isinstance(given, Mapping) else {}
    kinds = [kind for kind in _KINDS if kind in fields]
    texts = [fields.get("caller"), *(fields[kind] for kind in kinds)]
    foreign = set(fields) - {"caller", "operations", *kinds}
    if len(kinds) != 1 or foreign or not all(isinstance(text, str) and text for text in texts):
        hint = "write {caller: APP, workflow: NAME} or {caller: APP, activity: NAME}, and operations if not all"
        raise ConfigError(f"{path}: rule {number}: {values.quoted(given)} is not a rule: {hint}")
    kind = kinds[0]
    return Rule(str(fields["caller"]), kind, str(fields[kind]), _operations(path, number, kind, fields))


def _operations(path: Path, number: int, kind: str, fields: Mapping[str, object]) -> frozenset[Operation]:
    given = fields.get("operations")
    known = _KINDS[kind]
    if given is None:
        return known
    names = given if isinstance(given, list) else [given]
    by_name: dict[object, Operation] = {operation.value: operation for operation in known}
    wrong = [name for name in names if name not in by_name]
    if wrong or not names:
        what = values.quoted(wrong[0]) if wrong else "an empty list"
        allowed = ", ".join(sorted(operation.value for operation in known))
        raise ConfigError(f"{path}: rule {number}: {what} names no operation: of {kind} calls they are {allowed}")
    return frozenset(by_name[name] for name in names)
