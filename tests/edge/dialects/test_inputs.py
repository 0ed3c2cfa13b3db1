"""The forms in which SDKs write what an activity is given, and what an empty text means to each."""

from collections.abc import Callable

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.work_items import ActivityItem, Past, TurnItem
from sidecar.edge import dialects
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, MICROSOFT, NEUTRAL, Family, completion, inputs
from sidecar.edge.dialects.inputs import InputForm
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import fields

UNKNOWN, BARE, IN_ARRAY = InputForm.UNKNOWN, InputForm.BARE, InputForm.IN_ARRAY
families = pytest.mark.parametrize("family", [NEUTRAL, MICROSOFT, DAPR, DAPR_DETACHING], ids=lambda family: family.name)


# ---------------------------------------------------------------- whose form it is


@pytest.mark.parametrize(
    ("agent", "form"),
    [
        ("grpc-dotnet/2.71.0 (.NET 10.0.0; CLR 10.0.0; net10.0; linux; x64)", IN_ARRAY),
        ("grpc-dotnet/2.71.0 (.NET 10.0.0; CLR 10.0.0) grpc-python-asyncio/1.85 grpc-c/58", IN_ARRAY),
        ("grpc-dotnet/2.71.0 (.NET 10.0.0; CLR 10.0.0) dapr-sdk-dotnet/v1.19.0", BARE),
        ("grpc-dotnet/2.71.0 (.NET 10.0.0; CLR 10.0.0) dapr-sdk-dotnet/v1.18.7", BARE),
        ("grpc-dotnet/2.71.0 dapr-sdk-dotnet/v1.17.0", BARE),
        ("grpc-dotnet/2.71.0 dapr-sdk-dotnet/v1.16.1", UNKNOWN),
        ("grpc-dotnet/2.71.0 dapr-sdk-dotnet/unknown", UNKNOWN),
        ("grpc-python/1.80.0 grpc-c/53.0.0 (linux; chttp2)", BARE),
        ("grpc-python-asyncio/1.80.0 grpc-c/53.0.0 (linux; chttp2)", BARE),
        ("grpc-go/1.76.0", BARE),
        ("dapr-sdk-go/v1.15.0 grpc-go/1.76.0", BARE),
        ("grpc-java-netty/1.71.0", BARE),
        ("dapr-sdk-java/v1.16.0 grpc-java-netty/1.71.0", BARE),
        ("grpc-node-js/1.14.0", BARE),
        ("dapr-js-sdk/3.18.0 dapr-js-sdk/workflow grpc-node-js/1.14.0", BARE),
        ("dapr-durabletask/rust/0.0.4 tonic/0.14.2", BARE),
        ("my-proxy/1.0", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_the_form_is_told_from_the_user_agent(agent: str, form: InputForm) -> None:
    assert inputs.form_of({"user-agent": agent}) is form


@pytest.mark.parametrize(
    ("language", "form"), [("dotnet", IN_ARRAY), ("python", BARE), ("java", BARE), ("js", BARE), ("go", BARE)]
)
def test_what_the_scheduler_s_packages_say_of_themselves_counts_before_the_user_agent(
    language: str, form: InputForm
) -> None:
    """D.4: all of them send `x-user-agent`."""
    metadata = {"x-user-agent": f"durabletask-{language}/1.28.0", "user-agent": "grpc-other/1.0"}
    assert inputs.form_of(metadata) is form


def test_a_form_in_no_metadata_or_in_bytes_is_unknown() -> None:
    assert inputs.form_of({}) is UNKNOWN
    assert inputs.form_of({"user-agent": "something else", "x-user-agent": b"durabletask"}) is UNKNOWN


# ---------------------------------------------------------------- what is handed out


def request(text: str | None, form: int) -> bytes:
    """A request with all that stands beside the input."""
    wanted = pb.ActivityRequest(
        name="show",
        input=None if text is None else StringValue(value=text),
        tags={"k": "v"},
        task_execution_id="id-1",
        task_id=7,
        input_form=form,
    )
    return wanted.SerializeToString(deterministic=True)


def given(text: str | None, written: int, read: InputForm) -> str | None:
    """What a worker is given of an input."""
    found = pb.ActivityRequest.FromString(inputs.rewritten(request(text, written), read))
    return found.input.value if found.HasField("input") else None


def as_dotnet_reads(text: str | None) -> str | None:
    """What Microsoft's SDK for .NET makes of an input before it reads it as JSON."""
    return text[1:-1] if text is not None and text.startswith("[") and text.endswith("]") else text


VALUES = ('"text"', "7", "-1", "[1,2]", "[]", "[[1],[2]]", "null", "true", "false", '{"a":1}', '"[x]"', " [1, 2]\n")


@pytest.mark.parametrize("value", VALUES)
def test_an_input_of_one_form_is_given_in_the_other_as_it_is_written_there(value: str) -> None:
    assert given(value, BARE, IN_ARRAY) == f"[{value}]"
    assert given(f"[{value}]", IN_ARRAY, BARE) == value
    assert as_dotnet_reads(given(value, BARE, IN_ARRAY)) == value


@pytest.mark.parametrize("value", [*VALUES, "", None])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((BARE, BARE), (IN_ARRAY, IN_ARRAY), (UNKNOWN, BARE), (UNKNOWN, IN_ARRAY)),
        *((BARE, UNKNOWN), (IN_ARRAY, UNKNOWN), (UNKNOWN, UNKNOWN), (3, BARE), (-1, IN_ARRAY)),
    ],
)
def test_where_the_forms_are_the_same_or_one_is_unknown_no_byte_is_changed(
    written: int, read: InputForm, value: str | None
) -> None:
    assert inputs.rewritten(request(value, written), read) == request(value, written)


@pytest.mark.parametrize("nothing", ["", None])
def test_nothing_is_given_to_dotnet_as_it_writes_it_and_stays_nothing_elsewhere(nothing: str | None) -> None:
    """Go and Dapr's .NET write an empty text for nothing, which .NET cannot read."""
    assert given(nothing, BARE, IN_ARRAY) == "[null]"
    assert given(nothing, IN_ARRAY, BARE) == nothing
    assert given("[null]", IN_ARRAY, BARE) == "null"


@pytest.mark.parametrize("text", ["blob:v1:payloads:1234", "plain text", "<xml/>"])
def test_a_text_that_is_no_json_stays_as_it_is(text: str) -> None:
    """Among them what stands for a large payload: SDKs look for it at the beginning."""
    assert given(text, BARE, IN_ARRAY) == text
    assert given(text, IN_ARRAY, BARE) == text


@pytest.mark.parametrize("text", ["[", "]", "[]", "[1", "1]"])
def test_what_is_no_array_of_one_keeps_its_brackets(text: str) -> None:
    assert given(text, IN_ARRAY, BARE) == text


@families
def test_all_else_of_a_request_stays(family: Family) -> None:
    def sent(form: InputForm) -> pb.ActivityRequest:
        found = fields(dialects.encode_activity(family, ActivityItem(request("[1]", BARE), "a.1.1", "0" * 32), form))
        assert found[10] == [b"a.1.1"]
        return pb.ActivityRequest.FromString(found[2][0])

    before, after = sent(BARE), sent(IN_ARRAY)
    assert (before.input.value, after.input.value) == ("[1]", "[[1]]")
    for message in (before, after):
        message.ClearField("input")
        message.ClearField("input_form")
    assert before == after
    assert sent(UNKNOWN).input.value == "[1]"


# ---------------------------------------------------------------- what a worker sends


def answer(*actions: pb.Action) -> bytes:
    return pb.OrchestratorResponse(actions=actions).SerializeToString()


def schedule(text: str = "[1]", form: int = 0) -> pb.Action:
    wanted = pb.ScheduleTask(name="show", input=StringValue(value=text), input_form=form)
    return pb.Action(id=1, schedule_task=wanted)


@pytest.mark.parametrize("form", list(InputForm))
def test_each_call_of_an_activity_has_the_form_of_its_caller_and_the_input_that_was_sent(form: InputForm) -> None:
    child = pb.Action(id=2, create_child=pb.CreateChild(name="sub", input=StringValue(value="[1]")))
    response, _ = completion.read(answer(schedule(), child, schedule("7")), None, form)
    assert [action.schedule_task.input_form for action in response.actions] == [form, 0, form]
    assert [action.schedule_task.input.value for action in response.actions] == ["[1]", "", "7"]
    assert response.actions[1] == child


def test_no_worker_names_the_form_itself() -> None:
    response, _ = completion.read(answer(schedule(form=IN_ARRAY)), None, UNKNOWN)
    assert response.actions[0].schedule_task.input_form == UNKNOWN


# ---------------------------------------------------------------- an empty text


def raised(text: str | None) -> bytes:
    return events.event_raised(1, "e", events.text(text))


def begun(text: str | None) -> bytes:
    return events.execution_started(1, pb.ExecutionStarted(name="flow", input=events.text(text)), "orders")


def task_done(text: str | None) -> bytes:
    result = pb.TaskCompleted(task_scheduled_id=1, result=events.text(text))
    return events.encode(pb.HistoryEvent(event_id=-1, task_completed=result))


def child_done(text: str | None) -> bytes:
    return events.child_completed(1, 2, events.text(text))


def entity_done(text: str | None) -> bytes:
    result = pb.EntityCompleted(request_id="r", output=events.text(text))
    return events.encode(pb.HistoryEvent(event_id=-1, entity_completed=result))


@pytest.mark.parametrize("made", [raised, begun, task_done, child_done, entity_done])
def test_dotnet_finds_nothing_where_others_write_an_empty_text(made: Callable[[str | None], bytes]) -> None:
    """It fails on one with "The input does not contain any JSON tokens", and others write one for nothing."""
    assert inputs.without_empty(made("")) == made(None)
    for text in ("1", "null", '""', '"\x12\x02\x1a\x00"', None):
        assert inputs.without_empty(made(text)) == made(text)


def test_only_what_a_workflow_is_given_is_looked_at() -> None:
    for kept in (
        events.encode(pb.HistoryEvent(event_id=1, timer_fired=pb.TimerFired(timer_id=1))),
        events.encode(pb.HistoryEvent(event_id=1, task_scheduled=pb.TaskScheduled(name="a", input=events.text("")))),
        events.execution_started(
            1, pb.ExecutionStarted(name="a", version=events.text(""), input=events.text("1")), "o"
        ),
    ):
        assert inputs.without_empty(kept) == kept


@families
def test_each_family_is_written_so_for_dotnet_alone(family: Family) -> None:
    past = Past([begun("")])

    def turn(form: InputForm) -> dict[int, list[bytes]]:
        item = TurnItem("a", "run 1", past, [raised("")], "t.1")
        return fields(fields(dialects.encode_turn(dialects.reading(family, form), item))[1][0])

    other = turn(BARE)
    assert (other[3], other[4]) == ([family.event(begun(""))], [family.event(raised(""))])
    dotnet = turn(IN_ARRAY)
    assert (dotnet[3], dotnet[4]) == ([family.event(begun(None))], [family.event(raised(None))])
    assert turn(UNKNOWN) == turn(BARE) == other, "each has frames of its own"
