"""Dapr's `WorkflowAccessPolicy` resources, as the access policy of the sidecar.

Those that are for an app allow together what each allows. As with Dapr, no policy for the app allows everything, and
one without a rule allows nothing.
"""

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sidecar.config.parsers import quoted
from sidecar.config.settings import ConfigError
from sidecar.config.watched import Watched
from sidecar.core.policy import Operation, Policy, Required, Rule
from sidecar.daprd import documents
from sidecar.daprd.documents import Document, mappings

_KIND = "WorkflowAccessPolicy"
_OPERATIONS = MappingProxyType({operation.value: operation for operation in Operation})
_SCHEDULE = frozenset({Operation.SCHEDULE})
_OF_CALLS = MappingProxyType({"Started": "scheduled", "Completed": "completed"})
_OUTCOMES = MappingProxyType({"activity": _OF_CALLS, "workflow": _OF_CALLS, "event": {"Raised": "raised"}})


def watched(files: Sequence[Path], app: str, namespace: str) -> Watched[Policy] | None:
    """Return the policy that some files have for an app, None if there is none.

    Raises:
        ConfigError: a policy is wrong, whichever app it is for.
    """
    if not _for_app(files, app, namespace):
        return None
    return Watched(
        tuple(files), lambda: _policy(_for_app(files, app, namespace)), lambda found: f"{len(found.rules)} rules"
    )


def _for_app(files: Sequence[Path], app: str, namespace: str) -> list[Document]:
    found = documents.of_kind(_KIND, files)
    _policy(found)  # one that is wrong is wrong for all
    return [document for document in found if _is_for(document.content, app, namespace)]


def _is_for(content: Mapping[str, Any], app: str, namespace: str) -> bool:
    metadata = content.get("metadata") or {}
    scopes = content.get("scopes") or [app]
    return metadata.get("namespace") in (None, "", namespace) and app in scopes


def _policy(found: Sequence[Document]) -> Policy:
    return Policy(tuple(rule for document in found for rule in _rules(document)))


def _rules(document: Document) -> Iterator[Rule]:
    file = document.file
    if not isinstance(document.content.get("scopes") or [], list):
        raise ConfigError(f"{file}: scopes: write a list of app IDs")
    documents.mapping(document.content.get("metadata"), f"{file}: metadata")
    for number, rule in enumerate(mappings(document.spec.get("rules"), f"{file}: rules"), 1):
        at = f"{file}: rule {number}"
        callers = [glob.escape(_text(one, "appID", at)) for one in mappings(rule.get("callers"), f"{at}: callers")]
        workflows = mappings(rule.get("workflows"), f"{at}: workflows")
        activities = mappings(rule.get("activities"), f"{at}: activities")
        if not callers or not (workflows or activities):
            raise ConfigError(f"{at}: a rule has callers, and workflows or activities")
        for caller in callers:
            for one in workflows:
                yield Rule(caller, "workflow", _pattern(one, at), _operations(one, at), _requires(one, at), False)
            for one in activities:
                yield Rule(caller, "activity", _pattern(one, at), _SCHEDULE, _requires(one, at), False)


def _pattern(given: Mapping[str, Any], at: str) -> str:
    """Return the pattern of names; Go negates a class of characters by ^."""
    return _text(given, "name", at).replace("[^", "[!")


def _operations(given: Mapping[str, Any], at: str) -> frozenset[Operation]:
    names = given.get("operations")
    if not isinstance(names, list) or not names or not all(name in _OPERATIONS for name in map(str, names)):
        raise ConfigError(f"{at}: operations: {quoted(names)} is not a list of some of {', '.join(_OPERATIONS)}")
    return frozenset(_OPERATIONS[str(name)] for name in names)


def _requires(given: Mapping[str, Any], at: str) -> tuple[Required, ...]:
    return tuple(_required(one, f"{at}: requires") for one in mappings(given.get("requires"), f"{at}: requires"))


def _required(given: Mapping[str, Any], at: str) -> Required:
    kind, name = _text(given, "eventType", at), glob.escape(_text(given, "name", at))
    outcome = _OUTCOMES.get(kind, {}).get(_text(given, "status", at))
    if outcome is None:
        hint = "eventType activity or workflow with status Started or Completed, or event with Raised"
        raise ConfigError(f"{at}: {quoted(dict(given))} cannot be required: write {hint}")
    app = given.get("appID")
    return Required(kind, name, outcome, "*" if app is None else glob.escape(_text(given, "appID", at)))


def _text(given: Mapping[str, Any], key: str, at: str) -> str:
    value = given.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{at}: {key} is missing, or is not text")
    return value
