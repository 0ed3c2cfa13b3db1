"""A small world for properties: some instances of one app, and all that is stored of them, kept as naively as can be.

Every step is decided by the core; the tables are moved by what `Changes` promises and nothing else. So the states in
memory, which `state.apply` moves, can be measured against what is stored.
"""

from dataclasses import dataclass, field, replace
from itertools import count

from sidecar.core import activities, delivery
from sidecar.core.delivery import Arrival
from sidecar.core.identity import Context
from sidecar.core.ids import Ids
from sidecar.core.model import (
    DONE,
    CallId,
    Changes,
    Child,
    Decision,
    Instance,
    OpenCall,
    Position,
    Reminder,
    Row,
    State,
    Turn,
)
from sidecar.core.receipts import Received
from sidecar.core.workflow import state as states
from sidecar.core.workflow import turn as turns
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import ME, NOW, outcome_of


@dataclass
class Stored:
    """The rows of one instance."""

    instance: Instance
    log: dict[Position, bytes] = field(default_factory=dict)
    calls: dict[int, OpenCall] = field(default_factory=dict)
    children: dict[CallId, Child] = field(default_factory=dict)
    ended: set[CallId] = field(default_factory=set)

    def rows(self) -> list[Row]:
        return [Row(*position, self.log[position]) for position in sorted(self.log)]

    def inbox(self) -> list[Row]:
        return [row for row in self.rows() if row.turn > self.instance.last_completed_turn]

    def live_children(self) -> dict[CallId, Child]:
        return {call: child for call, child in self.children.items() if call not in self.ended}

    def loaded(self) -> State:
        state = State(self.instance, dict(self.calls), self.live_children())
        return states.load(self.instance, state, self.inbox())


class World:
    """The tables, and the instances in memory by their IDs."""

    def __init__(self) -> None:
        numbers = count(1)
        self.now = NOW
        self.ids = Ids(1, 1, lambda: f"id-{next(numbers)}")
        self.stored: dict[int, Stored] = {}
        self.reminders: dict[int, Reminder] = {}
        self.accepted: set[int] = set()
        self.received: set[Received] = set()
        self.memory: dict[str, State | None] = {}
        self.turns: dict[str, Turn] = {}
        self.answered: list[tuple[str, Turn]] = []

    @property
    def at(self) -> Context:
        return Context(ME, self.now, self.ids)

    def state(self, instance_id: str) -> State | None:
        return self.memory.get(instance_id)

    # ------------------------------------------------------------ commits

    def take(self, instance_id: str, decision: Decision) -> bool:
        """Commit a decision for an instance; return whether anything was to commit, and was not refused."""
        changes = decision.changes
        if changes is None or (changes.received and self.received & set(changes.received)):
            return False
        assert set(changes.required) <= self.reminders.keys(), "what is used up twice is used up by two decisions"
        self._write(changes)
        if changes.key:
            state = states.apply(self.memory.get(instance_id), changes)
            self.memory[instance_id] = state
            instance = changes.instance
            if instance is None or changes.replaces or instance.suspended or instance.status.terminal:
                self.turns.pop(instance_id, None)
        return True

    def _write(self, changes: Changes) -> None:
        for key, expected in ((changes.key, changes.expected), (changes.replaces, changes.replaced_at)):
            found = self.stored[key].instance.revision if key in self.stored else 0
            assert not key or found == expected
        self.stored.pop(changes.replaces, None)
        if changes.purged:
            del self.stored[changes.key]
        if changes.instance is not None:
            self._write_instance(changes, changes.instance)
        for number in changes.dropped:
            self.reminders.pop(number, None)
        for number in changes.released:
            self._release(number)
        for reminder in changes.set:
            assert reminder.id not in self.reminders
            self.reminders[reminder.id] = reminder
        self.received |= set(changes.received)

    def _write_instance(self, changes: Changes, instance: Instance) -> None:
        stored = self.stored.setdefault(changes.key, Stored(instance))
        stored.instance = instance
        if changes.close_all:
            stored.calls = {}
        for task in changes.closed:
            del stored.calls[task]
        stored.calls |= {call.call.task: call for call in changes.opened}
        assert stored.live_children().keys() >= set(changes.ended)
        stored.ended |= set(changes.ended)
        children = {child.call: child for child in changes.children}
        assert not stored.children.keys() & children.keys(), "two children of one call"
        stored.children |= children
        cut = changes.truncate
        if cut is not None:
            stored.log = {position: event for position, event in stored.log.items() if position < cut}
        for position in changes.removed:
            del stored.log[position]
        for row in changes.append:
            assert row.position not in stored.log, "two events at one position"
            stored.log[row.position] = row.event

    def _release(self, number: int) -> None:
        if number in self.accepted:
            self.reminders.pop(number, None)
        elif number in self.reminders:
            self.reminders[number] = replace(self.reminders[number], kept_until_result=False)

    # ------------------------------------------------------------ what the rest of the sidecar does

    def hand_out(self, instance_id: str) -> None:
        state = self.memory[instance_id]
        assert state is not None
        turn = turns.begin(state, self.now, "t")
        state.tail = turns.after(state, turn)
        self.turns[instance_id] = turn

    def answer(self, instance_id: str, *actions: pb.Action) -> None:
        state = self.memory[instance_id]
        assert state is not None
        turn = self.turns.pop(instance_id)
        changes = turns.complete(self.at, state, turn, pb.OrchestratorResponse(actions=actions))
        self.answered.append((instance_id, turn))
        self.take(instance_id, Decision(changes, DONE))

    def reload(self, instance_id: str) -> None:
        """Forget what is in memory; a turn that is out is void."""
        self.turns.pop(instance_id, None)
        found = [stored for stored in self.stored.values() if stored.instance.id == instance_id]
        self.memory[instance_id] = found[0].loaded() if found else None

    def deliver(self, reminder: Reminder) -> None:
        """Deliver a reminder for an own workflow."""
        state = self.memory.get(reminder.target.id)
        arrival = Arrival(reminder, consumed=(reminder.id,))
        assert self.take(reminder.target.id, delivery.arrive(self.at, state, arrival))

    def work(self, reminder: Reminder) -> None:
        """Let an own worker answer an activity."""
        home = reminder.source.id
        decision = activities.activity_done(self.at, self.memory.get(home), reminder, outcome_of(reminder))
        assert self.take(home, decision)

    def accept(self, reminder: Reminder) -> None:
        """Let the other app accept a message."""
        if reminder.kept_until_result:
            self.accepted.add(reminder.id)
        else:
            del self.reminders[reminder.id]

    def receive(self, answer: Reminder, number: int) -> bool:
        """Take the answer of the other app; return whether it was not here before."""
        arrival = Arrival(answer, received=(Received("default", "ml", "s", number),))
        home = answer.target.id
        return self.take(home, delivery.arrive(self.at, self.memory.get(home), arrival))
