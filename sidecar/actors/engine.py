"""The loop of an actor: load, decide, commit, wake; one thing at a time per instance.

Commands for one instance that wait together are decided one after the other and committed together. What happens
after a commit is derived from what was committed. A change that is refused or whose outcome is unknown drops the
instance from memory; it is loaded again.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from sidecar.actors.clock import Clock
from sidecar.core.entity.entity import Batch
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.ids import Ids
from sidecar.core.model import Changes, Decision, Outcome, Reminder, Reply, State, Turn
from sidecar.core.work_items import Past
from sidecar.core.workflow import state as states
from sidecar.core.workflow.chunks import Parts
from sidecar.store.protocol import Refusal, Store, UnavailableError
from sidecar.work.pool import Worker

Address = tuple[str, str]  # hub and instance ID
Decide = Callable[[Context, State | None], Decision]
IDLE_ACTORS = 5_000
_MOST_TRIES = 8
log = structlog.get_logger(__name__)


class Effects(Protocol):
    """Those who act on what was committed."""

    def reminder_set(self, reminder: Reminder) -> None:
        """A reminder was stored."""

    def reminder_dropped(self, reminder_id: int) -> None:
        """A reminder is gone."""

    def committed(self, actor: "Actor", changes: Changes) -> None:
        """An instance was changed. `actor.state` may be ahead of it, or gone."""

    def loaded(self, actor: "Actor") -> None:
        """An instance was read from the store."""

    def forgotten(self, actor: "Actor") -> None:
        """An instance was dropped from memory, with the turn that was out."""

    def before_commands(self, actor: "Actor") -> "asyncio.Future[None] | None":
        """The actor is between commits: a turn may be handed out. Returns what must be awaited first, or None."""

    def store_failed(self) -> None:
        """The outcome of a commit is unknown: what is in memory must be read again."""


@dataclass(slots=True)
class Command:
    """One decision to take, and who waits for its outcome."""

    decide: Decide
    done: "asyncio.Future[Reply]"
    tries: int = 0


@dataclass(slots=True, eq=False)
class Actor:
    """An instance or entity in memory. `state` is None when there is none, and unknown until `loaded`."""

    address: Address
    state: State | None = None
    loaded: bool = False
    running: bool = False
    commands: deque[Command] = field(default_factory=deque)
    turn: Turn | None = None  # the turn that a worker has
    batch: Batch | None = None  # of an entity: the operations that a worker has
    holder: Worker | None = None  # the worker that has it, or is to get it
    deadline: float = 0.0  # monotonic time at which it is handed out again
    sent: int = 0  # how many events of the past the turn that is out stands on
    withheld: bool = False  # whether its worker was not sent all of them
    parts: Parts | None = None  # what has come of its answer, when that comes in parts
    past: Past | None = None
    output: tuple[int, str | None] | None = None  # of an entity that is handed out: a revision, and its state there
    slow: int = 0  # of an entity: so many operations go one by one, since together they were too much for a worker
    watchers: dict["asyncio.Future[None]", None] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Whether it may be dropped from memory."""
        return not (self.running or self.commands or self.turn or self.batch or self.holder or self.watchers)


class Engine:
    """All actors of one sidecar, and the one door to the store."""

    def __init__(self, me: AppIdentity, store: Store, clock: Clock, ids: Ids) -> None:
        self.me = me
        self.store = store
        self.clock = clock
        self.ids = ids
        self.effects: Effects
        self._actors: OrderedDict[Address, Actor] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()

    def actor(self, address: Address) -> Actor:
        """Return the actor of an address, in memory or fresh."""
        found = self._actors.get(address)
        if found is None:
            found = self._actors[address] = Actor(address)
            self._evict()
        else:
            self._actors.move_to_end(address)
        return found

    def _evict(self) -> None:
        while len(self._actors) > IDLE_ACTORS:
            oldest = next(iter(self._actors.values()))
            if not oldest.idle:
                self._actors.move_to_end(oldest.address)
                return
            del self._actors[oldest.address]
            self.effects.forgotten(oldest)

    def forget_idle(self) -> None:
        """Drop from memory what nobody works on; it is read again when it is needed."""
        for actor in [actor for actor in self._actors.values() if actor.idle]:
            del self._actors[actor.address]
            self.effects.forgotten(actor)

    async def submit(self, address: Address, decide: Decide) -> Reply:
        """Take a decision for an instance and commit it.

        Raises:
            UnavailableError: the store failed; whether the decision holds is unknown.
        """
        return await self.enqueue(address, decide)

    def enqueue(self, address: Address, decide: Decide) -> "asyncio.Future[Reply]":
        """Queue a decision behind those that wait for the same instance; the future has its outcome."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        actor = self.actor(address)
        actor.commands.append(Command(decide, done))
        self.wake(actor)
        return done

    def tell(self, address: Address, decide: Decide) -> None:
        """Queue a decision whose outcome nobody waits for: if the store fails, what led to it is found again."""
        self.enqueue(address, decide).add_done_callback(lambda done: done.cancelled() or done.exception())

    def wake(self, actor: Actor) -> None:
        """Let an actor look at its commands and its assignment."""
        if not actor.running:
            actor.running = True
            task = asyncio.create_task(self._run(actor), name=f"actor {actor.address[1][:40]}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def context(self) -> Context:
        """Return what a decision that is taken now may know."""
        return Context(self.me, self.clock.now(), self.ids)

    async def commit(self, changes: Changes) -> Refusal | None:
        """Commit changes that belong to no instance, and act on them.

        What is committed is acted on though the caller is cancelled meanwhile, as by a link that breaks.
        """
        task = asyncio.create_task(self._commit_alone(changes), name="commit")
        self._tasks.add(task)
        task.add_done_callback(self._committed_alone)
        return await asyncio.shield(task)

    def _committed_alone(self, task: "asyncio.Task[Refusal | None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was acted on: that the caller is gone and does not ask is no mistake

    async def _commit_alone(self, changes: Changes) -> Refusal | None:
        try:
            (outcome,) = await self.store.commit([changes])
        except UnavailableError:
            self.effects.store_failed()
            raise
        if outcome is None:
            self._act(changes)
        return outcome

    def drop(self, actor: Actor) -> None:
        """Forget what is in memory of an instance; a turn that is out is void."""
        actor.state, actor.loaded, actor.past, actor.output = None, False, None, None
        self.effects.forgotten(actor)
        for watcher in list(actor.watchers):
            if not watcher.done():
                watcher.set_result(None)

    def drop_all(self) -> None:
        """Forget what is in memory of all instances: it was read from a store that has failed since."""
        for actor in list(self._actors.values()):
            self.drop(actor)

    # ------------------------------------------------------------ the loop

    async def _run(self, actor: Actor) -> None:
        try:
            while True:
                await self._load(actor)
                preparation = self.effects.before_commands(actor)
                if preparation is not None:
                    await preparation
                    continue
                if not actor.commands:
                    return
                await self._step(actor)
        except UnavailableError as error:
            self._fail(actor, error)
            self.effects.store_failed()
        except Exception as error:
            log.exception("actor failed", instance=actor.address[1])
            self._fail(actor, error)
        finally:
            actor.running = False

    async def _load(self, actor: Actor) -> None:
        if not actor.loaded:
            actor.state = await self.store.load(*actor.address)
            actor.loaded = True
            self.effects.loaded(actor)

    def _fail(self, actor: Actor, error: Exception) -> None:
        self.drop(actor)
        commands, actor.commands = list(actor.commands), deque()
        for command in commands:
            if not command.done.done():
                command.done.set_exception(error)

    async def _step(self, actor: Actor) -> None:
        """Decide the commands that wait, commit what they change, answer and act."""
        commands, actor.commands = list(actor.commands), deque()
        decided: list[tuple[Command, Decision]] = []
        for command in commands:
            decision = self._decide(actor, command)
            if decision is not None:
                decided.append((command, decision))
        batch = [decision.changes for _, decision in decided if decision.changes is not None]
        try:
            outcomes = await self._commit(batch)
        except Exception as error:
            actor.commands.extendleft(command for command, _ in reversed(decided))
            self._fail(actor, error)
            if isinstance(error, UnavailableError):
                self.effects.store_failed()
            return
        self._settle(actor, decided, outcomes)

    def _decide(self, actor: Actor, command: Command) -> Decision | None:
        """Take one decision on the state that those before it leave; a mistake in it harms nobody else."""
        try:
            decision = command.decide(self.context(), actor.state)
        except Exception as error:
            if not command.done.done():
                command.done.set_exception(error)
            return None
        if decision.changes is not None and decision.changes.key:
            actor.state = states.apply(actor.state, decision.changes)
        return decision

    async def _commit(self, batch: Sequence[Changes]) -> list[Refusal | None]:
        return await self.store.commit(batch) if batch else []

    def _settle(self, actor: Actor, decided: list[tuple[Command, Decision]], outcomes: list[Refusal | None]) -> None:
        results = iter(outcomes)
        changed = [decision.changes for _, decision in decided if decision.changes is not None]
        # One of no instance did not move the state: it is still right without it.
        if any(outcome is not None and one.key for one, outcome in zip(changed, outcomes, strict=True)):
            self.drop(actor)
        again: list[Command] = []
        first_refusal = True
        for command, decision in decided:
            outcome = next(results) if decision.changes is not None else None
            if outcome is None and decision.changes is not None:
                self._act(decision.changes, actor)
            if command.done.done():
                continue
            if outcome is None:
                command.done.set_result(decision.reply)
            else:
                # What is left out behind another was not tried, and does not count as a try.
                self._refuse(command, outcome, again, counts=first_refusal)
                first_refusal = False
        actor.commands.extendleft(reversed(again))

    def _refuse(self, command: Command, outcome: Refusal, again: list[Command], *, counts: bool) -> None:
        """Answer a command that was left out, or have it decided again, before those that came later."""
        if outcome is Refusal.DUPLICATE:
            command.done.set_result(Reply(Outcome.DUPLICATE))
        elif outcome is Refusal.GONE:
            command.done.set_result(Reply(Outcome.STALE))
        elif command.tries >= _MOST_TRIES:
            command.done.set_exception(UnavailableError(outcome.value))
        else:
            command.tries += counts
            again.append(command)

    def _act(self, changes: Changes, actor: Actor | None = None) -> None:
        """Do what follows from changes that are committed."""
        for reminder_id in changes.dropped:
            self.effects.reminder_dropped(reminder_id)
        for reminder in changes.set:
            self.effects.reminder_set(reminder)
        if actor is not None and changes.key:
            self.effects.committed(actor, changes)
            watchers, actor.watchers = actor.watchers, {}
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)

    def watch(self, address: Address) -> "asyncio.Future[None]":
        """Return a future that is done when the instance was changed."""
        actor = self.actor(address)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        actor.watchers[future] = None
        future.add_done_callback(lambda done: actor.watchers.pop(future, None))
        return future

    async def drain(self) -> None:
        """Wait until every actor has finished what it was doing."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
