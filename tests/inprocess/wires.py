"""A peer link in memory, whose two ends a test holds."""

import asyncio
from dataclasses import replace
from typing import Any

from sidecar.core.ids import PeerId
from sidecar.edge.peer.forward import Served
from sidecar.edge.peer.link import PeerLink
from sidecar.schema import peer_pb2
from tests.inprocess.world import ME, World


class Wire:
    """One direction of a link in memory and, as `other`, the way back; frames of a kind in `losing` do not arrive."""

    def __init__(self, other: "Wire | None" = None) -> None:
        self.sent: list[str] = []
        self.losing: set[str] = set()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.other = other or Wire(self)

    async def send(self, message: bytes) -> None:
        kind = str(peer_pb2.Frame.FromString(message).WhichOneof("frame"))
        self.sent.append(kind)
        if kind not in self.losing:
            self.other._queue.put_nowait(message)

    async def receive(self) -> bytes | None:
        return await self._queue.get()


class Silent:
    """Asks nothing, and knows nothing."""

    def question(self, peer: PeerId) -> peer_pb2.Frame | None:
        return None

    def answer(self, peer: PeerId, why: peer_pb2.Lanes) -> peer_pb2.Frame:
        return peer_pb2.Frame(pong=True)

    def keep(self, peer: PeerId, because: peer_pb2.Lanes) -> None:
        pass


def ends(world: World, wire: Wire) -> tuple[PeerLink, PeerLink]:
    """The end that is at this sidecar's, and that of app ml, neither running; both take messages in here."""
    theirs = peer_pb2.Hello(protocol=1, namespace="default", app_id="ml", store_id="store of ml")
    mine = peer_pb2.Hello(protocol=1, namespace="default", app_id="orders", store_id="store of orders")
    served = Served(world.messages.dedup_keys.release)
    more: dict[str, Any] = {"receives": 1 << 20, "reports": Silent()}
    receiver = PeerLink(ME, wire, theirs, world.messages, served, **more)
    return receiver, PeerLink(replace(ME, app="ml"), wire.other, mine, world.messages, served, **more)
