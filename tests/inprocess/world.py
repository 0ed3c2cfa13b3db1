"""One app's engine over a real store, with a clock, workers and faults that the test controls."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.clock import Clock
from sidecar.actors.engine import Engine
from sidecar.actors.reminders import Reminders
from sidecar.actors.residents import Actor, Address
from sidecar.actors.trees import Trees
from sidecar.core import causes
from sidecar.core.attempts import DeliveryLimit
from sidecar.core.causes import Cause
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import Ids
from sidecar.core.model import ActorId, Changes, Outcome, Reminder, Reply
from sidecar.core.operations import Start
from sidecar.core.work_items import ActivityItem, EntityItem, TurnItem, WorkItem, fitting
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services import services
from sidecar.services.purge import Purge
from sidecar.store.protocol import Refusal, Store, UnavailableError
from sidecar.store.sqlite import store as sqlite
from sidecar.work import lifecycle
from sidecar.work.dispatch import Dispatch, Timeouts
from sidecar.work.pool import Pool
from sidecar.work.workers import Filter, Worker

ME = AppIdentity("default", "orders")
START = 1_700_000_000_000_000
TERMINATED, SUSPENDED, RUNNING, COMPLETED, CONTINUED_AS_NEW = 5, 7, 0, 1, 2
SOON = 30.0  # seconds that a wait may take on a machine that has much else to do; one that succeeds takes none of it
NO_LIMITS: Mapping[str, int] = MappingProxyType({})
MOST = 4  # deliveries that may end with the loss of the worker


async def until(condition: Callable[[], object], seconds: float = SOON) -> None:
    """Return when the condition holds; fail when it does not hold in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class FakeClock(Clock):
    """Time stands still unless the test moves it; sleepers wake almost at once."""

    def __init__(self) -> None:
        self.wall = START
        self.steady = 1_000.0
        self.slept: list[float] = []
        self._numbers = itertools.count(1)

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def new_id(self) -> str:
        return f"{next(self._numbers):032x}"

    def jitter(self, seconds: float) -> float:
        return seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.002)


class FaultyStore:
    """Passes everything on to a store; calls by the names in `failing` fail as often as it says there.

    `lost` fails that many commits after they were written. `refuse` may answer for a batch in the store's place.
    `gate` holds commits back while it is clear.
    """

    def __init__(self, store: Store) -> None:
        self.real = store
        self.failing: Counter[str] = Counter()
        self.lost = 0
        self.refuse: Callable[[Sequence[Changes]], list[Refusal | None] | None] = lambda batch: None
        self.batches: list[list[Changes]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            self._fail(name)
            return await found(*args, **options)

        return call

    def _fail(self, name: str) -> None:
        if self.failing[name]:
            self.failing[name] -= 1
            raise UnavailableError("the disk is on fire")

    async def commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        self.batches.append(list(batch))
        await self.gate.wait()
        self._fail("commit")
        refused = self.refuse(batch)
        if refused is not None:
            return refused
        outcomes = await self.real.commit(batch)
        if self.lost:
            self.lost -= 1
            raise UnavailableError("the power went while the answer was on its way")
        return outcomes


class Outbox:
    """Remembers what was to leave for other apps."""

    def __init__(self) -> None:
        self.waiting: dict[int, Reminder] = {}
        self.reloads = 0

    def offer(self, reminder: Reminder) -> None:
        self.waiting[reminder.id] = reminder

    def discard(self, reminder_id: int) -> None:
        self.waiting.pop(reminder_id, None)

    def why(self, target: ActorId, reminder_id: int) -> Cause | None:
        return causes.unreachable(target.app, {}) if reminder_id in self.waiting else None

    async def reload(self) -> None:
        self.reloads += 1


class Hand:
    """A worker whose items the test looks at and answers."""

    def __init__(self, name: str = "worker", *, turns: int = 100, activities: int = 100, **more: Any) -> None:
        self.turns: list[TurnItem] = []
        self.activities: list[ActivityItem] = []
        self.batches: list[EntityItem] = []
        self.past_seen: list[list[bytes]] = []  # the past of each turn as it was when it came
        fields: dict[str, Any] = {
            "peer": f"ipv4:{name}",
            "max_bytes": 1 << 30,
            "turn_filter": Filter(),
            "activity_filter": Filter(),
            "is_full": lambda: False,
            "fits": self._fits,
            "shows": self._shows,
        }
        self.worker = Worker(name=name, max_turns=turns, max_activities=activities, send=self._take, **fields | more)

    def _fits(self, item: TurnItem) -> int:
        return fitting(map(len, item.new), self.worker.max_bytes - sum(map(len, item.past.events[item.known :])))

    def _shows(self, item: TurnItem) -> int:
        unknown = map(len, item.past.events[item.known :])
        return item.known + fitting(unknown, self.worker.max_bytes - sum(map(len, item.new[:1])))

    def _take(self, item: WorkItem) -> int:
        size = _size(item)
        if size > self.worker.max_bytes:
            return size
        if isinstance(item, TurnItem):
            self.turns.append(item)
            self.past_seen.append(list(item.past.events))
        elif isinstance(item, EntityItem):
            self.batches.append(item)
        else:
            self.activities.append(item)
        return 0

    async def turn(self, number: int) -> TurnItem:
        """The turn that was the n-th to come, from 1, once it is there."""
        await until(lambda: len(self.turns) >= number)
        return self.turns[number - 1]

    async def activity(self, number: int) -> ActivityItem:
        await until(lambda: len(self.activities) >= number)
        return self.activities[number - 1]

    async def batch(self, number: int) -> EntityItem:
        await until(lambda: len(self.batches) >= number)
        return self.batches[number - 1]


def _size(item: WorkItem) -> int:
    if isinstance(item, TurnItem):
        return sum(map(len, (*item.past.events[item.known : item.shown], *item.new)))
    if isinstance(item, EntityItem):
        return len(item.state or "") + sum(map(len, item.operations))
    return len(item.request)


class World:
    """The engine, its dispatch and service, over a store in a directory."""

    def __init__(
        self,
        store: sqlite.Sqlite,
        clock: FakeClock,
        turn_timeout: float,
        limits: Mapping[str, int] = NO_LIMITS,
        entity_timeout: float | None = None,
    ) -> None:
        self.clock = clock
        self.store = FaultyStore(store)
        ids = Ids(store.next_key, store.next_order, clock.new_id)
        self.engine = Engine(ME, self.store, clock, ids)  # type: ignore[arg-type]
        self.outbox = Outbox()
        pool, trees = Pool(limits, clock.now), Trees(self.engine)
        self.reminders = Reminders(self.engine, trees)
        self.dispatch = Dispatch(
            self.engine,
            pool,
            self.reminders,
            self.outbox,
            timeouts=Timeouts(turn_timeout, None, entity_timeout),
            delivery_limit=DeliveryLimit(MOST),
            living=lambda processes: [alive() for alive in processes],
        )
        self.engine.effects = self.dispatch
        self.engine.observers = (lifecycle.tell, lifecycle.Standstills().tell)
        self.services = services.build(self.dispatch, self.reminders, trees)
        self.clients, self.answers = self.services.clients, self.services.answers
        self.messages, self.entities = self.services.messages, self.services.entities
        self._side: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        directory: Path,
        clock: FakeClock | None = None,
        turn_timeout: float = 120.0,
        limits: Mapping[str, int] = NO_LIMITS,
        entity_timeout: float | None = None,
    ) -> "World":
        store = await sqlite.open_store(ME, directory, "s" * 32)
        return cls(store, clock or FakeClock(), turn_timeout, limits, entity_timeout)

    async def purge(self, address: Address, *, recursive: bool, force: bool) -> tuple[Reply, int]:
        return await self.services.purging.purge(address, Purge(recursive, force))

    def run(self) -> None:
        """Start what a sidecar has running on the side."""
        self._side = [asyncio.create_task(self.dispatch.timers.run()), asyncio.create_task(self.dispatch.sweep())]

    async def close(self) -> None:
        for task in self._side:
            task.cancel()
        await asyncio.gather(*self._side, return_exceptions=True)
        self.store.gate.set()
        await self.engine.tasks.drain()
        await self.store.real.close()

    async def quiet(self) -> None:
        """Return when everything that was asked for has been done."""
        for _ in range(5):
            await self.engine.tasks.drain()
            await asyncio.sleep(0.002)

    async def start(self, instance_id: str, name: str = "flow", data: str = '"in"', **more: Any) -> Reply:
        started = pb.ExecutionStarted(name=name, input=StringValue(value=data))
        execution = f"execution of {instance_id} {self.clock.new_id()}"
        started.instance.instance_id, started.instance.execution_id.value = instance_id, execution
        identity = Identity("default", instance_id, execution)
        return await self.clients.start(Start(identity, started, more.pop("scheduled_at", None), **more))

    def event(self, instance_id: str, name: str, data: str = "1") -> "asyncio.Task[Reply]":
        """An external event, sent once this task lets go."""
        return asyncio.create_task(self.clients.raise_event(at(instance_id), name, StringValue(value=data)))

    async def complete(self, item: TurnItem, *actions: pb.Action, peer: str = "ipv4:worker", **more: Any) -> Reply:
        response = pb.OrchestratorResponse(
            instance_id=item.instance_id, actions=actions, completion_token=item.token, **more
        )
        return await self.answers.complete_turn("default", peer, response)

    async def answer(self, item: ActivityItem, result: str = '"ok"', peer: str = "ipv4:worker") -> Reply:
        request = pb.ActivityRequest.FromString(item.request)
        response = pb.ActivityResponse(
            instance_id=request.instance.instance_id,
            task_id=request.task_id,
            result=StringValue(value=result),
            completion_token=item.token,
        )
        return await self.answers.complete_activity("default", peer, response)

    async def signal(self, entity_id: str, operation: str, due: int | None = None) -> Reply:
        signaled = pb.EntitySignaled(operation=operation)
        if due is not None:
            signaled.scheduled_time.FromMicroseconds(due)
        return await self.entities.signal(at(entity_id), signaled)

    async def ran(self, item: EntityItem, state: str | None = "1", results: int | None = None, **more: Any) -> Reply:
        """Answer a batch: so many of its operations were run, each with its name as result."""
        names = operations(item)[:results]
        done = [pb.OperationResult(success=pb.OperationSuccess(result=StringValue(value=name))) for name in names]
        text = None if state is None else StringValue(value=state)
        result = pb.EntityBatchResult(results=done, entity_state=text, completion_token=item.token, **more)
        return await self.answers.complete_batch("peer", result)

    async def status(self, instance_id: str) -> int:
        instance = await self.clients.instance(at(instance_id))
        return -1 if instance is None else int(instance.status)

    def actor(self, instance_id: str) -> Actor:
        return self.engine.actor(at(instance_id))


def at(instance_id: str) -> Address:
    return ("default", instance_id)


def call(task: int, name: str = "work", app: str = "", version: str = "") -> pb.Action:
    action = pb.Action(id=task, schedule_task=pb.ScheduleTask(name=name, input=StringValue(value="1")))
    if version:
        action.schedule_task.version.value = version
    if app:
        action.router.target_app_id = app
    return action


def child(task: int, instance_id: str, app: str = "") -> pb.Action:
    action = pb.Action(id=task, create_child=pb.CreateChild(instance_id=instance_id, name="sub"))
    if app:
        action.router.target_app_id = app
    return action


def operations(item: EntityItem) -> list[str]:
    """The names of the operations of a batch."""
    events = [pb.HistoryEvent.FromString(event) for event in item.operations]
    return [event.entity_called.operation or event.entity_signaled.operation for event in events]


def call_entity(task: int, entity_id: str, operation: str = "get") -> pb.Action:
    called = pb.EntityCalled(request_id=f"r{task}", operation=operation)
    called.target_instance_id.value = entity_id
    return pb.Action(id=task, send_entity_message=pb.SendEntityMessage(called=called))


def lock(task: int, *entities: str) -> pb.Action:
    wanted = pb.EntityLockRequested(critical_section_id=f"s{task}", lock_set=entities)
    return pb.Action(id=task, send_entity_message=pb.SendEntityMessage(lock_requested=wanted))


def unlock(task: int, section: int, entity_id: str) -> pb.Action:
    sent = pb.EntityUnlockSent(critical_section_id=f"s{section}")
    sent.target_instance_id.value = entity_id
    return pb.Action(id=task, send_entity_message=pb.SendEntityMessage(unlock_sent=sent))


def timer(task: int, due: int) -> pb.Action:
    action = pb.Action(id=task)
    action.create_timer.fire_at.FromMicroseconds(due)
    return action


def end(result: str = '"done"', status: int = COMPLETED) -> pb.Action:
    return pb.Action(id=999, complete=pb.Complete(status=status, result=StringValue(value=result)))


def kinds(events: Sequence[bytes]) -> list[str]:
    """What the events are, in order."""
    return [str(pb.HistoryEvent.FromString(event).WhichOneof("kind")) for event in events]


def raised(events: Sequence[bytes]) -> list[str]:
    """The names of the external events."""
    found = [pb.HistoryEvent.FromString(event) for event in events]
    return [event.event_raised.name for event in found if event.HasField("event_raised")]


STALE, DONE, DUPLICATE = Outcome.STALE, Outcome.DONE, Outcome.DUPLICATE
