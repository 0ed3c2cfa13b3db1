"""An app with Microsoft's `durabletask` package that has entities, and workflows that signal, call and lock them."""

import argparse
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from durabletask import entities, task
from durabletask.client import EntityQuery
from durabletask.entities import EntityInstanceId
from durabletask.extensions.history_export import (
    ExportDestination,
    ExportHistoryClient,
    ExportJobCreationOptions,
    ExportMode,
)
from durabletask.extensions.history_export import orchestrator as exporting
from durabletask.scheduled import ScheduledTaskClient
from durabletask.scheduled.models import ScheduleCreationOptions
from durabletask.worker import TaskHubGrpcWorker
from microsoft_app import MicrosoftApp, Writer
from protocol import moment, serve


def counter(key: str) -> EntityInstanceId:
    return EntityInstanceId("Counter", key)


class Counter(entities.DurableEntity):
    """A number."""

    def add(self, amount: int) -> int:
        value = self.get_state(int, 0) + amount
        self.set_state(value)
        return value

    def get(self) -> int:
        return self.get_state(int, 0)

    def set(self, value: int) -> None:
        self.set_state(value)

    def fail(self, message: str) -> None:
        self.set_state(-1)
        raise ValueError(message)

    def add_to(self, order: dict[str, Any]) -> None:
        """Lets another counter add, now or in some seconds."""
        later = order.get("seconds")
        when = None if later is None else datetime.now(UTC) + timedelta(seconds=later)
        self.signal_entity(counter(order["key"]), "add", order["amount"], when)

    def launch(self, order: dict[str, Any]) -> None:
        self.schedule_new_orchestration(order["workflow"], order["input"], instance_id=order["id"])


def operate(ctx: task.OrchestrationContext, order: dict[str, Any]) -> Any:
    """Calls one operation; its failure is the result."""
    try:
        return (yield ctx.call_entity(counter(order["key"]), order["operation"], order.get("value")))
    except task.TaskFailedError as error:
        return str(error.details.message)


def signal_all(ctx: task.OrchestrationContext, order: dict[str, Any]) -> Any:
    """Signals each of the counters so often, and asks the first for its value."""
    for _ in range(order["times"]):
        for key in order["keys"]:
            ctx.signal_entity(counter(key), "add", 1)
    return (yield ctx.call_entity(counter(order["keys"][0]), "get"))


def transfer(ctx: task.OrchestrationContext, order: dict[str, Any]) -> Any:
    """Reads two counters and writes them in a critical section, in several turns; nobody else may come between."""
    source, target = counter(order["source"]), counter(order["target"])
    for _ in range(order.get("times", 1)):
        with (yield ctx.lock_entities([source, target])):
            values = yield task.when_all([ctx.call_entity(source, "get"), ctx.call_entity(target, "get")])
            yield ctx.create_timer(timedelta(milliseconds=order.get("pause_ms", 1)))
            yield task.when_all(
                [
                    ctx.call_entity(source, "set", values[0] - order["amount"]),
                    ctx.call_entity(target, "set", values[1] + order["amount"]),
                ]
            )
    return values


def hold(ctx: task.OrchestrationContext, order: dict[str, Any]) -> Any:
    """Holds locks until it is told to go on; told to fail it does."""
    with (yield ctx.lock_entities([counter(key) for key in order["keys"]])):
        ctx.set_custom_status("holds")
        word = yield ctx.wait_for_external_event("go")
        if word == "fail":
            raise ValueError("told to")
    return word


WORKFLOWS = (operate, signal_all, transfer, hold)


class EntitiesApp(MicrosoftApp):
    """What a test can ask for, beside what it can ask of every app."""

    def _prepare(self, worker: TaskHubGrpcWorker) -> None:
        self._written = Writer()
        self._exports = ExportHistoryClient(self._client, self._written)
        self._exports.register_worker(worker)
        for workflow in WORKFLOWS:
            worker.add_orchestrator(workflow)
        worker.add_entity(Counter)
        worker.configure_scheduled_tasks()

    def do_signal(self, key: str, operation: str, value: Any = None, at: float | None = None) -> None:
        self._client.signal_entity(counter(key), operation, value, signal_time=moment(at))

    def do_entity(self, key: str) -> Any:
        return _shown(self._client.get_entity(counter(key)))

    def do_entities(self, **query: Any) -> Any:
        for name in ("last_modified_from", "last_modified_to"):
            query[name] = moment(query.get(name))
        return [_shown(found) for found in self._client.get_all_entities(EntityQuery(**query))]

    def do_clean(self, **wanted: bool) -> Any:
        done = self._client.clean_entity_storage(**wanted)
        return [done.empty_entities_removed, done.orphaned_locks_released]

    def do_schedule(self, id: str, workflow: str, seconds: float, input: Any) -> None:
        options = ScheduleCreationOptions(
            id, workflow, timedelta(seconds=seconds), input, start_immediately_if_late=True
        )
        ScheduledTaskClient(self._client).create_schedule(options)

    def do_change_schedule(self, id: str, how: str) -> None:
        getattr(ScheduledTaskClient(self._client).get_schedule_client(id), how)()

    def do_describe_schedule(self, id: str) -> Any:
        found = ScheduledTaskClient(self._client).get_schedule(id)
        return None if found is None else found.status.name

    def do_export_job(self, since: float, until: float) -> Any:
        """Export what ended in this time, as a job; return what was written and how the job ended."""
        options = ExportJobCreationOptions(
            ExportMode.BATCH, moment(since), ExportDestination("histories"), moment(until), max_instances_per_batch=3
        )
        job = self._exports.create_job(options)
        done = self._exports.get_job_client(job.job_id).wait(timeout=30)
        return [done.status.name, done.exported_instances, done.failed_instances, sorted(self._written.ids)]

    def do_follow(self, since: float, job: str) -> None:
        """Export what has ended since then, and all that ends from now on, as a job without an end."""
        exporting._CONTINUOUS_IDLE_DELAY_OVERRIDE = timedelta(seconds=0.5)  # a minute is long for a test
        options = ExportJobCreationOptions(
            ExportMode.CONTINUOUS, moment(since), ExportDestination("histories"), max_instances_per_batch=3
        )
        self._exports.create_job(options, job_id=job)

    def do_followed(self) -> Any:
        """Return what was written, as often as it was."""
        return sorted(self._written.ids)

    def do_unfollow(self, job: str) -> None:
        self._exports.get_job_client(job).delete()

    def do_schedules(self) -> Any:
        return sorted(found.schedule_id for found in ScheduledTaskClient(self._client).list_schedules())


def _shown(found: Any) -> Any:
    if found is None:
        return None
    fields = {"id": str(found.id), "backlog": found.backlog_queue_size, "locked_by": found._locked_by}
    return fields | {"state": found.get_typed_state() if found.includes_state and found.get_state() else None}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.INFO)
    serve(EntitiesApp(options.port, activities_only=False, task_hub=""))


if __name__ == "__main__":
    main()
