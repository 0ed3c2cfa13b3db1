"""All peer links of one sidecar: those it opens to apps that have an address, and those that others open."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from sidecar.actors.tasks import kept_up
from sidecar.core import causes
from sidecar.core.causes import Cause
from sidecar.core.errors import MalformedError
from sidecar.core.ids import PeerId
from sidecar.edge.peer.dial_line import DialLine
from sidecar.edge.peer.endings import why_ended
from sidecar.edge.peer.forward import Served
from sidecar.edge.peer.handshake import check_hello, hello, read_hello
from sidecar.edge.peer.hellos import Hellos
from sidecar.edge.peer.link import METHOD, Incoming, PeerLink, Wire
from sidecar.edge.peer.reports import PeerReports
from sidecar.edge.peer.troubles import Troubles
from sidecar.edge.transport.ports import Call, Channel, Closed, Outflow, PeerNames, Refused, StatusCode
from sidecar.peers.outbox import Outbox
from sidecar.peers.peer_queue import LONGEST_PAUSE, SHORTEST_PAUSE
from sidecar.schema import peer_pb2 as pb
from sidecar.services.peer_messages import PeerMessages
from sidecar.store.protocol import UnavailableError

HANDSHAKE_SECONDS = 10.0
KNOCK_PAUSE = 0.5  # seconds between two attempts, however many callers ask for one at once
_STARTS = 16  # of an app that are remembered
MOST_LINKS = 16  # with one app: it needs one or two, and those that have broken are found out in seconds
LOOK_SECONDS = 5.0  # how often the directory is asked for apps that are new
Proof = Callable[[PeerNames, str], frozenset[str]]  # which apps of a namespace the names in a certificate are those of
log = structlog.get_logger(__name__)


class PeerState(NamedTuple):
    """How it goes with one app: since a time in microseconds, and what the last attempt failed of."""

    app: str
    addresses: tuple[str, ...]
    connected: bool
    since: int
    error: str


@dataclass(slots=True, eq=False)
class _Dialer:
    """Keeps a link to one app."""

    task: asyncio.Task[None]
    knock: asyncio.Event = field(default_factory=asyncio.Event)


class Peers:
    """All links of one sidecar: those it opens, to every app with an address, and those that others open."""

    def __init__(
        self,
        messages: PeerMessages,
        outbox: Outbox,
        connect: Callable[[str, PeerId], Channel],
        *,
        served: Served,
        receives: int,
        reports: PeerReports,
        proves: Proof | None = None,
    ) -> None:
        """`proves` says whose certificate a peer has; None: links are not encrypted.

        `receives` is how many bytes the largest frame has that can be received here.
        """
        self._receives = receives
        self._me = messages.engine.me
        self._messages = messages
        self._directory = outbox.directory
        self._connect = connect
        self._link_up = outbox.link_up
        self._served = served
        self._reports = reports
        self._proves = proves
        self._waiting: dict[PeerId, list[asyncio.Future[PeerLink]]] = {}
        self._opened: dict[PeerId, PeerLink] = {}
        self._accepted: dict[PeerId, PeerLink] = {}
        self._dialers: dict[str, _Dialer] = {}
        self._line = DialLine(lambda app: self._want((self._me.namespace, app)))
        self._since: dict[PeerLink, int] = {}
        engine = messages.engine
        self._hello: Callable[[PeerId], bytes] = lambda peer: hello(
            self._me, engine.identity, engine.start_id, receives, messages.highest.of(peer)
        )
        self._starts: dict[PeerId, deque[str]] = {}  # the processes that each app's sidecar was, oldest first
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False
        self._hellos = Hellos(self._me.namespace)
        self._troubles = Troubles(messages.engine.clock)

    def link(self, namespace: str, app: str) -> PeerLink | None:
        """See `peers.ports.LinkFinder`. An app that is asked for, and has an address, is dialled."""
        peer = (namespace, app)
        found = self._opened.get(peer) or self._accepted.get(peer)
        if found is None:
            self._want(peer)
        return found

    def knock(self, namespace: str, app: str) -> None:
        """See `peers.ports.LinkFinder`."""
        if self.link(namespace, app) is None and app in self._dialers:
            self._dialers[app].knock.set()

    async def linked(self, peer: PeerId) -> PeerLink:
        """See `forward.Links`."""
        link = self.link(*peer)
        if link is not None:
            return link
        waiting = self._waiting.setdefault(peer, [])
        ready: asyncio.Future[PeerLink] = asyncio.get_running_loop().create_future()
        waiting.append(ready)
        self._want(peer, at_once=True)
        self.knock(*peer)
        try:
            return await ready
        finally:
            waiting.remove(ready)
            if not waiting:
                self._waiting.pop(peer, None)

    def why(self, namespace: str, app: str) -> Cause:
        """Say why there is no link to an app. See `outbox.LinkFinder` and `forward.OpenLinks`."""
        return self._troubles.cause(app) if self.known(namespace, app) else causes.no_address(app)

    def known(self, namespace: str, app: str) -> bool:
        """See `forward.Links`."""
        return bool(self._directory.addresses(namespace, app)) or (namespace, app) in self._accepted

    def alike(self, app: str) -> str | None:
        """See `forward.Links`."""
        known = {self._me.app, *self._directory.apps(), *self.connected()}
        return next((one for one in sorted(known) if one.lower() == app.lower() and one != app), None)

    def connected(self) -> list[str]:
        """Return the app IDs that a link is up with."""
        return sorted({app for _, app in (*self._opened, *self._accepted)})

    def states(self) -> list[PeerState]:
        """Return how it goes with every app that is listed, dialled or linked."""
        namespace = self._me.namespace
        states = []
        for app in sorted({*self._directory.apps(), *self._dialers, *self.connected()} - {self._me.app}):
            link = self._opened.get((namespace, app)) or self._accepted.get((namespace, app))
            since = self._since.get(link, 0) if link is not None else self._troubles.since(app)
            error = self._troubles.error(app) if link is None else ""
            addresses = self._directory.addresses(namespace, app)
            states.append(PeerState(app, addresses, link is not None, since, error))
        return states

    def start(self) -> None:
        """Open a link to each app that is listed, and keep it open."""
        name = "look for apps"
        looking = kept_up(self._look, name, self._messages.engine.clock.sleep)
        self._looking = asyncio.create_task(looking, name=name)

    async def stop(self) -> None:
        """Close the links that this side opened."""
        self._stopped = True
        tasks = [dialer.task for dialer in self._dialers.values()]
        tasks += [] if self._looking is None else [self._looking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            for app in sorted(self._directory.apps()):
                self._want((self._me.namespace, app))
            await self._messages.engine.clock.sleep(LOOK_SECONDS)

    # ------------------------------------------------------------ the side that opens

    def _want(self, peer: PeerId, *, at_once: bool = False) -> None:
        """Dial an app unless that is being done; one without an address has nowhere to dial.

        Somebody may wait who must be answered `at_once`.
        """
        app = peer[1]
        if self._stopped or app in self._dialers or app == self._me.app or not self._directory.addresses(*peer):
            return
        if not (at_once or self._directory.lists(app) or self._line.enter(app)):
            return
        task = asyncio.create_task(self._keep(app), name=f"link to {app}")
        self._dialers[app] = _Dialer(task)
        self._troubles.begin(app)
        task.add_done_callback(lambda done: self._dialed(app, done))

    def _dialed(self, app: str, task: asyncio.Task[None]) -> None:
        del self._dialers[app]
        self._line.leave(app)
        if not task.cancelled() and task.exception() is not None:
            log.error("dialling failed", app=app, exc_info=task.exception())

    async def _keep(self, app: str) -> None:
        """Dial for as long as the app is listed, or wanted and has an address."""
        peer = (self._me.namespace, app)
        failures = 0
        clock = self._messages.engine.clock
        while addresses := self._directory.addresses(*peer):
            dialer = self._dialers[app]
            dialer.knock.clear()
            for address in addresses:
                began = clock.monotonic()
                error = await self._dial(app, address)
                if self.link(*peer) is None:
                    self._troubles.failed(app, addresses, address, error)
                failures = 0 if clock.monotonic() - began > LONGEST_PAUSE else failures + 1
            if app not in self._directory.apps() and peer not in self._waiting:
                return  # an address by a pattern: whoever wants the app asks again
            pause = clock.jitter(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(failures, 10)))
            await clock.sleep(min(pause, KNOCK_PAUSE))
            try:
                async with asyncio.timeout(max(0.0, pause - KNOCK_PAUSE)):
                    await dialer.knock.wait()
            except TimeoutError:
                pass
        self._troubles.forget(app)

    async def _dial(self, app: str, address: str) -> str:
        """Open one link and serve it until it ends; return what it has failed of or ended with."""
        peer = (self._me.namespace, app)
        channel = self._connect(address, peer)
        call = channel.duplex(METHOD)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                with suppress(Closed):  # one who is not let in is told why, also before his hello is read
                    await call.send(self._hello(peer))
                greeting = read_hello(await call.receive())
            check_hello(self._me, greeting, app)
            self._admit(greeting)
            if await self._went_back(greeting):
                raise Closed("the hello was that of an earlier store")
            self._line.leave(app)
            await self._serve(call, greeting, self._opened)
        except (Refused, Closed, TimeoutError, MalformedError, DecodeError, UnavailableError) as error:
            return await why_ended(call, error, HANDSHAKE_SECONDS)
        else:
            return "the link ended"
        finally:
            call.cancel()
            await channel.close()

    async def _serve(self, wire: Wire, greeting: pb.Hello, links: dict[PeerId, PeerLink]) -> None:
        messages, served, reports = self._messages, self._served, self._reports
        link = PeerLink(self._me, wire, greeting, messages, served, receives=self._receives, reports=reports)
        links[link.peer] = link
        self._troubles.end(link.peer[1])
        self._since[link] = self._messages.engine.clock.now()
        for ready in self._waiting.pop(link.peer, []):
            if not ready.done():
                ready.set_result(link)
        log.info("peer connected", app=link.peer[1], opened=links is self._opened)
        try:
            running = asyncio.ensure_future(link.run())
            try:
                await self._link_up(link)
                await running
            finally:
                running.cancel()
        finally:
            del self._since[link]
            if links.get(link.peer) is link:
                del links[link.peer]
            self._reports.lost(link.peer)
            if self._directory.addresses(*link.peer):
                self._troubles.begin(link.peer[1])
            log.info("peer disconnected", app=link.peer[1], opened=links is self._opened)

    async def _went_back(self, greeting: pb.Hello) -> bool:
        """Whether an app has seen more of this store than there is: then all apps are told of another one."""
        found = await self._messages.highest.told(greeting.app_id, greeting.seen_store, greeting.seen)
        for link in self._since if found else ():
            link.over = "this store has gone back"
        return found

    def _admit(self, greeting: pb.Hello) -> None:
        """See that an app is one sidecar: of two, as when a store was copied, the one that was started later counts.

        Raises:
            MalformedError: it is another one's while that has a link, or the app has more links than anybody needs.
        """
        peer, process = (greeting.namespace, greeting.app_id), greeting.process_id
        if sum(link.peer == peer for link in self._since) >= MOST_LINKS:
            raise MalformedError(f"app '{peer[1]}' has {MOST_LINKS} links already: close some")
        if not process:  # of an older version
            return
        starts = self._starts.setdefault(peer, deque(maxlen=_STARTS))
        others = [link for link in self._since if link.peer == peer and link.process not in ("", process)]
        if process in starts and others:
            text = f"app '{peer[1]}' has another sidecar, which was started later: stop one; is a store copied?"
            log.error("two sidecars for one app", app=peer[1], store=greeting.store_id)
            raise MalformedError(text)
        if process not in starts:
            starts.append(process)
        for link in others:
            link.over = f"a later sidecar of app '{peer[1]}' has come"

    # ------------------------------------------------------------ the side that is called

    async def accept(self, call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        """Serve a link that another sidecar opened."""
        proved = None if self._proves is None else self._proves(call.identity, self._me.namespace)
        greeting = pb.Hello()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                with self._hellos.read(call, proved):
                    greeting = read_hello(await anext(requests, None))
            check_hello(self._me, greeting, None)
            if proved is not None and greeting.app_id not in proved:
                raise MalformedError(f"the certificate is not that of app '{greeting.app_id}'")
            self._admit(greeting)
            await self._went_back(greeting)
        except TimeoutError:
            raise Refused(StatusCode.DEADLINE_EXCEEDED, "no hello came") from None
        except UnavailableError as error:
            raise Refused(StatusCode.UNAVAILABLE, str(error)) from None
        except (MalformedError, DecodeError) as error:
            self._troubles.refused(greeting.app_id, call.peer, str(error))
            out.send(pb.Frame(refused=str(error)).SerializeToString())
            return
        out.send(self._hello((greeting.namespace, greeting.app_id)))
        try:
            await self._serve(Incoming(requests, out), greeting, self._accepted)
        except (TimeoutError, Closed, DecodeError, UnavailableError) as error:
            raise Refused(StatusCode.UNAVAILABLE, str(error) or "the link fell silent") from None
