"""Sidecars in one process: the real parts over a simulated store, network and clock, which can die and come back."""

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from sidecar.config.settings import Settings
from sidecar.core import events
from sidecar.core.identity import AppIdentity
from sidecar.core.model import Changes, Instance, Kind, Reminder
from sidecar.edge.transport.ports import Call
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import Refusal
from sidecar.wiring import Middle, assemble
from tests.simulation.faulty_store import Disk, Faults
from tests.simulation.invariants import Watch
from tests.simulation.network import Channel, Network, Pipe
from tests.simulation.programs import Violation

BASE_MICROS = 1_800_000_000_000_000
NAMESPACE = "default"
LATE_MICROS = 2_000_000


class SimClock:
    """See `timers.Clock`: simulated time, IDs from the seed. `jump` moves the wall clock alone, in seconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.jump = 0.0

    def now(self) -> int:
        """See `Clock`."""
        return BASE_MICROS + int((asyncio.get_running_loop().time() + self.jump) * 1e6)

    def monotonic(self) -> float:
        """See `Clock`."""
        return asyncio.get_running_loop().time()

    def new_id(self) -> str:
        """See `Clock`."""
        return f"{self._rng.getrandbits(64):016x}"

    def jitter(self, seconds: float) -> float:
        """See `Clock`."""
        return seconds * self._rng.uniform(0.5, 1.0)

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)


class Life:
    """One run of a sidecar's process: what it has started dies with it."""

    def __init__(self) -> None:
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.over = False


_life: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


def track_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let every task be known to the process that it belongs to."""

    def factory(loop_: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop_, **options)
        life = _life.get()
        if life is not None:
            life.tasks[task] = None
            task.add_done_callback(lambda done: life.tasks.pop(done, None))
            if life.over:
                task.cancel()  # what is cancelled with a process may still start something; a real one could not
        return task

    loop.set_task_factory(factory)


class Node:
    """A sidecar and what outlives its process: its data."""

    def __init__(
        self,
        name: str,
        others: Sequence[str],
        network: Network,
        note: Callable[[str, str], None],
        *,
        new_disk: Callable[[], Disk],
        retention: Mapping[str, float],
        cascade: bool,
        most: int | None = None,
    ) -> None:
        self.name = name
        self.me = AppIdentity(NAMESPACE, name, cascade_suspend=cascade)
        self.others = others
        self.network = network
        self._generations = 1
        self._lives: list[Life] = []  # those that are over: what they leave behind ends with the deployment
        self._new_disk = new_disk
        self.disk = new_disk()
        self.identity = f"{name}.1"
        self.kept = self.disk.copy(), self.identity
        self.lost_time = False
        self.watch = Watch(self.me, self.disk)
        self.clock = SimClock(network.rng)
        self.life: Life | None = None
        self.middle: Middle
        self.faults: Faults
        self.running: dict[str, tuple[int, str]] = {}  # activities that a connected worker has: whose, which delivery
        self.violations: list[Violation] = []
        self.signatures: set[tuple[Any, ...]] = set()
        self.on_up: Callable[[], None] = lambda: None
        self.on_detached: Callable[[Reminder], None] = lambda reminder: None
        self.on_scheduled: Callable[[Changes], None] = lambda changes: None
        self.on_begun: Callable[[Instance], None] = lambda instance: None
        self._note = note
        self.retention = retention
        self._most = most

    @property
    def up(self) -> bool:
        """Whether its process runs."""
        return self.life is not None

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        self._note(self.name, text)

    def start(self) -> None:
        """Start a process over the data."""
        self.life = Life()
        self.faults = Faults(self.network.rng, self._committed, self.note)
        self.faults.on_death = self.crash
        peers = {other: (other,) for other in self.others}
        settings = Settings(
            app_id=self.name,
            peers=peers,
            turn_timeout=30.0,
            entity_timeout=30.0,
            retention=self.retention,
            max_deliveries=self._most,
        )
        self.middle = assemble(
            settings,
            self.me,
            self.disk.open(self.me, self.identity, self.faults),
            self.clock,  # type: ignore[arg-type]
            connect=lambda address, peer: Channel(self.network, self.name, address),
        )
        self.network.endpoints[self.name] = self
        self.note("starts")
        self.run(self._boot(self.middle), "boot")

    async def _boot(self, middle: Middle) -> None:
        await middle.outbox.start()
        await middle.dispatch.refill()
        await middle.services.schedules.steps.start()
        middle.peers.start()
        self.on_up()
        await asyncio.gather(middle.dispatch.timers.run(), middle.dispatch.sweep(), middle.retention.run())

    def run(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        """Run something inside the process."""
        context = contextvars.copy_context()
        context.run(_life.set, self.life)
        loop = asyncio.get_running_loop()
        return context.run(lambda: loop.create_task(work, name=f"{self.name}: {name}"))

    def accept(self, call: Call, requests: AsyncIterator[bytes], out: Pipe) -> "asyncio.Task[None]":
        """See `network.Endpoint`."""
        return self.run(self.middle.peers.accept(call, requests, out), f"link from {call.peer}")

    def crash(self) -> None:
        """Die as with kill -9: no more of its code changes anything that outlives it."""
        life = self.life
        if life is None:
            return
        self.note("dies")
        self.life = None
        self._lives.append(life)
        self.faults.dead = True
        self.running.clear()
        self.network.endpoints.pop(self.name, None)
        self.network.drop_all(self.name)
        life.over = True
        for task in list(life.tasks):
            task.cancel()

    def lose_disk(self) -> None:
        """Come back later with an empty store."""
        self.crash()
        self.note("loses its disk")
        self._insert(self._new_disk(), self._next_identity())

    def keep(self) -> None:
        """Keep what is stored now."""
        self.note("is kept as it is")
        self.kept = self.disk.copy(), self.identity

    def go_back(self, *, restored: bool) -> None:
        """Come back later with what was kept; only the command to restore a backup gives it another identity."""
        self.crash()
        self.note("goes back, by a backup that is restored" if restored else "goes back")
        disk, identity = self.kept
        self._insert(disk.copy(), self._next_identity() if restored else identity)

    def _next_identity(self) -> str:
        self._generations += 1
        return f"{self.name}.{self._generations}"

    def _insert(self, disk: Disk, identity: str) -> None:
        self.disk.close()
        self.disk, self.identity = disk, identity
        self.watch = Watch(self.me, self.disk)

    def _committed(self, batch: Sequence[Changes], outcomes: list[Refusal | None]) -> None:
        written = []
        for changes, outcome in zip(batch, outcomes, strict=True):
            text = _describe(changes, self.clock.now())
            self.signatures.add(_signature(changes, outcome))
            self.note(f"commit {text}" if outcome is None else f"commit refused ({outcome.name}) {text}")
            if outcome is None:
                if changes.generation:
                    self.identity = f"{self.name}.{changes.generation}"
                written.append(changes)
                for reminder in changes.set:
                    if reminder.kind is Kind.DETACHED:
                        self.on_detached(reminder)
                if changes.schedule is not None and changes.instance is not None:
                    self.on_scheduled(changes)
                if changes.instance is not None and (not changes.expected or changes.continues is not None):
                    self.on_begun(changes.instance)
        try:
            self.watch.check(written)
        except Violation as violation:
            self.note(f"VIOLATION {violation}")
            self.violations.append(violation)


def _describe(changes: Changes, now: int) -> str:
    parts = []
    if changes.instance is not None:
        instance = changes.instance
        parts.append(
            f"{instance.id} {instance.status.name} rev {instance.revision} covered {instance.last_completed_turn}"
        )
    elif changes.purged:
        parts.append(f"purge of {changes.key}")
    parts += [f"+{_kinds(changes, now)}"] if changes.append else []
    parts += [f"schedule {changes.schedule.id}"] if changes.schedule is not None else []
    parts += ["truncated"] if changes.truncate is not None else []
    parts += [f"replaces {changes.replaces}"] if changes.replaces else []
    parts += [f"set {r.kind.name} #{r.id} > {r.target.app}" for r in changes.set]
    for name in ("dropped", "released", "received", "delivered", "forgotten", "lost", "crashed"):
        value = getattr(changes, name)
        if value:
            parts.append(f"{name} {[tuple(one) if isinstance(one, tuple) else one for one in value]}")
    return ", ".join(parts) or "nothing"


def _kinds(changes: Changes, now: int) -> str:
    """Return the kinds of the events that changes append."""
    return " ".join(_kind(events.decode(row.event), now) for row in changes.append)


def _kind(event: pb.HistoryEvent, now: int) -> str:
    kind = event.WhichOneof("kind") or "?"
    late = kind == "timer_fired" and now - events.micros(event.timer_fired.fire_at) > LATE_MICROS
    return f"{kind}(late)" if late else kind


def _signature(changes: Changes, outcome: Refusal | None) -> tuple[Any, ...]:
    """What kind of step this is: operation, outcome and state, for knowing when nothing new turns up."""
    instance = changes.instance
    return (
        None if outcome is None else outcome.name,
        None if instance is None else (instance.status.name, instance.ready, instance.began),
        tuple(sorted({r.kind.name for r in changes.set})),
        tuple(name for name in _FLAGS if getattr(changes, name)),
    )


_FLAGS = (
    "purged", "reopened", "replaces", "output", "truncate", "append", "opened", "closed", "close_all", "children",
    "ended", "dropped", "released", "required", "received", "delivered", "forgotten", "lost", "crashed",
    "schedule",
)  # fmt: skip
