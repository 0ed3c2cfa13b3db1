"""Dapr's HTTP API as a way to call `dapr.proto.runtime.v1.Dapr`: paths and bodies become its requests, and back.

A call passes the checks that it passes over gRPC, and before its body is read. Bodies are raw: one that is a payload is
taken as it is, any other is read past.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf import json_format
from google.protobuf.message import Message

from sidecar.core.operations import MISSING
from sidecar.edge.client_api import refusals, runtime
from sidecar.edge.client_api.refusals import InvalidRequest
from sidecar.edge.client_api.workflows import path
from sidecar.edge.http import answers
from sidecar.edge.transport.ports import NO_NAMES, Call, Handlers, Refused, StatusCode
from sidecar.schema import dapr_pb2 as pb

CALL_SECONDS = 60.0  # how long a call may take: as long as another app is tried
BODY_SECONDS = 20.0  # aiohttp waits for ever for what comes behind a chunk that is malformed
PREFIXES = ("/v1.0", "/v1.0-beta1", "/v1.0-alpha1")
_AROUND = 16 * 1024  # bytes of a request beside its payload: IDs and names, which aiohttp bounds by half of that
_BODY = "ERR_BODY_READ"
_ACCEPTED, _NO_CONTENT = 202, 204
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Fields = Mapping[str, str]  # of the path and the query, by name
_Build = Callable[[_Fields, bytes], Message]
_Show = Callable[[_Fields, bytes], web.Response]


@dataclass(frozen=True, slots=True)
class _Operation:
    """What a route calls, how its request is made and its answer shown.

    `code` is the error code of what has no code of its own.
    """

    method: str
    code: str
    build: _Build
    show: _Show


class ClientRoutes:
    """The routes over handlers by path; a payload has at most `most_bytes`, less what may be around it."""

    def __init__(self, handlers: Handlers, most_bytes: int) -> None:
        self._handlers = handlers
        self._most_bytes = most_bytes - _AROUND

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        workflows = [
            web.route(method, f"{prefix}/workflows/{{component}}/{rest}", self._serving(operation))
            for prefix in PREFIXES
            for (method, rest), operation in _WORKFLOWS.items()
        ]
        return [
            *workflows,
            web.put("/v1.0/metadata/{key}", self._serving(_SET_METADATA)),
            web.post("/v1.0/shutdown", self._serving(_SHUTDOWN)),
        ]

    def _serving(self, operation: _Operation) -> _Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            fields = {**request.query, **request.match_info}
            try:
                return operation.show(fields, await self._call(operation, request, fields))
            except _TooLargeError:
                text = f"the body has more than {self._most_bytes} bytes: send less, or raise --max-message-bytes"
                return answers.error(413, _BODY, text)
            except InvalidRequest as refused:
                return answers.refusal(refused, refused.code)
            except Refused as refused:
                missing = refused.status is StatusCode.NOT_FOUND
                if missing and refused.message == MISSING.text:
                    return _missing(fields)
                return answers.refusal(refused, refusals.ID_NOT_FOUND if missing else operation.code)

        return serve

    async def _call(self, operation: _Operation, request: web.Request, fields: _Fields) -> bytes:
        call = Call(
            method=operation.method,
            metadata={name.lower(): value for name, value in request.headers.items()},
            deadline=CALL_SECONDS,
            peer=f"http:{request.remote}",
            identity=NO_NAMES,
        )
        with self._handlers.admit[call.method](call):
            body = await self._body(request)
            try:
                message = operation.build(fields, body)
            except ValueError as error:  # half of a surrogate pair, or bytes that are no text
                raise InvalidRequest(refusals.MALFORMED, f"the request is not UTF-8 text: {error}") from error
            return await self._handlers.unary[call.method](call, message.SerializeToString())

    async def _body(self, request: web.Request) -> bytes:
        """Return what a request carries, as it was sent."""
        size = 0
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > self._most_bytes:
                        raise _TooLargeError
                    parts.append(part)
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError, TimeoutError) as error:
            text = f"the body did not end within {BODY_SECONDS:.0f} s, or is not encoded as its headers say"
            raise InvalidRequest(_BODY, text) from error
        return b"".join(parts)


class _TooLargeError(Exception):
    """A body has more bytes than may be."""


def _about_instance(kind: Callable[..., Message]) -> _Build:
    """Return how the request about an instance is made: its body says nothing."""
    return lambda fields, _: kind(
        instance_id=fields["instance"], workflow_component=fields["component"], app_id=fields.get("appID", "")
    )


def _start(fields: _Fields, body: bytes) -> Message:
    return pb.StartWorkflowRequest(
        instance_id=fields.get("instanceID", ""),
        workflow_component=fields["component"],
        workflow_name=fields["name"],
        input=body,
        app_id=fields.get("appID", ""),
    )


def _event(fields: _Fields, body: bytes) -> Message:
    return pb.RaiseEventWorkflowRequest(
        instance_id=fields["instance"],
        workflow_component=fields["component"],
        event_name=fields["event"],
        event_data=body,
        app_id=fields.get("appID", ""),
    )


def _missing(fields: _Fields) -> web.Response:
    """Return what Dapr's runtime says of an ID that no instance has; its own tests compare the text."""
    text = f"unable to find workflow with the provided instance ID: {fields['instance']}"
    return answers.error(404, refusals.ID_NOT_FOUND, text)


def _started(_fields: _Fields, answer: bytes) -> web.Response:
    return web.json_response(json_format.MessageToDict(pb.StartWorkflowResponse.FromString(answer)), status=_ACCEPTED)


def _found(fields: _Fields, answer: bytes) -> web.Response:
    found = pb.GetWorkflowResponse.FromString(answer)
    if not found.runtime_status:
        return _missing(fields)
    return web.json_response(json_format.MessageToDict(found))


def _accepted(_fields: _Fields, _answer: bytes) -> web.Response:
    return web.json_response({}, status=_ACCEPTED)


def _done(_fields: _Fields, _answer: bytes) -> web.Response:
    return web.Response(status=_NO_CONTENT)


def _workflow(verb: str, code: str, build: _Build, show: _Show = _accepted) -> _Operation:
    return _Operation(path(verb), code, build, show)


_WORKFLOWS = {
    ("POST", "{name}/start"): _workflow("Start", "ERR_START_WORKFLOW", _start, _started),
    ("GET", "{instance}"): _workflow("Get", "ERR_GET_WORKFLOW", _about_instance(pb.GetWorkflowRequest), _found),
    ("POST", "{instance}/terminate"): _workflow(
        "Terminate", "ERR_TERMINATE_WORKFLOW", _about_instance(pb.TerminateWorkflowRequest)
    ),
    ("POST", "{instance}/pause"): _workflow("Pause", "ERR_PAUSE_WORKFLOW", _about_instance(pb.PauseWorkflowRequest)),
    ("POST", "{instance}/resume"): _workflow(
        "Resume", "ERR_RESUME_WORKFLOW", _about_instance(pb.ResumeWorkflowRequest)
    ),
    ("POST", "{instance}/purge"): _workflow("Purge", "ERR_PURGE_WORKFLOW", _about_instance(pb.PurgeWorkflowRequest)),
    ("POST", "{instance}/raiseEvent/{event}"): _workflow("RaiseEvent", "ERR_RAISE_EVENT_WORKFLOW", _event),
}
_SET_METADATA = _Operation(
    runtime.SET,
    "ERR_METADATA",
    lambda fields, body: pb.SetMetadataRequest(key=fields["key"], value=body.decode()),
    _done,
)
_SHUTDOWN = _Operation(runtime.SHUTDOWN, "ERR_SHUTDOWN", lambda _, __: pb.ShutdownRequest(), _done)
