"""Properties of the code that writes and reads wire bytes by hand, against protobuf itself."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import events
from sidecar.core.errors import MalformedError
from sidecar.core.work_items import ActivityItem, Past, TurnItem
from sidecar.edge import dialects
from sidecar.edge.dialects import completion, wire
from sidecar.schema import taskhub_pb2 as pb

TEXT = st.text(max_size=40)
TAGS = st.dictionaries(TEXT, TEXT, max_size=3)
ROUTERS = st.none() | st.builds(pb.Router, source_app_id=TEXT, target_app_id=TEXT)
NUMBERS = st.integers(min_value=-(2**31), max_value=2**31 - 1)


def _event(number: int, text: str, kind: int, router: pb.Router | None, tags: dict[str, str]) -> pb.HistoryEvent:
    event = pb.HistoryEvent(event_id=number, timestamp=events.timestamp(abs(number)), router=router)
    bodies = (
        {"task_scheduled": pb.TaskScheduled(name=text, task_execution_id=text, tags=tags)},
        {"task_completed": pb.TaskCompleted(task_scheduled_id=number, result=events.text(text))},
        {"event_raised": pb.EventRaised(name=text, input=events.text(text))},
        {"execution_started": pb.ExecutionStarted(name=text, tags=tags)},
        {"orchestrator_started": pb.OrchestratorStarted()},
    )
    event.MergeFrom(pb.HistoryEvent(**bodies[kind]))  # type: ignore[arg-type]
    return event


EVENTS = st.builds(_event, NUMBERS, TEXT, st.integers(0, 4), ROUTERS, TAGS)
FAMILIES = st.sampled_from([dialects.NEUTRAL, dialects.MICROSOFT, dialects.DAPR])


@given(st.integers(min_value=1, max_value=2**31 - 1))
def test_a_number_is_written_as_protobuf_writes_it(number: int) -> None:
    assert wire.varint(1 << 3) + wire.varint(number) == pb.Action(id=number).SerializeToString()


@given(st.lists(st.tuples(st.integers(1, 40), st.binary(max_size=200)), max_size=6), st.integers(1, 40))
def test_a_field_is_found_where_it_was_written(fields: list[tuple[int, bytes]], tag: int) -> None:
    message = b"".join(wire.frame(number, value) for number, value in fields)
    assert wire.field(message, tag) == next((value for number, value in fields if number == tag), None)


@given(EVENTS, st.sets(st.sampled_from([field.number for field in pb.HistoryEvent.DESCRIPTOR.fields])))
def test_only_the_fields_that_are_wanted_are_left(event: pb.HistoryEvent, numbers: set[int]) -> None:
    left = pb.HistoryEvent()
    left.CopyFrom(event)
    for field, _ in event.ListFields():
        if field.number not in numbers:
            left.ClearField(field.name)
    assert pb.HistoryEvent.FromString(wire.only(event.SerializeToString(), numbers)) == left


@given(st.binary(max_size=300), st.sets(st.integers(1, 40)))
def test_leaving_fields_out_of_any_bytes_ends(message: bytes, numbers: set[int]) -> None:
    assert len(wire.only(message, numbers)) <= len(message)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_looking_for_a_field_in_any_bytes_ends(message: bytes, tag: int) -> None:
    found = wire.field(message, tag)
    assert found is None or found in message


@given(EVENTS)
def test_an_event_reaches_each_family_with_all_it_understands(event: pb.HistoryEvent) -> None:
    neutral = events.encode(event)
    assert dialects.NEUTRAL.event(neutral) == neutral
    with_tags = pb.HistoryEvent.FromString(dialects.MICROSOFT.event(neutral))
    tags = {tag.key: tag.value for tag in map(pb.Tag.FromString, with_tags.task_scheduled.slot_5)}
    assert tags == dict(event.task_scheduled.tags)
    if with_tags.HasField("task_scheduled"):
        with_tags.task_scheduled.ClearField("slot_5")
        with_tags.task_scheduled.tags.update(tags)
    assert with_tags == event
    sent = pb.HistoryEvent.FromString(dialects.DAPR.event(neutral))
    if event.HasField("router"):
        assert pb.Router.FromString(sent.slot_30) == event.router
    if event.task_scheduled.task_execution_id:
        assert list(sent.task_scheduled.slot_5) == [event.task_scheduled.task_execution_id.encode()]
    back = pb.HistoryEvent.FromString(events.encode(sent))
    back.ClearField("slot_30")
    if event.HasField("router"):
        back.router.CopyFrom(event.router)
    if back.HasField("task_scheduled"):
        back.task_scheduled.ClearField("slot_5")
        back.task_scheduled.task_execution_id = event.task_scheduled.task_execution_id
    assert back == event


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=5), st.lists(EVENTS, min_size=1, max_size=5), FAMILIES, TEXT)
def test_a_turn_is_written_with_its_events_in_order_however_its_past_grew(
    past: list[pb.HistoryEvent], new: list[pb.HistoryEvent], family: dialects.Family, token: str
) -> None:
    kept = Past([])
    for event in past:
        kept.add([events.encode(event)])
        kept.frames(family.name, lambda one: wire.frame(3, family.event(one)))
    fresh = [events.encode(event) for event in new]
    item = dialects.encode_turn(family, TurnItem("id", "execution", kept, fresh, token))
    body = wire.field(item, 1) or b""
    assert wire.field(item, 10) == token.encode()
    assert wire.field(body, 1) == b"id"
    joined = b"".join(wire.frame(3, family.event(events.encode(event))) for event in past)
    joined += b"".join(wire.frame(4, family.event(event)) for event in fresh)
    assert body.endswith(joined)


@given(TEXT, TAGS, TEXT, FAMILIES)
def test_an_activity_reaches_each_family_with_all_it_understands(
    name: str, tags: dict[str, str], execution: str, family: dialects.Family
) -> None:
    request = pb.ActivityRequest(name=name, tags=tags, task_execution_id=execution, task_id=7)
    neutral = request.SerializeToString(deterministic=True)
    item = dialects.encode_activity(family, ActivityItem(neutral, "a.1.1", "0" * 32))
    sent = pb.ActivityRequest.FromString(wire.field(item, 2) or b"")
    assert (sent.name, sent.task_id) == (name, 7)
    if family is dialects.MICROSOFT:
        assert {tag.key: tag.value for tag in map(pb.Tag.FromString, sent.slot_7)} == tags
    if family is dialects.DAPR and execution:
        assert list(sent.slot_7) == [execution.encode()]


@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer_or_malformed(body: bytes) -> None:
    try:
        response, _ = completion.read(body)
    except MalformedError:
        return
    assert not response.HasField("slot_6")
    assert not any(action.HasField("slot_9") and action.WhichOneof("kind") for action in response.actions)


@given(st.lists(st.tuples(NUMBERS, TEXT, TEXT), max_size=5), TEXT, st.data())
def test_an_answer_with_a_flipped_bit_is_an_answer_or_malformed(
    tasks: list[tuple[int, str, str]], status: str, data: st.DataObject
) -> None:
    response = pb.OrchestratorResponse(instance_id="i", completion_token="t", custom_status=events.text(status))
    for number, name, text in tasks:
        task = pb.ScheduleTask(name=name, input=events.text(text), slot_5=b"\x0a\x02ab")
        response.actions.append(pb.Action(id=number, schedule_task=task))
    whole = bytearray(response.SerializeToString())
    read, _ = completion.read(bytes(whole))
    assert [action.id for action in read.actions] == [number for number, _, _ in tasks]
    position = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[position // 8] ^= 1 << position % 8
    with contextlib.suppress(MalformedError):
        completion.read(bytes(whole))
