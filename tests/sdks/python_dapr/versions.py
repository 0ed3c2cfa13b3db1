"""All that differs between the versions of Dapr's SDK that the program is run with."""

import inspect
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import DaprWorkflowClient, DaprWorkflowContext, WorkflowRuntime, when_any

try:  # 1.18 and newer
    from dapr.ext.workflow import TaskFailedError
except ImportError:
    from durabletask.task import TaskFailedError

__all__ = ["TaskFailedError"]


def _takes(function: Any, argument: str) -> bool:
    return argument in inspect.signature(function).parameters


CALLS_OTHER_APPS = _takes(DaprWorkflowContext.call_activity, "app_id")
WAITS_WITH_TIMEOUT = _takes(DaprWorkflowContext.wait_for_external_event, "timeout")
CLIENT_NAMES_APPS = _takes(DaprWorkflowClient.schedule_new_workflow, "app_id")
NAMES_VERSIONS = hasattr(WorkflowRuntime, "register_versioned_workflow")
PATCHES = "is_patched" in vars(DaprWorkflowContext)
MANAGES = hasattr(DaprWorkflowClient, "get_workflow_history")
# The versions that can do that also take messages of any size.
LONG_HISTORIES = MANAGES


def reuse_policy(action: str) -> Any:
    """The policy for an ID that is in use; None for a version that has none any more."""
    if CALLS_OTHER_APPS and WAITS_WITH_TIMEOUT:
        return None
    from durabletask.internal import orchestrator_service_pb2 as pb  # noqa: PLC0415 - not in newer versions

    statuses = [pb.ORCHESTRATION_STATUS_RUNNING, pb.ORCHESTRATION_STATUS_PENDING]
    return pb.OrchestrationIdReusePolicy(action=action, operationStatus=statuses)


def wait_within(ctx: DaprWorkflowContext, name: str, seconds: float) -> Generator[Any, Any, Any]:
    """An event, or None if it does not come in time."""
    if WAITS_WITH_TIMEOUT:
        try:
            return (yield ctx.wait_for_external_event(name, timeout=timedelta(seconds=seconds)))
        except TimeoutError:
            return None
    event = ctx.wait_for_external_event(name)
    winner = yield when_any([event, ctx.create_timer(timedelta(seconds=seconds))])
    return event.get_result() if winner is event else None
