"""Builds a sidecar from its settings, runs it, and stops it in order."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any

import structlog

from sidecar import log, system
from sidecar.actors.clock import Clock
from sidecar.config import policy_file
from sidecar.config import settings as config
from sidecar.config.settings import ConfigError, Settings, StartError
from sidecar.config.watched import Watched
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import PeerId
from sidecar.core.policy import Policy
from sidecar.edge import app_port
from sidecar.edge.admin.schedules import ScheduleAdmin
from sidecar.edge.admin.status import StatusAdmin
from sidecar.edge.admin.store import StoreAdmin
from sidecar.edge.client_api.runtime import Extended, Runtime
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.http import surface
from sidecar.edge.http.client_routes import BODY_SECONDS, CALL_SECONDS, ClientRoutes
from sidecar.edge.http.logger_routes import LoggerRoutes
from sidecar.edge.peer import link, shown
from sidecar.edge.security import trust
from sidecar.edge.security.certificates import dns_name
from sidecar.edge.security.trust import Trust
from sidecar.edge.transport import descriptors, listening
from sidecar.edge.transport.listening import Ports
from sidecar.edge.transport.ports import Channel, Handlers, Refused, StatusCode, merged
from sidecar.store.protocol import Maintenance, Store
from sidecar.store.sqlite import schema
from sidecar.store.sqlite import store as sqlite
from sidecar.store.sqlite.maintenance import SqliteMaintenance
from sidecar.telemetry.telemetry import Telemetry, exporter
from sidecar.wiring import assemble
from sidecar.work.memory import limit_of_system, most_answer_bytes

_CLOSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Sidecar:
    """One sidecar: made by `create`, then `start`, `serve` and `stop`, each once."""

    def __init__(
        self,
        settings: Settings,
        me: AppIdentity,
        store: Store,
        maintenance: Maintenance | None,
        *,
        trust: Trust,
        policy: Watched[Policy] | None,
        telemetry: Telemetry,
    ) -> None:
        self.settings = settings
        self.me = me
        self.store = store
        self.maintenance = maintenance
        self.trust = trust
        self.telemetry = telemetry
        self._serving = False
        self._until: asyncio.Event | None = None
        self.extended = Extended({"appNamespace": me.namespace})
        limit = settings.max_message_bytes
        self._policy = policy
        allowed = None if policy is None else policy.look()
        middle = assemble(settings, me, store, Clock(), connect=self._connect, proves=trust.proves, policy=allowed)
        watched = (policy, middle.directory.file, *trust.files())
        self._files: list[Watched[Any]] = [file for file in watched if file is not None]
        self.engine, self.dispatch, self.services = middle.engine, middle.dispatch, middle.services
        self.outbox, self.peers, self.taskhub = middle.outbox, middle.peers, middle.taskhub
        self.admin, self.retention, self.memory = middle.admin, middle.retention, middle.memory
        telemetry.observe(self.dispatch, self.outbox, self.peers)
        telemetry.look_at(self, self.memory, maintenance, trust)
        self.services.schedules.steps.told = telemetry.measures.scheduled
        each = descriptors.connections_each(settings.max_connections, 2 * (len(settings.grpc_port) + 2))
        most = most_answer_bytes(limit, settings.memory_limit)
        handlers = self._app_handlers()
        self.app_server = GrpcServer(handlers, max_receive_bytes=most, max_connections=each)
        self.app_server.unread = self.taskhub.unread
        at_peer = Handlers(duplex={link.METHOD: self.peers.accept})
        self.peer_server = GrpcServer(at_peer, max_receive_bytes=limit, max_connections=each)
        self.http = self._http_surface(handlers, min(each, surface.MAX_CONNECTIONS))

    def _http_surface(self, handlers: Handlers, connections: int) -> surface.HttpSurface:
        return surface.HttpSurface(
            self,
            self.trust.tokens,
            calls=[*ClientRoutes(handlers, self.settings.max_message_bytes).routes(), *LoggerRoutes(log).routes()],
            call_seconds=BODY_SECONDS + CALL_SECONDS,
            open_to_all=self.settings.insecure_listen,
            max_connections=connections,
        )

    def _app_handlers(self) -> Handlers:
        runtime = Runtime(self.extended, self.metadata, self.end)
        copies = StoreAdmin(self.me, self.maintenance, self.engine.clock)
        status = StatusAdmin(self.me, self.engine.clock, self.metadata)
        schedules = ScheduleAdmin(self.services.schedules)
        admin = (self.admin.handlers(), copies.handlers(), status.handlers(), schedules.handlers())
        others = merged(runtime.handlers(), *admin)
        timed = self.telemetry.measures.timed
        return app_port.handlers(self.settings, self.trust.tokens, self.taskhub, others, timed=timed, ready=self.ready)

    def _connect(self, address: str, peer: PeerId) -> Channel:
        tls = None if self.trust.peer is None else self.trust.peer.pem()
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
        me = self.me
        actors: Mapping[str, int] = {}
        if workers:
            workflow, activity = self.dispatch.active()
            retention = me.workflow("", "")._replace(kind="retentioner")  # SDKs' users know it; it has no actors here
            actors = {me.workflow("", "").type: workflow, me.activity("", "").type: activity, retention.type: 0}
        return surface.metadata(
            app_id=me.app,
            namespace=me.namespace,
            version=config.version(),
            active_actors=actors,
            workers=workers,
            peers=self._peers(),
            ready=self.ready(),
        ) | {
            "extended": self.extended.shown(),
            "files": [file.shown() for file in self._files],
            **self.dispatch.watch.shown(self.dispatch.pool),
            "largeHistories": self.dispatch.turns.large.shown(),
        }

    def metrics(self) -> bytes:
        """Return what `GET /metrics` shows."""
        return self.telemetry.meters.shown()

    def _peers(self) -> list[dict[str, object]]:
        """Return how it goes with each other app: those that are known, and those that something waits for."""
        return shown.rows(self.peers, self.outbox, self.services.waiting.reports)

    # ------------------------------------------------------------ life

    def read_files(self) -> None:
        """Read again what files say of peers, tokens, certificates and access; what is wrong does not count."""
        for file in self._files:
            file.look()
        if self._policy is not None:
            self.services.access.policy = self._policy.look()
        _log.info("files read again: other settings need a restart")

    def end(self) -> None:
        """Have `serve` end, as on SIGTERM. Raises Refused while the sidecar starts."""
        if self._until is None:
            raise Refused(StatusCode.UNAVAILABLE, "the sidecar is starting: try again in a moment")
        self._until.set()

    async def start(self) -> Ports:
        """Listen, take up stored work and serve.

        Raises:
            StartError: a port is taken.
        """
        settings, host = self.settings, self.settings.listen_host
        app_tls, peer_tls = (None if one is None else one.pem for one in (self.trust.app, self.trust.peer))
        grpc_ports = [await listening.listen(self.app_server, host, port, app_tls) for port in settings.grpc_port]
        peer_port = await listening.listen(self.peer_server, settings.peer_host, settings.peer_port, peer_tls)
        http_port = await self.http.start(host, settings.http_port)
        await self.outbox.start()
        await self.dispatch.refill()
        await self.services.schedules.steps.start()
        await self.app_server.start()
        await self.peer_server.start()
        self.peers.start()
        return Ports(grpc_ports, http_port, peer_port)

    async def serve(self, until: asyncio.Event) -> None:
        """Do the work until the event is set; a side task that dies ends it loudly."""
        self._until = until
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.dispatch.timers.run(), name="timers"),
                group.create_task(self.dispatch.sweep(), name="sweep"),
                group.create_task(self.retention.run(), name="retention"),
                group.create_task(self.memory.watch(self.engine.clock), name="memory"),
                group.create_task(self.telemetry.measures.watch_loop(), name="lag of the event loop"),
            ]
            if self.maintenance is not None:
                tasks.append(group.create_task(self.maintenance.run(), name="upkeep"))
            for certificates in (self.trust.peer, self.trust.app):
                if certificates is not None:
                    tasks.append(group.create_task(certificates.watch(self.engine.clock), name="certificates"))
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
        self.engine.closing.set()
        closing = [
            asyncio.create_task(self.app_server.stop(_CLOSE_SECONDS)),
            asyncio.create_task(self.peer_server.stop(0.0)),
        ]
        # Streams end only when nobody can connect again: workers then back off instead of spinning.
        await asyncio.sleep(0.05)
        self.taskhub.closing.set()
        await self.outbox.stop()
        await self.peers.stop()
        await asyncio.gather(*closing)
        await self.http.stop()
        await self.engine.tasks.drain()
        await self.store.close()
        await self.telemetry.stop()


Beside = Callable[[Sidecar, Ports], AbstractAsyncContextManager[object]]
"""What goes on beside a sidecar while it serves: entered once store and ports are held, left before they are not."""


async def create(settings: Settings, policy: Watched[Policy] | None = None) -> Sidecar:
    """Open the store and build a sidecar over it. `policy` is for settings that name no file of one.

    Raises:
        StartError: the store cannot be opened, a certificate or token file cannot be used, or traces need an extra.
        ConfigError: the file of the access policy, or that of the peers, is wrong.
    """
    if settings.memory_limit is None:
        settings = replace(settings, memory_limit=limit_of_system())
    me = AppIdentity(
        *(settings.namespace, settings.app_id, settings.reuse == "terminal", settings.routes),
        cascade_suspend=settings.cascade_suspend,
        traces=settings.traces,
    )
    policy = policy if settings.policy is None else policy_file.watched(settings.policy)
    _check_peer_file(settings)
    trusted = trust.read(settings)
    clock = Clock()
    telemetry = Telemetry(me, clock, exporter(settings))
    try:
        store = await sqlite.open_store(me, settings.data_dir, clock.new_id(), telemetry.measures.commit)
    except schema.OpenError as error:
        raise StartError(str(error)) from error
    schema.log_version()
    return Sidecar(
        settings, me, store, SqliteMaintenance(store.file), trust=trusted, policy=policy, telemetry=telemetry
    )


def _check_peer_file(settings: Settings) -> None:
    """See that the file of peers is right, if it is there: it may come later."""
    try:
        if settings.peer_file is not None and settings.peer_file.exists():
            config.read_peers(settings.peer_file, settings.peers_stay_here)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _alone(_sidecar: Sidecar, _ports: Ports) -> AbstractAsyncContextManager[object]:
    return nullcontext()


async def main(settings: Settings, policy: Watched[Policy] | None = None, beside: Beside = _alone) -> None:
    """Run a sidecar until SIGTERM or SIGINT; SIGHUP has it read its files again."""
    until, again = asyncio.Event(), asyncio.Event()
    system.on_signals(system.END_SIGNALS, lambda _: until.set())
    system.on_signals(system.HANGUP_SIGNALS, lambda _: again.set())
    sidecar = await create(settings, policy)
    reading = asyncio.create_task(_read_files(sidecar, again), name="files")
    try:
        ports = await sidecar.start()
        listening.announce(settings, ports)
        gc.freeze()
        async with beside(sidecar, ports):
            await sidecar.serve(until)
    finally:
        reading.cancel()
        await sidecar.stop()
        # One more must not cut the end short, and change the exit code.
        system.ignore_signals((*system.END_SIGNALS, *system.HANGUP_SIGNALS))
    _log.info("stopped")


async def _read_files(sidecar: Sidecar, again: asyncio.Event) -> None:
    while True:
        await again.wait()
        again.clear()
        sidecar.read_files()


def run(settings: Settings, policy: Watched[Policy] | None = None, beside: Beside = _alone) -> int:
    """Run a sidecar in the foreground until SIGTERM or SIGINT; return the exit code.

    `policy` is for settings that name no file of one.

    Raises:
        StartError: it could not start; the text says why.
    """
    log.configure(
        settings.log_format, settings.log_level, app_id=settings.app_id, workflows=settings.workflow_log_level
    )
    log.own_stderr()
    descriptors.raise_limit()
    system.run(main(settings, policy, beside))
    return 0
