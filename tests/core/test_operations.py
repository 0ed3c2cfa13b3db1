from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events, operations
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import NO_CALL, CallId, Changes, Decision, Kind, Outcome, Parent, Reply, State, Status
from sidecar.core.workflow import pauses
from sidecar.core.workflow.next_execution import id_after
from tests.core.builders import (
    ME,
    NOW,
    OWN_PARENT,
    PARENT,
    SECOND,
    Flow,
    child,
    end,
    kind_of,
    kinds,
    one,
    renew,
    result,
    send,
    start_request,
    task,
    timer,
)

LATER = NOW + 60 * SECOND


def settled(status: Status) -> Flow:
    """Return an instance with this status."""
    flow = Flow().start()
    if status is not Status.PENDING:
        flow.turn(*([end(status)] if status.terminal else [timer(0)]))
    if status is Status.SUSPENDED:
        flow.take(pauses.suspend(flow.at, flow.live, None))
    assert flow.instance.status is status
    return flow


def scheduled() -> Flow:
    return Flow().start(scheduled_at=LATER)


# ---------------------------------------------------------------- start


def test_a_start_makes_an_instance_that_is_ready_for_its_first_turn() -> None:
    flow = Flow()
    decision = flow.take(operations.start(flow.at, None, start_request()))
    assert decision.reply.outcome is Outcome.DONE
    instance = flow.instance
    assert (instance.status, instance.began, instance.ready, instance.revision) == (Status.PENDING, True, True, 1)
    assert (instance.id, instance.hub, instance.name, instance.execution) == ("w", "default", "order", "w-1")
    assert instance.origin == "w-1"
    assert (instance.created_at, instance.started_at, instance.parent) == (NOW, None, None)
    [row] = flow.state.inbox
    event = events.decode(row.event)
    assert (row.position, event.router.source_app_id) == ((1, 1), "orders")
    assert event.execution_started == start_request().started


@pytest.mark.parametrize("at", [NOW, NOW - SECOND, None])
def test_a_start_that_is_due_needs_no_reminder(at: int | None) -> None:
    flow = Flow().start(scheduled_at=at)
    assert flow.last.set == ()
    assert (flow.instance.began, len(flow.state.inbox)) == (True, 1)


def test_a_scheduled_start_leaves_its_event_in_a_reminder_and_out_of_the_log() -> None:
    flow = scheduled()
    [reminder] = flow.last.set
    own = ME.workflow("default", "w")
    assert (reminder.kind, reminder.due, reminder.target, reminder.source) == (Kind.START, LATER, own, own)
    assert (reminder.owner, reminder.call) == (flow.instance.key, NO_CALL)
    assert events.decode(reminder.payload).execution_started == start_request().started
    assert (flow.last.append, flow.state.inbox) == ((), [])
    instance = flow.instance
    assert (instance.status, instance.began, instance.ready) == (Status.PENDING, False, False)
    assert instance.scheduled_at == LATER
    assert not flow.event().instance.ready


ANY = frozenset(Status)
POLICIES: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({}, True),
    "none, and ended IDs are kept": ({}, False),
    "unique": ({"unique": True}, True),
    "unique over all statuses": ({"unique": True, "replaceable": ANY}, True),
    "nothing replaceable": ({"replaceable": frozenset()}, True),
    "failed replaceable": ({"replaceable": frozenset({Status.FAILED})}, True),
    "failed replaceable, and ended IDs are kept": ({"replaceable": frozenset({Status.FAILED})}, False),
    "live replaceable": ({"replaceable": frozenset({Status.PENDING, Status.RUNNING, Status.SUSPENDED})}, True),
    "any ignored": ({"replaceable": ANY, "ignore_existing": True}, True),
    "failed ignored": ({"replaceable": frozenset({Status.FAILED}), "ignore_existing": True}, True),
}
FOUND = (Status.PENDING, Status.RUNNING, Status.SUSPENDED, Status.COMPLETED, Status.FAILED, Status.TERMINATED)
#                                               pending   running   suspended completed failed    terminated
REUSE = {
    "none":                                       "exists    exists    exists    done      done      done",
    "none, and ended IDs are kept":               "exists    exists    exists    exists    exists    exists",
    "unique":                                     "exists    exists    exists    exists    exists    exists",
    "unique over all statuses":                   "exists    exists    exists    exists    exists    exists",
    "nothing replaceable":                        "exists    exists    exists    exists    exists    exists",
    "failed replaceable":                         "exists    exists    exists    exists    done      exists",
    "failed replaceable, and ended IDs are kept": "exists    exists    exists    exists    done      exists",
    "live replaceable":                           "done      done      done      exists    exists    exists",
    "any ignored":                                "duplicate duplicate duplicate duplicate duplicate duplicate",
    "failed ignored":                             "exists    exists    exists    exists    duplicate exists",
}  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_whether_an_id_may_be_used_again_is_as_the_table_says(policy: str) -> None:
    fields, reuse = POLICIES[policy]
    told = []
    for status in FOUND:
        flow = settled(status)
        at = Context(AppIdentity("default", "orders", reuse_ended=reuse), NOW, flow.ids)
        decision = operations.start(at, flow.live, start_request(execution="w-2", **fields))
        told.append(decision.reply.outcome.value)
        if decision.changes is None:
            assert decision.reply.outcome is not Outcome.DONE
        else:
            replaced = (decision.changes.replaces, decision.changes.replaced_at)
            assert replaced == (flow.instance.key, flow.instance.revision)
    assert told == REUSE[policy].split()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_start_that_is_tried_again_is_the_same_start_under_every_policy(policy: str) -> None:
    for status in FOUND:
        flow = settled(status)
        decision = operations.start(flow.at, flow.live, start_request(**POLICIES[policy][0]))
        assert decision == Decision(None, Reply(Outcome.DUPLICATE))


def test_a_start_that_is_tried_again_after_continue_as_new_is_still_the_same_start() -> None:
    flow = Flow().start()
    flow.turn(renew())
    assert (flow.instance.origin, flow.instance.execution) == ("w-1", id_after("w-1"))
    for outcome in (Outcome.EXISTS, Outcome.DONE):
        again = operations.start(flow.at, flow.live, start_request(replaceable=ANY))
        assert again == Decision(None, Reply(Outcome.DUPLICATE))
        assert operations.start(flow.at, flow.live, start_request(execution=id_after("w-1"))).reply.outcome is outcome
        if outcome is Outcome.EXISTS:
            flow.turn(end())


def test_a_refusal_names_the_instance_and_whether_it_is_active() -> None:
    def said(status: Status, **request: Any) -> str:
        flow = settled(status)
        return operations.start(
            flow.at, flow.live, start_request(execution="w-2", **request or {"unique": True})
        ).reply.text

    assert said(Status.RUNNING) == "an active workflow with ID 'w' already exists"
    ended = "a workflow with ID 'w' already exists and the create enforces instance ID uniqueness"
    assert said(Status.COMPLETED) == ended  # the words of Dapr's runtime
    only_failed = frozenset({int(Status.FAILED)})
    assert said(Status.COMPLETED, replaceable=only_failed) == "an ended workflow with ID 'w' already exists"


def test_a_replacement_is_another_instance_and_takes_what_the_old_one_waited_for() -> None:
    flow = Flow().start()
    calls = (timer(0), task(1), send(2, "other"), task(3, app="ml"), child(4), child(5, app="ml"))
    nap, local, _, remote, ours, theirs = flow.turn(*calls).set
    old = flow.instance
    flow.start(execution="w-2", replaceable=ANY)
    assert flow.instance.key != old.key
    assert (flow.instance.execution, flow.instance.revision, flow.instance.last_completed_turn) == ("w-2", 1, 0)
    assert (flow.last.dropped, flow.last.released) == ((nap.id, local.id), (remote.id, ours.id, theirs.id))
    [withdrawal] = flow.last.set
    assert (withdrawal.kind, withdrawal.target, withdrawal.call) == (Kind.WITHDRAW, remote.target, remote.call)
    assert flow.state.children == {}
    assert (flow.open, [row.position for row in flow.state.inbox], flow.state.tail) == ({}, [(1, 1)], (1, 2))


@pytest.mark.parametrize("parent", [PARENT, OWN_PARENT], ids=["in another app", "in this app"])
@pytest.mark.parametrize("at", [None, LATER])
def test_the_parent_of_a_live_child_that_a_client_replaces_is_told(parent: Parent, at: int | None) -> None:
    flow = Flow().start(parent=parent)
    flow.start(execution="w-2", replaceable=ANY, scheduled_at=at)
    assert flow.instance.parent is None
    assert [reminder.kind for reminder in flow.last.set] == [Kind.RESULT] + [Kind.START] * bool(at)
    answer = flow.last.set[0]
    assert (answer.target, answer.call, answer.source) == (*parent[:2], ME.workflow("default", "w"))
    assert kind_of(answer.payload) == "child_failed"
    failed = events.decode(answer.payload).child_failed
    assert (failed.task_scheduled_id, failed.failure.error_type) == (3, "WorkflowReplaced")
    assert "'w' was replaced" in failed.failure.error_message


def test_the_parent_of_an_ended_child_that_a_client_replaces_is_not_told_again() -> None:
    flow = Flow().start(parent=PARENT)
    flow.turn(end())
    flow.start(execution="w-2")
    assert flow.instance.parent is None
    assert (flow.last.set, flow.last.dropped, flow.last.released) == ((), (), ())


# ---------------------------------------------------------------- raise, suspend, resume, terminate, purge

Command = Callable[[Context, State | None], Decision]
COMMANDS: dict[str, Command] = {
    "raise": lambda at, state: operations.raise_event(at, state, "paid", StringValue(value="1")),
    "suspend": lambda at, state: pauses.suspend(at, state, "why"),
    "resume": lambda at, state: pauses.resume(at, state, "why"),
    "terminate": lambda at, state: operations.terminate(at, state, "why", recurse=False),
    "purge": lambda at, state: operations.purge(at, state, force=False),
    "purge by force": lambda at, state: operations.purge(at, state, force=True),
}
PLACES: tuple[Callable[[], Flow], ...] = (
    Flow,
    scheduled,
    lambda: settled(Status.PENDING),
    lambda: settled(Status.RUNNING),
    lambda: settled(Status.SUSPENDED),
    lambda: settled(Status.COMPLETED),
)
# What is said, or, when the command is taken: the status after it, "gone", or "-" for one that changes nothing.
#                     missing scheduled   pending     running     suspended   ended
STEPS = {
    "raise":          "missing PENDING     PENDING     RUNNING     SUSPENDED   -",
    "suspend":        "missing SUSPENDED   SUSPENDED   SUSPENDED   -           -",
    "resume":         "missing -           -           -           RUNNING     -",
    "terminate":      "missing TERMINATED  TERMINATED  TERMINATED  TERMINATED  -",
    "purge":          "missing wrong_state wrong_state wrong_state wrong_state gone",
    "purge by force": "missing gone        gone        gone        gone        gone",
}  # fmt: skip
APPENDED = {
    "raise": "event_raised",
    "suspend": "execution_suspended",
    "resume": "execution_resumed",
    "terminate": "execution_terminated",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_does_in_each_status_what_the_table_says(name: str) -> None:
    for place, wanted in zip(PLACES, STEPS[name].split(), strict=True):
        flow = place()
        decision = COMMANDS[name](flow.at, flow.live)
        changes = decision.changes
        if changes is None:
            assert wanted in ("-", decision.reply.outcome.name.lower())
            assert (decision.reply.outcome is Outcome.DONE) is (wanted == "-")
            continue
        assert (decision.reply.outcome, changes.expected) == (Outcome.DONE, flow.instance.revision)
        if changes.purged:
            assert wanted == "gone"
        else:
            assert changes.instance is not None
            assert changes.instance.status.name == wanted
            assert kinds(changes.append) == [APPENDED[name]]


def test_what_a_client_says_is_in_the_events_of_its_commands() -> None:
    flow = settled(Status.RUNNING)
    for name in ("raise", "suspend", "resume", "terminate"):
        flow.take(COMMANDS[name](flow.at, flow.live))
    said = [events.decode(row.event) for row in flow.state.inbox]
    assert (said[0].event_raised.name, said[0].event_raised.input.value) == ("paid", "1")
    assert said[1].execution_suspended.input.value == said[2].execution_resumed.input.value == "why"
    assert said[3].execution_terminated.input.value == flow.last.output == "why"
    bare = settled(Status.RUNNING)
    bare.take(operations.raise_event(bare.at, bare.live, "paid", None))
    bare.take(pauses.suspend(bare.at, bare.live, None))
    first, second = (events.decode(row.event) for row in bare.state.inbox)
    assert (first.event_raised.HasField("input"), second.execution_suspended.HasField("input")) == (False, False)


def test_a_suspended_instance_takes_events_in_and_is_ready_once_it_is_resumed() -> None:
    flow = settled(Status.SUSPENDED)
    assert flow.event().instance.ready is False
    flow.take(pauses.resume(flow.at, flow.live, None))
    assert (flow.instance.suspended, flow.instance.ready) == (False, True)
    assert kinds(flow.begin().rows) == ["execution_suspended", "event_raised", "execution_resumed"]


def test_a_scheduled_instance_that_was_suspended_and_resumed_still_waits_for_its_time() -> None:
    flow = scheduled()
    start = flow.last.set[0]
    flow.take(pauses.suspend(flow.at, flow.live, None))
    flow.take(pauses.resume(flow.at, flow.live, None))
    assert (flow.instance.status, flow.instance.ready) == (Status.PENDING, False)
    flow.arrive(start)
    assert flow.instance.ready


def test_terminate_ends_everything_that_the_instance_was_waiting_for() -> None:
    flow = Flow().start(parent=PARENT)
    nap, local, remote, ours, theirs = flow.turn(
        timer(0), task(1), task(2, app="ml"), child(3, "c"), child(4, "d", app="ml")
    ).set
    flow.event()
    flow.now += SECOND
    flow.take(operations.terminate(flow.at, flow.live, "stop", recurse=False))
    assert flow.last.dropped == (nap.id, local.id)
    assert flow.last.released == (remote.id, ours.id, theirs.id)
    assert one(flow.last.set, Kind.WITHDRAW).call == remote.call
    answer = one(flow.last.set, Kind.RESULT)
    assert (answer.target, answer.call) == PARENT[:2]
    assert events.decode(answer.payload).child_failed.failure.error_type == "WorkflowTerminated"
    instance = flow.instance
    assert (instance.completed_at, instance.ready, flow.open) == (NOW + SECOND, False, {})
    assert len(flow.last.set) == 2


def test_terminate_without_an_output_gives_none() -> None:
    flow = settled(Status.RUNNING)
    flow.take(operations.terminate(flow.at, flow.live, None, recurse=True))
    assert flow.last.output is None
    assert not events.decode(flow.last.append[0].event).execution_terminated.HasField("input")


def test_recursion_reaches_every_live_child_in_the_name_of_the_call_that_made_it() -> None:
    flow = Flow().start()
    ours, theirs, gone = flow.turn(child(0, "c"), child(1, "d", app="ml"), child(2, "e")).set
    flow.arrive(result(gone))
    flow.take(operations.terminate(flow.at, flow.live, "stop", recurse=True))
    orders = [reminder for reminder in flow.last.set if reminder.kind is Kind.TERMINATE]
    assert [(order.target, order.call) for order in orders] == [
        (ours.target, CallId("w-1", 1, 0)),
        (theirs.target, CallId("w-1", 1, 1)),
    ]
    said = [events.decode(order.payload).execution_terminated for order in orders]
    assert [(order.input.value, order.recurse) for order in said] == [("stop", True)] * 2


def test_the_order_in_which_a_store_gives_calls_and_children_does_not_show_in_what_is_decided() -> None:
    def decided(turned: bool) -> Decision:
        flow = Flow().start()
        flow.turn(child(0, "c"), task(1), child(2, "d", app="ml"), timer(3), task(4, app="ml"))
        if turned:
            flow.state.children = dict(reversed(flow.state.children.items()))
            flow.state.open = dict(reversed(flow.state.open.items()))
        return operations.terminate(flow.at, flow.live, None, recurse=True)

    assert decided(True) == decided(False)


# ---------------------------------------------------------------- purge


def test_purge_by_force_takes_timers_and_waiting_work_along() -> None:
    flow = Flow().start()
    nap, local, remote = flow.turn(timer(0), task(1), task(2, app="ml")).set
    flow.take(operations.purge(flow.at, flow.live, force=True))
    assert (flow.last.dropped, flow.last.released) == ((nap.id, local.id), (remote.id,))
    assert [reminder.kind for reminder in flow.last.set] == [Kind.WITHDRAW]


@pytest.mark.parametrize("parent", [PARENT, OWN_PARENT], ids=["in another app", "in this app"])
def test_the_parent_of_a_running_child_that_is_purged_is_told_and_that_of_an_ended_one_not_again(
    parent: Parent,
) -> None:
    flow = Flow().start(parent=parent)
    flow.take(operations.purge(flow.at, flow.live, force=True))
    answer = one(flow.last.set, Kind.RESULT)
    assert (answer.target, answer.call) == parent[:2]
    failed = events.decode(answer.payload).child_failed
    assert (failed.task_scheduled_id, failed.failure.error_type) == (3, "WorkflowPurged")
    flow = Flow().start(parent=parent)
    flow.turn(end())
    flow.take(operations.purge(flow.at, flow.live, force=True))
    assert flow.last == Changes(key=flow.last.key, expected=flow.last.expected, purged=True)


def test_a_refused_purge_names_the_status() -> None:
    flow = settled(Status.SUSPENDED)
    reply: Reply = operations.purge(flow.at, flow.live, force=False).reply
    assert reply.outcome is Outcome.WRONG_STATE
    assert "'w' is SUSPENDED" in reply.text


# ---------------------------------------------------------------- the end of the time that an instance is kept


def test_what_is_as_it_was_seen_expires() -> None:
    flow = settled(Status.COMPLETED)
    decision = operations.expire(flow.at, flow.live, flow.instance.key, flow.instance.revision)
    assert decision.reply.outcome is Outcome.DONE
    assert decision.changes is not None
    assert decision.changes.purged
    assert decision.changes.expected == flow.instance.revision


@pytest.mark.parametrize("other", ["key", "revision", "gone"])
def test_what_is_not_as_it_was_seen_does_not_expire(other: str) -> None:
    """M68"""
    flow = settled(Status.COMPLETED)
    key, revision = flow.instance.key + (other == "key"), flow.instance.revision + (other == "revision")
    decision = operations.expire(flow.at, None if other == "gone" else flow.live, key, revision)
    assert decision == Decision(None, Reply(Outcome.STALE))


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.SUSPENDED])
def test_what_runs_does_not_expire(status: Status) -> None:
    flow = settled(status)
    decision = operations.expire(flow.at, flow.live, flow.instance.key, flow.instance.revision)
    assert decision == Decision(None, Reply(Outcome.WRONG_STATE))
