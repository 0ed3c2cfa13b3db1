"""Workflows that contend for entities, in any order that the lanes allow: nobody waits for ever, nothing is lost.

Each workflow takes the locks of some entities, reads each and writes it back plus one, and lets go; now and then one is
terminated in the middle. So the value of an entity is the number of writes that were answered or are on their way.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core import events, operations
from sidecar.core.entity import entity
from sidecar.core.entity.entity import Batch
from sidecar.core.model import DONE, Decision, Reminder, State
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import call, end, lock, renew, start_request, text, unlock
from tests.core.world import World

ENTITIES = ["@n@a", "@n@b", "@n@c"]


@dataclass
class Program:
    """What a worker knows of a workflow: where it is in its critical section. It asks for locks in any order."""

    wanted: list[str]
    section: int = 0
    task: int = 0
    left: list[str] = field(default_factory=list)

    def answer(self, kinds: list[pb.HistoryEvent], again: bool) -> list[pb.Action]:
        for event in kinds:
            kind = event.WhichOneof("kind")
            if kind == "execution_started":
                self.section, self.left = self.section + 1, list(self.wanted)
                return [lock(self._next(), f"{id(self)}-{self.section}", *self.wanted)]
            if kind == "entity_lock_granted":
                return [call(self._next(), self.left[0], "get")]
            if kind == "entity_completed" and event.entity_completed.output.value != "set":
                value = int(event.entity_completed.output.value) + 1
                return [call(self._next(), self.left.pop(0), "set", input=text(str(value)))]
            if kind == "entity_completed":
                return [call(self._next(), self.left[0], "get")] if self.left else self._leave(again)
        return []

    def _leave(self, again: bool) -> list[pb.Action]:
        sent = [unlock(self._next(), f"{id(self)}-{self.section}", one) for one in self.wanted]
        return [*sent, renew() if again else end()]

    def _next(self) -> int:
        self.task += 1
        return self.task


class Contention(RuleBasedStateMachine):
    """Some workflows over three entities."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.programs: dict[str, Program] = {}
        self.values = dict.fromkeys(ENTITIES, 0)
        self.writes = dict.fromkeys(ENTITIES, 0)
        self.batches: dict[str, Batch] = {}

    # ------------------------------------------------------------ what may happen next

    def entity(self, entity_id: str) -> State | None:
        return self.world.memory.get(entity_id)

    def fronts(self) -> list[Reminder]:
        """The first message of each lane."""
        lanes: dict[object, Reminder] = {}
        for number in sorted(self.world.reminders):
            reminder = self.world.reminders[number]
            lanes.setdefault((reminder.source, reminder.target), reminder)
        return list(lanes.values())

    def ready(self) -> list[str]:
        found = []
        for name in self.programs:
            state = self.world.memory[name]
            if state is not None and state.instance.ready and name not in self.world.turns:
                found.append(name)
        return found

    def runnable(self) -> list[str]:
        found = []
        for name in ENTITIES:
            state = self.entity(name)
            if state is not None and state.instance.ready and name not in self.batches:
                found.append(name)
        return found

    # ------------------------------------------------------------ steps

    @precondition(lambda self: len(self.programs) < 4)
    @rule(wanted=st.lists(st.sampled_from(ENTITIES), min_size=1, unique=True))
    def start(self, wanted: list[str]) -> None:
        name = f"w{len(self.programs)}"
        self.programs[name] = Program(wanted)
        self.world.take(name, operations.start(self.world.at, None, start_request(name, f"{name}-1")))

    @precondition(fronts)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self.world.deliver(data.draw(st.sampled_from(self.fronts()), "message"))

    @precondition(ready)
    @rule(data=st.data(), again=st.booleans())
    def turn(self, data: st.DataObject, again: bool) -> None:
        self._turn(data.draw(st.sampled_from(self.ready()), "workflow"), again)

    def _turn(self, name: str, again: bool) -> None:
        self.world.hand_out(name)
        rows = self.world.turns[name].rows
        self.world.answer(name, *self.programs[name].answer([events.decode(row.event) for row in rows], again))

    @precondition(runnable)
    @rule(data=st.data(), most=st.integers(1, 3))
    def hand_out(self, data: st.DataObject, most: int) -> None:
        name = data.draw(st.sampled_from(self.runnable()), "entity")
        self._hand_out(name, most)

    def _hand_out(self, name: str, most: int) -> None:
        state = self.entity(name)
        assert state is not None
        batch = entity.next_batch(state, "token", 10_000, most)
        assert batch.rows, "what is ready has something to run"
        holder = state.instance.lock
        callers = {events.decode(row.event).entity_called.parent_instance_id.value for row in batch.rows}
        assert holder is None or callers == {holder.owner}, "only the holder's calls run"
        self.batches[name] = batch

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.batches)), "entity")
        done = data.draw(st.integers(1, len(self.batches[name].rows)), "how many")
        self._run(name, done)

    def _run(self, name: str, done: int) -> None:
        batch, results = self.batches.pop(name), []
        for row in batch.rows[:done]:
            called = events.decode(row.event).entity_called
            if called.operation == "set":
                self.values[name] = int(called.input.value)
                self.writes[name] += 1
            output = str(self.values[name]) if called.operation == "get" else "set"
            results.append(pb.OperationResult(success=pb.OperationSuccess(result=text(output))))
        state = self.entity(name)
        assert state is not None
        answer = pb.EntityBatchResult(results=results, entity_state=text(str(self.values[name])))
        self.world.take(name, Decision(entity.complete(self.world.at, state, batch, answer), DONE))

    @precondition(lambda self: self.programs)
    @rule(data=st.data())
    def terminate(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.programs)), "workflow")
        self.world.take(name, operations.terminate(self.world.at, self.world.memory[name], None, False))

    @precondition(lambda self: any(map(self.entity, ENTITIES)))
    @rule(data=st.data())
    def reload(self, data: st.DataObject) -> None:
        """An entity is read from the store again: a batch that is out is void."""
        name = data.draw(st.sampled_from([name for name in ENTITIES if self.entity(name) is not None]), "entity")
        self.batches.pop(name, None)
        self.world.reload(name)

    # ------------------------------------------------------------ what always holds

    @invariant()
    def memory_is_what_is_stored(self) -> None:
        for stored in self.world.stored.values():
            state = self.world.memory[stored.instance.id]
            assert state is not None
            assert (state.instance, state.open, state.inbox) == (stored.instance, stored.calls, stored.inbox())
            if stored.instance.entity:
                may_run = entity.next_batch(state, "", 10_000).rows
                assert stored.instance.ready == bool(may_run)

    @invariant()
    def no_write_is_lost(self) -> None:
        assert self.values == self.writes

    def teardown(self) -> None:
        """Let everything come to its end."""
        for _ in range(10_000):
            if not self._settle_one():
                break
        for stored in self.world.stored.values():
            assert stored.instance.status.terminal or stored.instance.entity, "a workflow waits for ever"
            assert not stored.instance.entity or (stored.instance.lock, stored.log) == (None, {}), "a lock was left"
        assert self.world.reminders == {}

    def _settle_one(self) -> bool:
        for front in self.fronts():
            self.world.deliver(front)
            return True
        for name in self.ready():
            self._turn(name, again=False)
            return True
        for name in list(self.batches):
            self._run(name, len(self.batches[name].rows))
            return True
        for name in self.runnable():
            self._hand_out(name, 100)
            return True
        return False


TestContention = pytest.mark.timeout(120)(Contention.TestCase)
TestContention.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
