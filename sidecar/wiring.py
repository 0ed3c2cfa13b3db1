"""Wires the parts of a sidecar over a store: all of it but its listeners."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sidecar.actors.clock import Clock
from sidecar.actors.engine import Engine
from sidecar.actors.reminders import Reminders
from sidecar.actors.trees import Trees
from sidecar.config import settings as config
from sidecar.config.settings import Settings
from sidecar.core.attempts import DeliveryLimit
from sidecar.core.causes import Cause
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import Ids, PeerId
from sidecar.core.policy import Policy
from sidecar.edge.admin import inspection
from sidecar.edge.admin.inspection import Admin
from sidecar.edge.dialects import Limits
from sidecar.edge.peer.forward import Forwarder, Served
from sidecar.edge.peer.links import Peers, Proof
from sidecar.edge.peer.passed_on import ROUTER_FIELDS
from sidecar.edge.peer.reports import PeerReports
from sidecar.edge.peer.trees import LOOK, PeerTrees
from sidecar.edge.taskhub.service import TaskHub
from sidecar.edge.taskhub.streams import Streams
from sidecar.edge.transport import processes
from sidecar.edge.transport.ports import Channel
from sidecar.peers.directory import Directory
from sidecar.peers.outbox import Outbox
from sidecar.peers.ports import Link
from sidecar.services import services
from sidecar.services.inspection import Inspection
from sidecar.services.retention import Retention
from sidecar.services.services import Services
from sidecar.store.protocol import Store
from sidecar.work import lifecycle
from sidecar.work.dispatch import Dispatch, Timeouts
from sidecar.work.memory import Memory
from sidecar.work.pool import Pool

Connect = Callable[[str, PeerId], Channel]


class _LateLinks:
    """The outbox is built before the links that it looks for."""

    peers: Peers

    def link(self, namespace: str, app: str) -> Link | None:
        return self.peers.link(namespace, app)

    def knock(self, namespace: str, app: str) -> None:
        self.peers.knock(namespace, app)

    def why(self, namespace: str, app: str) -> Cause:
        return self.peers.why(namespace, app)


@dataclass(frozen=True, slots=True)
class Middle:
    """All of a sidecar but its listeners and its store."""

    engine: Engine
    dispatch: Dispatch
    trees: Trees
    services: Services
    outbox: Outbox
    peers: Peers
    taskhub: TaskHub
    admin: Admin
    directory: Directory
    retention: Retention
    memory: Memory


def assemble(
    settings: Settings,
    me: AppIdentity,
    store: Store,
    clock: Clock,
    *,
    connect: Connect,
    proves: Proof | None = None,
    policy: Policy | None = None,
) -> Middle:
    """Wire the parts of a sidecar over a store; `connect` opens a channel to a peer at an address."""
    engine = Engine(me, store, clock, _ids(store, clock))
    directory = _directory(me, settings)
    links = _LateLinks()
    receives, unknown_app_fails = settings.max_message_bytes, settings.unknown_app == "fail"
    outbox = Outbox(engine, directory, links, unknown_app_fails=unknown_app_fails)
    pool, trees = Pool(settings.limits, clock.now), Trees(engine)
    reminders = Reminders(engine, trees)
    dispatch = engine.effects = _dispatch(engine, pool, reminders, outbox, settings)
    engine.observers = (lifecycle.tell, lifecycle.Standstills().tell)
    served_by = services.build(dispatch, reminders, trees, policy)
    outbox.calls = served_by.messages.calls
    served = Served(served_by.messages.dedup_keys.release)
    reports = served_by.waiting.reports = PeerReports(outbox, served_by.waiting)
    links.peers = Peers(
        served_by.messages, outbox, connect, served=served, receives=receives, reports=reports, proves=proves
    )
    forwarder = Forwarder(engine, links.peers, unknown_app_fails)
    memory = Memory(settings.memory_limit, dispatch.relieve)
    streams = Streams(dispatch, Limits(settings.max_message_bytes, settings.worker_receive_bytes))
    taskhub = TaskHub(served_by, streams, forwarder, memory, settings)
    admin = Admin(Inspection(served_by.clients, dispatch, outbox), forwarder)
    trees.elsewhere = peer_trees = PeerTrees(forwarder, trees)
    served.methods = {name: method for name, method in taskhub.calls().items() if name in ROUTER_FIELDS}
    served.methods |= {inspection.TREE: admin.methods()[inspection.TREE], **peer_trees.methods()}
    served.reads |= {inspection.TREE, LOOK}
    retention = Retention(engine, settings.retention)
    return Middle(engine, dispatch, trees, served_by, outbox, links.peers, taskhub, admin, directory, retention, memory)


def _ids(store: Store, clock: Clock) -> Ids:
    """Return the sources of numbers for this start.

    A store that went back has forgotten some that it gave. Order numbers grow slower than microseconds pass, so those
    that were given before now are smaller than the time.
    """
    return Ids(store.next_key, max(store.next_order, clock.now()), clock.new_id, store.next_order - 1)


def _dispatch(engine: Engine, pool: Pool, reminders: Reminders, outbox: Outbox, settings: Settings) -> Dispatch:
    return Dispatch(
        engine,
        pool,
        reminders,
        outbox,
        timeouts=Timeouts(settings.turn_timeout, settings.activity_timeout, settings.entity_timeout),
        delivery_limit=DeliveryLimit(settings.max_deliveries),
        living=processes.living,
    )


def _directory(me: AppIdentity, settings: Settings) -> Directory:
    return Directory(
        me.namespace,
        settings.peers,
        pattern=settings.peer_pattern,
        file=settings.peer_file,
        read=partial(config.read_peers, stay_here=settings.peers_stay_here),
    )
