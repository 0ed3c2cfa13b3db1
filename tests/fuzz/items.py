"""Work items as bytes: what a worker is sent, and how it is answered."""

from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.model import Status
from sidecar.edge.dialects import wire
from sidecar.schema import taskhub_pb2 as pb

TURN, ACTIVITY, ENTITY = range(3)
ANSWERS = ("CompleteOrchestratorTask", "CompleteActivityTask", "CompleteEntityTask")


class Item(NamedTuple):
    """Work that was handed out: its kind, whom it was handed to, its token and its content."""

    kind: int
    peer: str
    token: bytes
    content: bytes


def item_of(peer: str, message: bytes) -> Item | None:
    """Read what came over a stream; None for what is no work."""
    token = wire.field(message, 10) or b""
    for kind, number in ((TURN, 1), (ACTIVITY, 2), (ENTITY, 5)):
        content = wire.field(message, number)
        if content is not None:
            return Item(kind, peer, token, content)
    return None


def addressed(item: Item) -> bytes:
    """Return the fields that say which item is answered; behind all others they count."""
    token = item.token.decode()
    if item.kind == TURN:
        instance = (wire.field(item.content, 1) or b"").decode()
        return pb.OrchestratorResponse(instance_id=instance, completion_token=token).SerializeToString()
    if item.kind == ACTIVITY:
        asked = pb.ActivityRequest.FromString(item.content)
        response = pb.ActivityResponse(
            instance_id=asked.instance.instance_id, task_id=asked.task_id, completion_token=token
        )
        return response.SerializeToString()
    return pb.EntityBatchResult(completion_token=token).SerializeToString()


def honestly(item: Item) -> bytes:
    """Return what a good worker answers."""
    message: Any
    if item.kind == TURN:
        end = pb.Complete(status=Status.COMPLETED, result=StringValue(value='"done"'))
        message = pb.OrchestratorResponse(actions=[pb.Action(id=9_999, complete=end)])
    elif item.kind == ACTIVITY:
        message = pb.ActivityResponse(result=StringValue(value='"done"'))
    else:
        count = len(pb.EntityRequest.FromString(item.content).operation_requests)
        done = pb.OperationResult(success=pb.OperationSuccess(result=StringValue(value="1")))
        message = pb.EntityBatchResult(results=[done] * count, entity_state=StringValue(value="1"))
    return bytes(message.SerializeToString()) + addressed(item)
