"""What workers in .NET that were set up with `UseGrpc` alone write about entities, and what they are sent (E.16)."""

import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import events
from sidecar.core.names import entity_id
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, MICROSOFT, NEUTRAL, completion, older_entities, reading
from sidecar.edge.dialects.inputs import InputForm
from sidecar.schema import taskhub_pb2 as pb
from tests import older_form

DOTNET = reading(MICROSOFT, InputForm.IN_ARRAY)
E, GUID = "@counter@a", "f0b59e3d-bd73-512a-9615-ece184ea523f"
# As recorded from the SDK, without the trace context.
CALLED = (
    '{"op":"Add","input":"10","id":"f0b59e3d-bd73-512a-9615-ece184ea523f","parent":"w","parentExecution":"w-1",'
    '"Timestamp":"0001-01-01T00:00:00","Predecessor":"0001-01-01T00:00:00","IsLockRequest":false,"createTrace":true,'
    '"requestTime":"2026-11-30T04:34:15.7221727+00:00"}'
)


def sent(name: str, data: str, to: str = E) -> pb.Action:
    send = pb.SendEvent(instance={"instance_id": to}, name=name, data=events.text(data))
    return pb.Action(id=3, send_event=send)


def read(*actions: pb.Action) -> tuple[list[pb.Action], object]:
    response, family = completion.read(pb.OrchestratorResponse(actions=actions).SerializeToString())
    return list(response.actions), family


def text(**data: Any) -> str:
    return json.dumps(data)


# ---------------------------------------------------------------- what it writes


def test_a_call_is_one_and_tells_the_worker() -> None:
    (action,), family = read(sent("op", CALLED))
    called = action.send_entity_message.called
    assert (action.id, called.operation, called.request_id, called.input.value) == (3, "Add", GUID, "10")
    assert (called.parent_instance_id.value, called.parent_execution_id.value) == ("w", "w-1")
    assert (called.target_instance_id.value, called.HasField("scheduled_time")) == (E, False)
    assert family is MICROSOFT


@pytest.mark.parametrize("due", ["2026-11-30T04:34:15.6001006Z", "2026-11-30T04:34:15.6001006", None])
def test_a_signal_for_later_has_its_time_in_its_data_or_its_name(due: str | None) -> None:
    data = text(op="Add", signal=True, id=GUID, **({} if due is None else {"due": due}))
    (action,), _ = read(sent("op@2026-11-30T04:34:15.6001006Z", data))
    signaled = action.send_entity_message.signaled
    assert (signaled.operation, signaled.HasField("input")) == ("Add", False)
    assert (signaled.scheduled_time.seconds, signaled.scheduled_time.nanos) == (1796013255, 600100600)


def test_an_operation_that_is_null_or_missing_asks_for_locks_and_a_release_gives_one_back() -> None:
    lock_set = [{"name": "counter", "key": "a"}, {"name": "counter", "key": "b@c"}]
    for operation in ({"op": None}, {}):
        (action,), _ = read(sent("op", text(id=GUID, parent="w", lockset=lock_set, **operation)))
        wanted = action.send_entity_message.lock_requested
        assert (wanted.critical_section_id, wanted.lock_set) == (GUID, [E, "@counter@b@c"])
    (action,), _ = read(sent("release", text(parent="w", id=GUID)))
    unlocked = action.send_entity_message.unlock_sent
    assert (unlocked.critical_section_id, unlocked.target_instance_id.value) == (GUID, E)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("approval", CALLED),
        ("op", ""),
        ("op", "[" * 100_000),
        ("op", "[1]"),
        ("op", "{}"),
        ("op", text(op=7, id=GUID)),
        ("op", text(op="Add", id=None)),
        ("op", text(op="Add", id=GUID, input=3)),
        ("op", text(op="Add", id=GUID, due="soon")),
        ("op@soon", text(op="Add", id=GUID)),
        ("op", text(id=GUID, lockset=[7])),
        ("op", text(id=GUID, lockset={"name": "a"})),
        ("op", text(id=GUID, lockset=[], pos=1 << 40)),
        ("release", text(parent="w")),
    ],
)
def test_what_is_no_such_message_stays_an_event(name: str, data: str) -> None:
    """The core refuses it: no workflow has the ID of an entity."""
    action = sent(name, data)
    assert read(action) == ([action], None)


def test_an_event_for_a_workflow_stays_one() -> None:
    action = sent("op", CALLED, to="w")
    assert read(action)[0] == [action]


# ---------------------------------------------------------------- what it is sent


def shown(event: pb.HistoryEvent) -> pb.HistoryEvent:
    return pb.HistoryEvent.FromString(DOTNET.event(events.encode(event)))


def test_an_answer_is_an_event_named_by_its_request() -> None:
    completed = pb.EntityCompleted(request_id=GUID, output=events.text("10"))
    raised = shown(pb.HistoryEvent(event_id=-1, entity_completed=completed)).event_raised
    assert (raised.name, json.loads(raised.input.value)) == (GUID, {"result": "10"})
    nothing = shown(pb.HistoryEvent(entity_completed=pb.EntityCompleted(request_id=GUID))).event_raised
    assert json.loads(nothing.input.value) == {"result": None}
    inner = pb.FailureDetails(error_type="Inner", error_message="why", is_non_retriable=True)
    failure = pb.FailureDetails(error_type="Outer", error_message="no", inner_failure=inner)
    failed = shown(pb.HistoryEvent(entity_failed=pb.EntityFailed(request_id=GUID, failure=failure))).event_raised
    data = json.loads(failed.input.value)
    assert (data["exceptionType"], data["result"]) == ("Outer", "no")
    assert (data["failureDetails"]["ErrorType"], data["failureDetails"]["InnerFailure"]["IsNonRetriable"]) == (
        "Outer",
        True,
    )
    granted = shown(pb.HistoryEvent(entity_lock_granted=pb.EntityLockGranted(critical_section_id=GUID))).event_raised
    assert (granted.name, json.loads(granted.input.value)) == (GUID, {"result": "Lock Acquisition Completed"})


def test_what_a_workflow_asked_is_an_event_that_it_sent_with_the_number_of_its_action() -> None:
    time = Timestamp(seconds=1796013255, nanos=600100699)
    called = pb.EntityCalled(request_id=GUID, operation="Add", scheduled_time=time, target_instance_id=events.text(E))
    found = shown(pb.HistoryEvent(event_id=4, entity_called=called))
    assert (found.event_id, found.event_sent.instance_id) == (4, E)
    assert found.event_sent.name == "op@2026-11-30T04:34:15.6001006Z"


@pytest.mark.parametrize("seconds", [-(1 << 62), -62135596801, 0, 253402300800, 1 << 62])
@pytest.mark.parametrize("nanos", [-1, 0, 2_000_000_000])
def test_a_time_that_no_calendar_has_is_written_as_the_nearest(seconds: int, nanos: int) -> None:
    signaled = pb.EntitySignaled(operation="a", scheduled_time=Timestamp(seconds=seconds, nanos=nanos))
    assert shown(pb.HistoryEvent(entity_signaled=signaled)).event_sent.name.endswith("Z")


def test_other_events_and_other_families_are_left_alone() -> None:
    plain = events.event_raised(1, GUID, events.text("\u00ba\u0001"))
    assert DOTNET.event(plain) == plain
    called = events.encode(pb.HistoryEvent(entity_called=pb.EntityCalled(request_id=GUID)))
    for family in (NEUTRAL, MICROSOFT, DAPR, DAPR_DETACHING):
        assert [reading(family, form).event(called) for form in (InputForm.UNKNOWN, InputForm.BARE)] == [called] * 2


def test_what_a_failure_has_beside_its_text_goes_with_it_where_json_can_hold_it() -> None:
    given = {"Card": Value(string_value="4711"), "Left": Value(number_value=1.5), "None": Value(null_value=0)}
    given |= {"Never": Value(number_value=float("nan"))}
    properties = {key: value.SerializeToString() for key, value in given.items()} | {"broken": b"\xff"}
    failed = pb.EntityFailed(request_id=GUID, failure=pb.FailureDetails(error_type="E", properties=properties))
    older = shown(pb.HistoryEvent(entity_failed=failed))
    details = json.loads(older.event_raised.input.value)["failureDetails"]
    assert details["Properties"] == {"Card": "4711", "Left": 1.5, "None": None}
    history = [
        pb.HistoryEvent(entity_called=pb.EntityCalled(request_id=GUID, target_instance_id=events.text(E))),
        older,
    ]
    history[0] = shown(history[0])
    older_form.to_neutral(history)
    kept = {key: properties[key] for key in ("Card", "Left", "None")}
    assert history[1].entity_failed.failure.properties == kept


# ---------------------------------------------------------------- there and back

ids = st.text('abc-é"\\', min_size=1, max_size=9)
texts = st.none() | st.text(max_size=20)
entities = st.builds(
    lambda name, key: f"@{name}@{key}", st.text("abc", min_size=1), st.text("aB@ é", min_size=1)
).filter(lambda found: entity_id(found) == found)
times = st.none() | st.builds(
    lambda seconds, ticks: Timestamp(seconds=seconds, nanos=ticks * 100),
    st.integers(-62135596800, 253402300799),
    st.integers(0, 9_999_999),
)
wrapped = texts.map(events.text)
filled = ids.map(events.text)
failures = st.recursive(
    st.builds(pb.FailureDetails, error_type=ids, error_message=st.text(), stack_trace=wrapped),
    lambda inner: st.builds(
        pb.FailureDetails, error_type=ids, error_message=st.text(), inner_failure=inner, is_non_retriable=st.booleans()
    ),
    max_leaves=4,
)
signals = st.builds(
    pb.EntitySignaled,
    request_id=ids,
    operation=ids,
    scheduled_time=times,
    input=wrapped,
    target_instance_id=entities.map(events.text),
)
calls = st.builds(
    pb.EntityCalled,
    request_id=ids,
    operation=ids,
    scheduled_time=times,
    input=wrapped,
    parent_instance_id=filled,
    parent_execution_id=filled,
    target_instance_id=entities.map(events.text),
)
locks = st.builds(
    pb.EntityLockRequested,
    critical_section_id=ids.map("section {}".format),
    lock_set=st.lists(entities, min_size=1, max_size=3),
    parent_instance_id=filled,
)
unlocks = st.builds(
    pb.EntityUnlockSent,
    critical_section_id=ids,
    parent_instance_id=filled,
    target_instance_id=entities.map(events.text),
)
messages = st.one_of(
    st.builds(pb.SendEntityMessage, signaled=signals),
    st.builds(pb.SendEntityMessage, called=calls),
    st.builds(pb.SendEntityMessage, lock_requested=locks),
    st.builds(pb.SendEntityMessage, unlock_sent=unlocks),
)


def confirmed(message: pb.SendEntityMessage) -> pb.HistoryEvent:
    event = pb.HistoryEvent(event_id=4)
    kind = message.WhichOneof("kind") or ""
    getattr(event, f"entity_{kind}").CopyFrom(getattr(message, kind))
    return event


@given(messages)
def test_what_is_sent_reads_back_as_what_it_was(message: pb.SendEntityMessage) -> None:
    assert older_entities.message_in(shown(confirmed(message)).event_sent) == message


@given(calls, locks, st.booleans(), st.none() | filled, failures)
def test_a_history_in_this_form_reads_back_as_what_it_was(
    called: pb.EntityCalled, lock: pb.EntityLockRequested, fails: bool, output: Any, failure: pb.FailureDetails
) -> None:
    request = called.request_id
    answer = pb.HistoryEvent(event_id=-1, entity_completed=pb.EntityCompleted(request_id=request, output=output))
    if fails:
        answer = pb.HistoryEvent(event_id=-1, entity_failed=pb.EntityFailed(request_id=request, failure=failure))
    grant = pb.EntityLockGranted(critical_section_id=lock.critical_section_id)
    history = [
        confirmed(pb.SendEntityMessage(called=called)),
        confirmed(pb.SendEntityMessage(lock_requested=lock)),
        pb.HistoryEvent(event_id=-1, event_raised=pb.EventRaised(name="approval", input=events.text("{}"))),
        answer,
        pb.HistoryEvent(event_id=-1, entity_lock_granted=grant),
    ]
    older = [shown(event) for event in history]
    assert not any((event.WhichOneof("kind") or "").startswith("entity") for event in older)
    older_form.to_neutral(older)
    assert older == history


@given(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.text())
def test_no_json_of_a_worker_raises_an_error(operation: str, value: Any, name: str) -> None:
    for key in ("op", "id", "signal", "input", "due", "lockset", "pos", "parent", "parentExecution"):
        data = {"op": operation, "id": GUID} | {key: value}
        for called in ("op", "release", f"op@{name}"):
            older_entities.message_in(pb.EventSent(instance_id=E, name=called, input=events.text(json.dumps(data))))
            history = [
                pb.HistoryEvent(event_sent=pb.EventSent(instance_id=E, name="op", input=events.text(CALLED))),
                pb.HistoryEvent(event_raised=pb.EventRaised(name=GUID, input=events.text(json.dumps({key: value})))),
                pb.HistoryEvent(
                    event_raised=pb.EventRaised(name=GUID, input=events.text(json.dumps({"failureDetails": data})))
                ),
            ]
            older_form.to_neutral(history)
