"""How many apps may be waited for that were never met.

An app ID that is mistyped costs little, but code that makes app IDs of data must not cost without bound.
"""

from collections import deque
from collections.abc import Mapping

import structlog

from sidecar.actors.engine import Engine
from sidecar.core.ids import PeerId
from sidecar.core.model import Kind, Reminder
from sidecar.peers import refusals
from sidecar.peers.directory import Directory
from sidecar.peers.peer_queue import PeerQueue

MOST_UNMET = 1_000
_NAMED = {Kind.ACTIVITY, Kind.CREATE, Kind.DETACHED, Kind.EVENT}  # what goes to an app that own code names
log = structlog.get_logger(__name__)


class Unmet:
    """Refuses messages to apps beyond those; never one to an app that the directory lists, nor an answer."""

    def __init__(self, engine: Engine, directory: Directory, queues: Mapping[PeerId, PeerQueue]) -> None:
        self._engine = engine
        self._directory = directory
        self._queues = queues
        self._refused: deque[Reminder] = deque()

    def refuses(self, reminder: Reminder) -> bool:
        """Whether a message ends here, since its app is one too many; then its end is under way."""
        peer = reminder.target.namespace, reminder.target.app
        if peer in self._queues or reminder.kind not in _NAMED or not self._is_one_too_many(peer[1]):
            return False
        self._refused.append(reminder)
        if len(self._refused) == 1:
            self._engine.side.spawn(self._refuse(), "refuse apps too many")
        return True

    def _is_one_too_many(self, app: str) -> bool:
        if len(self._queues) < MOST_UNMET:
            return False
        listed = self._directory.apps()
        unmet = sum(not (queue.met or name in listed) for (_, name), queue in self._queues.items())
        return unmet >= MOST_UNMET and app not in listed

    async def _refuse(self) -> None:
        while self._refused:
            try:
                await refusals.one_too_many(self._engine, self._refused[0], MOST_UNMET)
            except Exception:  # the message stays stored, and is looked at after the next start
                log.exception("refusing an app too many failed", app=self._refused[0].target.app)
            self._refused.popleft()
