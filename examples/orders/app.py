"""The app `orders`: it owns the workflow of an order.

It uses the package `dapr`, unchanged, which finds the sidecar by DAPR_GRPC_ENDPOINT or DAPR_GRPC_PORT
(127.0.0.1:50001 if neither is set). Run it from the folder `examples`, beside a sidecar with
`--app-id orders`:

    python -m orders.app
"""

from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime, when_all
from worklog import note, wait_for_stop

runtime = WorkflowRuntime()


@runtime.workflow
def place_order(ctx: DaprWorkflowContext, order: dict):
    """Score every item, all at the same time, in the app `ml`; then have the app `logistics` ship the order.

    A workflow is a generator. At each `yield` it may be set aside for as long as it takes (for a second, or
    until another app has been repaired) and goes on where it was, if need be in another process.
    """
    if not ctx.is_replaying:  # to get back to where it was, it runs again from the top: note only once
        note("orders", "place_order starts")

    # `app_id` is all there is to calling another app. The function lives there, so it is called by name.
    calls = [ctx.call_activity("score_item", input=item, app_id="ml") for item in order["items"]]
    scores = yield when_all(calls)

    # A child workflow is called in the same way: it runs in `logistics`, and its result comes back here.
    shipment = yield ctx.call_child_workflow("ship", input=order, app_id="logistics")

    if not ctx.is_replaying:
        note("orders", "place_order ends")
    return {
        "order": order["order"],
        "scores": dict(zip(order["items"], scores, strict=True)),
        "total": sum(scores),
        "shipment": shipment,
    }


@runtime.activity
def reserve_stock(ctx: WorkflowActivityContext, order: dict) -> str:
    """Called back by the child workflow in `logistics`. An activity is an ordinary function."""
    note("orders", "reserve_stock")
    return f"{len(order['items'])} items reserved"


if __name__ == "__main__":
    runtime.start()  # returns when the sidecar has accepted this app as a worker
    wait_for_stop()
    runtime.shutdown()
