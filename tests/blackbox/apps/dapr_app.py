"""An app with the `dapr` package: a client, and a worker that can come and go."""

import argparse
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from activities import ACTIVITIES
from dapr.ext.workflow import (
    DaprWorkflowClient,
    DaprWorkflowContext,
    RetryPolicy,
    TaskFailedError,
    WorkflowRuntime,
    WorkflowState,
    when_all,
    when_any,
)
from google.protobuf.json_format import MessageToDict
from protocol import described, failure, moment, serve
from remote_workflows import REMOTE_WORKFLOWS
from workflows import WORKFLOWS, Steps, wait_events

_RETRY_INTERVAL = timedelta(seconds=0.1)
_HOST = "127.0.0.1"


class DaprFlow:
    """The SDK's workflow context, as the workflows know it."""

    Failed = TaskFailedError

    def __init__(self, ctx: DaprWorkflowContext) -> None:
        self._ctx = ctx
        self.id = ctx.instance_id
        self.all = when_all
        self.any = when_any
        self.event = ctx.wait_for_external_event

    @property
    def now(self) -> Any:
        return self._ctx.current_utc_datetime

    def uuid(self) -> str:
        return str(self._ctx.new_guid())

    def activity(self, name: str, value: Any = None, *, attempts: int = 1, app: str | None = None) -> Any:
        return self._ctx.call_activity(name, input=value, retry_policy=_retry(attempts), app_id=app)

    def child(
        self,
        name: str,
        value: Any = None,
        *,
        id: str | None = None,
        attempts: int = 1,
        app: str | None = None,
    ) -> Any:
        return self._ctx.call_child_workflow(
            name, input=value, instance_id=id, retry_policy=_retry(attempts), app_id=app
        )

    def timer(self, seconds: float) -> Any:
        return self._ctx.create_timer(timedelta(seconds=seconds))

    def event_within(self, name: str, seconds: float) -> Steps:
        try:
            return (yield self._ctx.wait_for_external_event(name, timeout=timedelta(seconds=seconds)))
        except TimeoutError:
            return None

    def status(self, value: Any) -> None:
        self._ctx.set_custom_status(json.dumps(value))

    def continue_as_new(self, value: Any, *, keep_events: bool = False) -> None:
        self._ctx.continue_as_new(value, save_events=keep_events)

    def failure(self, error: Any) -> Any:
        return failure(error.details)


def _retry(attempts: int) -> RetryPolicy | None:
    if attempts == 1:
        return None
    return RetryPolicy(first_retry_interval=_RETRY_INTERVAL, max_number_of_attempts=attempts)


def _workflow(body: Callable[..., Any]) -> Callable[..., Any]:
    def run(ctx: DaprWorkflowContext, value: Any) -> Any:
        return body(DaprFlow(ctx), value)

    return run


def _patched(patches: list[str]) -> Callable[..., Any]:
    """Waits for the events it is told, and answers which of the patches were applied, before each of them."""

    def run(ctx: DaprWorkflowContext, names: list[str]) -> Any:
        seen = []
        for name in names:
            seen.append([patch for patch in patches if ctx.is_patched(patch)])
            yield ctx.wait_for_external_event(name)
        return seen

    return run


def _activity(body: Callable[[Any], Any]) -> Callable[..., Any]:
    def run(ctx: Any, value: Any) -> Any:
        return body(value)

    return run


class DaprApp:
    """What a test can ask for."""

    def __init__(self, port: int, activities_only: bool) -> None:
        self._port = str(port)
        self._workflows = () if activities_only else (*WORKFLOWS, *REMOTE_WORKFLOWS)
        self._client = DaprWorkflowClient(host=_HOST, port=self._port)
        self._runtime: WorkflowRuntime | None = None

    def do_connect(
        self,
        keep_history: bool = True,
        history_cache: int = 0,
        versions: dict[str, bool] | None = None,
        patches: list[str] | None = None,
        receive: int = 0,
    ) -> None:
        """Connect a worker.

        `versions` of the workflow "versioned" with the one that is the latest; the `patches` that "patched" asks for;
        the largest message that it receives.
        """
        runtime = WorkflowRuntime(
            host=_HOST,
            port=self._port,
            maximum_thread_pool_workers=16,
            disable_stateful_history=not keep_history,
            history_cache_max_instances=history_cache or None,
            max_grpc_message_length=receive or None,
        )
        for name, latest in (versions or {}).items():
            runtime.register_versioned_workflow(
                _workflow(wait_events), name="versioned", version_name=name, is_latest=latest
            )
        runtime.register_workflow(_patched(patches or []), name="patched")
        for workflow in self._workflows:
            runtime.register_workflow(_workflow(workflow), name=workflow.__name__)
        for activity in ACTIVITIES:
            runtime.register_activity(_activity(activity), name=activity.__name__)
        runtime.start()
        self._runtime = runtime

    def do_disconnect(self) -> None:
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.shutdown()

    def do_at(self, app: str, method: str, **arguments: Any) -> Any:
        """A call of the SDK's client, addressed to another app."""
        result = getattr(self._client, method)(**arguments, app_id=app)
        return described(result) if isinstance(result, WorkflowState) else result

    def do_events(self, id: str) -> list[dict[str, Any]]:
        """The history of an instance as the SDK reads it, whole: its public form leaves out the apps."""
        return [MessageToDict(event) for event in self._client._DaprWorkflowClient__obj.get_instance_history(id)]

    def do_start(
        self,
        workflow: str,
        input: Any = None,
        id: str | None = None,
        start_at: float | None = None,
    ) -> str:
        return self._client.schedule_new_workflow(workflow, input=input, instance_id=id, start_at=moment(start_at))

    def do_get(self, id: str, payloads: bool = True) -> Any:
        return described(self._client.get_workflow_state(id, fetch_payloads=payloads))

    def do_wait_start(self, id: str, timeout: float) -> Any:
        return described(self._client.wait_for_workflow_start(id, timeout_in_seconds=timeout))

    def do_wait(self, id: str, timeout: float) -> Any:
        return described(self._client.wait_for_workflow_completion(id, timeout_in_seconds=timeout))

    def do_raise(self, id: str, name: str, value: Any = None) -> None:
        self._client.raise_workflow_event(id, name, data=value)

    def do_suspend(self, id: str) -> None:
        self._client.pause_workflow(id)

    def do_resume(self, id: str) -> None:
        self._client.resume_workflow(id)

    def do_numbered(self, id: str) -> list[list[Any]]:
        """Number and kind of each event of a history."""
        return [[event.event_id, event.event_type.value] for event in self._client.get_workflow_history(id)]

    def do_rerun(self, id: str, event: int, **options: Any) -> str:
        return self._client.rerun_workflow_from_event(id, event, **options)

    def do_terminate(self, id: str, output: Any = None, recursive: bool = True) -> None:
        self._client.terminate_workflow(id, output=output, recursive=recursive)

    def do_purge(self, id: str, recursive: bool = True) -> None:
        self._client.purge_workflow(id, recursive=recursive)

    def do_list(self, page: int) -> list[str]:
        return list(self._client.iter_workflow_instance_ids(page_size=page))

    def do_list_page(self, page: int | None = None, token: str | None = None) -> Any:
        found = self._client.list_workflow_instance_ids(page_size=page, continuation_token=token)
        return {"ids": list(found.instance_ids), "token": found.continuation_token}

    def do_history(self, id: str) -> list[str]:
        """The kinds of the events."""
        return [event.event_type.name for event in self._client.get_workflow_history(id)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--activities-only", action="store_true")
    options = parser.parse_args()
    serve(DaprApp(options.port, options.activities_only))


if __name__ == "__main__":
    main()
