"""Every metric: its name, what it means, its unit and its labels. The reference in `docs/metrics.md` is made of this.

Names that begin with `dapr_` are those of Dapr's runtime, with its labels and its milliseconds, where the meaning is
the same, so that existing boards work. Own ones begin with `sidecar_`, in seconds and bytes. All have the labels
`app_id` and `namespace`. The first label of its own may have any value, of which a bounded number is kept apart.
"""

from typing import Literal, NamedTuple

OTHER = "other"  # what stands in the first label for all values beyond the first ones
MOST_VALUES = 200

_LONG = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 50.0, 80.0, 130.0, 200.0, 300.0, 500.0, 800.0, 1_000.0, 2_000.0)
_MILLISECONDS = (*_LONG, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0, 600_000.0, 3_600_000.0)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0)


class Metric(NamedTuple):
    """One metric. A gauge is looked at when it is asked for; the others are counted as things happen."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


OPERATIONS = Metric(
    "dapr_runtime_workflow_operation_count",
    "counter",
    "Calls of clients: create_workflow, get_workflow, add_event, purge_workflow; success or failed.",
    ("operation", "status"),
)
OPERATION_LATENCY = Metric(
    "dapr_runtime_workflow_operation_latency",
    "histogram",
    "Milliseconds that these calls took.",
    ("operation", "status"),
    _MILLISECONDS,
)
EXECUTIONS = Metric(
    "dapr_runtime_workflow_execution_count",
    "counter",
    "Workflows that have ended: success, failed, terminated.",
    ("workflow_name", "status"),
)
EXECUTION_LATENCY = Metric(
    "dapr_runtime_workflow_execution_latency",
    "histogram",
    "Milliseconds from the start of a workflow, or the time that it was scheduled for, to its end.",
    ("workflow_name", "status"),
    _MILLISECONDS,
)
SCHEDULING_LATENCY = Metric(
    "dapr_runtime_workflow_scheduling_latency",
    "histogram",
    "Milliseconds from the request for a workflow, or the time that it was scheduled for, to its first turn.",
    ("workflow_name",),
    _MILLISECONDS,
)
ACTIVITY_OPERATIONS = Metric(
    "dapr_runtime_workflow_activity_operation_count",
    "counter",
    "Activities that were handed to own workers; success is the only status, since what no worker takes waits.",
    ("activity_name", "status"),
)
ACTIVITY_OPERATION_LATENCY = Metric(
    "dapr_runtime_workflow_activity_operation_latency",
    "histogram",
    "Milliseconds that they waited in the ready queue for a worker.",
    ("activity_name", "status"),
    _MILLISECONDS,
)
ACTIVITIES = Metric(
    "dapr_runtime_workflow_activity_execution_count",
    "counter",
    "Deliveries of activities to own workers: success, failed, or recoverable: it came back unanswered.",
    ("activity_name", "status"),
)
ACTIVITY_LATENCY = Metric(
    "dapr_runtime_workflow_activity_execution_latency",
    "histogram",
    "Milliseconds that a worker had an activity.",
    ("activity_name", "status"),
    _MILLISECONDS,
)
STARTED = Metric("sidecar_workflows_started_total", "counter", "Workflows that were created.", ("workflow_name",))
STALLS = Metric(
    "sidecar_workflow_stalls_total",
    "counter",
    "Commits that left a workflow STALLED: it needs another worker, or a person.",
    ("workflow_name",),
)
TIMES = Metric(
    "sidecar_schedule_times_total",
    "counter",
    "Times of schedules: started; skipped, since a run was active; missed, since it was too late; failed to start.",
    ("schedule", "outcome"),
)
CALLS = Metric(
    "sidecar_call_seconds",
    "histogram",
    "Seconds that calls at the app's gRPC ports took, but for those that wait for a workflow, by gRPC status.",
    ("method", "status"),
    _SECONDS,
)
COMMITS = Metric("sidecar_store_commit_seconds", "histogram", "Seconds that a commit of the store took.", (), _SECONDS)
COMMIT_CHANGES = Metric(
    "sidecar_store_commit_changes", "histogram", "Changes that were committed together.", (), _COUNTS
)
LAG = Metric(
    "sidecar_event_loop_lag_seconds",
    "histogram",
    "Seconds that a task which was due waited for its turn, looked at four times a second.",
    (),
    _SECONDS,
)

BUILD = Metric("sidecar_build_info", "gauge", "Always 1; the version is a label.", ("version",))
READY = Metric("sidecar_ready", "gauge", "1 if calls are answered, else 0.")
STORE_WORKS = Metric("sidecar_store_works", "gauge", "0 while nothing can be stored, else 1.")
STORE_BYTES = Metric("sidecar_store_bytes", "gauge", "Bytes of the database and of its write-ahead log.", ("part",))
MEMORY_SHORT = Metric("sidecar_memory_short", "gauge", "1 while new work is refused for want of memory, else 0.")
ACTORS = Metric("sidecar_actors_in_memory", "gauge", "Workflows and entities that are in memory.")
WORKERS = Metric("sidecar_workers", "gauge", "Workers that are connected.")
WAITING = Metric("sidecar_work_waiting", "gauge", "Work in the ready queue, which is bounded.", ("kind",))
UNTAKEN = Metric("sidecar_work_untaken", "gauge", "Of that, what no connected worker takes.", ("kind",))
OLDEST = Metric(
    "sidecar_work_oldest_seconds",
    "gauge",
    "Seconds that the oldest item has been in the ready queue, 0 if that is empty.",
    ("kind",),
)
OUT = Metric("sidecar_work_out", "gauge", "Work that workers have.", ("kind",))
OUTBOX = Metric("sidecar_outbox_messages", "gauge", "Messages in memory that wait for another app.", ("app",))
OUTBOX_OLDEST = Metric(
    "sidecar_outbox_oldest_seconds", "gauge", "Seconds that the oldest of them waits, 0 if none does.", ("app",)
)
PEER = Metric("sidecar_peer_connected", "gauge", "1 if there is a link to the other app, else 0.", ("app",))
CERTIFICATE = Metric(
    "sidecar_certificate_end_timestamp_seconds", "gauge", "When a certificate ends, in Unix time.", ("use",)
)

COUNTED = (
    *(OPERATIONS, OPERATION_LATENCY, EXECUTIONS, EXECUTION_LATENCY, SCHEDULING_LATENCY),
    *(ACTIVITY_OPERATIONS, ACTIVITY_OPERATION_LATENCY, ACTIVITIES, ACTIVITY_LATENCY),
    *(STARTED, STALLS, TIMES, CALLS, COMMITS, COMMIT_CHANGES, LAG),
)
LOOKED_AT = (
    *(BUILD, READY, STORE_WORKS, STORE_BYTES, MEMORY_SHORT, ACTORS, WORKERS, WAITING, UNTAKEN, OLDEST, OUT),
    *(OUTBOX, OUTBOX_OLDEST, PEER, CERTIFICATE),
)
ALL = (*COUNTED, *LOOKED_AT)
