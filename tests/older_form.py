"""What an SDK that knows entities in their older form alone makes of a history: the way back from what it is sent."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from sidecar.core import events
from sidecar.edge.dialects.older_entities import _parsed, message_in
from sidecar.schema import taskhub_pb2 as pb


def to_neutral(history: Iterable[pb.HistoryEvent]) -> None:
    """Turn what is about entities in a history that such a worker has written into what all workers read."""
    sections: set[str] = set()
    requests: set[str] = set()
    for message in history:
        if message.HasField("event_sent"):
            found = message_in(message.event_sent)
            kind = None if found is None else found.WhichOneof("kind")
            if kind is not None:
                getattr(message, f"entity_{kind}").CopyFrom(getattr(found, kind))
            sections.add(message.entity_lock_requested.critical_section_id)
            requests.add(message.entity_called.request_id)
        elif message.HasField("event_raised") and message.event_raised.name in sections:
            message.entity_lock_granted.CopyFrom(pb.EntityLockGranted(critical_section_id=message.event_raised.name))
        elif message.HasField("event_raised") and message.event_raised.name in requests:
            _read_answer(message)


def _read_answer(message: pb.HistoryEvent) -> None:
    name, data = message.event_raised.name, _parsed(message.event_raised.input.value)
    try:
        if data.get("exceptionType") is None and data.get("failureDetails") is None:
            completed = pb.EntityCompleted(request_id=name, output=events.text(data.get("result")))
            message.entity_completed.CopyFrom(completed)
        else:
            message.entity_failed.CopyFrom(pb.EntityFailed(request_id=name, failure=_read_failure(data)))
    except (TypeError, ValueError, json_format.Error):
        return


def _read_failure(data: Mapping[str, Any]) -> pb.FailureDetails:
    details = data.get("failureDetails")
    if isinstance(details, dict):
        return _read_details(details)
    return pb.FailureDetails(error_type=data.get("exceptionType") or "", error_message=data.get("result") or "")


def _read_details(details: Mapping[str, Any]) -> pb.FailureDetails:
    inner = details.get("InnerFailure")
    return pb.FailureDetails(
        error_type=details.get("ErrorType") or "",
        error_message=details.get("ErrorMessage") or "",
        stack_trace=events.text(details.get("StackTrace")),
        inner_failure=_read_details(inner) if isinstance(inner, dict) else None,
        is_non_retriable=bool(details.get("IsNonRetriable")),
        properties=_read_properties(details.get("Properties")),
    )


def _read_properties(given: Any) -> dict[str, bytes]:
    if not isinstance(given, dict):
        return {}
    return {key: json_format.ParseDict(value, Value()).SerializeToString() for key, value in given.items()}
