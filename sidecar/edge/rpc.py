"""What the handlers of all services share: reading requests, naming instances, answering with a status."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from sidecar.actors.residents import Address
from sidecar.core.errors import DeniedError, MalformedError
from sidecar.core.model import DEFAULT_HUB, Outcome, Reply
from sidecar.core.names import invalid_chosen_id, invalid_instance_id
from sidecar.core.receipts import Received
from sidecar.edge.transport.ports import Call, Refused, StatusCode, UnaryHandler
from sidecar.services.clients import OWN, Caller
from sidecar.store.protocol import DamagedError, FullError, UnavailableError

_STATUS = {
    Outcome.MISSING: StatusCode.NOT_FOUND,
    Outcome.EXISTS: StatusCode.ALREADY_EXISTS,
    Outcome.WRONG_STATE: StatusCode.FAILED_PRECONDITION,
    Outcome.DENIED: StatusCode.PERMISSION_DENIED,
    Outcome.INVALID: StatusCode.INVALID_ARGUMENT,
    Outcome.UNAVAILABLE: StatusCode.UNAVAILABLE,
}
M = TypeVar("M", bound=Message)
Method = Callable[[Call, M], Awaitable[bytes]]
Methods = Mapping[str, UnaryHandler]  # by the name of the RPC


@dataclass(frozen=True, slots=True)
class Forwarded(Call):
    """A call that another sidecar has sent on for a client of its app; `received` marks what it does as done."""

    received: Received


def caller_of(call: Call) -> Caller:
    """Return on whose behalf a call is made."""
    return Caller(call.received.app, (call.received,)) if isinstance(call, Forwarded) else OWN


@dataclass(frozen=True, slots=True)
class Admitted(Call):
    """A call, and the task hub that it is for."""

    hub: str = DEFAULT_HUB


def parse(kind: type[M], body: bytes) -> M:
    """Read a request; malformed bytes are the caller's mistake."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Refused(StatusCode.INVALID_ARGUMENT, f"the request is not a valid {kind.DESCRIPTOR.name}") from error


def parsed(kind: type[M], method: Method[M]) -> UnaryHandler:
    """Return a handler of bytes over one of messages."""

    async def serve(call: Call, body: bytes) -> bytes:
        return await method(call, parse(kind, body))

    return serve


def done(reply: Reply) -> bytes:
    """Return an empty answer, or end the call with the status that SDKs expect for the outcome."""
    status = _STATUS.get(reply.outcome)
    if status is not None:
        raise Refused(status, reply.text)
    return b""


def address_of(call: Call, instance_id: str) -> Address:
    """Return whom a client means; an ID that cannot exist is refused, naming it."""
    wrong = invalid_instance_id(instance_id)
    if wrong:
        raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
    return (hub_of(call), instance_id)


def new_address(call: Call, instance_id: str) -> Address:
    """Return where a client wants a new instance to be; an ID that may not be chosen is refused, naming it."""
    wrong = invalid_chosen_id(instance_id)
    if wrong:
        raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
    return (hub_of(call), instance_id)


def hub_of(call: Call) -> str:
    """Return the hub that a call is for."""
    return call.hub if isinstance(call, Admitted) else DEFAULT_HUB


def guarded(method: UnaryHandler) -> UnaryHandler:
    """Turn the errors of the sidecar into statuses."""

    async def serve(call: Call, body: bytes) -> bytes:
        try:
            return await method(call, body)
        except MalformedError as error:
            raise Refused(StatusCode.INVALID_ARGUMENT, str(error)) from error
        except DeniedError as error:
            raise Refused(StatusCode.PERMISSION_DENIED, str(error)) from error
        except FullError as error:
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"nothing can be stored: {error}") from error
        except DamagedError as error:
            raise Refused(StatusCode.DATA_LOSS, str(error)) from error
        except UnavailableError as error:
            raise Refused(StatusCode.UNAVAILABLE, f"the store is not available: {error}") from error

    return serve
