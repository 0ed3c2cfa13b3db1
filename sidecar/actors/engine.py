"""The loop of an actor: load, decide, commit, wake; one thing at a time per instance.

Commands for one instance that wait together are decided one after the other and committed together. What happens
after a commit is derived from what was committed. A change that is refused or whose outcome is unknown drops the
instance from memory; it is loaded again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from sidecar.actors.clock import Clock
from sidecar.actors.residents import Actor, Address, Command, Decide, Residents
from sidecar.actors.tasks import SideTasks
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.ids import Ids
from sidecar.core.model import Changes, Decision, Outcome, Reminder, Reply
from sidecar.core.workflow import state as states
from sidecar.store.protocol import DamagedError, Refusal, Store, UnavailableError

Observer = Callable[[Changes], None]  # is shown what was committed, before it is acted on, and changes nothing
_MOST_TRIES = 8
_MOST_NOTED = 1_000
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
        """An instance was dropped from memory."""

    def before_commands(self, actor: "Actor") -> "asyncio.Future[None] | None":
        """The actor is between commits: work may be handed out. Returns what must be awaited first, or None."""

    def store_failed(self) -> None:
        """The outcome of a commit is unknown: what is in memory must be read again."""


class Engine:
    """All actors of one sidecar, and the one door to the store."""

    def __init__(self, me: AppIdentity, store: Store, clock: Clock, ids: Ids) -> None:
        self.me = me
        self.store = store
        self.clock = clock
        self.ids = ids
        # What other sidecars know this store and this start of the sidecar by.
        self.identity, self.start_id = store.identity, clock.new_id()
        self.effects: Effects
        self.observers: tuple[Observer, ...] = ()
        self.tasks = SideTasks()  # what must reach its end before the store is closed
        self.side = SideTasks()  # what is only a hint over the store
        self.closing = asyncio.Event()  # set when the sidecar ends: nobody waits for a store that fails any more
        self.residents = Residents(lambda actor: self.effects.forgotten(actor))  # noqa: PLW0108 (they are set later)
        self._damaged: set[Address] = set()  # of which the log has said that they cannot be read

    def actor(self, address: Address) -> Actor:
        """Return the actor of an address, in memory or fresh."""
        return self.residents.get(address)

    def submit(self, address: Address, decide: Decide) -> "asyncio.Future[Reply]":
        """Queue a decision behind those for the same instance; the future has its outcome once it is committed.

        Raises (the future):
            UnavailableError: the store failed; whether the decision holds is unknown.
        """
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        actor = self.actor(address)
        actor.commands.append(Command(decide, done))
        self.wake(actor)
        return done

    def tell(self, address: Address, decide: Decide) -> None:
        """Queue a decision whose outcome nobody waits for: if the store fails, what led to it is found again."""
        self.submit(address, decide).add_done_callback(lambda done: done.cancelled() or done.exception())

    def wake(self, actor: Actor) -> None:
        """Let an actor look at its commands and its assignment."""
        if not actor.running:
            actor.running = True
            self.tasks.spawn(self._run(actor), f"actor {actor.address[1][:40]}")

    def context(self) -> Context:
        """Return what a decision that is taken now may know."""
        return Context(self.me, self.clock.now(), self.ids)

    async def commit(self, changes: Changes) -> Refusal | None:
        """Commit changes that belong to no instance, and act on them.

        What is committed is acted on though the caller is cancelled meanwhile, as by a link that breaks.
        """
        outcome: Refusal | None = await self.tasks.through(self._commit_alone(changes), "commit")
        return outcome

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
        """Forget what is in memory of an instance, so that it is loaded again."""
        actor.state, actor.loaded = None, False
        self.effects.forgotten(actor)
        actor.changed()

    def drop_all(self) -> None:
        """Forget what is in memory of all instances: it was read from a store that has failed since."""
        for actor in self.residents.all():
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
        except DamagedError as error:
            _note_damage(self._damaged, actor.address, error)
            self._fail(actor, error)
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
            outcomes = await self.store.commit(batch) if batch else []
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
        for observe in self.observers:
            observe(changes)
        for reminder_id in changes.dropped:
            self.effects.reminder_dropped(reminder_id)
        for reminder in changes.set:
            self.ids.stored = max(self.ids.stored, reminder.id)
            self.effects.reminder_set(reminder)
        if actor is not None and changes.key:
            self.effects.committed(actor, changes)
            actor.changed()

    def watch(self, address: Address) -> "asyncio.Future[None]":
        """Return a future that is done when the instance was changed."""
        actor = self.actor(address)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        actor.watchers[future] = None
        future.add_done_callback(lambda done: actor.watchers.pop(future, None))
        return future


def _note_damage(noted: set[Address], address: Address, error: DamagedError) -> None:
    """Log once that an instance cannot be read: who waits for it asks again and again."""
    if address not in noted and len(noted) < _MOST_NOTED:
        noted.add(address)
        log.error("an instance cannot be read", instance=address[1], error=str(error))
