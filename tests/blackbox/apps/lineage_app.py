"""Two apps of the `dapr` package, of which one shows the other its history: `lineage_app.py ROLE`.

The callee waits until its standard input closes; the caller runs one workflow for each scope and prints what came back.
"""

import json
import sys

from dapr.ext.workflow import DaprWorkflowClient, PropagationScope, WorkflowRuntime

runtime = WorkflowRuntime()


@runtime.activity
def price(ctx, item):
    return len(item)


def seen(history):
    """What a callee can read: per workflow its app, name, and the results of its activities by name."""
    if history is None:
        return None
    shown = []
    for workflow in history.get_workflows():
        prices = [one.output for one in workflow.get_activities_by_name("price")]
        shown.append([workflow.app_id, workflow.name, prices])
    return shown


@runtime.activity
def look(ctx, _):
    return seen(ctx.get_propagated_history())


@runtime.workflow
def callee(ctx, again):
    found = seen(ctx.get_propagated_history())
    if again:
        ctx.continue_as_new(False)
        return None
    return found


@runtime.workflow
def middle(ctx, scope):
    yield ctx.call_activity(price, input="four")
    return (yield ctx.call_child_workflow(callee, input=True, app_id="callee", propagation=PropagationScope[scope]))


@runtime.workflow
def caller(ctx, scope):
    yield ctx.call_activity(price, input="two words")
    asked = PropagationScope[scope]
    looked = yield ctx.call_activity(look, app_id="callee", propagation=asked)
    here = yield ctx.call_activity(look, propagation=asked)
    below = yield ctx.call_child_workflow(middle, input=scope, propagation=asked)
    unasked = yield ctx.call_child_workflow(callee, input=False, app_id="callee")
    return [looked, here, below, unasked]


runtime.start()
if sys.argv[1] == "callee":
    sys.stdin.read()
else:
    client = DaprWorkflowClient()
    found = {}
    for scope in ("OWN_HISTORY", "LINEAGE", "NONE"):
        instance = client.schedule_new_workflow(caller, input=scope)
        state = client.wait_for_workflow_completion(instance, timeout_in_seconds=40)
        found[scope] = json.loads(state.serialized_output) if state.serialized_output else str(state)
    sys.stdout.write(json.dumps(found) + "\n")
runtime.shutdown()
