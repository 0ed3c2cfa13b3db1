"""What is measured of one sidecar, put together: who counts is handed to those who are counted."""

from sidecar.actors.clock import Clock
from sidecar.config import settings as config
from sidecar.core.identity import AppIdentity
from sidecar.edge.peer.links import Peers
from sidecar.edge.security.trust import Trust
from sidecar.peers.outbox import Outbox
from sidecar.store.protocol import Maintenance
from sidecar.telemetry import levels
from sidecar.telemetry.levels import Health
from sidecar.telemetry.measures import Measures
from sidecar.telemetry.meters import Meters
from sidecar.work.dispatch import Dispatch
from sidecar.work.memory import Memory


class Telemetry:
    """Made before the store is opened, whose commits it measures; the other parts follow when they are there."""

    def __init__(self, me: AppIdentity, clock: Clock) -> None:
        self.meters = Meters(me.app, me.namespace)
        self.measures = Measures(self.meters, clock)

    def observe(self, dispatch: Dispatch, outbox: Outbox, peers: Peers) -> None:
        """Count what is committed and worked on, and look at what waits."""
        dispatch.engine.observers += (self.measures.committed,)
        dispatch.activities.observers += (self.measures.attempted,)
        self.meters.looks({**levels.of_work(dispatch), **levels.of_peers(outbox, peers)})

    def look_at(self, health: Health, memory: Memory, maintenance: Maintenance | None, trust: Trust) -> None:
        """Look at how the process and what it rests on are."""
        certificates = {"peer": trust.peer, "app": trust.app}
        process = levels.of_process(health, memory, config.version())
        self.meters.looks({**process, **levels.of_store(maintenance), **levels.of_certificates(certificates)})
