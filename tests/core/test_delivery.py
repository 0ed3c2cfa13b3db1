from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.core import delivery, events, operations
from sidecar.core.delivery import Arrival
from sidecar.core.errors import MalformedError
from sidecar.core.model import NO_CALL, ActorId, CallId, Kind, Outcome, Parent, Reminder
from sidecar.core.workflow import pauses
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import (
    ME,
    ML,
    NOW,
    OWN_PARENT,
    PARENT,
    SECOND,
    Flow,
    child,
    command,
    creation,
    effect,
    end,
    kinds,
    message,
    outcome_of,
    result,
    task,
    timer,
)

# ---------------------------------------------------------------- every kind in every state


def scheduled() -> Flow:
    return Flow().start(execution="s-1", scheduled_at=NOW + 60 * SECOND)


def running() -> Flow:
    flow = Flow().start(parent=OWN_PARENT)
    flow.turn(timer(0), task(1, app="ml"), child(2))
    return flow


def suspended() -> Flow:
    flow = running()
    flow.take(pauses.suspend(flow.at, flow.live, None))
    return flow


def ended() -> Flow:
    flow = running()
    flow.turn(end())
    return flow


def detached_start(execution: str) -> Reminder:
    """The start of this instance by another that is not its parent."""
    started = events.decode(creation(execution=execution).payload).execution_started
    started.ClearField("parent")
    return replace(creation(), kind=Kind.DETACHED, payload=events.execution_started(NOW, started, "orders"))


STATES: tuple[Callable[[], Flow], ...] = (Flow, scheduled, running, suspended, ended)
NAP, ACTIVITY, CREATE = running().last.set
ARRIVALS = {
    "start": scheduled().last.set[0],
    "timer": NAP,
    "answer of an activity": result(ACTIVITY),
    "answer of a child": result(CREATE),
    "creation": creation(Parent(OWN_PARENT.actor, CallId("boss-2", 7, 3)), execution="w-9"),
    "creation again": creation(OWN_PARENT, execution="w-1"),
    "creation made anew": creation(OWN_PARENT, execution="w-9"),
    "detached start": detached_start("w-9"),
    "detached start again": detached_start("w-1"),
    "event": replace(creation(), kind=Kind.EVENT, payload=events.event_raised(NOW, "paid", None)),
    "terminate by the parent": command(Kind.TERMINATE, OWN_PARENT),
    "terminate by another": command(Kind.TERMINATE, PARENT),
    "terminate by an own workflow": command(Kind.TERMINATE, OWN_PARENT, call=NO_CALL),
    "purge by the parent": command(Kind.PURGE, OWN_PARENT),
    "purge by another": command(Kind.PURGE, PARENT, b"force"),
    "purge by an own workflow": command(Kind.PURGE, OWN_PARENT, b"force", call=NO_CALL),
    "pause by the parent": command(Kind.PAUSE, OWN_PARENT, events.suspended(NOW, None)),
    "end of a pause by the parent": command(Kind.PAUSE, OWN_PARENT, events.resumed(NOW, None)),
    "pause by another": command(Kind.PAUSE, PARENT, events.suspended(NOW, None)),
    "pause by an own workflow": command(Kind.PAUSE, OWN_PARENT, events.suspended(NOW, None), call=NO_CALL),
    "pause that is none": command(Kind.PAUSE, OWN_PARENT, events.terminated(NOW, None, recurse=True)),
}
# What the sender is told, and what becomes of the instance, if anything.
#                               missing          scheduled        running          suspended        ended
TABLE = {
    "start":                    "missing          done+appended    duplicate        duplicate        duplicate",
    "timer":                    "missing          duplicate        done+appended    done+appended    duplicate",
    "answer of an activity":    "missing          duplicate        done+appended    done+appended    duplicate",
    "answer of a child":        "missing          duplicate        done+appended    done+appended    duplicate",
    "creation":                 "done+created     exists+answered  exists+answered  exists+answered  done+created",
    "creation again":           "done+created     exists+answered  duplicate        duplicate       duplicate+answered",
    "creation made anew":       "done+created     exists+answered  duplicate        duplicate       duplicate+answered",
    "detached start":           "done+created     exists           exists           exists           done+created",
    "detached start again":     "done+created     exists           duplicate        duplicate        duplicate",
    "event":                    "missing          done+appended    done+appended    done+appended    done",
    "terminate by the parent":  "missing          denied           done+ended       done+ended       done",
    "terminate by another":     "missing          denied           denied           denied           denied",
    "terminate by an own workflow":
                                "missing          done+ended       done+ended       done+ended       done",
    "purge by the parent":      "done             denied           wrong_state      wrong_state      wrong_state",
    "purge by another":         "done             denied           denied           denied           denied",
    "purge by an own workflow": "done             denied           denied           denied           denied",
    "pause by the parent":      "missing          denied           done+appended    done             done",
    "end of a pause by the parent":
                                "missing          denied           done             done+appended    done",
    "pause by another":         "missing          denied           denied           denied           denied",
    "pause by an own workflow": "missing          denied           denied           denied           denied",
    "pause that is none":       "missing          denied           invalid          invalid          invalid",
}  # fmt: skip
CELLS = [(kind, state, cell) for kind, row in TABLE.items() for state, cell in zip(STATES, row.split(), strict=True)]


@pytest.mark.parametrize(("kind", "state", "wanted"), CELLS, ids=[f"{kind}, {one.__name__}" for kind, one, _ in CELLS])
def test_each_message_does_what_the_table_says_and_counts_once(
    kind: str, state: Callable[[], Flow], wanted: str
) -> None:
    reminder = ARRIVALS[kind]
    flow = state()
    decision = delivery.arrive(flow.at, flow.live, Arrival(reminder, consumed=(reminder.id,), record=flow.as_read()))
    assert effect(decision) == wanted
    assert decision.changes is not None
    assert reminder.id in decision.changes.dropped
    assert decision.changes.required == (reminder.id,)
    flow = state()
    decision = delivery.arrive(flow.at, flow.live, Arrival(reminder, received=(message(5),), record=flow.as_read()))
    if kind == "answer of an activity" and wanted in ("duplicate", "missing"):
        assert effect(decision) == f"{wanted}+forgotten", "a caller that went back: it may come again and count"
        return
    assert effect(decision) == wanted
    assert decision.changes is not None
    assert decision.changes.received == (message(5),)
    assert decision.changes.required == ()
    assert reminder.id not in decision.changes.dropped or reminder is NAP


def test_the_table_has_every_kind_that_an_instance_gets() -> None:
    elsewhere = {Kind.ACTIVITY, Kind.WITHDRAW, Kind.SCHEDULE, Kind.REWIND}  # the last in test_rewind.py
    assert {reminder.kind for reminder in ARRIVALS.values()} == set(Kind) - elsewhere
    assert TABLE.keys() == ARRIVALS.keys()


@pytest.mark.parametrize("state", [suspended, running])
def test_what_arrives_waits_for_its_turn_and_wakes_only_who_may_run(state: Callable[[], Flow]) -> None:
    flow = state()
    flow.now += SECOND
    flow.arrive(ARRIVALS["event"], message(1))
    flow.arrive(ARRIVALS["timer"])
    assert kinds(flow.state.inbox)[-2:] == ["event_raised", "timer_fired"]
    stamps = {events.micros(events.decode(row.event).timestamp) for row in flow.state.inbox[-2:]}
    assert stamps == {flow.now}
    assert flow.instance.ready is (state is running)


# ---------------------------------------------------------------- results


def test_an_answer_closes_its_call_and_uses_up_what_caused_it() -> None:
    flow = running()
    before = dict(flow.state.children)
    decision = flow.arrive(result(ACTIVITY), message())
    assert decision.changes is not None
    assert (decision.changes.closed, decision.changes.dropped) == ((1,), (ACTIVITY.id,))
    assert decision.changes.ended == ()
    assert flow.state.children == before
    decision = flow.arrive(result(CREATE))
    assert decision.changes is not None
    assert (decision.changes.closed, set(decision.changes.dropped)) == ((2,), {901, CREATE.id})
    assert decision.changes.ended == (CallId("w-1", 1, 2),)
    assert (set(flow.open), flow.state.children) == ({0}, {})


def test_only_the_first_of_several_answers_counts() -> None:
    """M38"""
    flow = running()
    assert flow.arrive(result(ACTIVITY), message(1)).reply.outcome is Outcome.DONE
    before = flow.instance
    failed = events.task_failed(NOW, 1, events.failure("Late", "late"))
    for number, event in enumerate([outcome_of(ACTIVITY), failed]):
        decision = flow.arrive(result(ACTIVITY, event), message(2 + number))
        assert effect(decision) == "duplicate+forgotten"
    assert flow.instance is before
    flow.turn()
    assert effect(flow.arrive(result(ACTIVITY), message(9))) == "duplicate+forgotten"


@pytest.mark.parametrize("field", ["execution", "turn"])
def test_an_answer_to_an_earlier_call_of_the_same_task_is_dropped(field: str) -> None:
    """M38, M43"""
    flow = running()
    earlier = {"execution": CallId("w-0", 1, 1), "turn": CallId("w-1", 0, 1)}
    assert ACTIVITY.call == ("w-1", 1, 1)
    old = replace(ACTIVITY, call=earlier[field])
    assert effect(flow.arrive(result(old), message())) == "duplicate+forgotten"
    assert effect(flow.arrive(result(ACTIVITY), message(2))) == "done+appended"


FOREIGN = {
    "another app": ActorId("default", "spy", "activity", "", "w::1::1"),
    "this app": ME.activity("default", "w::1::1"),
    "another namespace": ActorId("blue", "ml", "activity", "", "w::1::1"),
}


@pytest.mark.parametrize("sender", FOREIGN)
def test_an_answer_is_refused_unless_it_comes_from_the_app_that_was_asked(sender: str) -> None:
    flow = running()
    known = "duplicate" if sender == "this app" else "duplicate+forgotten"
    assert effect(flow.arrive(result(ACTIVITY, source=FOREIGN[sender]), message(1, "spy"))) == known
    assert 1 in flow.open
    assert effect(flow.arrive(result(CREATE, source=ML.workflow("", "w:0002")), message())) == "duplicate+forgotten"
    assert 2 in flow.open


FORGED = {
    "an activity by the end of a child": (ACTIVITY, events.child_completed(NOW, 1, None)),
    "an activity by a timer": (ACTIVITY, events.timer_fired(None, 1, NOW)),
    "an activity by the answer to another": (ACTIVITY, events.task_failed(NOW, 7, pb.FailureDetails())),
    "an activity by an event": (ACTIVITY, events.event_raised(NOW, "paid", None)),
    "an activity by the end of the workflow": (ACTIVITY, events.terminated(NOW, None, recurse=True)),
    "an activity by nothing": (ACTIVITY, b""),
    "a child by an activity": (CREATE, events.task_result(NOW, pb.ActivityResponse(task_id=2))),
    "a child by the end of another": (CREATE, events.child_completed(NOW, 1, None)),
    "a timer by an activity": (NAP, events.task_result(NOW, pb.ActivityResponse(task_id=0))),
}


@pytest.mark.parametrize("what", FORGED)
def test_no_call_is_answered_by_an_event_that_is_not_its_end(what: str) -> None:
    request, event = FORGED[what]
    flow = running()
    assert effect(flow.arrive(result(request, event), message())) == "invalid", "its sender must say something else"
    assert (len(flow.open), flow.state.inbox) == (3, [])


def test_an_answer_that_is_no_event_is_refused_aloud() -> None:
    with pytest.raises(MalformedError):
        running().arrive(result(ACTIVITY, b"\xff"), message())


def test_history_shows_an_activity_as_it_went_and_a_child_as_it_came_back() -> None:
    flow = Flow().start()
    requests = flow.turn(task(0, app="ml"), child(1, app="ml"), task(2)).set
    for number, request in enumerate(requests):
        lied = events.decode(outcome_of(request))
        lied.router.CopyFrom(pb.Router(source_app_id="bank", target_app_id="bank"))
        answer = result(request, events.encode(lied) if number < 2 else None)
        flow.arrive(answer, *([message(number)] if number < 2 else []))
    assert [events.decode(row.event).router for row in flow.state.inbox] == [
        pb.Router(source_app_id="orders", target_app_id="ml"),
        pb.Router(source_app_id="ml", target_app_id="orders"),
        pb.Router(),
    ]


# ---------------------------------------------------------------- starts and events


def test_a_scheduled_start_opens_the_log_before_what_came_earlier() -> None:
    flow = scheduled()
    start = flow.last.set[0]
    flow.event("early")
    flow.now = start.due
    flow.arrive(start)
    assert [row.position for row in flow.state.inbox] == [(1, 1), (1, 2)]
    assert kinds(flow.state.inbox) == ["execution_started", "event_raised"]
    assert (flow.instance.began, flow.instance.ready) == (True, True)
    assert events.micros(events.decode(flow.state.inbox[0].event).timestamp) == start.due
    assert effect(flow.arrive(start)) == "duplicate"


def test_an_event_before_a_scheduled_start_starts_nothing() -> None:
    flow = scheduled()
    flow.arrive(ARRIVALS["event"], message())
    assert (flow.instance.began, flow.instance.ready) == (False, False)


def test_an_instance_that_was_ended_before_its_start_is_not_started() -> None:
    flow = scheduled()
    start = flow.last.set[0]
    flow.take(operations.terminate(flow.at, flow.live, None, recurse=False))
    before = flow.instance
    assert effect(flow.arrive(start)) == "duplicate"
    assert flow.instance is before


def test_nothing_but_an_external_event_comes_in_as_one() -> None:
    flow = running()
    forged = replace(ARRIVALS["event"], payload=events.terminated(NOW, None, recurse=True))
    assert effect(flow.arrive(forged, message())) == "invalid"


def test_the_start_of_an_older_instance_does_not_start_a_newer_one_with_the_same_id() -> None:
    flow = scheduled()
    old = flow.last.set[0]
    flow.take(operations.terminate(flow.at, flow.live, None, recurse=False))
    flow.start(execution="w-2", scheduled_at=NOW + 90 * SECOND)
    assert effect(flow.arrive(old)) == "duplicate"
    assert (flow.instance.began, flow.state.inbox) == (False, [])
