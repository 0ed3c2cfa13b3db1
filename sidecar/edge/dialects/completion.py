"""A worker's answer to a turn, of whichever family, to neutral form. Pure.

The two families use some numbers for different things. What is in such a slot is told from its bytes: each rule
holds for every answer that the published SDKs send.
"""

from collections.abc import Iterable, MutableMapping

from google.protobuf.message import DecodeError

from sidecar.core.errors import MalformedError
from sidecar.core.model import Status
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, MICROSOFT, Family, older_entities, wire
from sidecar.edge.dialects.inputs import InputForm
from sidecar.schema import taskhub_pb2 as pb

_SCOPE, _SCOPES = 6, (1, 2)  # a slot of a child, and what is in it: own history, or that of all callers
_TRACE_MARK = 0x0A  # a trace context begins with its first text field; an ID is printable


def read(
    body: bytes, known: Family | None = None, form: InputForm = InputForm.UNKNOWN
) -> tuple[pb.OrchestratorResponse, Family | None]:
    """Return the answer in neutral form, and the family of its sender as its bytes tell it, else as it is `known`.

    `form` is that in which its sender writes the inputs of activities; the calls of activities have it with them.

    Raises:
        MalformedError: the bytes are not an answer to a turn.
    """
    try:
        response = pb.OrchestratorResponse.FromString(body)
        families = [_read_response(response), *(_read_action(action) for action in response.actions)]
    except (DecodeError, UnicodeDecodeError) as error:
        raise MalformedError("the completion of the turn cannot be read: it is not a valid message") from error
    for action in response.actions:
        if action.HasField("schedule_task"):
            action.schedule_task.input_form = form
    family = _best([*families, known])
    if family in (DAPR, DAPR_DETACHING):
        _drop_beside_continue_as_new(response)
    return response, family


def _best(families: list[Family | None]) -> Family | None:
    """Return the family that is told first; what one answer of a worker has shown of its family, it still knows."""
    first = next((found for found in families if found is not None), None)
    return DAPR_DETACHING if first is DAPR and DAPR_DETACHING in families else first


def _read_response(response: pb.OrchestratorResponse) -> Family | None:
    microsoft = any(response.HasField(name) for name in ("requires_history", "is_partial", "chunk_index"))
    family = MICROSOFT if microsoft else None
    if response.slot_6:
        if wire.has_timestamp(response.slot_6, 2):
            response.orchestration_trace = response.slot_6
            family = MICROSOFT
        else:
            response.version.MergeFromString(response.slot_6)
            family = DAPR
    response.ClearField("slot_6")
    return family


_TELLING = {
    "send_entity_message": MICROSOFT,
    "version_not_available": DAPR,
    "create_detached": DAPR_DETACHING,
}


def _read_action(action: pb.Action) -> Family | None:
    kind = action.WhichOneof("kind")
    family = _TELLING.get(kind or "")
    if kind == "send_event" and (message := older_entities.message_in(action.send_event)) is not None:
        action.send_entity_message.CopyFrom(message)
        return MICROSOFT
    if action.HasField("slot_9"):
        if kind is None:
            action.rewind.SetInParent()  # nobody was asked for a new history: it cannot be carried out
            action.ClearField("slot_9")
            return MICROSOFT
        action.router.MergeFromString(action.slot_9)
        action.ClearField("slot_9")
        family = family or DAPR
    if kind == "schedule_task":
        family = _read_task(action.schedule_task, family)
    elif kind == "create_child":
        app = _app_in(action.create_child.slot_5)
        if app and not action.router.target_app_id:
            action.router.target_app_id = app
        family = _read_child(action.create_child, family)
    elif kind == "complete":
        family = MICROSOFT if action.complete.tags else family
    elif kind == "create_timer":
        family = DAPR if len(action.create_timer.ListFields()) > 1 else family
    return family


def _read_task(task: pb.ScheduleTask, family: Family | None) -> Family | None:
    if task.history_propagation_scope:
        family = DAPR
    if task.slot_4 and family is not DAPR:
        _add_tags(task.tags, task.slot_4)
        family = MICROSOFT
    task.ClearField("slot_4")
    if task.slot_5:
        if task.slot_5[0] == _TRACE_MARK:
            task.parent_trace_context.MergeFromString(task.slot_5)
            family = MICROSOFT
        else:
            task.task_execution_id = task.slot_5.decode()
            family = DAPR
    task.ClearField("slot_5")
    return family


def _read_child(child: pb.CreateChild, family: Family | None) -> Family | None:
    # A number in slot 6 is not what the schema has there: it stays among the unknown fields.
    scope = next(iter(wire.unknown(child, _SCOPE, wire.INTEGER)), None)
    child.history_propagation_scope = scope if scope in _SCOPES else 0
    if child.HasField("retry_parent") or scope is not None:
        family = DAPR
    if _is_trace(child.slot_5):
        child.parent_trace_context.MergeFromString(child.slot_5)
        family = MICROSOFT
    child.ClearField("slot_5")
    if child.slot_6:
        _add_tags(child.tags, child.slot_6)
        family = MICROSOFT
    child.ClearField("slot_6")
    return family


def _app_in(slot: bytes) -> str:
    """Return the app that a child is for, if the slot has its name, as in the proposal: no message begins so."""
    return slot.decode() if slot > b" " else ""


def _is_trace(slot: bytes) -> bool:
    """Whether the slot holds a W3C trace parent ("00-…") and not the name of an app."""
    text = wire.field(slot, 1) or b""
    return text[:2].isdigit() and text[2:3] == b"-"


def _add_tags(tags: MutableMapping[str, str], entries: Iterable[bytes]) -> None:
    for entry in entries:
        tag = pb.Tag.FromString(entry)
        tags[tag.key] = tag.value


def _drop_beside_continue_as_new(response: pb.OrchestratorResponse) -> None:
    """Dapr's workers do not mean the actions beside a continue-as-new; Microsoft's do."""
    last = [action for action in response.actions if action.complete.status == Status.CONTINUED_AS_NEW]
    if last:
        response.ClearField("actions")
        response.actions.append(last[0])
