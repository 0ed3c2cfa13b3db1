from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core import events, operations
from sidecar.core.errors import OvertakenError
from sidecar.core.model import CallKind, Changes, Kind, OpenCall, Position, Reminder, Row, Status
from sidecar.core.workflow import pauses
from sidecar.core.workflow import state as states
from sidecar.core.workflow import turn as turns
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import ME, NOW, SECOND, Flow, child, end, renew, result, send, start_request, task, timer
from tests.core.world import Stored, World

# ---------------------------------------------------------------- single steps


def test_an_instance_that_is_removed_leaves_no_state() -> None:
    flow = Flow().start()
    assert states.apply(flow.state, Changes(key=1, expected=1, purged=True)) is None


def test_changes_without_an_instance_leave_the_state_as_it_is() -> None:
    flow = Flow().start()
    before = flow.state
    assert states.apply(before, Changes(dropped=(4,))) is before
    assert before == Flow().start().state


@pytest.mark.parametrize(
    ("rows", "tail"),
    [
        ([], Position(4, 2)),
        ([Row(4, 1, b"")], Position(4, 2)),
        ([Row(4, 2, b""), Row(4, 3, b"")], Position(4, 4)),
        ([Row(4, 2, b""), Row(6, 2, b"")], Position(6, 3)),
    ],
)
def test_the_next_arrival_of_a_loaded_instance_goes_behind_all_that_waits(rows: list[Row], tail: Position) -> None:
    flow = Flow().start()
    for _ in range(3):
        flow.turn()
    assert states.load(flow.instance, states.new(flow.instance), rows).tail == tail


def test_what_arrives_while_a_turn_is_out_stands_behind_the_confirmations_of_that_turn() -> None:
    flow = Flow().start()
    turn = flow.begin()
    flow.event("a").event("b")
    flow.complete(turn, task(0), timer(1))
    flow.event("c")
    assert [row.position for row in flow.state.inbox] == [(2, 2), (2, 3), (2, 4)]
    assert flow.state.tail == (2, 5)


def test_time_of_the_last_change_does_not_go_back() -> None:
    flow = Flow().start()
    flow.now = NOW - SECOND
    assert flow.event().instance.updated_at == NOW


# ---------------------------------------------------------------- any sequence of steps

NAMES = ("a", "b", "c")
ANY = frozenset(Status)
REQUESTS = {CallKind.ACTIVITY: Kind.ACTIVITY, CallKind.CHILD: Kind.CREATE, CallKind.TIMER: Kind.TIMER}
CONFIRM = {"task_scheduled", "child_created", "timer_created"}
ENDS = {"task_completed", "task_failed", "child_completed", "child_failed", "timer_fired"}
NUMBERS = st.integers(0, 4)
ACTIONS = st.lists(
    st.one_of(
        st.builds(task, NUMBERS, app=st.sampled_from(["", "ml", "m!l"])),
        st.builds(child, NUMBERS, st.sampled_from(["", *NAMES]), app=st.sampled_from(["", "ml"])),
        st.builds(timer, NUMBERS, st.integers(NOW, NOW + 9 * SECOND)),
        st.builds(send, NUMBERS, st.sampled_from(NAMES), app=st.sampled_from(["", "ml"])),
    ),
    max_size=4,
)
ENDINGS = st.sampled_from([None, None, None, None, end(), end(Status.FAILED), end(Status.TERMINATED), renew(), renew()])
PICK = st.integers(0, 50)


class Steps(RuleBasedStateMachine):
    """Clients, workers, timers and the other app do whatever they like, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.number = 0
        self.answers: list[Reminder] = []
        self.last_completed_turn: dict[tuple[int, str], list[Row]] = {}
        self.ended: dict[int, Status] = {}

    def fresh(self) -> int:
        self.number += 1
        return self.number

    def waiting(self, wanted: Callable[[Reminder], bool]) -> list[Reminder]:
        return [reminder for _, reminder in sorted(self.world.reminders.items()) if wanted(reminder)]

    # ------------------------------------------------------------ clients

    @rule(name=st.sampled_from(NAMES), later=st.booleans(), replace=st.booleans())
    def start(self, name: str, later: bool, replace: bool) -> None:
        world = self.world
        state = world.state(name)
        policy = {"replaceable": ANY} if replace else {}
        asked = start_request(name, f"x-{self.fresh()}", scheduled_at=NOW + 5 * SECOND if later else None, **policy)
        world.take(name, operations.start(world.at, state, asked))

    @precondition(lambda self: self.world.memory)
    @rule(
        pick=PICK,
        what=st.sampled_from(["raise", "raise", "suspend", "resume", "terminate", "purge"]),
        flag=st.booleans(),
    )
    def command(self, pick: int, what: str, flag: bool) -> None:
        world = self.world
        name = sorted(world.memory)[pick % len(world.memory)]
        state, at = world.state(name), world.at
        decisions = {
            "raise": lambda: operations.raise_event(at, state, "paid", None),
            "suspend": lambda: pauses.suspend(at, state, None),
            "resume": lambda: pauses.resume(at, state, None),
            "terminate": lambda: operations.terminate(at, state, None, recurse=flag),
            "purge": lambda: operations.purge(at, state, force=flag),
        }
        world.take(name, decisions[what]())

    # ------------------------------------------------------------ workers

    def ready(self) -> list[str]:
        memory = self.world.memory
        return sorted(name for name, state in memory.items() if state is not None and state.instance.ready)

    @precondition(lambda self: self.ready())
    @rule(pick=PICK)
    def hand_out(self, pick: int) -> None:
        ready = self.ready()
        self.world.hand_out(ready[pick % len(ready)])

    @precondition(lambda self: self.world.turns)
    @rule(pick=PICK, actions=ACTIONS, ending=ENDINGS)
    def answer(self, pick: int, actions: list[pb.Action], ending: pb.Action | None) -> None:
        names = sorted(self.world.turns)
        self.world.answer(names[pick % len(names)], *actions, *([ending] if ending else []))

    @precondition(lambda self: self.world.answered)
    @rule(pick=PICK, actions=ACTIONS, ending=ENDINGS)
    def answer_again(self, pick: int, actions: list[pb.Action], ending: pb.Action | None) -> None:
        name, turn = self.world.answered[pick % len(self.world.answered)]
        state = self.world.state(name)
        response = pb.OrchestratorResponse(actions=[*actions, *([ending] if ending else [])])
        if state is not None:
            with pytest.raises(OvertakenError):
                turns.complete(self.world.at, state, turn, response)

    @rule(pick=PICK)
    def work(self, pick: int) -> None:
        found = self.waiting(lambda reminder: reminder.kind is Kind.ACTIVITY and ME.owns(reminder.target))
        if found:
            self.world.work(found[pick % len(found)])

    # ------------------------------------------------------------ time, the other app, and the end of memory

    @rule(pick=PICK)
    def deliver(self, pick: int) -> None:
        found = self.waiting(lambda reminder: reminder.kind is not Kind.ACTIVITY and ME.owns(reminder.target))
        if found:
            self.world.deliver(found[pick % len(found)])

    @rule(pick=PICK)
    def accept(self, pick: int) -> None:
        found = self.waiting(lambda one: not ME.owns(one.target) and one.id not in self.world.accepted)
        if found:
            self.world.accept(found[pick % len(found)])

    @rule(pick=PICK)
    def receive(self, pick: int) -> None:
        found = self.waiting(lambda one: one.kind in (Kind.ACTIVITY, Kind.CREATE) and not ME.owns(one.target))
        if found:
            self.answers.append(result(found[pick % len(found)]))
            self.world.receive(self.answers[-1], self.fresh())

    @precondition(lambda self: self.answers)
    @rule(pick=PICK, same=st.booleans())
    def receive_again(self, pick: int, same: bool) -> None:
        before = {name: state and state.instance.revision for name, state in self.world.memory.items()}
        known = max((found.id for found in self.world.received), default=0)
        self.world.receive(self.answers[pick % len(self.answers)], known if same else self.fresh())
        assert before == {name: state and state.instance.revision for name, state in self.world.memory.items()}

    @precondition(lambda self: self.world.memory)
    @rule(pick=PICK)
    def reload(self, pick: int) -> None:
        names = sorted(self.world.memory)
        self.world.reload(names[pick % len(names)])

    @rule(seconds=st.integers(-2, 5))
    def pass_time(self, seconds: int) -> None:
        self.world.now += seconds * SECOND

    # ------------------------------------------------------------ what holds after each step

    @invariant()
    def memory_is_what_is_stored(self) -> None:
        found = {state.instance.key: state for state in self.world.memory.values() if state is not None}
        assert found.keys() == self.world.stored.keys()
        for key, stored in self.world.stored.items():
            state, rows = found[key], stored.rows()
            assert state.instance == stored.instance
            assert state.open == stored.calls
            assert state.children == stored.live_children()
            assert state.inbox == stored.inbox()
            assert state.tail.turn > stored.instance.last_completed_turn
            assert not rows or state.tail > rows[-1].position

    @invariant()
    def an_instance_is_ready_when_something_waits_that_it_may_see(self) -> None:
        for stored in self.world.stored.values():
            instance = stored.instance
            may_run = instance.began and not instance.suspended and not instance.status.terminal
            assert instance.ready is bool(may_run and stored.inbox())
            assert instance.suspended is (instance.status is Status.SUSPENDED)

    @invariant()
    def what_a_worker_has_seen_stays_and_what_has_ended_stays_ended(self) -> None:
        for key, stored in self.world.stored.items():
            instance = stored.instance
            seen = [row for row in stored.rows() if row.turn <= instance.last_completed_turn]
            before = self.last_completed_turn.get((key, instance.execution), [])
            assert seen[: len(before)] == before
            self.last_completed_turn[key, instance.execution] = seen
            assert self.ended.get(key, instance.status) is instance.status
            if instance.status.terminal:
                self.ended[key] = instance.status
                assert not stored.calls

    @invariant()
    def every_call_of_a_running_execution_has_one_end_or_is_open(self) -> None:
        for stored in self.world.stored.values():
            if stored.instance.status.terminal:
                continue
            made, ended = Counter[int](), Counter[int]()
            for row in stored.rows():
                event = events.decode(row.event)
                kind = event.WhichOneof("kind") or ""
                if kind in CONFIRM:
                    made[event.event_id] += 1
                elif kind in ENDS:
                    body = getattr(event, kind)
                    ended[body.timer_id if kind == "timer_fired" else body.task_scheduled_id] += 1
            ended.update(task for task, call in stored.calls.items() if call.kind in REQUESTS)
            assert made == ended

    @invariant()
    def every_open_call_has_one_live_cause_and_every_cause_has_its_call(self) -> None:
        open_now: dict[int, OpenCall] = {}
        for key, stored in self.world.stored.items():
            for call in stored.calls.values():
                if call.kind in REQUESTS:
                    assert len(self.causes(key, stored, call)) == 1
                    open_now[call.reminder] = call
        for reminder in self.world.reminders.values():
            if reminder.id not in open_now:
                assert reminder.kind is not Kind.TIMER
                assert not reminder.kept_until_result
        assert self.world.accepted & self.world.reminders.keys() <= open_now.keys()

    def causes(self, key: int, stored: Stored, call: OpenCall) -> list[object]:
        """Return all from which the answer to a call can come."""
        own = ME.workflow("default", stored.instance.id)
        requests = self.waiting(
            lambda one: (
                (one.owner, one.kind, one.call, one.target) == (key, REQUESTS[call.kind], call.call, call.target)
            )
        )
        assert all(found.id == call.reminder for found in requests)
        assert all(found.kept_until_result is not ME.owns(found.target) for found in requests)
        answers = self.waiting(lambda one: (one.kind, one.target, one.call) == (Kind.RESULT, own, call.call))
        parents = {key: other.instance.parent for key, other in self.world.stored.items()}
        live = [
            key
            for key, parent in parents.items()
            if parent and parent[:2] == (own, call.call) and not self.world.stored[key].instance.status.terminal
        ]
        return [*requests, *answers, *live]


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
