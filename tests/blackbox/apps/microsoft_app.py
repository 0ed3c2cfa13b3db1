"""An app with Microsoft's `durabletask` package: a client, and a worker that can come and go."""

import argparse
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from activities import ACTIVITIES
from durabletask import ConcurrencyOptions, task
from durabletask.client import OrchestrationQuery, OrchestrationStatus, TaskHubGrpcClient
from durabletask.extensions.history_export import (
    HistoryExportContext,
    HistoryWriter,
    run_export_instance_history,
    run_list_terminal_instances,
)
from durabletask.grpc_options import GrpcWorkerResiliencyOptions
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.worker import (
    TaskHubGrpcWorker,
    VersionFailureStrategy,
    VersioningOptions,
    VersionMatchStrategy,
)
from protocol import described, failure, moment, serve
from remote_workflows import BY_ACTIVITY
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

    def activity(self, name: str, value: Any = None, *, attempts: int = 1, app: str | None = None) -> Any:
        """An app is named by the tag that the sidecar knows: the SDK has no other way."""
        tags = None if app is None else {"app-id": app}
        return self._ctx.call_activity(name, input=value, retry_policy=_retry(attempts), tags=tags)

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

    def __init__(self, port: int, activities_only: bool, task_hub: str) -> None:
        self._secure = bool(os.environ.get("APP_TLS"))
        self._address = f"localhost:{port}" if self._secure else f"127.0.0.1:{port}"
        headers = {"taskhub": task_hub, "dapr-api-token": os.environ.get("APP_TOKEN", "")}
        self._metadata = [(name, value) for name, value in headers.items() if value] or None
        self._workflows = () if activities_only else (*WORKFLOWS, *BY_ACTIVITY)
        self._client = TaskHubGrpcClient(
            host_address=self._address, metadata=self._metadata, secure_channel=self._secure
        )
        self._worker: TaskHubGrpcWorker | None = None

    def do_connect(self, version: str = "", on_mismatch: str = "REJECT") -> None:
        """Connect a worker: with a version it runs only workflows of that version, and fails or rejects others."""
        # The pauses between attempts are the only setting that matters here: up to 30 s would be slow.
        worker = TaskHubGrpcWorker(
            host_address=self._address,
            metadata=self._metadata,
            secure_channel=self._secure,
            concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=16),
            resiliency_options=GrpcWorkerResiliencyOptions(
                reconnect_backoff_base_seconds=0.2, reconnect_backoff_cap_seconds=1.0
            ),
        )
        for workflow in self._workflows:
            worker.add_orchestrator(_orchestrator(workflow))
        for activity in ACTIVITIES:
            worker.add_activity(_activity(activity))
        if version:
            worker.use_versioning(
                VersioningOptions(
                    version=version,
                    match_strategy=VersionMatchStrategy.STRICT,
                    failure_strategy=VersionFailureStrategy[on_mismatch],
                )
            )
        self._prepare(worker)
        worker.start()
        self._worker = worker

    def _prepare(self, worker: TaskHubGrpcWorker) -> None:
        """Registers what another app has beside."""

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
        *,
        reuse: list[str] | None = None,
        version: str | None = None,
    ) -> str:
        policy = None
        if reuse is not None:
            policy = pb.OrchestrationIdReusePolicy(
                replaceableStatus=[OrchestrationStatus[name].value for name in reuse]
            )
        return self._client.schedule_new_orchestration(
            workflow,
            input=input,
            instance_id=id,
            start_at=moment(start_at),
            reuse_id_policy=policy,
            version=version,
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

    def do_rewind(self, id: str, reason: str | None = None) -> None:
        self._client.rewind_orchestration(id, reason=reason)

    def do_restart(self, id: str, new_id: bool = False) -> str:
        return self._client.restart_orchestration(id, restart_with_new_instance_id=new_id)

    def do_terminate(self, id: str, output: Any = None, recursive: bool = True) -> None:
        self._client.terminate_orchestration(id, output=output, recursive=recursive)

    def do_purge(self, id: str, recursive: bool = True) -> Any:
        result = self._client.purge_orchestration(id, recursive=recursive)
        return {"count": result.deleted_instance_count, "complete": result.is_complete}

    # What is asked of many instances. Where the package has no method of its own, its generated messages are used.

    def do_query(
        self,
        *,
        statuses: list[str] | None = None,
        created_from: float | None = None,
        created_to: float | None = None,
        prefix: str | None = None,
        page: int | None = None,
        payloads: bool = False,
    ) -> Any:
        query = OrchestrationQuery(
            created_time_from=moment(created_from),
            created_time_to=moment(created_to),
            runtime_status=_statuses(statuses),
            instance_id_prefix=prefix,
            fetch_inputs_and_outputs=payloads,
        )
        if page is not None:
            query.max_instance_count = page
        return [described(state) for state in self._client.get_all_orchestration_states(query)]

    def do_list_page(
        self,
        statuses: list[str] | None = None,
        since: float | None = None,
        before: float | None = None,
        page: int | None = None,
        token: str | None = None,
    ) -> Any:
        found = self._client.list_instance_ids(_statuses(statuses), moment(since), moment(before), page, token)
        return {"ids": found.items, "token": found.continuation_token}

    def do_history(self, id: str) -> list[str]:
        return [type(event).__name__.removesuffix("Event") for event in self._client.get_orchestration_history(id)]

    def do_export(self) -> Any:
        """Everything that has ended, as the package's history export writes it."""
        writer = Writer()
        context = HistoryExportContext(client=self._client, writer=writer)
        token, results = None, []
        while True:
            given = {"completed_time_from": "2000-01-01T00:00:00+00:00", "page_size": 2, "continuation_token": token}
            page = run_list_terminal_instances(context, given)
            for instance_id in page["instance_ids"]:
                wanted = {"instance_id": instance_id, "destination": {"container": "all"}}
                results.append(run_export_instance_history(context, wanted))
            token = page["continuation_token"]
            if token is None:
                return {"results": results, "written": sorted(writer.ids)}

    def do_purge_by(
        self,
        statuses: list[str] | None = None,
        created_from: float | None = None,
        created_to: float | None = None,
        timeout: float | None = None,
    ) -> Any:
        limit = None if timeout is None else timedelta(seconds=timeout)
        result = self._client.purge_orchestrations_by(
            moment(created_from), moment(created_to), _statuses(statuses), recursive=False, timeout=limit
        )
        return {"count": result.deleted_instance_count, "complete": result.is_complete}

    def do_purge_batch(self, ids: list[str]) -> int:
        request = pb.PurgeInstancesRequest(instanceBatch=pb.InstanceBatch(instanceIds=ids), isOrchestration=True)
        return int(self._client._stub.PurgeInstances(request).deletedInstanceCount)

    def do_terminate_batch(self, ids: list[str]) -> list[str]:
        request = pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=pb.InstanceBatch(instanceIds=ids))
        return list(self._client._stub.SkipGracefulOrchestrationTerminations(request).unterminatedInstanceIds)

    def do_create_hub(self, recreate: bool = False) -> None:
        self._client._stub.CreateTaskHub(pb.CreateTaskHubRequest(recreateIfExists=recreate))

    def do_delete_hub(self) -> None:
        self._client._stub.DeleteTaskHub(pb.DeleteTaskHubRequest())


class Writer(HistoryWriter):
    """Where the history export writes to: it keeps what it was given."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def write(self, *, instance_id: str, payload: bytes, **options: Any) -> None:
        assert payload
        self.ids.append(instance_id)


def _statuses(names: list[str] | None) -> list[OrchestrationStatus] | None:
    return None if names is None else [OrchestrationStatus[name] for name in names]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--activities-only", action="store_true")
    parser.add_argument("--task-hub", default="")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.INFO)
    serve(MicrosoftApp(options.port, options.activities_only, options.task_hub))


if __name__ == "__main__":
    main()
