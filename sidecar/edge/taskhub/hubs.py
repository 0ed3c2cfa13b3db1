"""Which task hub a call is for: what the header `taskhub` means is a setting.

Microsoft's SDKs for its cloud send the header with every call. By default it means nothing, and all calls share one
hub, the one that other apps reach.
"""

from sidecar.core.model import DEFAULT_HUB
from sidecar.core.names import invalid_hub
from sidecar.edge.rpc import Admitted
from sidecar.edge.transport.ports import Call, Refused, StatusCode

HEADER = "taskhub"
IGNORE, SEPARATE = "ignore", "separate"


class Hubs:
    """The hubs of one sidecar: all calls share one, or each name has its own, or only some names do."""

    def __init__(self, setting: str | tuple[str, ...]) -> None:
        self.separate = setting != IGNORE
        self._accepted = None if isinstance(setting, str) else {DEFAULT_HUB, *setting}

    def admit(self, call: Call) -> Admitted:
        """Return the call with its hub; without the header that is the default one.

        Raises:
            Refused: there can be no hub of this name, or it is not among those that the settings accept.
        """
        hub = str(call.metadata.get(HEADER, DEFAULT_HUB)) if self.separate else DEFAULT_HUB
        wrong = invalid_hub(hub)
        if wrong:
            raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
        if self._accepted is not None and hub not in self._accepted:
            raise Refused(
                StatusCode.PERMISSION_DENIED, f"the task hub '{hub}' is not among those that this sidecar accepts"
            )
        return Admitted(call.method, call.metadata, call.deadline, call.peer, call.identity, hub)
