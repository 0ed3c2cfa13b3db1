"""How SDKs say that a worker has no code under the name that it was sent. Pure.

Each says it with a failure like any other. The texts are those of the published SDKs, as seen when they run.
"""

import re

from sidecar.schema import taskhub_pb2 as pb

_TYPES = {
    "ActivityTaskNotFound",  # Microsoft's .NET, and its JavaScript for entities
    "OrchestratorTaskNotFound",
    "EntityTaskNotFound",
    "ActivityNotFoundException",  # Dapr's .NET
    "WorkflowNotFound",
    "OrchestratorNotRegisteredError",  # Python and JavaScript
    "ActivityNotRegisteredError",
    "EntityNotRegisteredError",
    "TaskActivityNotRegistered",  # Go
}
_QUOTED = re.compile(r"'(.*)'", re.DOTALL)
# What has a type that other failures have too is told by its whole text.
_TEXTS = {
    "*errors.errorString": re.compile(r"(?:orchestrator|workflow) named '(.*)' is not registered", re.DOTALL),
    "java.lang.IllegalStateException": re.compile(
        r"No activity task named '(.*)' is registered\.|No factory found for orchestrator: (.*)", re.DOTALL
    ),
    "java.lang.NullPointerException": re.compile(
        r'Cannot invoke "com\.microsoft\.durabletask\.TaskOrchestrationFactory\.create\(\)" because "factory" is null'
    ),
}


def unknown_name(failure: pb.FailureDetails) -> str | None:
    """Return the name that a worker says it does not know, "" if it does not say which; None for other failures."""
    text = failure.error_message
    if failure.error_type.rpartition(".")[2] in _TYPES:
        quoted = _QUOTED.search(text)
        return quoted[1] if quoted else None
    pattern = _TEXTS.get(failure.error_type)
    found = pattern.fullmatch(text) if pattern else None
    return next((name for name in found.groups() if name is not None), "") if found else None


def of_turn(response: pb.OrchestratorResponse) -> str | None:
    """Return the name of the workflow that a worker does not know, as its answer to a turn says; see `unknown_name`."""
    failures = (action.complete.failure for action in response.actions if action.complete.HasField("failure"))
    return next((name for failure in failures if (name := unknown_name(failure)) is not None), None)


def of_batch(result: pb.EntityBatchResult) -> str | None:
    """Return the name of the entity that a worker does not know; see `unknown_name`. It has then run no operation."""
    failures = [one.failure.failure if one.HasField("failure") else None for one in result.results]
    failures += [result.failure] if result.HasField("failure") else []
    names = {None if failure is None else unknown_name(failure) for failure in failures}
    return names.pop() if len(names) == 1 else None
