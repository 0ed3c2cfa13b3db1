"""Dapr's first workflow API: each of its calls as one of `TaskHubSidecarService`, by whose handler it is done.

So the app that is named, the task hub, the limits and the errors are those of that service. What differs is Dapr's own:
a terminate and a purge take all that is below, payloads are bytes of a text, and a get of what there is not succeeds.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import operations
from sidecar.core.model import Status
from sidecar.core.names import MAX_ID_LENGTH, invalid_app_id, invalid_chosen_id, invalid_instance_id
from sidecar.edge.client_api import refusals
from sidecar.edge.client_api.refusals import InvalidRequest
from sidecar.edge.methods import CLIENT_API, TASKHUB
from sidecar.edge.rpc import Methods, parsed
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode, UnaryHandler
from sidecar.schema import dapr_pb2 as pb
from sidecar.schema import taskhub_pb2 as hub

VERSIONS = ("Alpha1", "Beta1")
START_TIME = "dapr.workflow.start_time"  # the one option of a start
_PROPERTY = "dapr.workflow."
_CAUSES = "sidecar.workflow.causes"  # our own: why it waits, a line each


class _Named(Protocol):
    """What all requests have."""

    @property
    def instance_id(self) -> str: ...
    @property
    def app_id(self) -> str: ...


class Workflows:
    """Handlers over those of `TaskHubSidecarService`, by path."""

    def __init__(self, taskhub: Mapping[str, UnaryHandler]) -> None:
        self._taskhub = taskhub

    def handlers(self) -> Handlers:
        """Return the methods by path; each has a name for each version."""
        methods = self._methods()
        return Handlers(unary={path(verb, version): methods[verb] for verb in methods for version in VERSIONS})

    def _methods(self) -> Methods:
        return {
            "Start": parsed(pb.StartWorkflowRequest, self._start),
            "Get": parsed(pb.GetWorkflowRequest, self._get),
            "Terminate": parsed(pb.TerminateWorkflowRequest, self._terminate),
            "Pause": parsed(pb.PauseWorkflowRequest, self._pause),
            "Resume": parsed(pb.ResumeWorkflowRequest, self._resume),
            "RaiseEvent": parsed(pb.RaiseEventWorkflowRequest, self._raise),
            "Purge": parsed(pb.PurgeWorkflowRequest, self._purge),
        }

    async def _ask(self, call: Call, name: str, request: Message) -> bytes:
        """Have a call done as what it means."""
        method = TASKHUB + name
        return await self._taskhub[method](replace(call, method=method), request.SerializeToString())

    async def _start(self, call: Call, request: pb.StartWorkflowRequest) -> bytes:
        if request.instance_id:
            _check_id(request.instance_id, invalid_chosen_id(request.instance_id))
        if not request.workflow_name:
            raise InvalidRequest(refusals.NAME_MISSING, "the workflow name is empty")
        start = hub.CreateInstanceRequest(
            instance_id=request.instance_id,
            name=request.workflow_name,
            input=_text("input", request.input),
            router=_router(request),
        )
        if START_TIME in request.options:
            start.scheduled_start.CopyFrom(_time(request.options[START_TIME]))
        answer = hub.CreateInstanceResponse.FromString(await self._ask(call, "StartInstance", start))
        return pb.StartWorkflowResponse(instance_id=answer.instance_id).SerializeToString()

    async def _get(self, call: Call, request: pb.GetWorkflowRequest) -> bytes:
        look = hub.GetInstanceRequest(get_inputs_and_outputs=True, **_target(request))
        answer = hub.GetInstanceResponse.FromString(await self._ask(call, "GetInstance", look))
        if not answer.exists:
            return pb.GetWorkflowResponse(instance_id=request.instance_id).SerializeToString()
        return _shown(answer.state).SerializeToString()

    async def _terminate(self, call: Call, request: pb.TerminateWorkflowRequest) -> bytes:
        return await self._ask(call, "TerminateInstance", hub.TerminateRequest(recursive=True, **_target(request)))

    async def _pause(self, call: Call, request: pb.PauseWorkflowRequest) -> bytes:
        return await self._ask(call, "SuspendInstance", hub.ReasonRequest(**_target(request)))

    async def _resume(self, call: Call, request: pb.ResumeWorkflowRequest) -> bytes:
        return await self._ask(call, "ResumeInstance", hub.ReasonRequest(**_target(request)))

    async def _raise(self, call: Call, request: pb.RaiseEventWorkflowRequest) -> bytes:
        target = _target(request)
        if not request.event_name:
            raise InvalidRequest(refusals.EVENT_MISSING, "the event name is empty")
        data = _text("event data", request.event_data)
        event = hub.RaiseEventRequest(name=request.event_name, input=data, **target)
        return await self._ask(call, "RaiseEvent", event)

    async def _purge(self, call: Call, request: pb.PurgeWorkflowRequest) -> bytes:
        purge = hub.PurgeInstancesRequest(recursive=True, **_target(request))
        answer = hub.PurgeInstancesResponse.FromString(await self._ask(call, "PurgeInstances", purge))
        if not answer.deleted_instance_count:
            raise Refused(StatusCode.NOT_FOUND, operations.MISSING.text)
        return Empty().SerializeToString()


def path(verb: str, version: str = VERSIONS[-1]) -> str:
    """Return the path of a call of the workflow API."""
    return f"{CLIENT_API}{verb}Workflow{version}"


def _target(request: _Named) -> dict[str, Any]:
    """Return the ID and the router of a call about an instance that is there. Raises InvalidRequest."""
    _check_id(request.instance_id, invalid_instance_id(request.instance_id))
    return {"instance_id": request.instance_id, "router": _router(request)}


def _check_id(instance_id: str, wrong: str | None) -> None:
    """Refuse an ID that is wrong, under the code for what is."""
    if wrong is None:
        return
    if not instance_id:
        raise InvalidRequest(refusals.ID_MISSING, wrong)
    raise InvalidRequest(refusals.ID_TOO_LONG if len(instance_id) > MAX_ID_LENGTH else refusals.ID_INVALID, wrong)


def _router(request: _Named) -> hub.Router | None:
    """Return where a call goes; an app ID that cannot be is refused, an empty one is none."""
    if not request.app_id:
        return None
    wrong = invalid_app_id(request.app_id)
    if wrong:
        raise InvalidRequest(refusals.APP_ID_INVALID, wrong)
    return hub.Router(target_app_id=request.app_id)


def _text(what: str, data: bytes) -> StringValue | None:
    """Return a payload as the text that it is; no bytes are no payload."""
    try:
        return StringValue(value=data.decode()) if data else None
    except UnicodeDecodeError as error:
        text = f"the {what} is not UTF-8 text (byte {error.start}): encode it, such as in Base64"
        raise InvalidRequest(refusals.MALFORMED, text) from None


def _time(text: str) -> Timestamp:
    """Return the moment that an option names."""
    moment = Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError:
        wrong = f"{START_TIME} must be a time with its zone, such as 2030-01-31T12:00:00Z"
        raise InvalidRequest(refusals.MALFORMED, wrong) from None
    return moment


def _shown(state: hub.InstanceState) -> pb.GetWorkflowResponse:
    """Return an instance as this API shows it; one that has failed has no output, but what it failed of."""
    failed = state.HasField("failure")
    properties = {
        f"{_PROPERTY}{name}": getattr(state, name).value
        for name in ("custom_status", "input", "output")
        if state.HasField(name) and not (failed and name == "output")
    }
    if failed:
        properties[f"{_PROPERTY}failure.error_type"] = state.failure.error_type
        properties[f"{_PROPERTY}failure.error_message"] = state.failure.error_message
        if state.failure.HasField("stack_trace"):
            properties[f"{_PROPERTY}failure.stack_trace"] = state.failure.stack_trace.value
    if state.causes:
        properties[_CAUSES] = "\n".join(f"{cause.text}; {cause.advice}" for cause in state.causes)
    return pb.GetWorkflowResponse(
        instance_id=state.instance_id,
        workflow_name=state.name,
        created_at=state.created,
        last_updated_at=state.last_updated,
        runtime_status=Status(state.status).name,
        properties=properties,
    )
