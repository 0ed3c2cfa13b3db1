"""Starts the workflow `place_order`, waits for its end, and prints its result as JSON.

This is a client: it needs the sidecar of `orders`, but hosts no workflow itself. Run it from the folder
`examples`:

    python -m orders.place
"""

import json

from dapr.ext.workflow import DaprWorkflowClient, WorkflowStatus

ORDER = {"order": "o-1001", "items": ["lamp", "desk", "chair", "shelf", "rug", "clock"]}


def place(order: dict) -> dict:
    """Start the workflow under the number of the order, and return what it returned."""
    client = DaprWorkflowClient()
    instance = client.schedule_new_workflow("place_order", input=order, instance_id=f"order-{order['order']}")
    state = client.wait_for_workflow_completion(instance, timeout_in_seconds=45)
    if state is None or state.runtime_status is not WorkflowStatus.COMPLETED:
        raise SystemExit(f"the workflow {instance} did not complete: {state}")
    return json.loads(state.serialized_output)


if __name__ == "__main__":
    print(json.dumps(place(ORDER)))
