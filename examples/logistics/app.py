"""The app `logistics`: its workflow `ship` runs as a child of the workflow in `orders`.

It uses the package `dapr`, as `orders` does, with a sidecar of its own. Run it from the folder `examples`,
beside a sidecar with `--app-id logistics`:

    python -m logistics.app
"""

from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from worklog import note, wait_for_stop

runtime = WorkflowRuntime()


@runtime.workflow
def ship(ctx: DaprWorkflowContext, order: dict):
    """Reserve the goods, which is the business of the app that called us, then print a label here."""
    if not ctx.is_replaying:
        note("logistics", "ship starts")
    reservation = yield ctx.call_activity("reserve_stock", input=order, app_id="orders")
    label = yield ctx.call_activity(print_label, input=order["order"])  # no `app_id`: an activity of this app
    return {"reservation": reservation, "label": label}


@runtime.activity
def print_label(ctx: WorkflowActivityContext, order: str) -> str:
    note("logistics", "print_label")
    return f"LABEL-{order.upper()}"


if __name__ == "__main__":
    runtime.start()  # returns when the sidecar has accepted this app as a worker
    wait_for_stop()
    runtime.shutdown()
