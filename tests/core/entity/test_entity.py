"""Entities (E.10): which messages may run now, who has the lock, and what an answer of a worker changes."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from sidecar.core import events
from sidecar.core.delivery import Arrival, arrive
from sidecar.core.entity import entity, locks
from sidecar.core.entity.entity import Batch
from sidecar.core.errors import OvertakenError
from sidecar.core.model import NO_CALL, ActorId, CallId, Kind, Lock, Outcome, Reminder, Status
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import ME, ML, NOW, SECOND, Flow, kind_of, message, one, text

ID = "@counter@a"
HERE = ME.entity("default", ID)
FAILED = pb.FailureDetails(error_type="ValueError", error_message="no")


def workflow(name: str) -> ActorId:
    return ME.workflow("default", name)


class Counter(Flow):
    """An entity in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 100

    def get(self, event: pb.HistoryEvent, source: ActorId | None = None, call: CallId = NO_CALL) -> "Counter":
        """Let a message of an own workflow arrive."""
        self.numbers += 1
        payload = events.encode(event)
        reminder = Reminder(self.numbers, Kind.EVENT, 1, HERE, source or workflow("w"), call, NOW, "", payload)
        assert self.arrive(reminder).reply.outcome is Outcome.DONE
        return self

    def signal(self, operation: str) -> "Counter":
        return self.get(pb.HistoryEvent(entity_signaled=pb.EntitySignaled(operation=operation)))

    def call(self, by: str, operation: str) -> "Counter":
        called = pb.EntityCalled(
            request_id=f"r-{operation}",
            operation=operation,
            parent_instance_id=text(by),
            parent_execution_id=text(f"{by}-1"),
            turn=2,
            task=3,
        )
        return self.get(pb.HistoryEvent(entity_called=called), workflow(by), CallId(f"{by}-1", 2, 3))

    def lock(self, by: str, *lock_set: str, position: int = 0) -> "Counter":
        wanted = pb.EntityLockRequested(
            critical_section_id=f"s-{by}",
            lock_set=lock_set or [ID],
            position=position,
            parent_instance_id=text(by),
            parent_execution_id=f"{by}-1",
            turn=2,
            task=4,
        )
        return self.get(pb.HistoryEvent(entity_lock_requested=wanted), workflow(by))

    def unlock(self, by: str, section: str = "") -> "Counter":
        sent = pb.EntityUnlockSent(critical_section_id=section or f"s-{by}")
        return self.get(pb.HistoryEvent(entity_unlock_sent=sent), workflow(by))

    @property
    def holder(self) -> str | None:
        return None if self.instance.lock is None else self.instance.lock.owner

    def batch(self, most_bytes: int = 1_000_000, most: int = 100) -> Batch:
        found = entity.next_batch(self.state, "token", most_bytes, most)
        assert self.instance.ready == bool(found.rows)
        return found

    def may_run(self) -> list[str]:
        return operations_of(self.batch())

    def run(self, *results: pb.OperationResult, **fields: object) -> None:
        batch = self.batch()
        given = results or tuple(success() for _ in batch.rows)
        answer = pb.EntityBatchResult(**({"results": given, "entity_state": text("1")} | fields))  # type: ignore[arg-type]
        self.commit(entity.complete(self.at, self.state, batch, answer))


def operations_of(batch: Batch) -> list[str]:
    found = [events.decode(row.event) for row in batch.rows]
    return [event.entity_called.operation or event.entity_signaled.operation for event in found]


def success(value: str | None = None) -> pb.OperationResult:
    return pb.OperationResult(success=pb.OperationSuccess(result=text(value)))


def failed() -> pb.OperationResult:
    return pb.OperationResult(failure=pb.OperationFailure(failure=FAILED))


def answers(reminders: Iterable[Reminder]) -> list[tuple[str, str]]:
    return [(found.target.id, kind_of(found.payload)) for found in reminders if found.kind is Kind.RESULT]


@pytest.fixture
def counter() -> Counter:
    return Counter()


# ---------------------------------------------------------------- operations


def test_the_first_message_makes_the_entity(counter: Counter) -> None:
    counter.signal("add")
    row = counter.instance
    assert (row.entity, row.id, row.name, row.status, row.revision) == (True, ID, "counter", Status.RUNNING, 1)
    assert counter.may_run() == ["add"]


def test_operations_run_in_the_order_in_which_they_came(counter: Counter) -> None:
    counter.signal("1").call("w", "2").signal("3")
    assert counter.may_run() == ["1", "2", "3"]


def test_a_batch_is_bounded_in_number_and_bytes_but_never_empty(counter: Counter) -> None:
    counter.signal("1").signal("2").signal("3")
    assert operations_of(counter.batch(most=2)) == ["1", "2"]
    size = len(counter.state.inbox[0].event)
    assert operations_of(counter.batch(2 * size)) == ["1", "2"]
    assert operations_of(counter.batch(0)) == ["1"]


def test_an_answer_takes_its_operations_out_and_answers_calls(counter: Counter) -> None:
    counter.signal("1").call("w", "2").call("v", "3")
    batch = counter.batch()
    counter.signal("later")
    results = [success(), success('"ok"'), failed()]
    changes = entity.complete(
        counter.at, counter.state, batch, pb.EntityBatchResult(results=results, entity_state=text("7"))
    )
    counter.commit(changes)
    assert (changes.output, changes.no_output) == ("7", False)
    assert answers(changes.set) == [("w", "entity_completed"), ("v", "entity_failed")]
    done, wrong = (events.decode(found.payload) for found in changes.set)
    assert done.entity_completed == pb.EntityCompleted(request_id="r-2", output=text('"ok"'))
    assert wrong.entity_failed == pb.EntityFailed(request_id="r-3", failure=FAILED)
    assert [found.call for found in changes.set] == [CallId("w-1", 2, 3), CallId("v-1", 2, 3)]
    assert counter.may_run() == ["later"]


def test_state_that_is_not_set_is_deleted(counter: Counter) -> None:
    """E.10: state unset = deleted."""
    counter.signal("delete").run(entity_state=None)
    assert (counter.last.output, counter.last.no_output) == (None, True)


def test_operations_without_a_result_stay(counter: Counter) -> None:
    counter.call("w", "1").call("w", "2").call("w", "3")
    counter.run(success())
    assert counter.may_run() == ["2", "3"]
    assert len(answers(counter.last.set)) == 1


def test_a_batch_that_failed_fails_what_was_not_run_and_leaves_the_state(counter: Counter) -> None:
    counter.call("w", "1").signal("2").call("v", "3")
    counter.commit(entity.complete(counter.at, counter.state, counter.batch(), pb.EntityBatchResult(failure=FAILED)))
    assert answers(counter.last.set) == [("w", "entity_failed"), ("v", "entity_failed")]
    assert (counter.last.output, counter.last.no_output) == (None, False)
    assert not counter.instance.ready


def test_an_answer_in_which_nothing_was_run_changes_nothing(counter: Counter) -> None:
    counter.signal("1")
    with pytest.raises(OvertakenError):
        entity.complete(counter.at, counter.state, counter.batch(), pb.EntityBatchResult())


def test_an_answer_for_an_entity_that_was_made_anew_changes_nothing(counter: Counter) -> None:
    counter.signal("1")
    batch = replace(counter.batch(), key=counter.instance.key + 1)
    with pytest.raises(OvertakenError):
        entity.complete(counter.at, counter.state, batch, pb.EntityBatchResult(results=[success()]))


def test_an_answer_given_twice_counts_once(counter: Counter) -> None:
    counter.signal("1")
    batch = counter.batch()
    counter.run()
    with pytest.raises(OvertakenError):
        entity.complete(counter.at, counter.state, batch, pb.EntityBatchResult(results=[success()]))


# ---------------------------------------------------------------- what operations ask for


def test_an_operation_signals_others_and_starts_workflows(counter: Counter) -> None:
    """E.10: follow actions (sendSignal, startNewOrchestration)."""
    later = events.timestamp(NOW + 5 * SECOND)
    to_other = pb.SendSignal(instance_id="@Other@x", name="hello", input=text("1"), scheduled_time=later)
    start = pb.StartWorkflow(instance_id="run", name="Flow", input=text("2"), scheduled_time=later)
    actions = [pb.OperationAction(send_signal=to_other), pb.OperationAction(start_workflow=start)]
    counter.signal("go").run(actions=actions)
    signaled = one(counter.last.set, Kind.EVENT)
    assert (signaled.target, signaled.source, signaled.due) == (
        ME.entity("default", "@other@x"),
        HERE,
        NOW + 5 * SECOND,
    )
    assert events.decode(signaled.payload).entity_signaled.operation == "hello"
    created = one(counter.last.set, Kind.DETACHED)
    assert (created.target, created.call, created.due) == (workflow("run"), NO_CALL, NOW)
    started = events.decode(created.payload).execution_started
    assert (started.name, started.input.value, started.scheduled_start) == ("Flow", "2", later)
    assert not started.HasField("parent")


def test_a_workflow_that_an_entity_starts_has_no_parent_and_starts_once() -> None:
    counter, flow = Counter(), Flow()
    action = pb.OperationAction(start_workflow=pb.StartWorkflow(instance_id="w", name="order"))
    counter.signal("go").run(actions=[action])
    created = one(counter.last.set, Kind.DETACHED)
    assert flow.arrive(created).reply.outcome is Outcome.DONE
    assert (flow.instance.parent, flow.instance.name, flow.instance.ready) == (None, "order", True)
    assert flow.arrive(created).reply.outcome is Outcome.DUPLICATE


def test_a_workflow_that_an_entity_starts_may_start_later_and_yields_to_one_that_runs() -> None:
    counter, flow = Counter(), Flow()
    later = events.timestamp(NOW + 5 * SECOND)
    start = pb.StartWorkflow(instance_id="w", name="order", scheduled_time=later)
    counter.signal("go").run(actions=[pb.OperationAction(start_workflow=start)])
    flow.arrive(one(counter.last.set, Kind.DETACHED))
    assert (flow.instance.began, flow.instance.scheduled_at) == (False, NOW + 5 * SECOND)
    counter.signal("again").run(actions=[pb.OperationAction(start_workflow=start)])
    assert flow.arrive(one(counter.last.set, Kind.DETACHED)).reply.outcome is Outcome.EXISTS


@pytest.mark.parametrize(
    "action",
    [
        pb.OperationAction(send_signal=pb.SendSignal(instance_id="nobody", name="x")),
        pb.OperationAction(start_workflow=pb.StartWorkflow(instance_id="@counter@b", name="x")),
        pb.OperationAction(start_workflow=pb.StartWorkflow()),
        pb.OperationAction(),
    ],
)
def test_what_can_reach_nobody_is_dropped(counter: Counter, action: pb.OperationAction) -> None:
    counter.signal("go").run(actions=[action])
    assert counter.last.set == ()


# ---------------------------------------------------------------- locks


def test_a_lock_is_granted_at_once_when_nothing_waits(counter: Counter) -> None:
    counter.lock("w")
    assert counter.instance.lock == Lock("w", "w-1", "s-w")
    assert answers(counter.last.set) == [("w", "entity_lock_granted")]
    [granted] = counter.last.set
    assert granted.call == CallId("w-1", 2, 4)
    assert counter.state.inbox == []


def test_a_lock_waits_for_the_operations_before_it(counter: Counter) -> None:
    counter.signal("1").lock("w").signal("2")
    assert (counter.holder, counter.may_run()) == (None, ["1"])
    counter.run()
    assert (counter.holder, counter.may_run()) == ("w", [])


def test_only_calls_of_the_holder_run_and_the_others_keep_their_order(counter: Counter) -> None:
    counter.lock("w").signal("1").call("v", "2").call("w", "mine").call("v", "3")
    assert counter.may_run() == ["mine"]
    counter.run()
    assert counter.may_run() == []
    counter.unlock("w")
    assert counter.may_run() == ["1", "2", "3"]


def test_a_call_of_an_earlier_execution_of_the_holder_waits(counter: Counter) -> None:
    counter.lock("w")
    called = pb.EntityCalled(operation="old", parent_instance_id=text("w"), parent_execution_id=text("w-0"))
    counter.get(pb.HistoryEvent(entity_called=called))
    assert counter.may_run() == []


def test_the_next_lock_waits_for_the_unlock(counter: Counter) -> None:
    counter.lock("w").lock("v").call("v", "early")
    assert (counter.holder, counter.may_run()) == ("w", [])
    counter.unlock("w")
    assert (counter.holder, counter.may_run()) == ("v", ["early"])


@pytest.mark.parametrize(("by", "section"), [("v", ""), ("w", "other"), ("v", "s-w")])
def test_an_unlock_of_somebody_else_changes_nothing(counter: Counter, by: str, section: str) -> None:
    counter.lock("w").unlock(by, section)
    assert counter.holder == "w"


def test_an_unlock_takes_back_a_request_that_waits(counter: Counter) -> None:
    counter.lock("w").lock("v").signal("1").unlock("v")
    assert counter.holder == "w"
    counter.unlock("w")
    assert (counter.holder, counter.may_run()) == (None, ["1"])


def test_a_request_that_is_taken_back_lets_go_of_what_it_has_locked_on_its_way(counter: Counter) -> None:
    """The unlock of an earlier entity may have been there before the request was: that lock would stay for ever."""
    counter.lock("w").lock("v", "@counter@a", "@counter@b", ID, position=2).unlock("v")
    assert [(sent.kind, sent.target.id, sent.source) for sent in counter.last.set] == [
        (Kind.EVENT, entity, ME.workflow("default", "v")) for entity in ("@counter@a", "@counter@b")
    ]
    unlock = events.decode(counter.last.set[0].payload).entity_unlock_sent
    assert (unlock.critical_section_id, unlock.parent_instance_id.value) == ("s-v", "v")


def test_an_unlock_of_an_entity_that_is_not_there_makes_none(counter: Counter) -> None:
    counter.unlock("w")
    assert counter.live is None
    assert counter.last.dropped == (101,)


def test_a_lock_goes_on_to_the_next_entity_and_the_last_grants(counter: Counter) -> None:
    """E.10: an all-or-nothing lock set."""
    counter.lock("w", ID, "@counter@b")
    [onward] = counter.last.set
    assert (onward.kind, onward.target, onward.source) == (Kind.EVENT, ME.entity("default", "@counter@b"), HERE)
    assert events.decode(onward.payload).entity_lock_requested.position == 1
    last = Counter().lock("w", "@counter@0", ID, position=1)
    [granted] = last.last.set
    lock_set = events.decode(granted.payload).entity_lock_granted.lock_set
    assert (granted.kind, list(lock_set)) == (Kind.RESULT, ["@counter@0", ID])


def test_what_a_batch_held_back_by_a_lock_had_out_still_counts(counter: Counter) -> None:
    """An un-awaited call of a holder may be out when it unlocks: what it did is not lost."""
    counter.lock("w").signal("waits").call("w", "mine")
    batch = counter.batch()
    counter.unlock("w")
    counter.commit(
        entity.complete(
            counter.at, counter.state, batch, pb.EntityBatchResult(results=[success()], entity_state=text("1"))
        )
    )
    assert counter.may_run() == ["waits"]


def test_an_unlock_waits_for_what_its_holder_has_asked_for_before(counter: Counter) -> None:
    counter.lock("w").lock("v").call("w", "first").call("v", "early").call("w", "second").unlock("w").unlock("w")
    assert (counter.holder, counter.may_run()) == ("w", ["first", "second"])
    counter.run(success())
    assert (counter.holder, counter.may_run()) == ("w", ["second"])
    counter.run()
    assert (counter.holder, counter.may_run()) == ("v", ["early"])
    counter.run()
    counter.unlock("v")
    assert (counter.holder, counter.may_run(), counter.state.inbox) == (None, [], [])


def test_an_orphaned_lock_goes_behind_what_its_holder_has_asked_for(counter: Counter) -> None:
    counter.lock("w").call("w", "last").signal("waits")
    orphan = counter.instance.lock
    assert orphan is not None
    counter.take(locks.release(counter.at, counter.live, orphan))
    assert (counter.holder, counter.may_run()) == ("w", ["last"])
    counter.run()
    assert (counter.holder, counter.may_run()) == (None, ["waits"])


# ---------------------------------------------------------------- who may send


def test_an_entity_takes_messages_of_its_own_app_only() -> None:
    payload = events.encode(pb.HistoryEvent(entity_signaled=pb.EntitySignaled(operation="x")))
    source = ActorId(ML.namespace, ML.app, "workflow", "", "w")
    foreign = Reminder(7, Kind.EVENT, 0, HERE, source, NO_CALL, 0, "", payload)
    decision = arrive(Flow().at, None, Arrival(foreign, received=(message(),)))
    assert decision.reply.outcome is Outcome.DENIED
    assert decision.changes is not None
    assert decision.changes.key == 0


def test_what_is_no_message_for_an_entity_is_refused_and_used_up() -> None:
    payload = events.event_raised(NOW, "paid", None)
    wrong = Reminder(7, Kind.EVENT, 0, HERE, workflow("w"), NO_CALL, 0, "", payload)
    decision = arrive(Flow().at, None, Arrival(wrong, consumed=(7,)))
    assert decision.reply.outcome is Outcome.INVALID
    assert decision.changes is not None
    assert (decision.changes.dropped, decision.changes.key) == ((7,), 0)


# ---------------------------------------------------------------- clients


def test_a_signal_of_a_client_for_later_is_a_reminder(counter: Counter) -> None:
    payload = events.entity_signaled(NOW, pb.EntitySignaled(operation="x"))
    decision = counter.take(entity.signal(counter.at, None, HERE, payload, NOW + SECOND))
    assert decision.changes is not None
    [later] = decision.changes.set
    assert (later.due, later.target, counter.live) == (NOW + SECOND, HERE, None)
    assert counter.arrive(later).reply.outcome is Outcome.DONE
    assert counter.may_run() == ["x"]


def test_only_an_entity_that_is_as_it_was_seen_is_removed(counter: Counter) -> None:
    counter.signal("delete").run(entity_state=None)
    seen = counter.instance.revision
    stale = entity.forget(counter.at, counter.live, seen - 1)
    assert stale.reply.outcome is Outcome.STALE
    counter.take(entity.forget(counter.at, counter.live, seen))
    assert counter.live is None
    assert entity.forget(counter.at, None, seen).changes is None


@pytest.mark.parametrize("busy", [lambda counter: counter.signal("1"), lambda counter: counter.lock("w")])
def test_an_entity_that_is_waited_for_or_locked_is_not_removed(counter: Counter, busy: object) -> None:
    busy(counter)  # type: ignore[operator]
    assert entity.forget(counter.at, counter.live, counter.instance.revision).changes is None


def test_an_orphaned_lock_goes_to_the_next_that_waits(counter: Counter) -> None:
    counter.lock("w").lock("v")
    orphan = counter.instance.lock
    assert orphan is not None
    counter.take(locks.release(counter.at, counter.live, orphan))
    assert counter.holder == "v"
    assert locks.release(counter.at, counter.live, orphan).changes is None


def test_a_purge_takes_all_and_fails_the_calls_that_wait(counter: Counter) -> None:
    counter.signal("1").run(entity_state=text("kept"))
    counter.signal("2").call("w", "3")
    decision = counter.take(entity.purge(counter.at, counter.live))
    assert decision.changes is not None
    assert (counter.live, decision.changes.purged) == (None, True)
    [answer] = decision.changes.set
    failure = events.decode(answer.payload).entity_failed.failure
    assert (answer.target.id, answer.call) == ("w", CallId("w-1", 2, 3))
    assert (failure.error_type, failure.error_message, failure.is_non_retriable) == (
        "EntityPurged",
        f"entity '{ID}' was purged",
        True,
    )
    assert entity.purge(counter.at, counter.live).reply == entity.MISSING


def test_who_waits_for_the_lock_of_an_entity_that_is_purged_gets_it(counter: Counter) -> None:
    """Nothing says to a workflow that it does not get a lock: it would wait for ever."""
    counter.lock("u").call("u", "1").lock("v").lock("w").signal("2")
    before = counter.instance.key
    changes = counter.take(entity.purge(counter.at, counter.live)).changes
    assert changes is not None
    assert (changes.replaces, changes.expected, counter.instance.key != before) == (before, 0, True)
    assert answers(changes.set) == [("u", "entity_failed"), ("v", "entity_lock_granted")]
    assert (counter.holder, counter.may_run()) == ("v", [])
    counter.unlock("u").call("v", "3").unlock("v")
    assert counter.may_run() == ["3"]
    counter.run()
    assert counter.holder == "w"


def test_a_batch_that_was_out_at_the_purge_changes_nothing_afterwards(counter: Counter) -> None:
    counter.lock("u").call("u", "1").lock("v")
    out = counter.batch()
    counter.take(entity.purge(counter.at, counter.live))
    with pytest.raises(OvertakenError):
        entity.complete(counter.at, counter.state, out, pb.EntityBatchResult(results=[success()]))
    assert entity.too_large(counter.at, counter.state, out, FAILED) is None


# ---------------------------------------------------------------- too large for every worker


def test_calls_that_no_worker_can_receive_fail_all_or_the_one_that_is_too_large_by_itself(counter: Counter) -> None:
    counter.call("u", "1").call("v", "2").call("w", "3")
    first = entity.too_large(counter.at, counter.state, counter.batch(most=1), FAILED, by_itself=True)
    assert first is not None
    counter.commit(first)
    assert (answers(first.set), counter.may_run()) == ([("u", "entity_failed")], ["2", "3"])
    rest = entity.too_large(counter.at, counter.state, counter.batch(most=1), FAILED)
    assert rest is not None
    counter.commit(rest)
    assert (answers(rest.set), counter.instance.ready) == ([("v", "entity_failed"), ("w", "entity_failed")], False)


def test_a_signal_that_no_worker_can_receive_waits_and_the_calls_behind_it_fail(counter: Counter) -> None:
    counter.signal("1").call("v", "2").signal("3").call("w", "4").lock("u").call("u", "5")
    changes = entity.too_large(counter.at, counter.state, counter.batch(most=1), FAILED)
    assert changes is not None
    counter.commit(changes)
    assert answers(changes.set) == [("v", "entity_failed"), ("w", "entity_failed")]
    assert counter.may_run() == ["1", "3"]
    assert entity.too_large(counter.at, counter.state, counter.batch(most=1), FAILED) is None


def test_the_lock_is_released_behind_the_last_call_that_no_worker_can_receive(counter: Counter) -> None:
    counter.lock("v").call("v", "1").unlock("v").lock("w")
    changes = entity.too_large(counter.at, counter.state, counter.batch(), FAILED)
    assert changes is not None
    counter.commit(changes)
    assert counter.holder == "w"
