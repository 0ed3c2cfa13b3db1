"""Which work other apps were given lately, by name: what they can be asked about. Bounded; no I/O."""

from collections import OrderedDict
from typing import NamedTuple

from sidecar.core.model import Kind

MOST_LANES = 200  # of one app; of more names the ones that were used last
ACTIVITY, WORKFLOW = "activity", "workflow"
_KINDS = {Kind.ACTIVITY: ACTIVITY, Kind.CREATE: WORKFLOW}


class AskedLane(NamedTuple):
    """Work of one name; `kind` is "activity" or "workflow"."""

    kind: str
    name: str


class Asked:
    """The names of one app."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[AskedLane, None] = OrderedDict()

    def add(self, kind: Kind, name: str) -> None:
        """Take note that an app has such work; other kinds of messages are not work."""
        shown = _KINDS.get(kind)
        if shown is None:
            return
        lane = AskedLane(shown, name)
        self._lanes[lane] = None
        self._lanes.move_to_end(lane)
        if len(self._lanes) > MOST_LANES:
            self._lanes.popitem(last=False)

    def lanes(self) -> list[AskedLane]:
        """Return them, those first that were used longest ago."""
        return list(self._lanes)
