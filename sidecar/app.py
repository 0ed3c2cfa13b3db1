"""Builds a sidecar from its settings, runs it, and stops it in order: the only module that knows all the others."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
import uvloop

from sidecar import config, log, policy_file
from sidecar.config import Settings, StartError
from sidecar.core import events
from sidecar.core.crashes import Patience
from sidecar.core.ids import Ids
from sidecar.core.model import Self
from sidecar.core.policy import Policy
from sidecar.directory import Directory
from sidecar.dispatch import Dispatch
from sidecar.edge import admin, http, peer
from sidecar.edge.admin import Admin
from sidecar.edge.certificates import Certificates, Files, dns_name
from sidecar.edge.forward import ROUTER_FIELDS, Forwarder, Served
from sidecar.edge.grpc_aio import GrpcChannel, GrpcServer
from sidecar.edge.health import Health
from sidecar.edge.peers import Peers, PeerState, Proof
from sidecar.edge.store_admin import StoreAdmin
from sidecar.edge.streams import Streams
from sidecar.edge.taskhub import TaskHub
from sidecar.edge.transport import AddressInUse, Channel, Handlers, Tls
from sidecar.engine import Engine
from sidecar.inspection import Inspection
from sidecar.retention import Retention
from sidecar.router import Link, Peer, Router
from sidecar.service import Service
from sidecar.store import opening, sqlite
from sidecar.store.copies import Copies
from sidecar.store.protocol import Store
from sidecar.store.upkeep import Upkeep
from sidecar.timers import Clock

_LOOPBACK = ("127.0.0.1", "::1")
_CLOSE_SECONDS = 1.0
_ENDING = (signal.SIGTERM, signal.SIGINT)
_PEER_HEADROOM = 1024 * 1024
_log = structlog.get_logger(__name__)


class _Links:
    """The router is built before the links that it looks for."""

    peers: Peers

    def link(self, namespace: str, app: str) -> Link | None:
        return self.peers.link(namespace, app)

    def knock(self, namespace: str, app: str) -> None:
        self.peers.knock(namespace, app)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a sidecar listens."""

    grpc: list[int]
    http: int
    peer: int


@dataclass(frozen=True, slots=True)
class Middle:
    """All of a sidecar but its listeners and its store."""

    engine: Engine
    dispatch: Dispatch
    service: Service
    router: Router
    peers: Peers
    taskhub: TaskHub
    admin: Admin
    retention: Retention


Connect = Callable[[str, Peer], Channel]


def assemble(
    settings: Settings,
    me: Self,
    store: Store,
    clock: Clock,
    *,
    connect: Connect,
    proves: Proof | None = None,
    policy: Policy | None = None,
) -> Middle:
    """Wire the parts of a sidecar over a store; `connect` opens a channel to a peer at an address."""
    engine = Engine(me, store, clock, Ids(store.next_key, store.next_order, clock.new_id))
    directory = Directory(
        me.namespace, settings.peers, pattern=settings.peer_pattern, file=settings.peer_file, read=config.read_peers
    )
    links = _Links()
    router = Router(
        engine,
        directory,
        links,
        most_bytes=settings.max_message_bytes - _PEER_HEADROOM,
        unknown_app_fails=settings.unknown_app == "fail",
    )
    dispatch = engine.effects = _dispatch(engine, router, settings)
    service = Service(engine, dispatch, policy)
    most_bytes = settings.max_message_bytes - _PEER_HEADROOM
    served = Served(most_bytes, service.marks.release)
    links.peers = Peers(service, directory, connect, router.link_up, served=served, proves=proves)
    forwarder = Forwarder(engine, links.peers, most_bytes, settings.unknown_app == "fail")
    taskhub = TaskHub(service, Streams(dispatch, settings.max_message_bytes), forwarder, settings)
    persons = Admin(Inspection(service, dispatch, router), forwarder)
    served.methods = {name: method for name, method in taskhub.calls().items() if name in ROUTER_FIELDS}
    served.methods[admin.TREE] = persons.methods()[admin.TREE]
    retention = Retention(engine, settings.retention)
    return Middle(engine, dispatch, service, router, links.peers, taskhub, persons, retention)


def _dispatch(engine: Engine, router: Router, settings: Settings) -> Dispatch:
    return Dispatch(
        engine,
        router,
        turn_timeout=settings.turn_timeout,
        activity_timeout=settings.activity_timeout,
        patience=Patience(settings.max_deliveries),
        limits=settings.limits,
    )


class Sidecar:
    """One sidecar: made by `create`, then `start`, `serve` and `stop`, each once."""

    def __init__(
        self, settings: Settings, store: sqlite.Sqlite, certificates: Certificates | None, policy: Policy | None
    ) -> None:
        self.settings = settings
        self.store = store
        self.certificates = certificates
        self._serving = False
        limit = settings.max_message_bytes
        proves = None if certificates is None else certificates.proves
        middle = assemble(settings, store.me, store, Clock(), connect=self._connect, proves=proves, policy=policy)
        self.engine, self.dispatch, self.service = middle.engine, middle.dispatch, middle.service
        self.router, self.peers, self.taskhub = middle.router, middle.peers, middle.taskhub
        self.retention = middle.retention
        copies = StoreAdmin(store.me, Copies(store.file), self.engine.clock)
        parts = (self.taskhub, middle.admin, copies, Health(self.ready))
        app_handlers = _merged(*(part.handlers() for part in parts))
        self.app_server = GrpcServer(app_handlers, max_receive_bytes=limit)
        self.peer_server = GrpcServer(Handlers(duplex={peer.METHOD: self.peers.accept}), max_receive_bytes=limit)
        self.http = http.HttpSurface(self)

    def _connect(self, address: str, peer: Peer) -> Channel:
        tls = None if self.certificates is None else self.certificates.pem()
        return GrpcChannel(address, max_receive_bytes=self.settings.max_message_bytes, tls=tls, name=dns_name(*peer))

    # ------------------------------------------------------------ what it shows

    def ready(self) -> bool:
        """Whether calls are answered."""
        return self._serving and not self.store.trouble

    def trouble(self) -> str:
        """Why nothing can be stored, "" if that is not so."""
        return self.store.trouble

    def metadata(self) -> dict[str, object]:
        """Return what `GET /v1.0/metadata` shows."""
        workers = len(self.dispatch.pool.workers)
        me = self.store.me
        actors: Mapping[str, int] = {}
        if workers:
            workflow, activity = self.dispatch.active()
            actors = {me.workflow("", "").type: workflow, me.activity("", "").type: activity}
        return http.metadata(
            app_id=me.app,
            namespace=me.namespace,
            version=config.version(),
            active_actors=actors,
            workers=workers,
            peers=self._peers(),
            ready=self.ready(),
        )

    def _peers(self) -> list[dict[str, object]]:
        """Return how it goes with each other app: those that are known, and those that something waits for."""
        waiting = {app: len(queue.pending) for (_, app), queue in self.router.queues.items()}
        states = self.peers.states()
        known = {state.app for state in states}
        states += [PeerState(app, (), False, 0, "") for app in sorted(waiting) if app not in known]
        return [
            {
                "appId": state.app,
                "addresses": list(state.addresses),
                "state": "connected" if state.connected else "connecting" if state.addresses else "no address",
                "since": events.timestamp(state.since).ToJsonString() if state.since else None,
                "waiting": waiting.get(state.app, 0),
                "error": state.error,
            }
            for state in states
        ]

    # ------------------------------------------------------------ life

    async def start(self) -> Ports:
        """Listen, take up stored work and serve.

        Raises:
            StartError: a port is taken.
        """
        settings = self.settings
        grpc_ports = [await _listen_locally(self.app_server, port) for port in settings.grpc_port]
        tls = None if self.certificates is None else self.certificates.pem
        peer_port = await _listen(self.peer_server, settings.peer_host, settings.peer_port, tls)
        http_port = await self.http.start(_LOOPBACK[0], settings.http_port)
        await self.router.start()
        await self.dispatch.refill()
        await self.app_server.start()
        await self.peer_server.start()
        self.peers.start()
        return Ports(grpc_ports, http_port, peer_port)

    async def serve(self, until: asyncio.Event) -> None:
        """Do the work until the event is set; a side task that dies ends it loudly."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.dispatch.timers.run(), name="timers"),
                group.create_task(self.dispatch.sweep(), name="sweep"),
                group.create_task(self.retention.run(), name="retention"),
                group.create_task(Upkeep(self.store.file).run(), name="upkeep"),
            ]
            if self.certificates is not None:
                tasks.append(group.create_task(self.certificates.watch(self.engine.clock), name="certificates"))
            self._serving = True
            await until.wait()
            self._serving = False
            await self._drain()
            for task in tasks:
                task.cancel()

    async def _drain(self) -> None:
        """Hand out nothing more, and take the answers of workers while they may still come."""
        self.taskhub.stopping.set()
        self.dispatch.pool.open = False
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                while self.dispatch.busy():  # noqa: ASYNC110 (looked at for 5 s in the life of a process)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.info("workers did not finish in time: their work is handed out again after the next start")

    async def stop(self) -> None:
        """Close the listeners, then the streams and links, then the store."""
        self.taskhub.stopping.set()
        self.dispatch.pool.open = False
        closing = [
            asyncio.create_task(self.app_server.stop(_CLOSE_SECONDS)),
            asyncio.create_task(self.peer_server.stop(0.0)),
        ]
        # Streams end only when nobody can connect again: workers then back off instead of spinning.
        await asyncio.sleep(0.05)
        self.taskhub.closing.set()
        await self.router.stop()
        await self.peers.stop()
        await asyncio.gather(*closing)
        await self.http.stop()
        await self.engine.drain()
        await self.store.close()


def _merged(*parts: Handlers) -> Handlers:
    return Handlers(
        unary={path: handler for part in parts for path, handler in part.unary.items()},
        stream={path: handler for part in parts for path, handler in part.stream.items()},
        duplex={path: handler for part in parts for path, handler in part.duplex.items()},
    )


async def _listen(server: GrpcServer, host: str, port: int, tls: Callable[[], Tls] | None = None) -> int:
    try:
        _probe(host, port)
        return await server.listen(host, port, tls)
    except OSError as error:
        raise StartError(f"{error}: stop what listens there, or choose another port") from error


async def _listen_locally(server: GrpcServer, port: int) -> int:
    """Listen on both loopback addresses under one port number; without IPv6 on the first alone."""
    bound = await _listen(server, _LOOPBACK[0], port)
    if _has_ipv6():
        await _listen(server, _LOOPBACK[1], bound)
    else:
        _log.info("no IPv6 on this machine: listening on 127.0.0.1 only", port=bound)
    return bound


def _probe(host: str, port: int) -> None:
    """Find out that an address is taken before the transport does: it would say so in lines of its own."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise AddressInUse(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error


def _has_ipv6() -> bool:
    try:
        _probe(_LOOPBACK[1], 0)
    except OSError:
        return False
    return True


async def create(settings: Settings) -> Sidecar:
    """Open the store and build a sidecar over it.

    Raises:
        StartError: the store cannot be opened, or a certificate cannot be used.
        ConfigError: the file of the access policy is wrong.
    """
    me = Self(
        *(settings.namespace, settings.app_id, settings.reuse == "terminal", settings.routes),
        cascade_suspend=settings.cascade_suspend,
    )
    certificates = _certificates(settings)
    policy = None if settings.policy is None else policy_file.read(settings.policy)
    try:
        store = await sqlite.open_store(me, settings.data_dir, Clock().new_id())
    except opening.OpenError as error:
        raise StartError(str(error)) from error
    return Sidecar(settings, store, certificates, policy)


def _certificates(settings: Settings) -> Certificates | None:
    if settings.peer_cert is None or settings.peer_key is None or settings.peer_ca is None:
        return None
    files = Files(settings.peer_cert, settings.peer_key, settings.peer_ca)
    return Certificates(files, settings.trust_domain, settings.namespace, settings.app_id)


async def main(settings: Settings) -> None:
    """Run a sidecar until SIGTERM or SIGINT."""
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(until.set))
    sidecar = await create(settings)
    try:
        ports = await sidecar.start()
        _announce(settings, ports)
        gc.freeze()
        await sidecar.serve(until)
    finally:
        await sidecar.stop()
        for number in _ENDING:  # one more must not cut the end short, and change the exit code
            signal.signal(number, signal.SIG_IGN)
    _log.info("stopped")


def _announce(settings: Settings, ports: Ports) -> None:
    opening.warn_if_affected()
    if settings.insecure_peers:
        _log.warning("peers are not authenticated: --insecure-peers lets anybody who reaches the peer port in")
    _log.info(
        "ready",
        app_id=settings.app_id,
        namespace=settings.namespace,
        grpc_ports=ports.grpc,
        http_port=ports.http,
        peer=f"{settings.peer_host}:{ports.peer}",
        data_dir=str(settings.data_dir),
    )


def run(settings: Settings) -> int:
    """Run a sidecar in the foreground until SIGTERM or SIGINT; return the exit code.

    Raises:
        StartError: it could not start; the text says why.
    """
    log.configure(settings.log_format, settings.log_level)
    uvloop.run(main(settings))
    return 0
