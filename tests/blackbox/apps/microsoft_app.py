"""An app with Microsoft's `durabletask` package: a client, and a worker that can come and go."""

import argparse
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from activities import ACTIVITIES
from durabletask import ConcurrencyOptions, task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy
from durabletask.worker import TaskHubGrpcWorker
from protocol import described, failure, moment, serve
from workflows import WORKFLOWS, Steps

_RETRY_INTERVAL = timedelta(seconds=0.1)


class MicrosoftFlow:
    """The SDK's orchestration context, as the workflows know it."""

    Failed = task.TaskFailedError

    def __init__(self, ctx: task.OrchestrationContext) -> None:
        self._ctx = ctx
        self.id = ctx.instance_id
        self.all = task.when_all
        self.any = task.when_any
        self.uuid = ctx.new_uuid
        self.event = ctx.wait_for_external_event
        self.status = ctx.set_custom_status

    @property
    def now(self) -> Any:
        return self._ctx.current_utc_datetime

    def activity(self, name: str, value: Any = None, *, attempts: int = 1) -> Any:
        return self._ctx.call_activity(name, input=value, retry_policy=_retry(attempts))

    def child(self, name: str, value: Any = None, *, id: str | None = None, attempts: int = 1) -> Any:
        return self._ctx.call_sub_orchestrator(name, input=value, instance_id=id, retry_policy=_retry(attempts))

    def timer(self, seconds: float) -> Any:
        return self._ctx.create_timer(timedelta(seconds=seconds))

    def event_within(self, name: str, seconds: float) -> Steps:
        event, timer = self.event(name), self.timer(seconds)
        winner = yield task.when_any([event, timer])
        if winner is timer:
            return None
        timer.cancel()
        return event.get_result()

    def continue_as_new(self, value: Any, *, keep_events: bool = False) -> None:
        self._ctx.continue_as_new(value, save_events=keep_events)

    def failure(self, error: Any) -> Any:
        return failure(error.details)


def _retry(attempts: int) -> task.RetryPolicy | None:
    if attempts == 1:
        return None
    return task.RetryPolicy(first_retry_interval=_RETRY_INTERVAL, max_number_of_attempts=attempts)


def _orchestrator(body: Callable[..., Any]) -> Callable[..., Any]:
    def run(ctx: task.OrchestrationContext, value: Any) -> Any:
        return body(MicrosoftFlow(ctx), value)

    run.__name__ = body.__name__
    return run


def _activity(body: Callable[[Any], Any]) -> Callable[..., Any]:
    def run(ctx: task.ActivityContext, value: Any) -> Any:
        return body(value)

    run.__name__ = body.__name__
    return run


class MicrosoftApp:
    """What a test can ask for."""

    def __init__(self, port: int, activities_only: bool) -> None:
        self._address = f"127.0.0.1:{port}"
        self._workflows = () if activities_only else WORKFLOWS
        self._client = TaskHubGrpcClient(host_address=self._address)
        self._worker: TaskHubGrpcWorker | None = None

    def do_connect(self) -> None:
        # The pauses between attempts are the only setting that matters here: up to 30 s would be slow.
        worker = TaskHubGrpcWorker(
            host_address=self._address,
            concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=16),
            resiliency_options=GrpcWorkerResiliencyOptions(
                reconnect_backoff_base_seconds=0.2, reconnect_backoff_cap_seconds=1.0
            ),
        )
        for workflow in self._workflows:
            worker.add_orchestrator(_orchestrator(workflow))
        for activity in ACTIVITIES:
            worker.add_activity(_activity(activity))
        worker.start()
        self._worker = worker

    def do_disconnect(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def do_start(
        self,
        workflow: str,
        input: Any = None,
        id: str | None = None,
        start_at: float | None = None,
        reuse: list[str] | None = None,
    ) -> str:
        policy = None
        if reuse is not None:
            policy = OrchestrationIdReusePolicy(replaceableStatus=[OrchestrationStatus[name].value for name in reuse])
        return self._client.schedule_new_orchestration(
            workflow, input=input, instance_id=id, start_at=moment(start_at), reuse_id_policy=policy
        )

    def do_get(self, id: str, payloads: bool = True) -> Any:
        return described(self._client.get_orchestration_state(id, fetch_payloads=payloads))

    def do_wait_start(self, id: str, timeout: float) -> Any:
        return described(self._client.wait_for_orchestration_start(id, timeout=timeout))

    def do_wait(self, id: str, timeout: float) -> Any:
        return described(self._client.wait_for_orchestration_completion(id, timeout=timeout))

    def do_raise(self, id: str, name: str, value: Any = None) -> None:
        self._client.raise_orchestration_event(id, name, data=value)

    def do_suspend(self, id: str) -> None:
        self._client.suspend_orchestration(id)

    def do_resume(self, id: str) -> None:
        self._client.resume_orchestration(id)

    def do_terminate(self, id: str, output: Any = None, recursive: bool = True) -> None:
        self._client.terminate_orchestration(id, output=output, recursive=recursive)

    def do_purge(self, id: str, recursive: bool = True) -> Any:
        result = self._client.purge_orchestration(id, recursive=recursive)
        return {"count": result.deleted_instance_count, "complete": result.is_complete}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--activities-only", action="store_true")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.INFO)
    serve(MicrosoftApp(options.port, options.activities_only))


if __name__ == "__main__":
    main()
