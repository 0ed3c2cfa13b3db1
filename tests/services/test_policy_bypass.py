"""M78, M81: every way into a sidecar from another app, with a policy that denies what it wants.

Ml is the sidecar with the policy; evil is an app with a link to it. The tables must have all that there is: a new call
or a new kind of message without a row here fails.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message

from sidecar.core.model import Kind
from sidecar.edge.admin.inspection import TREE
from sidecar.edge.dialects import wire
from sidecar.edge.peer.passed_on import ROUTER_FIELDS
from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import admin_pb2, peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.edge.peer.test_forward import ask as ask_call
from tests.edge.peer.test_forward import request as call_of_client
from tests.inprocess.played_apps import DENIED, INVALID, MISSING, PlayedApp, log
from tests.inprocess.sidecars import Node, Start, get, hello
from tests.inprocess.world import child
from tests.services.test_inspection import tree

pytestmark = pytest.mark.slow

DONE = 0
POLICY = "allow: [{caller: evil, workflow: 'open*'}, {caller: evil, activity: 'open*'}]"
SECRET, NOBODY = "a", "nobody"  # an instance that evil may do nothing with, and one that is not there


@pytest.fixture
async def ml(start: Start) -> Node:
    """Has a workflow that runs, whose name evil may do nothing with."""
    node = await start("ml", POLICY)
    await node.begin(SECRET, "secret")
    return node


@pytest.fixture
async def evil(ml: Node) -> AsyncIterator[PlayedApp]:
    app = PlayedApp(ml)
    assert await app.introduce(hello("evil")) == ""
    yield app
    await app.close()


# ---------------------------------------------------------------- calls of clients that are sent on


def calls(instance: str) -> dict[str, list[Message]]:
    """Every call that a peer may send on, in each form that it has."""
    filtered = pb.PurgeInstancesRequest(filter=pb.PurgeFilter(status=[0, 6]), force=True, recursive=True)
    several = pb.PurgeInstancesRequest()
    several.MergeFromString(wire.frame(4, pb.InstanceBatch(instance_ids=[instance]).SerializeToString()))
    look = pb.GetInstanceRequest(instance_id=instance, get_inputs_and_outputs=True)
    return {
        "StartInstance": [pb.CreateInstanceRequest(instance_id="new", name="secret")],
        "GetInstance": [look],
        "WaitForInstanceStart": [look],
        "WaitForInstanceCompletion": [look],
        "RaiseEvent": [pb.RaiseEventRequest(instance_id=instance, name="e")],
        "SuspendInstance": [pb.ReasonRequest(instance_id=instance)],
        "ResumeInstance": [pb.ReasonRequest(instance_id=instance)],
        "TerminateInstance": [pb.TerminateRequest(instance_id=instance, recursive=True)],
        "PurgeInstances": [pb.PurgeInstancesRequest(instance_id=instance, force=True), several, filtered],
        "RerunWorkflowFromEvent": [pb.RerunRequest(source_instance_id=instance, event_id=1)],
        "QueryInstances": [pb.QueryInstancesRequest(query=pb.InstanceQuery())],
        "GetInstanceHistory": [pb.GetInstanceHistoryRequest(instance_id=instance)],
        "RewindInstance": [pb.RewindInstanceRequest(instance_id=instance)],
        "RestartInstance": [
            pb.RestartInstanceRequest(instance_id=instance, with_new_instance_id=one) for one in (False, True)
        ],
        TREE: [admin_pb2.GetTreeRequest(instance_id=instance)],
    }


async def sent(evil: PlayedApp, number: int, method: str, request: Message) -> peer_pb2.Response:
    return await ask_call(evil, call_of_client(f"{number:032x}", method, request))


def test_the_table_has_every_call_that_is_taken_from_another_app(ml: Node) -> None:
    assert calls("").keys() == {*ROUTER_FIELDS, TREE}


@pytest.mark.parametrize("method", calls(""))
async def test_no_call_of_a_client_passes_that_is_not_allowed(ml: Node, evil: PlayedApp, method: str) -> None:
    """And whether the instance is there does not show."""
    before = await log(ml, SECRET)
    for number, requests in enumerate(zip(calls(SECRET)[method], calls(NOBODY)[method], strict=True)):
        answers = [await sent(evil, 10 * number + at, method, request) for at, request in enumerate(requests)]
        texts = [answer.text for answer in answers]
        filtered = "filter" in [field.name for field, _ in requests[0].ListFields()]
        if filtered:
            assert answers[0].status == StatusCode.PERMISSION_DENIED or not answers[0].status
            assert pb.PurgeInstancesResponse.FromString(answers[0].body).deleted_instance_count == 0
            continue
        if method == "QueryInstances":  # what may not be seen is left out
            assert (answers[0].status, answers[0].body) == (DONE, b"")
            continue
        assert [answer.status for answer in answers] == [StatusCode.PERMISSION_DENIED] * 2
        assert texts[0] == texts[1]
    assert (await get(ml, SECRET)).state.status in (0, 6)
    assert await log(ml, SECRET) == before
    assert not (await get(ml, "new")).exists


async def test_no_other_call_is_taken_from_another_app_at_all(ml: Node, evil: PlayedApp) -> None:
    """Such as a list of IDs, a batch of terminates, an entity, or what workers and persons call."""
    paths = [path.rpartition("/")[2] for path in ml.sidecar.taskhub.handlers().unary]
    others = [*paths, "QueryEntities", "ListWaiting", "Retry", "FailCall"]
    for number, method in enumerate(sorted(set(others) - calls("").keys())):
        answer = await sent(evil, number, method, pb.GetInstanceRequest(instance_id=SECRET))
        assert answer.status == StatusCode.UNIMPLEMENTED, method


@pytest.mark.parametrize("statuses", [[0, 6], [0, 1, 3, 4, 5, 6, 7]])
async def test_a_start_is_no_way_to_end_what_may_not_be_ended(ml: Node, evil: PlayedApp, statuses: list[int]) -> None:
    """A reuse policy lets a start take the place of an instance that runs: that needs `terminate` too."""
    request = pb.CreateInstanceRequest(instance_id=SECRET, name="open-door")
    request.reuse_policy.replaceable_status.extend(statuses)
    request.reuse_policy.action = 2
    assert (await sent(evil, 1, "StartInstance", request)).status == StatusCode.PERMISSION_DENIED
    assert (await get(ml, SECRET)).state.name == "secret"
    await ml.begin("mine", "open-shop")
    request.instance_id = "mine"
    assert (await sent(evil, 2, "StartInstance", request)).status == 0
    assert (await get(ml, "mine")).state.name == "open-door"


# ---------------------------------------------------------------- messages


def actor(app: str, kind: str, actor_id: str) -> peer_pb2.Actor:
    return peer_pb2.Actor(namespace="default", app_id=app, kind=kind, hub="default", id=actor_id)


def message(kind: Kind, payload: Message | bytes, target: str = SECRET, of: str = "workflow") -> peer_pb2.Message:
    body = payload if isinstance(payload, bytes) else payload.SerializeToString()
    return peer_pb2.Message(
        kind=kind,
        target=actor("ml", of, target),
        source=actor("evil", "workflow", "boss"),
        call=peer_pb2.Call(execution_id="e", turn=1, task_id=1),
        name="secret" if kind is Kind.ACTIVITY else "",
        payload=body,
    )


def started() -> pb.HistoryEvent:
    event = pb.HistoryEvent(execution_started=pb.ExecutionStarted(name="secret"))
    event.execution_started.instance.execution_id.value = "x"
    return event


RAISED = pb.HistoryEvent(event_raised=pb.EventRaised(name="e"))
SIGNAL = pb.HistoryEvent(entity_signaled=pb.EntitySignaled(request_id="r", operation="add"))
REWOUND = pb.HistoryEvent(execution_rewound=pb.ExecutionRewound(name={"value": "secret"}))
ENDED = pb.HistoryEvent(execution_terminated=pb.ExecutionTerminated(recurse=True))
PAUSED = pb.HistoryEvent(execution_suspended=pb.Reason())
ANSWER = pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=1))
MESSAGES: dict[str, tuple[peer_pb2.Message, int]] = {
    "an activity": (
        message(Kind.ACTIVITY, pb.ActivityRequest(name="secret", task_id=1), "w::1::1", "activity"),
        DENIED,
    ),
    "a child": (message(Kind.CREATE, started(), "new"), DENIED),
    "a detached start": (message(Kind.DETACHED, started(), "new"), DENIED),
    "a rewind": (message(Kind.REWIND, REWOUND), DENIED),
    "a rewind of what is not there": (message(Kind.REWIND, REWOUND, "new"), DENIED),
    "an event": (message(Kind.EVENT, RAISED), DENIED),
    "an event for nobody": (message(Kind.EVENT, RAISED, NOBODY), DENIED),
    "an operation of an entity": (message(Kind.EVENT, SIGNAL, "@secret@k", "entity"), INVALID),
    "an operation of an entity, as for a workflow": (message(Kind.EVENT, SIGNAL, "@secret@k"), INVALID),
    "an unlock": (message(Kind.EVENT, pb.HistoryEvent(entity_unlock_sent={}), "@secret@k", "entity"), INVALID),
    "a terminate": (message(Kind.TERMINATE, ENDED), DENIED),
    "a purge": (message(Kind.PURGE, b"force"), DENIED),
    "a pause": (message(Kind.PAUSE, PAUSED), DENIED),
    "an answer": (message(Kind.RESULT, ANSWER), 1),
    "an answer for nobody": (message(Kind.RESULT, ANSWER, NOBODY), MISSING),
    "a withdrawal": (message(Kind.WITHDRAW, b"", "w::1::1", "activity"), DONE),
    "a timer": (message(Kind.TIMER, pb.HistoryEvent(timer_fired=pb.TimerFired(timer_id=1))), INVALID),
    "a scheduled start": (message(Kind.START, started()), INVALID),
    "a step of a schedule": (message(Kind.SCHEDULE, b"", "daily", "schedule"), INVALID),
    "a step of a schedule, as for a workflow": (message(Kind.SCHEDULE, b""), INVALID),
}


def test_the_table_has_every_kind_of_message() -> None:
    assert {one.kind for one, _ in MESSAGES.values()} == set(Kind)


@pytest.mark.parametrize("what", MESSAGES)
async def test_no_message_has_an_effect_that_is_not_allowed(ml: Node, evil: PlayedApp, what: str) -> None:
    before = await log(ml, SECRET)
    wrong, verdict = MESSAGES[what]
    assert await evil.tell(wrong) == [verdict]
    assert await log(ml, SECRET) == before
    assert (await get(ml, SECRET)).state.status in (0, 6)
    for instance in ("new", NOBODY, "@secret@k"):
        assert await ml.sidecar.store.load("default", instance) is None
    assert await ml.sidecar.store.activities(0, 10) == []
    assert await ml.sidecar.store.destinations() == [], "nothing is sent for it"


# ---------------------------------------------------------------- by way of another app


async def test_a_sidecar_does_not_look_at_a_third_app_for_another(start: Start) -> None:
    """Ship lets ml look, and not orders: orders sees no more of ship by asking ml for a tree; it asks ship itself."""
    ship = await start("ship", "allow: [{caller: ml, workflow: '*'}]")
    ml = await start("ml", peers={"ship": (ship.peer_address,)})
    ml.worker(lambda events: [child(1, "far", "ship")])
    ship.worker(lambda events: [])
    await ml.begin("a")
    async with asyncio.timeout(10.0):
        while not (await get(ship, "far")).exists:  # noqa: ASYNC110 (asked over the wire)
            await asyncio.sleep(0.02)
    played = PlayedApp(ml)
    await played.introduce(hello("evil"))
    answer = await sent(played, 1, TREE, admin_pb2.GetTreeRequest(instance_id="a"))
    (far,) = admin_pb2.TreeNode.FromString(answer.body).children
    assert far == admin_pb2.TreeNode(app_id="ship", namespace="default", instance_id="far")
    await played.close()
    orders = await start("orders", peers={"ml": (ml.peer_address,), "ship": (ship.peer_address,)})
    orders.worker(lambda events: [child(1, "near", "ml")])
    await orders.begin("root")
    async with asyncio.timeout(10.0):
        while not (found := await tree(orders, "root")).children or not found.children[0].children:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    far = found.children[0].children[0]
    assert (far.instance_id, far.name) == ("far", "")
    assert far.error == "access denied by workflow access policy: app 'orders' may not get that here"
