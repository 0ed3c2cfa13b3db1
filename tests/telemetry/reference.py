"""Writes docs/metrics.md from the code: `python -m tests.telemetry.reference`."""

from pathlib import Path

from sidecar.telemetry import catalog
from sidecar.telemetry.catalog import Metric

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
_HEAD = f"""# Metrics

`GET /metrics` on the HTTP port, in Prometheus's text format (0.0.4). It asks for the API token as all but the health
checks does; without a token it answers to this machine alone. Made from `sidecar/telemetry/catalog.py` by
`make metrics`.

Names that begin with `dapr_` are those of Dapr's runtime, where they mean the same, with its labels and in
milliseconds: boards and alerts for them work as they are. Own names begin with `sidecar_`, in seconds and bytes.
Beside them are the usual `process_*` metrics. All but those have the labels `app_id` and `namespace`. Of each metric
the first {catalog.MOST_VALUES} values of its first label are kept apart; what comes later is counted under
`{catalog.OTHER}`.

[docker/monitoring](../docker/monitoring) has a configuration and alert rules for Prometheus, and a dashboard for
Grafana.

Not here, since they are about what this sidecar does not have: Dapr's `…_local_wake_*`, `…_local_activity_*`,
`…_completions_fold_*`, `…_lock_wait` (its fast path), `…_completion_route_count` (its clusters), `…_attestation_*`, and
`…_payload_size_ratio`.
"""


def text() -> str:
    """Return what docs/metrics.md is to have."""
    parts = [_HEAD]
    for title, metrics in (("Counted", catalog.COUNTED), ("Looked at when asked for", catalog.LOOKED_AT)):
        parts += [f"\n## {title}\n", "\n| metric | kind | labels | what it is |\n| --- | --- | --- | --- |\n"]
        parts += [_row(metric) for metric in metrics]
    return "".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
