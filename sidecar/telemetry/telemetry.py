"""What is measured and traced of one sidecar, put together: who watches is handed to those who are watched."""

from importlib.util import find_spec
from typing import Protocol

from sidecar.actors.clock import Clock
from sidecar.config import settings as config
from sidecar.config.settings import Settings, StartError
from sidecar.core.identity import AppIdentity
from sidecar.edge.peer.links import Peers
from sidecar.edge.security.trust import Trust
from sidecar.peers.outbox import Outbox
from sidecar.store.protocol import Maintenance
from sidecar.telemetry import levels
from sidecar.telemetry.levels import Health
from sidecar.telemetry.measures import Measures
from sidecar.telemetry.meters import Meters
from sidecar.telemetry.spans import Finished, Spans
from sidecar.work.dispatch import Dispatch
from sidecar.work.memory import Memory


class Exporter(Protocol):
    """Where spans go."""

    def send(self, span: Finished) -> None:
        """Take a span that has ended."""

    async def stop(self) -> None:
        """Send what waits, and no more."""


class Telemetry:
    """Made before the store is opened, whose commits it measures; the other parts follow when they are there."""

    def __init__(self, me: AppIdentity, clock: Clock, exporter: Exporter | None = None) -> None:
        self.meters = Meters(me.app, me.namespace)
        self.measures = Measures(self.meters, clock)
        self._exporter = exporter

    def observe(self, dispatch: Dispatch, outbox: Outbox, peers: Peers) -> None:
        """Count and trace what is committed and worked on, and look at what waits."""
        dispatch.engine.observers += (self.measures.committed,)
        dispatch.activities.observers += (self.measures.attempted,)
        dispatch.activities.queue_observers += (self.measures.handed_out,)
        if self._exporter is not None:
            spans = Spans(self._exporter.send)
            dispatch.engine.observers += (spans.committed,)
            dispatch.activities.observers += (spans.attempted,)
        self.meters.looks({**levels.of_work(dispatch), **levels.of_peers(outbox, peers)})

    def look_at(self, health: Health, memory: Memory, maintenance: Maintenance | None, trust: Trust) -> None:
        """Look at how the process and what it rests on are."""
        certificates = {"peer": trust.peer, "app": trust.app}
        process = levels.of_process(health, memory, config.version())
        self.meters.looks({**process, **levels.of_store(maintenance), **levels.of_certificates(certificates)})

    async def stop(self) -> None:
        """Send the last spans."""
        if self._exporter is not None:
            await self._exporter.stop()


def can_export() -> bool:
    """Whether what an export of spans takes is installed."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


def exporter(settings: Settings) -> Exporter | None:
    """Return where the spans of a sidecar go, None if nowhere.

    Raises:
        StartError: they are to be exported, and what that takes is not installed.
    """
    if not settings.traces:
        return None
    names = {"name": settings.app_id, "namespace": settings.namespace, "version": config.version()}
    resource = {f"service.{key}": value for key, value in names.items()}
    try:
        from sidecar.telemetry.exporting import Exporting  # noqa: PLC0415 - an extra, and slow to import

        return Exporting(resource, settings.trace_otlp, settings.trace_zipkin)
    except ImportError as error:
        text = "traces need an extra of the package: pip install 'multiapp-workflow-sidecar[otel]'"
        raise StartError(text) from error
