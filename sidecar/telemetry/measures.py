"""What is counted as it happens: what was committed, which attempts and calls have ended, how long they took."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from sidecar.actors.clock import Clock
from sidecar.core import events
from sidecar.core.model import Changes, Instance, Status
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode, UnaryHandler
from sidecar.telemetry import catalog
from sidecar.telemetry.meters import Meters
from sidecar.work import lifecycle
from sidecar.work.activities import Attempt

_LOOK_SECONDS = 0.25
_ENDS = {Status.COMPLETED: "success", Status.FAILED: "failed"}
# What Dapr calls the calls of clients: it sends commands as events.
_OPERATIONS = {
    "StartInstance": "create_workflow",
    "GetInstance": "get_workflow",
    "RaiseEvent": "add_event",
    "TerminateInstance": "add_event",
    "SuspendInstance": "add_event",
    "ResumeInstance": "add_event",
    "PurgeInstances": "purge_workflow",
}


class Measures:
    """Counts. Its methods are handed to those who are measured."""

    def __init__(self, meters: Meters, clock: Clock) -> None:
        self._clock = clock
        self._operations = meters.counter(catalog.OPERATIONS)
        self._operation_latency = meters.histogram(catalog.OPERATION_LATENCY)
        self._executions = meters.counter(catalog.EXECUTIONS)
        self._execution_latency = meters.histogram(catalog.EXECUTION_LATENCY)
        self._scheduling_latency = meters.histogram(catalog.SCHEDULING_LATENCY)
        self._activity_operations = meters.counter(catalog.ACTIVITY_OPERATIONS)
        self._activity_operation_latency = meters.histogram(catalog.ACTIVITY_OPERATION_LATENCY)
        self._activities = meters.counter(catalog.ACTIVITIES)
        self._activity_latency = meters.histogram(catalog.ACTIVITY_LATENCY)
        self._started = meters.counter(catalog.STARTED)
        self._stalls = meters.counter(catalog.STALLS)
        self._times = meters.counter(catalog.TIMES)
        self._calls = meters.histogram(catalog.CALLS)
        self._commits = meters.histogram(catalog.COMMITS).of()
        self._commit_changes = meters.histogram(catalog.COMMIT_CHANGES).of()
        self._lag = meters.histogram(catalog.LAG).of()

    def committed(self, changes: Changes) -> None:
        """Count what committed changes begin, go on with and end; see `engine.Observer`."""
        new, old, instance = lifecycle.began(changes), lifecycle.ended(changes), changes.instance
        if new is not None:
            self._started.of(new.name).inc()
        if old is not None:
            status = _ENDS.get(old.status, "terminated")
            self._executions.of(old.name, status).inc()
            ended_at = old.completed_at or old.updated_at
            self._execution_latency.of(old.name, status).observe(max(0, ended_at - _wanted_at(old)) / 1e3)
        if instance is None or instance.entity:
            return
        if changes.append and changes.append[0].position == (1, 0) and instance.started_at is not None:
            waited = max(0, instance.started_at - _wanted_at(instance))
            self._scheduling_latency.of(instance.name).observe(waited / 1e3)
        if instance.stall is not None and instance.status is Status.STALLED:
            self._stalls.of(instance.name).inc()

    def handed_out(self, name: str, seconds: float) -> None:
        """Count that an activity went to a worker, after it has waited so long."""
        self._activity_operations.of(name, "success").inc()
        self._activity_operation_latency.of(name, "success").observe(seconds * 1e3)

    def attempted(self, attempt: Attempt) -> None:
        """Count a delivery of an activity that has ended."""
        name, status = attempt.reminder.name, "recoverable"
        if attempt.answer:
            status = "failed" if events.decode(attempt.answer).HasField("task_failed") else "success"
        self._activities.of(name, status).inc()
        self._activity_latency.of(name, status).observe(attempt.seconds * 1e3)

    def scheduled(self, schedule: str, outcome: str, number: int) -> None:
        """Count what became of so many times of a schedule; see `schedule_steps.Told`."""
        self._times.of(schedule, outcome).inc(number)

    @contextmanager
    def commit(self, changes: int) -> Iterator[None]:
        """Measure a commit of so many changes, whether it succeeds or fails; see `store.protocol.Timed`."""
        began = self._clock.monotonic()
        try:
            yield
        finally:
            self._commits.observe(self._clock.monotonic() - began)
            self._commit_changes.observe(changes)

    async def watch_loop(self) -> None:
        """See how long a task that is due waits for its turn, for ever."""
        while True:
            began = self._clock.monotonic()
            await self._clock.sleep(_LOOK_SECONDS)
            self._lag.observe(max(0.0, self._clock.monotonic() - began - _LOOK_SECONDS))

    def timed(self, handlers: Handlers) -> Handlers:
        """Return handlers whose unary calls are measured, but for those that wait for something on purpose."""
        unary: Mapping[str, UnaryHandler] = {
            path: method if (name := path.rpartition("/")[2]).startswith("Wait") else self._timed(name, method)
            for path, method in handlers.unary.items()
        }
        return replace(handlers, unary=unary)

    def _timed(self, name: str, method: Callable[[Call, bytes], Awaitable[bytes]]) -> UnaryHandler:
        async def serve(call: Call, body: bytes) -> bytes:
            began, status = self._clock.monotonic(), StatusCode.CANCELLED
            try:
                reply = await method(call, body)
                status = StatusCode.OK
            except Refused as refused:
                status = refused.status
                raise
            except Exception:
                status = StatusCode.INTERNAL
                raise
            finally:
                self._called(name, status, self._clock.monotonic() - began)
            return reply

        return serve

    def _called(self, name: str, status: StatusCode, seconds: float) -> None:
        self._calls.of(name, status.name).observe(seconds)
        operation = _OPERATIONS.get(name)
        if operation is not None:
            labels = (operation, "success" if status is StatusCode.OK else "failed")
            self._operations.of(*labels).inc()
            self._operation_latency.of(*labels).observe(seconds * 1e3)


def _wanted_at(instance: Instance) -> int:
    """Return when an instance was to start: what was scheduled for later has not waited until then."""
    return max(instance.created_at, instance.scheduled_at or 0)
