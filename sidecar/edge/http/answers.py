"""What the HTTP port answers when it refuses: a status, and Dapr's form of an error. Pure."""

from aiohttp import web

from sidecar.edge.transport.ports import Refused, StatusCode

UNAUTHENTICATED, DENIED = "ERR_UNAUTHENTICATED", "ERR_PERMISSION_DENIED"
_STATUS = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.FAILED_PRECONDITION: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
_CODE = {StatusCode.UNAUTHENTICATED: UNAUTHENTICATED, StatusCode.PERMISSION_DENIED: DENIED}


def error(status: int, code: str, message: str) -> web.Response:
    """Return an answer that says what is wrong, under a code for programs."""
    return web.json_response({"errorCode": code, "message": message}, status=status)


def unauthenticated(message: str) -> web.Response:
    """Return the answer to who has no token."""
    response = error(401, UNAUTHENTICATED, message)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def refusal(refused: Refused, code: str) -> web.Response:
    """Return the answer to a call that was refused; `code` is that of its operation."""
    if refused.status is StatusCode.UNAUTHENTICATED:
        return unauthenticated(refused.message)
    return error(_STATUS.get(refused.status, 500), _CODE.get(refused.status, code), refused.message)
