"""The program for Dapr's workflow SDK: a worker and a client in one process, for several versions of the SDK.

Where the sidecar is, the SDK reads from its own environment variables.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import versions
import workflows
from basics import Basics
from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime
from management import Management
from player import Scenario, main


class Dapr:
    """The SDK's side: how a worker is made, and the scenarios."""

    def __init__(self) -> None:
        self._client = DaprWorkflowClient()
        self._runtime: WorkflowRuntime | None = None

    def start_worker(self, greeters: Collection[str] = ()) -> None:
        runtime = WorkflowRuntime()
        for workflow in workflows.WORKFLOWS:
            runtime.register_workflow(_again(workflow), name=workflow.__name__)
        for activity in workflows.ACTIVITIES:
            runtime.register_activity(_again(activity), name=activity.__name__)
        if versions.NAMES_VERSIONS:
            for version in greeters:
                greeter, latest = _again(workflows.GREETERS[version]), version == max(greeters)
                runtime.register_versioned_workflow(greeter, name="greeter", version_name=version, is_latest=latest)
        runtime.start()
        self._runtime = runtime

    def stop_worker(self) -> None:
        if self._runtime:
            self._runtime.shutdown()
            self._runtime = None

    def scenarios(self) -> Mapping[str, Scenario]:
        return {**Basics(self._client).scenarios(), **Management(self._client, self._deploy).scenarios()}

    def _deploy(self, greeters: Collection[str]) -> None:
        self.stop_worker()
        self.start_worker(greeters)


def _again(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a new one: the SDK registers a function once only, and workers come and go here."""

    # Older versions leave an input out that is None.
    def call(ctx: Any, value: Any = None) -> Any:
        return function(ctx, value)

    return call


if __name__ == "__main__":
    main(Dapr())
