"""The error codes of Dapr's HTTP API, and refusals that have one. Pure."""

from sidecar.edge.transport.ports import Refused, StatusCode

ID_MISSING = "ERR_INSTANCE_ID_PROVIDED_MISSING"
ID_TOO_LONG = "ERR_INSTANCE_ID_TOO_LONG"
ID_INVALID = "ERR_INSTANCE_ID_INVALID"
ID_NOT_FOUND = "ERR_INSTANCE_ID_NOT_FOUND"
NAME_MISSING = "ERR_WORKFLOW_NAME_MISSING"
EVENT_MISSING = "ERR_WORKFLOW_EVENT_NAME_MISSING"
APP_ID_INVALID = "ERR_WORKFLOW_APP_ID_INVALID"
MALFORMED = "ERR_MALFORMED_REQUEST"


class InvalidRequest(Refused):
    """The caller's mistake, under the code that Dapr has for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(StatusCode.INVALID_ARGUMENT, message)
        self.code = code
