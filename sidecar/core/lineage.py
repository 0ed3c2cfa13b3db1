"""The history of a workflow for those that it calls, if it asks for that: its own, or that of its callers too.

Workers ask for it call by call. It travels in the reminder, is kept beside the instance that it is for, over
continue-as-new, and is never part of anybody's own history.
"""

from sidecar.core.calls import Draft
from sidecar.schema import taskhub_pb2 as pb

OWN, ALL = 1, 2  # the scopes of the protocol


def asked_for(response: pb.OrchestratorResponse) -> bool:
    """Whether an answer to a turn asks for it."""
    return any(
        action.schedule_task.history_propagation_scope or action.create_child.history_propagation_scope
        for action in response.actions
    )


def of_call(draft: Draft, scope: int) -> bytes:
    """Return the encoded history that goes with a call; b"" if it asks for none."""
    if scope not in (OWN, ALL) or draft.lineage is None:
        return b""
    history = pb.PropagatedHistory(scope=scope)
    if scope == ALL:
        history.chunks.extend(pb.PropagatedHistory.FromString(draft.lineage.given).chunks)
    instance = draft.state.instance
    history.chunks.add(
        raw_events=draft.lineage.log, app_id=draft.me.app, instance_id=instance.id, workflow_name=instance.name
    )
    return history.SerializeToString(deterministic=True)
