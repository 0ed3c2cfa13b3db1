"""Work items as each family reads them, and completions as each family sends them. The hex comes from real SDKs."""

import itertools
import uuid

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events
from sidecar.core.errors import MalformedError
from sidecar.core.work_items import ActivityItem, EntityItem, Past, TurnItem
from sidecar.edge import dialects
from sidecar.edge.dialects import DAPR, DAPR_DETACHING, MICROSOFT, NEUTRAL, Family, Limits, completion, wire
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import fields

TOKEN = "t.x.default"
MIB = 1024 * 1024
ALL = (NEUTRAL, MICROSOFT, DAPR)
families = pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)


def started() -> bytes:
    return events.execution_started(1_000_000, pb.ExecutionStarted(name="flow"), "orders", "ml")


def scheduled() -> bytes:
    task = pb.TaskScheduled(name="n", tags={"k": "v"}, task_execution_id="id-1")
    event = pb.HistoryEvent(event_id=1, task_scheduled=task, router=pb.Router(target_app_id="ml"))
    return events.encode(event)


def turn(past: Past, *new: bytes) -> TurnItem:
    return TurnItem("a", "run 1", past, list(new), TOKEN)


# ---------------------------------------------------------------- items


@families
def test_a_turn_has_its_ids_its_events_in_order_and_its_token(family: Family) -> None:
    opened = events.orchestrator_started(1_000_000)
    raised = [events.event_raised(1, f"e{number}", None) for number in range(3)]
    item = fields(dialects.encode_turn(family, turn(Past([opened, raised[0]]), *raised[1:])))
    request = fields(item[1][0])
    assert item[10] == [TOKEN.encode()]
    assert (request[1], fields(request[2][0])[1]) == ([b"a"], [b"run 1"])
    assert request[3] == [opened, raised[0]]
    assert request[4] == raised[1:]


@families
@pytest.mark.parametrize("streams", [False, True])
def test_as_many_new_events_fit_as_the_item_has_room_for(family: Family, *, streams: bool) -> None:
    """All that fit are below the limit, and one more is above it, but for a few bytes."""
    past = Past([events.orchestrator_started(1_000_000), started(), *[scheduled()] * 20])
    new = [events.orchestrator_started(2_000_000), *[scheduled()] * 50]
    for most in range(1_000, 4_000, 7):
        count = dialects.fitting_events(family, turn(past, *new), most, streams=streams)
        sizes = [
            len(dialects.encode_turn(family, turn(past, *new[:upto]), streamed=streams)) for upto in (count, count + 1)
        ]
        assert (sizes[0] <= most) or count == 0
        assert sizes[1] > most - 32 or count == len(new)
    assert dialects.fitting_events(family, turn(past, *new), MIB, streams=streams) == len(new)


def test_only_dapr_finds_the_router_in_slot_30() -> None:
    for family in ALL:
        event = pb.HistoryEvent.FromString(family.event(started()))
        assert event.execution_started.name == "flow"
        assert event.HasField("slot_30") == (family is DAPR), family.name
    router = pb.Router.FromString(pb.HistoryEvent.FromString(DAPR.event(started())).slot_30)
    assert (router.source_app_id, router.target_app_id) == ("orders", "ml")


def test_each_family_finds_in_slot_5_of_a_task_what_it_has_there() -> None:
    slots = {"dapr": [b"id-1"], "microsoft": [pb.Tag(key="k", value="v").SerializeToString()]}
    for family in ALL:
        task = pb.HistoryEvent.FromString(family.event(scheduled())).task_scheduled
        assert list(task.slot_5) == slots.get(family.name, []), family.name
        assert task.name == "n"


@families
def test_an_event_that_has_nothing_of_one_family_is_sent_as_it_is_stored(family: Family) -> None:
    event = events.event_raised(1, "\u0440\u0440 30 \x08 \x10", None)
    assert family.event(event) == event


def test_an_activity_has_tags_or_the_execution_id_where_its_family_looks() -> None:
    request = pb.ActivityRequest(name="n", task_id=0, tags={"b": "2", "a": "1"}, task_execution_id="id-1")
    item = ActivityItem(request.SerializeToString(), "a.1.1", "0" * 32)
    slots = {}
    for family in ALL:
        found = fields(dialects.encode_activity(family, item))
        assert found[10] == [b"a.1.1"]
        sent = pb.ActivityRequest.FromString(found[2][0])
        assert sent.name == "n"
        slots[family] = list(sent.slot_7)
    assert slots[NEUTRAL] == []
    assert slots[DAPR] == [b"id-1"]
    assert [tuple(fields(entry)[number][0] for number in (1, 2)) for entry in slots[MICROSOFT]] == [
        (b"a", b"1"),
        (b"b", b"2"),
    ]


TRACE_ID, PARENT, SPAN, NEXT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "1" * 16 + "2" * 16, "3" * 32


def context_of(family: Family, given: pb.TraceContext | None, span: str = SPAN) -> pb.TraceContext | None:
    """The trace context that an activity has in its item."""
    request = pb.ActivityRequest(name="n", parent_trace_context=given).SerializeToString()
    found = fields(dialects.encode_activity(family, ActivityItem(request, "t", span)))
    sent = pb.ActivityRequest.FromString(found[2][0])
    return sent.parent_trace_context if sent.HasField("parent_trace_context") else None


@pytest.mark.parametrize("family", [DAPR, dialects.DAPR_DETACHING])
def test_each_delivery_of_an_activity_has_a_span_of_its_own_for_dapr(family: Family) -> None:
    """E.16: in the trace of the workflow, as its state of the trace; .NET opens no span without a context."""
    state = StringValue(value="a=b")
    given = pb.TraceContext(trace_parent=f"00-{TRACE_ID}-{PARENT}-00", span_id=PARENT, trace_state=state)
    own = SPAN[16:]
    assert context_of(family, given) == pb.TraceContext(
        trace_parent=f"00-{TRACE_ID}-{own}-00", span_id=own, trace_state=state
    )
    assert context_of(family, given, NEXT).span_id == NEXT[16:]
    assert context_of(family, None) == pb.TraceContext(trace_parent=f"00-{SPAN}-{own}-01", span_id=own)


@pytest.mark.parametrize(
    ("given", "trace"), [(TRACE_ID, TRACE_ID), ("", SPAN), ("nonsense", SPAN), (f"00-{TRACE_ID}-x", SPAN)]
)
def test_a_context_that_is_none_makes_a_trace_of_its_own_or_is_the_id_of_one(given: str, trace: str) -> None:
    """E.12: Go's clients send the ID of a trace alone."""
    found = context_of(DAPR, pb.TraceContext(trace_parent=given))
    assert found.trace_parent == f"00-{trace}-{SPAN[16:]}-01"


@pytest.mark.parametrize("family", [NEUTRAL, MICROSOFT])
def test_an_activity_keeps_the_context_that_its_worker_gave_where_workers_make_the_span(family: Family) -> None:
    given = pb.TraceContext(trace_parent=f"00-{TRACE_ID}-{PARENT}-01", span_id=PARENT)
    assert (context_of(family, given), context_of(family, None)) == (given, None)


def test_the_past_is_framed_once_an_event_for_each_family() -> None:
    framed: list[bytes] = []

    def counting(event: bytes) -> bytes:
        framed.append(event)
        return event

    family, other = Family("counted", counting, counting), Family("other", counting, counting)
    past = Past([b"one", b"two"])
    first = dialects.encode_turn(family, turn(past, b"new"))
    assert framed == [b"one", b"two", b"new"]
    past.add([b"new", b"three"])
    framed.clear()
    second = dialects.encode_turn(family, turn(past, b"newer"))
    assert framed == [b"new", b"three", b"newer"]
    assert fields(fields(second)[1][0])[3] == [b"one", b"two", b"new", b"three"]
    assert fields(fields(first)[1][0])[3] == [b"one", b"two"]
    framed.clear()
    dialects.encode_turn(other, turn(past, b"newer"))
    assert framed == [b"one", b"two", b"new", b"three", b"newer"], "another family has its own frames"
    assert past.size == sum(map(len, past.events))


def asked(item: EntityItem) -> pb.EntityRequest:
    return pb.EntityRequest.FromString(fields(dialects.encode_entity(item))[5][0])


def test_operations_of_an_entity_are_sent_in_order_with_its_state() -> None:
    """E.10: the form of field 5, the only one that all SDKs answer with its token."""
    guids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(2)]
    called = pb.EntityCalled(request_id=guids[0], operation="add", input=events.text("5"), turn=2, task=7)
    signaled = pb.EntitySignaled(request_id=guids[1], operation="get")
    messages = (
        events.encode(pb.HistoryEvent(entity_called=called)),
        events.encode(pb.HistoryEvent(entity_signaled=signaled)),
    )
    item = EntityItem("@counter@a", "7", messages, "e.1")
    assert fields(dialects.encode_entity(item))[10] == [b"e.1"]
    assert 3 not in fields(dialects.encode_entity(item)), "the form that .NET answers without its token"
    request = asked(item)
    assert (request.instance_id, request.entity_state.value) == ("@counter@a", "7")
    called.ClearField("turn")
    called.ClearField("task")
    assert list(request.operation_requests) == [
        pb.HistoryEvent(entity_called=called),
        pb.HistoryEvent(entity_signaled=signaled),
    ]
    assert not asked(EntityItem("@counter@a", None, messages, "e.1")).HasField("entity_state")


@pytest.mark.parametrize("given", ["", "r1", "{00000000-0000-4000-8000-000000000000}", "0" * 36, "x" * 999])
def test_a_request_id_that_is_no_guid_is_sent_as_one_and_always_the_same(given: str) -> None:
    """E.10: any other ends the stream of a worker in .NET, again and again."""
    for event in (
        pb.HistoryEvent(entity_signaled=pb.EntitySignaled(request_id=given)),
        pb.HistoryEvent(entity_called=pb.EntityCalled(request_id=given)),
    ):
        item = EntityItem("@counter@a", None, (events.encode(event),), "e.1")
        sent = asked(item).operation_requests[0]
        request_id = sent.entity_called.request_id or sent.entity_signaled.request_id
        assert str(uuid.UUID(request_id)) == request_id
        assert asked(item) == asked(item)


@families
def test_only_microsoft_is_told_of_entities_in_a_turn(family: Family) -> None:
    """B.2: without entityParameters its SDK for .NET has none."""
    request = fields(fields(dialects.encode_turn(family, turn(Past([]), b"new")))[1][0])
    assert request.get(5) == ([b"\x0a\x00"] if family is MICROSOFT else None)


# ---------------------------------------------------------------- detection


def request_of(text: str) -> pb.GetWorkItemsRequest:
    return pb.GetWorkItemsRequest.FromString(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("agent", "body", "expected", "large"),
    [
        ("grpc-python/1.85 grpc-c/58", "08c80110c801", (NEUTRAL, 4, 100), False),
        ("grpc-python/1.85 grpc-c/58", "", (NEUTRAL, 0, 100), False),
        ("grpc-python/1.85 grpc-c/58", "22020302", (DAPR, 6, 200), True),
        ("grpc-go/1.70", "220102", (DAPR, 0, 200), False),
        ("grpc-python/1.85 grpc-c/58", "08c80110c8015a060a040a026131", (MICROSOFT, 4, 100), False),
        ("grpc-python/1.85 grpc-c/58", "08c80110c80162027731", (MICROSOFT, 4, 100), False),
        ("grpc-dotnet/2.6", "08c80110c8011864520102", (MICROSOFT, 4, 100), False),
        ("grpc-dotnet/2.6", "08c80110c801520101", (NEUTRAL, 4, 100), False),
        ("dapr-sdk-java/v1.17 grpc-java-netty/1.6", "", (DAPR, 0, 100), False),
        ("dapr-sdk-dotnet/v1.17 grpc-dotnet/2.6", "", (DAPR, 0, 100), True),
        ("dapr-sdk-go/1.14 grpc-go/1.70", "", (DAPR, 0, 100), False),
        ("dapr-durabletask/rust/0.1 tonic/0.12", "", (DAPR, 0, 100), False),
        ("dapr-js-sdk/workflow grpc-node-js/1.12", "", (NEUTRAL, 0, 100), True),
        ("durabletask-js grpc-node-js/1.12", "", (NEUTRAL, 0, 100), True),
        ("grpc-java-netty/1.6", "", (NEUTRAL, 0, 100), False),
        ("", "", (NEUTRAL, 0, 100), False),
    ],
)
def test_a_worker_is_told_by_its_user_agent_and_its_request(
    agent: str, body: str, expected: tuple[Family, int, int], large: bool
) -> None:
    profile = dialects.detect({"user-agent": agent}, request_of(body), Limits(64 * MIB))
    assert (profile.family, profile.ping, profile.in_flight) == expected
    assert (profile.max_bytes > 60 * MIB) == large
    assert profile.max_bytes < (64 if large else 4) * MIB


@pytest.mark.parametrize(
    ("agent", "body", "expected"),
    [
        ("grpc-dotnet/2.6", "08c80110c8011807", 7),
        ("grpc-dotnet/2.6", "08c80110c801520101", 0),
        ("grpc-java-netty/1.6", "1807", 7),
        ("grpc-java-netty/1.6", "5a060a040a026131", 0),
        ("grpc-python/1.85 grpc-c/58", "08c80110c801", 100),
        ("grpc-python/1.85 grpc-c/58", "08c80110c8015a060a040a026131", 100),
        ("grpc-python/1.85 grpc-c/58", "62027731", 100),
        ("grpc-python/1.85 grpc-c/58", "", 0),
        ("grpc-python/1.85 grpc-c/58", "22020302", 0),
        ("durabletask-js grpc-node-js/1.12", "", 100),
        ("dapr-js-sdk/workflow grpc-node-js/1.12", "", 0),
        ("dapr-sdk-java/v1.17 grpc-java-netty/1.6", "1807", 0),
        ("grpc-go/1.70", "", 0),
        ("", "", 0),
    ],
)
def test_entities_go_to_workers_that_say_or_show_that_they_take_them(agent: str, body: str, expected: int) -> None:
    """E.10, D.2: f3 of .NET and Java; Python and JavaScript of Microsoft always; nothing of Dapr."""
    metadata, request = {"user-agent": agent}, request_of(body)
    profile = dialects.detect(metadata, request, Limits(64 * MIB))
    assert dialects.entities_at_once(metadata, request, profile) == expected


@pytest.mark.parametrize("metadata", [{"taskhub": "default"}, {"x-user-agent": "durabletask-python/1.12"}])
def test_a_task_hub_or_its_own_user_agent_tells_a_microsoft_worker(metadata: dict[str, str | bytes]) -> None:
    assert dialects.detect(metadata, request_of("08c80110c801"), Limits(64 * MIB)).family is MICROSOFT


def test_a_worker_gets_nothing_larger_than_the_sidecar_takes() -> None:
    for body in ("", "22020302", "08c80110c801"):
        assert dialects.detect({}, request_of(body), Limits(MIB)).max_bytes <= MIB


@pytest.mark.parametrize("agent", ["grpc-go/1.70", "durabletask-js grpc-node-js/1.12", "dapr-sdk-java/v1.17"])
def test_a_worker_that_says_how_much_it_receives_is_believed_up_to_the_sidecars_own_limit(agent: str) -> None:
    def most(told: str, limits: Limits) -> int:
        return dialects.detect({"user-agent": agent, "max-receive-bytes": told}, request_of(""), limits).max_bytes

    assert 15 * MIB < most(str(16 * MIB), Limits(64 * MIB)) < 16 * MIB
    assert most(str(16 * MIB), Limits(8 * MIB)) < 8 * MIB
    assert 0 < most("65536", Limits(64 * MIB)) < 65536
    for wrong in ("", "a lot", "1e9", "-1", "65535", "9" * 20, "\u0663" * 8):
        with pytest.raises(MalformedError, match="max-receive-bytes"):
            most(wrong, Limits(64 * MIB))


def test_what_the_operator_says_of_workers_counts_where_an_sdk_sets_a_limit_by_itself() -> None:
    limits = Limits(64 * MIB, 16 * MIB)
    assert 15 * MIB < dialects.detect({"user-agent": "grpc-go/1.70"}, request_of(""), limits).max_bytes < 16 * MIB
    unlimited = dialects.detect({"user-agent": "durabletask-js grpc-node-js/1.12"}, request_of(""), limits)
    assert unlimited.max_bytes > 60 * MIB


def test_a_ping_is_the_item_that_the_worker_knows() -> None:
    for body, expected in (("08c80110c801", b"\x22\x00"), ("22020302", b"\x32\x00")):
        assert dialects.encode_ping(dialects.detect({}, request_of(body), Limits(MIB))) == expected


# ---------------------------------------------------------------- completions


def answer(*actions: bytes, tail: str = "") -> bytes:
    """The answer of instance i, with encoded actions, and more fields behind the token."""
    framed = b"".join(wire.frame(2, action) for action in actions)
    return wire.frame(1, b"i") + framed + wire.frame(4, TOKEN.encode()) + bytes.fromhex(tail)


def action(number: int, inner: bytes, tail: str = "") -> bytes:
    """An action with ID 1 and its kind, and more fields behind it."""
    return b"\x08\x01" + wire.frame(number, inner) + bytes.fromhex(tail)


def task(tail: str = "", beside: str = "") -> bytes:
    return action(2, wire.frame(1, b"n") + bytes.fromhex(tail), beside)


def kid(tail: str = "", beside: str = "") -> bytes:
    return action(3, wire.frame(2, b"n") + bytes.fromhex(tail), beside)


def read(body: bytes) -> tuple[pb.OrchestratorResponse, str]:
    response, family = completion.read(body)
    assert (response.instance_id, response.completion_token) == ("i", TOKEN)
    return response, "" if family is None else family.name


TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = wire.frame(5, wire.frame(1, TRACE_PARENT.encode())).hex()
TAG4, TAG6 = "22060a016b120176", "32060a016b120176"  # k: v
STARTED_AT = "321c0a120a103030663036376161306261393032623712060880e2cfaa06"
VERSION = "32080a02703112027632"
ROUTER = "0a066f726465727312026d6c"  # from orders to ml


@pytest.mark.parametrize(
    ("body", "family"),
    [
        (answer(), ""),
        (answer(task("1a030a0131")), ""),
        (answer(kid()), ""),
        (answer(action(4, b"\x0a\x02\x08\x01")), ""),
        (answer(tail="3800"), "microsoft"),
        (answer(tail="4000"), "microsoft"),
        (answer(tail="4a00"), "microsoft"),
        (answer(tail=STARTED_AT), "microsoft"),
        (answer(tail=VERSION), "dapr"),
        (answer(task(beside="4a0c" + ROUTER)), "dapr"),
        (answer(task(beside="4a00")), "dapr"),
        (answer(kid(beside="4a0412026d6c")), "dapr"),
        (answer(b"\x08\x03\x4a\x00"), "microsoft"),
        (answer(action(8, b"")), "microsoft"),
        (answer(action(10, b"")), "dapr"),
        (answer(action(11, b"")), "dapr, detaching"),
        (answer(action(11, b"", "4a00")), "dapr, detaching"),
        (answer(task(TRACE)), "microsoft"),
        (answer(task("2a07346633632d6964")), "dapr"),
        (answer(task(TAG4)), "microsoft"),
        (answer(task("3001")), "dapr"),
        (answer(kid("3001")), "dapr"),
        (answer(kid(TAG6)), "microsoft"),
        (answer(kid(TRACE)), "microsoft"),
        (answer(action(4, b"\x0a\x02\x08\x01\x12\x01e")), "dapr"),
        (answer(action(6, b"\x08\x01\x3a\x06\x0a\x01k\x12\x01v")), "microsoft"),
        (answer(task("1a030a0131"), task(TAG4)), "microsoft"),
    ],
    ids=lambda value: value.hex()[6:] if isinstance(value, bytes) else value or "neutral",
)
def test_the_sender_of_a_completion_is_told_by_its_bytes(body: bytes, family: str) -> None:
    assert read(body)[1] == family


@pytest.mark.parametrize(
    ("family", "body"),
    [
        ("microsoft", "0a0169220b742e782e64656661756c74321c0a120a103030663036376161306261393032623712060880e2cfaa06"),
        (
            "microsoft",
            "0a01691269080112650a016e1a030a013122060a016112016222060a016b1201762a4b0a3730302d34626639326633353737623334"
            "646136613363653932396430653065343733362d303066303637616130626139303262372d30311210303066303637616130626139"
            "30326237220b742e782e64656661756c74",
        ),
        (
            "microsoft",
            "0a0169125f08021a5b0a016312016e2a4b0a3730302d34626639326633353737623334646136613363653932396430653065343733"
            "362d303066303637616130626139303262372d303112103030663036376161306261393032623732060a016b120176220b742e782e"
            "64656661756c74",
        ),
        ("microsoft", "0a0169120408034a00220b742e782e64656661756c74"),
        ("microsoft", "0a0169120408034200220b742e782e64656661756c74"),
        ("dapr", "0a0169121e0801120c0a016e2a07346633632d69644a0c0a066f726465727312026d6c220b742e782e64656661756c74"),
        ("dapr", "0a016912100801120c0a016e2a07346633632d6964220b742e782e64656661756c74"),
        ("dapr", "0a0169121208021a080a016312016e30014a0412026d6c220b742e782e64656661756c74"),
        ("dapr", "0a0169220b742e782e64656661756c7432080a02703112027632"),
        ("dapr", "0a01691216080322120a0d08ff82d1ffaf0710ff93ebdc03120165220b742e782e64656661756c74"),
        ("dapr", "0a0169120408035200220b742e782e64656661756c74"),
        ("dapr, detaching", "0a0169120408035a00220b742e782e64656661756c74"),
    ],
)
def test_what_real_sdks_send_is_told_apart(family: str, body: str) -> None:
    assert read(bytes.fromhex(body))[1] == family


def test_what_was_in_the_slots_of_a_task_is_found_under_its_own_name() -> None:
    response, _ = read(answer(task(TAG4 + TRACE)))
    found = response.actions[0].schedule_task
    assert dict(found.tags) == {"k": "v"}
    assert found.parent_trace_context.trace_parent == TRACE_PARENT
    assert (list(found.slot_4), found.HasField("slot_5")) == ([], False)

    response, _ = read(answer(task("2a07346633632d6964", "4a0c" + ROUTER)))
    routed = response.actions[0]
    assert routed.schedule_task.task_execution_id == "4f3c-id"
    assert (routed.router.source_app_id, routed.router.target_app_id) == ("orders", "ml")
    assert not routed.HasField("slot_9")


def test_the_inner_router_of_an_older_dapr_sdk_is_taken_for_nothing_else() -> None:
    response, family = read(answer(task("220c" + ROUTER, "4a0c" + ROUTER)))
    assert family == "dapr"
    assert dict(response.actions[0].schedule_task.tags) == {}
    response, family = read(answer(kid("2a0c" + ROUTER, "4a0c" + ROUTER)))
    assert family == "dapr"
    child = response.actions[0].create_child
    assert (child.name, child.HasField("parent_trace_context")) == ("n", False)
    assert response.actions[0].router.target_app_id == "ml"


@pytest.mark.parametrize("app", ["ml", "myapp", "Payments", "a", "_x", "order-service", "svc.v2", "7"])
def test_the_name_of_an_app_in_slot_5_of_a_child_is_where_the_child_goes(app: str) -> None:
    """C: the proposal's own number for it, which the families use for messages."""
    name = wire.frame(5, app.encode()).hex()
    response, family = read(answer(kid(name)))
    assert (response.actions[0].router.target_app_id, family) == (app, "")
    child = response.actions[0].create_child
    assert (child.HasField("slot_5"), child.HasField("parent_trace_context")) == (False, False)
    routed, family = read(answer(kid(name, "4a0412026d6c")))
    assert (routed.actions[0].router.target_app_id, family) == ("ml", "dapr")


@pytest.mark.parametrize("slot", ["2a00", TRACE, "2a0c" + ROUTER, "2a0412026d6c", "2a041a026d6c"])
def test_what_is_no_name_in_slot_5_of_a_child_sends_it_nowhere(slot: str) -> None:
    response, _ = read(answer(kid(slot)))
    assert not response.actions[0].HasField("router")


def test_what_was_in_the_slots_of_a_child_is_found_under_its_own_name() -> None:
    response, _ = read(answer(kid(TRACE + TAG6)))
    child = response.actions[0].create_child
    assert dict(child.tags) == {"k": "v"}
    assert child.parent_trace_context.trace_parent == TRACE_PARENT


def test_a_dapr_version_is_kept_and_a_microsoft_trace_is_no_version() -> None:
    response, _ = read(answer(tail=VERSION))
    assert (list(response.version.patches), response.version.name) == (["p1"], "v2")
    response, _ = read(answer(tail=STARTED_AT))
    assert not response.HasField("version")
    assert not response.HasField("slot_6")


def test_the_origin_of_a_timer_and_its_exact_time_are_kept() -> None:
    response, _ = read(answer(action(4, bytes.fromhex("0a0d08ff82d1ffaf0710ff93ebdc03120165"))))
    timer = response.actions[0].create_timer
    assert (timer.fire_at.seconds, timer.fire_at.nanos, timer.name) == (253402300799, 999999999, "e")


def test_fields_that_nobody_knows_are_kept() -> None:
    response, _ = read(answer(task("ea3f026869"), tail="ea3f026f6b"))
    assert b"hi" in response.actions[0].SerializeToString()
    assert b"ok" in response.SerializeToString()


AGAIN = b"\x08\x02\x32\x07\x08\x02\x12\x03\x0a\x017"  # action 2: continue as new with input 7


def test_dapr_does_not_mean_the_actions_beside_a_continue_as_new_and_microsoft_does() -> None:
    response, family = read(answer(task("2a04782d6964"), AGAIN))
    assert family == "dapr"
    assert [found.id for found in response.actions] == [2]
    assert response.actions[0].complete.result.value == "7"
    response, family = read(answer(task(TAG4), AGAIN))
    assert family == "microsoft"
    assert [found.id for found in response.actions] == [1, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff",
        b"\x0a\x7fcut",
        b"\x0a\x02\xc3\x28",
        answer(b"\xff\xff"),
        answer(task("22060aff6b120176")),
        answer(task("2a03c32861")),
        answer(task("2a040a7f6162")),
        answer(task(beside="4a030aff01")),
        answer(task(beside="4a040a02c328")),
        answer(kid("32040a7f6b62")),
        answer(kid("2a0361c328")),
        answer(tail="32030aff01"),
    ],
    ids=bytes.hex,
)
def test_bytes_that_cannot_be_read_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        completion.read(body)


def test_no_cut_and_no_flipped_bit_of_a_completion_raises_anything_else() -> None:
    whole = [answer(task("2a04782d6964", "4a0c" + ROUTER), AGAIN), answer(kid(TRACE + TAG6), tail=VERSION)]
    variants = [body[:length] for body in whole for length in range(len(body))]
    for body in whole:
        for place in range(len(body)):
            flipped = (bytes([body[place] ^ 1 << bit]) for bit in range(8))
            variants.extend(body[:place] + byte + body[place + 1 :] for byte in flipped)
    outcomes = set()
    for variant in variants:
        try:
            completion.read(variant)
            outcomes.add("read")
        except MalformedError:
            outcomes.add("malformed")
    assert outcomes == {"read", "malformed"}


def detached() -> bytes:
    event = events.confirmation(1, 3)
    event.detached_created.instance_id = "report"
    return events.encode(event)


@pytest.mark.parametrize("family", [NEUTRAL, MICROSOFT, DAPR], ids=lambda family: family.name)
def test_only_who_starts_detached_workflows_is_told_of_them(family: Family) -> None:
    """B.2 event 32: to a worker that does not know it, it would be an event of no kind."""
    item = turn(Past([started(), detached(), scheduled()]), detached(), started())
    request = fields(fields(dialects.encode_turn(family, item))[1][0])
    assert (len(request[3]), len(request[4])) == (2, 1)
    request = fields(fields(dialects.encode_turn(DAPR_DETACHING, item))[1][0])
    assert (len(request[3]), len(request[4])) == (3, 2)


def test_a_worker_that_has_started_a_detached_workflow_is_known_to_from_then_on() -> None:
    started_one, routed = answer(action(11, b"")), answer(task(beside="4a0c" + ROUTER))
    assert completion.read(started_one, DAPR)[1] is DAPR_DETACHING
    assert completion.read(routed, DAPR_DETACHING)[1] is DAPR_DETACHING
    assert completion.read(routed, DAPR)[1] is DAPR


def test_what_is_known_of_a_worker_tells_what_its_answer_does_not() -> None:
    """M73."""
    plain = answer(task("1a030a0131"), action(6, b"\x08\x02"))
    assert len(completion.read(plain)[0].actions) == 2
    assert len(completion.read(plain, MICROSOFT)[0].actions) == 2
    for family in (DAPR, DAPR_DETACHING):
        assert [one.WhichOneof("kind") for one in completion.read(plain, family)[0].actions] == ["complete"]


# ---------------------------------------------------------------- what a worker keeps, and what it does not read


def stalled() -> bytes:
    event = pb.HistoryEvent(event_id=-1, execution_stalled=pb.ExecutionStalled(reason=1, description="why"))
    return events.encode(event)


def request_in(item: bytes) -> dict[int, list[bytes]]:
    return fields(fields(item)[1][0])


def test_of_a_past_that_is_kept_only_the_number_of_its_events_is_sent() -> None:
    raised = [events.event_raised(1, f"e{number}", None) for number in range(5)]
    past = Past(raised[:4])
    item = TurnItem("a", "run 1", past, raised[4:], TOKEN, known=3)
    found = request_in(dialects.encode_turn(DAPR, item))
    assert (found[3], found[4], found[9]) == (raised[3:4], raised[4:], [b"\x08\x03"])
    assert 9 not in request_in(dialects.encode_turn(DAPR, TurnItem("a", "run 1", past, raised[4:], TOKEN)))


@pytest.mark.parametrize(("family", "sees"), [(NEUTRAL, 0), (MICROSOFT, 0), (DAPR, 1)])
def test_only_dapr_is_told_that_a_workflow_was_stalled(family: Family, sees: int) -> None:
    """And the number of events that a worker keeps is that of those it was sent."""
    raised = [events.event_raised(1, f"e{number}", None) for number in range(3)]
    past = Past([raised[0], stalled(), raised[1]])
    item = TurnItem("a", "run 1", past, [raised[2]], TOKEN)
    assert len(request_in(dialects.encode_turn(family, item))[3]) == 2 + sees
    delta = request_in(dialects.encode_turn(family, TurnItem("a", "run 1", past, [raised[2]], TOKEN, known=2)))
    assert (delta[3], delta[9]) == ([raised[1]], [bytes([8, 1 + sees])])


def test_an_event_whose_bytes_look_like_a_stall_is_sent() -> None:
    event = events.encode(pb.HistoryEvent(event_id=250, event_raised=pb.EventRaised(name="x")))
    assert b"\xfa\x01" in event, "the number is written as the tag of a stall"
    assert MICROSOFT.event(event) == event


def test_the_history_of_callers_is_where_one_family_looks_for_it_also_for_who_cannot_be_told_yet() -> None:
    """M83: of a turn and of an activity, with the events as the family reads them. Go before 0.13 says nothing."""
    routed = pb.HistoryEvent(
        event_id=1, task_scheduled=pb.TaskScheduled(name="x"), router=pb.Router(target_app_id="ml")
    )
    chunk = pb.PropagatedChunk(raw_events=[routed.SerializeToString()], app_id="orders", workflow_name="flow")
    given = pb.PropagatedHistory(scope=1, chunks=[chunk]).SerializeToString()

    def of_turn(family: dialects.Family) -> list[bytes]:
        return fields(fields(dialects.encode_turn(family, turn(Past([], given), b"new")))[1][0]).get(8, [])

    def of_activity(family: dialects.Family) -> list[bytes]:
        request = pb.ActivityRequest(name="x", lineage=given).SerializeToString()
        return fields(fields(dialects.encode_activity(family, ActivityItem(request, "t", "0" * 32)))[2][0]).get(8, [])

    for written, family in itertools.product((of_turn, of_activity), (dialects.DAPR, dialects.NEUTRAL)):
        (field,) = written(family)
        read = pb.PropagatedHistory.FromString(field)
        assert (read.scope, read.chunks[0].app_id, read.chunks[0].workflow_name) == (1, "orders", "flow")
        event = pb.HistoryEvent.FromString(read.chunks[0].raw_events[0])
        assert (pb.Router.FromString(event.slot_30).target_app_id, event.HasField("router")) == ("ml", False)
    assert of_activity(dialects.MICROSOFT) == []
    assert len(of_turn(dialects.MICROSOFT)) <= 1  # its own trace of the turn is there
