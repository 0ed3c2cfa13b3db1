"""What is looked at when it is asked for: queues, workers, peers, the store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from typing import Protocol

from sidecar.edge.peer.links import Peers
from sidecar.edge.security.certificates import Certificates
from sidecar.peers.outbox import Outbox
from sidecar.store.protocol import Maintenance
from sidecar.telemetry import catalog
from sidecar.telemetry.catalog import Metric
from sidecar.telemetry.meters import Look, Reading
from sidecar.work import takers
from sidecar.work.dispatch import Dispatch
from sidecar.work.memory import Memory

_KINDS = (takers.WORKFLOW, takers.ACTIVITY, takers.ENTITY)


class Health(Protocol):
    """What a sidecar says of itself."""

    def ready(self) -> bool:
        """Whether calls are answered."""

    def trouble(self) -> str:
        """Why nothing can be stored, "" if that is not so."""


def of_process(health: Health, memory: Memory, version: str) -> Mapping[Metric, Look]:
    """Return what is looked at of the process."""
    return {
        catalog.BUILD: lambda: [((version,), 1.0)],
        catalog.READY: lambda: [((), float(health.ready()))],
        catalog.STORE_WORKS: lambda: [((), float(not health.trouble()))],
        catalog.MEMORY_SHORT: lambda: [((), float(memory.short))],
    }


def of_store(maintenance: Maintenance | None) -> Mapping[Metric, Look]:
    """Return what is looked at of a store that keeps files."""
    if maintenance is None:
        return {}
    return {catalog.STORE_BYTES: lambda: [((part,), size) for part, size in maintenance.sizes().items()]}


def of_certificates(certificates: Mapping[str, Certificates | None]) -> Mapping[Metric, Look]:
    """Return what is looked at of certificates, by their use."""
    held = {use: one for use, one in certificates.items() if one is not None}
    return {catalog.CERTIFICATE: lambda: [((use,), one.ends()) for use, one in held.items()]}


def of_work(dispatch: Dispatch) -> Mapping[Metric, Look]:
    """Return what is looked at of the work for own workers."""
    pool, engine = dispatch.pool, dispatch.engine
    out: Mapping[str, Sized] = {
        takers.WORKFLOW: dispatch.turns.out,
        takers.ACTIVITY: dispatch.activities.leases,
        takers.ENTITY: dispatch.entities.out,
    }
    queues = {kind: takers.queue_of(pool, kind) for kind in _KINDS}

    def untaken() -> list[Reading]:
        found: Counter[str] = Counter()
        for one in takers.untaken(pool):
            found[one.kind] += one.waiting
        return [((kind,), found[kind]) for kind in _KINDS]

    def oldest() -> Iterator[Reading]:
        now = engine.clock.now()
        for kind, queue in queues.items():
            since = queue.waits_since()
            yield (kind,), 0.0 if since is None else max(0, now - since) / 1e6

    return {
        catalog.ACTORS: lambda: [((), len(engine.residents))],
        catalog.WORKERS: lambda: [((), len(pool.workers))],
        catalog.WAITING: lambda: [((kind,), len(queue)) for kind, queue in queues.items()],
        catalog.UNTAKEN: untaken,
        catalog.OLDEST: oldest,
        catalog.OUT: lambda: [((kind,), len(leases)) for kind, leases in out.items()],
    }


def of_peers(outbox: Outbox, peers: Peers) -> Mapping[Metric, Look]:
    """Return what is looked at of other apps."""

    def oldest() -> Iterator[Reading]:
        now = outbox.engine.clock.now()
        for (_, app), queue in outbox.queues.items():
            since = queue.waits_since()
            yield (app,), 0.0 if since is None else max(0, now - since) / 1e6

    return {
        catalog.OUTBOX: lambda: [((app,), len(queue.pending)) for (_, app), queue in outbox.queues.items()],
        catalog.OUTBOX_OLDEST: oldest,
        catalog.PEER: lambda: [((state.app,), float(state.connected)) for state in peers.states()],
    }
