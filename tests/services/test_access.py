"""Access policies (M77 to M82): what another app may do here is decided here, by who it has proved to be."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message

from sidecar.config import policy_file
from sidecar.config.settings import ConfigError
from sidecar.core.model import CallId, Kind
from sidecar.core.policy import Operation, Policy, Required, Rule
from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer, Start, get, hello
from tests.inprocess.world import COMPLETED, call, child, end

ML = pb.Router(target_app_id="ml")
EXISTS, DENIED, INVALID = 4, 6, 7


async def pair(start: Start, policy: str) -> tuple[Node, Node]:
    """Apps orders and ml; the policy is ml's."""
    ml = await start("ml", policy)
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    ml.worker(lambda events: [end("done")], {"score": lambda request: '"7"', "secret": lambda request: '"x"'})
    return orders, ml


def once(action: pb.Action) -> Callable[[list[pb.HistoryEvent]], list[pb.Action]]:
    """A workflow that asks once, and ends with the answer or the type and text of its failure."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        for event in events:
            kind = event.WhichOneof("kind")
            if kind in ("task_completed", "child_completed"):
                return [end(getattr(event, kind).result.value)]
            if kind in ("task_failed", "child_failed"):
                failure = getattr(event, kind).failure
                return [end(f"{failure.error_type}: {failure.error_message}")]
        return [action]

    return flow


async def outcome(orders: Node, action: pb.Action) -> str:
    orders.worker(once(action))
    await orders.begin("a")
    return (await orders.outcome("a")).output.value


async def test_without_a_policy_everything_is_allowed(start: Start) -> None:
    """M77."""
    orders, _ = await pair(start, "")
    assert await outcome(orders, call(1, "score", app="ml")) == '"7"'


async def test_what_is_listed_is_allowed(start: Start) -> None:
    """M77."""
    orders, _ = await pair(start, "allow: [{caller: 'ord*', activity: 's?ore'}]")
    assert await outcome(orders, call(1, "score", app="ml")) == '"7"'


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        ("allow: [{caller: orders, activity: score}]", call(1, "secret", app="ml")),
        ("allow: [{caller: stock, activity: '*'}]", call(1, "score", app="ml")),
        ("allow: [{caller: orders, workflow: '*'}]", call(1, "score", app="ml")),
        ("default: deny", call(1, "score", app="ml")),
        ("allow: [{caller: orders, activity: '*'}]", child(1, "c", app="ml")),
        ("allow: [{caller: orders, workflow: '*', operations: [get, raise]}]", child(1, "c", app="ml")),
    ],
)
async def test_a_denied_call_fails_at_once_with_a_text_that_names_no_rule(
    start: Start, policy: str, action: pb.Action
) -> None:
    """M77, M79."""
    orders, _ = await pair(start, policy)
    text = (
        "WorkflowAccessPolicyDenied: access denied by workflow access policy: app 'orders' may not schedule that here"
    )
    assert await outcome(orders, action) == text


async def test_a_denied_detached_workflow_is_not_started_and_its_caller_completes(start: Start) -> None:
    """M80: the attempt stays in the history of the caller."""
    orders, ml = await pair(start, "allow: [{caller: orders, workflow: other}]")
    spawn = pb.Action(id=1, create_detached=pb.CreateDetached(instance_id="r", name="secret"))
    allowed = pb.Action(id=2, create_detached=pb.CreateDetached(instance_id="o", name="other"))
    for action in (spawn, allowed):
        action.router.target_app_id = "ml"
    orders.worker(lambda events: [spawn, allowed, end()])
    await orders.begin("a")
    assert (await orders.outcome("a")).status == COMPLETED
    while not (answer := await ml.call("GetInstance", pb.GetInstanceRequest(instance_id="o"))):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert pb.GetInstanceResponse.FromString(answer).exists
    assert await ml.call("GetInstance", pb.GetInstanceRequest(instance_id="r")) == b""
    history = await orders.call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id="a"))
    events = pb.Rewind.FromString(history).new_history  # a list of events under number 1, as the answer is
    assert [event.detached_created.instance_id for event in events if event.HasField("detached_created")] == ["r", "o"]


async def test_a_list_for_another_app_has_what_that_may_see_and_goes_on_behind_what_it_may_not(start: Start) -> None:
    orders, ml = await pair(start, "allow: [{caller: orders, workflow: 'open*', operations: [get]}]")
    for number in range(9):
        await ml.begin(f"w{number}", "open-door" if number == 7 else "secret")
    found: list[str] = []
    query, pages = pb.InstanceQuery(max_instance_count=3), 0
    while not pages or query.continuation_token.value:
        answer = await orders.call("QueryInstances", pb.QueryInstancesRequest(query=query, router=ML))
        page = pb.QueryInstancesResponse.FromString(answer)
        found += [state.instance_id for state in page.states]
        query.continuation_token.value = page.continuation_token.value
        pages += 1
    assert (found, pages) == (["w7"], 3)


@pytest.mark.parametrize(
    "rule", ["workflow: '*', operations: [raise]", "activity: '*'", "workflow: '*', requires: [{event: ok}]"]
)
async def test_a_list_for_an_app_that_may_see_nothing_is_denied(start: Start, rule: str) -> None:
    orders, _ = await pair(start, f"allow: [{{caller: orders, {rule}}}]")
    status, text = await orders.refusal("QueryInstances", pb.QueryInstancesRequest(router=ML))
    assert (status, "app 'orders' may not get that here" in text) == (StatusCode.PERMISSION_DENIED, True)


async def test_a_restart_in_the_place_of_the_old_one_needs_more_than_rerun(start: Start) -> None:
    """Under the same ID what was there is gone: that is a purge."""
    orders, ml = await pair(start, "allow: [{caller: orders, workflow: '*', operations: [rerun]}]")
    await ml.begin("a")
    await ml.outcome("a")
    restart = pb.RestartInstanceRequest(instance_id="a", router=ML)
    status, text = await orders.refusal("RestartInstance", restart)
    assert (status, "may not purge that here" in text) == (StatusCode.PERMISSION_DENIED, True)
    restart.with_new_instance_id = True
    assert await orders.refusal("RestartInstance", restart) == (StatusCode.OK, "")


async def test_a_rewind_is_no_way_to_create_what_may_not_be_scheduled(start: Start) -> None:
    """M81"""
    ml = await start("ml", "allow: [{caller: evil, workflow: other}]")
    link = PlayedPeer(ml)
    assert await link.introduce(hello()) == ""
    answers = [await link.ask(rewind_of(number, name)) for number, name in enumerate(("secret", "other"), 1)]
    assert [answer.verdict for [answer] in answers] == [DENIED, 0]
    await link.close()


def rewind_of(number: int, name: str) -> peer_pb2.Message:
    rewound = pb.HistoryEvent(event_id=-1, execution_rewound=pb.ExecutionRewound(name={"value": name}))
    return peer_pb2.Message(
        id=number,
        kind=int(Kind.REWIND),
        target=peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", id=name),
        source=peer_pb2.Actor(namespace="default", app_id="evil", kind="workflow", id="boss"),
        call=peer_pb2.Call(execution_id="e", turn=1, task_id=1),
        payload=rewound.SerializeToString(),
    )


async def test_a_rewind_reaches_a_child_that_is_there_whatever_may_be_scheduled(start: Start) -> None:
    """M81: it is a command of the recorded parent, as terminate is."""
    ml = await start("ml", "allow: [{caller: evil, workflow: other, requires: [{event: go}]}]")
    link = PlayedPeer(ml)
    assert await link.introduce(hello()) == ""
    created = creation("other", [pb.HistoryEvent(event_raised=pb.EventRaised(name="go"))])
    [answer] = await link.ask(created)
    assert answer.verdict == 0
    rewind = rewind_of(2, "other")
    rewind.call.CopyFrom(created.call)
    foreign = rewind_of(3, "other")
    foreign.call.CopyFrom(created.call)
    foreign.call.turn += 1
    assert [answer.verdict for answer in await link.ask(rewind, foreign)] == [0, DENIED]
    await link.close()


def start_under(instance_id: str, kind: Kind) -> peer_pb2.Message:
    """App evil's wish for a workflow `open` with this ID, in each way that a message has."""
    if kind is Kind.REWIND:
        wish = rewind_of(1, "open")
    else:
        wish = creation(instance_id, [])
        wish.kind = int(kind)
        event = pb.HistoryEvent(execution_started=pb.ExecutionStarted(name="open"))
        event.execution_started.instance.execution_id.value = f"execution of {instance_id}"
        wish.payload = event.SerializeToString()
    wish.target.id, wish.name = instance_id, "open"
    return wish


async def ended(ml: Node, name: str) -> None:
    """A workflow with the ID "a" has ended."""
    ml.worker(lambda events: [end("done")])
    await ml.begin("a", name)
    assert (await ml.outcome("a")).status == COMPLETED
    await ml.workers.pop().stop()


PLACES = (
    "allow: [{{caller: '*', workflow: 'open*', operations: schedule}}, "
    "{{caller: '*', workflow: {}, operations: purge}}]"
)


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.DETACHED, Kind.REWIND])
@pytest.mark.parametrize(("purgeable", "verdict"), [("other", DENIED), ("secret", 0)])
async def test_a_message_takes_the_place_of_an_ended_workflow_only_with_the_right_to_purge_it(
    start: Start, kind: Kind, purgeable: str, verdict: int
) -> None:
    """M81: to be allowed to schedule is not to be allowed to erase."""
    ml = await start("ml", PLACES.format(purgeable))
    await ended(ml, "secret")
    link = PlayedPeer(ml)
    assert await link.introduce(hello()) == ""
    [answer] = await link.ask(start_under("a", kind))
    assert answer.verdict == verdict
    assert (await get(ml, "a")).state.name == ("secret" if verdict else "open")
    await link.close()


@pytest.mark.parametrize("statuses", [[], [1]])
@pytest.mark.parametrize(("purgeable", "status"), [("other", StatusCode.PERMISSION_DENIED), ("secret", StatusCode.OK)])
async def test_a_start_takes_the_place_of_an_ended_workflow_only_with_the_right_to_purge_it(
    start: Start, statuses: list[int], purgeable: str, status: StatusCode
) -> None:
    """M81: whether the client's policy names the status, or there is none."""
    ml = await start("ml", PLACES.format(purgeable))
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    await ended(ml, "secret")
    request = pb.CreateInstanceRequest(instance_id="a", name="open", router=ML)
    if statuses:
        request.reuse_policy.replaceable_status.extend(statuses)
    assert (await orders.refusal("StartInstance", request))[0] is status
    assert (await get(ml, "a")).state.name == ("open" if status is StatusCode.OK else "secret")


async def test_a_creation_that_comes_again_needs_no_right_to_purge_what_it_has_made(start: Start) -> None:
    """M81: its child has ended meanwhile, and it is still the same creation."""
    ml = await start("ml", PLACES.format("other"))
    link = PlayedPeer(ml)
    assert await link.introduce(hello()) == ""
    ml.worker(lambda events: [end("done")])
    assert [answer.verdict for answer in await link.ask(start_under("a", Kind.CREATE))] == [0]
    assert (await ml.outcome("a")).status == COMPLETED
    again = start_under("a", Kind.CREATE)
    again.id = 2
    assert [answer.verdict for answer in await link.ask(again)] == [1]
    await link.close()


async def test_what_runs_below_a_workflow_is_not_told_to_one_who_may_not_take_its_place(start: Start) -> None:
    """M81: who may not purge it learns no ID of its children."""
    ml = await start("ml", PLACES.format("other"))
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    ml.worker(lambda events: [child(1, "hidden"), end("done")] if events[1].execution_started.name == "secret" else [])
    await ml.begin("a", "secret")
    assert (await ml.outcome("a")).status == COMPLETED
    request = pb.CreateInstanceRequest(instance_id="a", name="open", router=ML)
    status, text = await orders.refusal("StartInstance", request)
    assert (status, "hidden" in text) == (StatusCode.PERMISSION_DENIED, False)
    link = PlayedPeer(ml)
    assert await link.introduce(hello()) == ""
    [answer] = await link.ask(start_under("a", Kind.CREATE))
    assert (answer.verdict, "hidden" in answer.text) == (DENIED, False)
    await link.close()


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.DETACHED, Kind.REWIND])
async def test_an_id_is_not_free_while_a_child_of_the_workflow_that_had_it_runs(start: Start, kind: Kind) -> None:
    ml = await start("ml")
    ml.worker(lambda events: [child(1, "kid"), end("done")] if events[1].execution_started.name == "secret" else [])
    await ml.begin("a", "secret")
    assert (await ml.outcome("a")).status == COMPLETED
    link = PlayedPeer(ml)
    assert await link.introduce(hello()) == ""
    [answer] = await link.ask(start_under("a", kind))
    assert (answer.verdict, "child workflow 'kid' has not ended" in answer.text) == (EXISTS, True)
    assert (await get(ml, "a")).state.name == "secret"
    await link.close()


async def test_the_own_app_is_always_allowed(start: Start) -> None:
    """M77: also a child's answer to its parent, and a parent's command to its child."""
    _, ml = await pair(start, "default: deny")
    await ml.begin("own")
    assert (await ml.outcome("own")).status == COMPLETED


async def test_answers_pass_a_policy_that_denies_everything(start: Start) -> None:
    """M77: the answer is allowed by the call that waits for it."""
    ml = await start("ml")
    orders = await start("orders", "default: deny", peers={"ml": (ml.peer_address,)})
    ml.worker(activities={"score": lambda request: '"7"'})
    assert await outcome(orders, call(1, "score", app="ml")) == '"7"'


CALLS: dict[str, tuple[str, Message]] = {
    "schedule": ("StartInstance", pb.CreateInstanceRequest(instance_id="new", name="flow", router=ML)),
    "get": ("GetInstance", pb.GetInstanceRequest(instance_id="a", router=ML)),
    "raise": ("RaiseEvent", pb.RaiseEventRequest(instance_id="a", name="e", router=ML)),
    "pause": ("SuspendInstance", pb.ReasonRequest(instance_id="a", router=ML)),
    "resume": ("ResumeInstance", pb.ReasonRequest(instance_id="a", router=ML)),
    "terminate": ("TerminateInstance", pb.TerminateRequest(instance_id="a", router=ML)),
    "purge": ("PurgeInstances", pb.PurgeInstancesRequest(instance_id="a", router=ML)),
    "rerun": ("RerunWorkflowFromEvent", pb.RerunRequest(source_instance_id="a", event_id=1, router=ML)),
}


@pytest.mark.parametrize("allowed", CALLS)
async def test_each_operation_is_allowed_by_itself(start: Start, allowed: str) -> None:
    """M78."""
    ml = await start("ml", f"allow: [{{caller: orders, workflow: 'fl*', operations: {allowed}}}]")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    await ml.begin("a")
    for operation, (method, request) in CALLS.items():
        status, text = await orders.refusal(method, request)
        assert (status is StatusCode.PERMISSION_DENIED) == (operation != allowed), (operation, text)


async def test_an_instance_that_may_not_be_seen_looks_like_one_that_is_not_there(start: Start) -> None:
    """M78, M81."""
    ml = await start("ml", "allow: [{caller: orders, workflow: 'open*'}]")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    await ml.begin("there")
    for method in ("GetInstance", "WaitForInstanceStart"):
        answers = [
            await orders.refusal(method, pb.GetInstanceRequest(instance_id=one, router=ML)) for one in ("there", "not")
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] is StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(("shown", "asked"), [("score", "secret"), ("other", "score"), ("", "score")])
async def test_a_message_has_one_name(start: Start, shown: str, asked: str) -> None:
    """M81: the policy goes by the name that would run, limits and filters by that on the message: nobody gets round."""
    ml = await start("ml", "allow: [{caller: orders, activity: score}]")
    peer = PlayedPeer(ml)
    await peer.introduce(hello("orders"))
    actor = peer_pb2.Actor(namespace="default", app_id="ml", kind="activity", hub="default", id="w::1::1")
    message = peer_pb2.Message(
        id=1,
        kind=3,
        target=actor,
        source=peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", hub="default", id="w"),
        call=peer_pb2.Call(execution_id="x", turn=1, task_id=1),
        name=shown,
        payload=pb.ActivityRequest(name=asked, task_id=1).SerializeToString(),
    )
    [answer] = await peer.ask(message)
    assert (answer.verdict, "its payload about" in answer.text) == (INVALID, True)
    assert await ml.sidecar.store.foreign_activity("default", "orders", CallId("x", 1, 1)) is None
    await peer.close()


# ---------------------------------------------------------------- what must have happened before

REQUIRES = "requires: [{activity: validate}, {activity: 'appr*'}]"


def needing(*steps: str, scope: int, kind: str) -> Callable[[list[pb.HistoryEvent]], list[pb.Action]]:
    """A workflow that calls these activities one after the other, and then asks ml, showing what it did."""
    asked = call(90, "charge", app="ml") if kind == "activity" else child(90, "c", app="ml")
    if kind == "activity":
        asked.schedule_task.history_propagation_scope = scope
    else:
        asked.create_child.MergeFromString(bytes([6 << 3, scope]))  # as SDKs send it, in a slot that others fill too

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        ended = [event for event in events if event.WhichOneof("kind") in ("task_completed", "task_failed")]
        if len(ended) < len(steps):
            return [call(len(ended), steps[len(ended)])]
        return once(asked)([event for event in events if event not in ended[: len(steps)]])

    return flow


@pytest.mark.parametrize("kind", ["activity", "workflow"])
@pytest.mark.parametrize(
    ("steps", "scope", "allowed"),
    [
        (["validate", "approve"], 1, True),
        (["validate", "other", "approve", "other"], 2, True),
        (["approve", "validate"], 1, False),
        (["validate"], 1, False),
        (["fail", "approve"], 1, False),
        (["validate", "approve"], 0, False),
    ],
)
async def test_a_call_is_allowed_by_what_has_happened_at_its_caller_in_that_order(
    start: Start, kind: str, steps: list[str], scope: int, allowed: bool
) -> None:
    """M82: without a history that shows it, the call is denied."""
    name = "charge" if kind == "activity" else "sub"
    ml = await start("ml", f"allow: [{{caller: orders, {kind}: {name}, {REQUIRES}}}]")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    ml.worker(lambda events: [end('"7"')], {"charge": lambda request: '"7"'})
    own = {name: lambda request: "1" for name in ("validate", "other", "approve")}
    orders.worker(needing(*steps, scope=scope, kind=kind), own)
    await orders.begin("a")
    result = (await orders.outcome("a")).output.value
    assert result.startswith('"7"' if allowed else "WorkflowAccessPolicyDenied: ")


def creation(instance_id: str, log: list[pb.HistoryEvent]) -> peer_pb2.Message:
    """A child that the workflow `boss` of app evil makes, with its history."""
    history = pb.PropagatedHistory(scope=1)
    history.chunks.add(app_id="evil", instance_id="boss", raw_events=[event.SerializeToString() for event in log])
    started = pb.ExecutionStarted(name="other", lineage=history.SerializeToString())
    started.instance.execution_id.value = f"execution of {instance_id}"
    return peer_pb2.Message(
        id=1,
        kind=int(Kind.CREATE),
        target=peer_pb2.Actor(namespace="default", app_id="ml", kind="workflow", id=instance_id),
        source=peer_pb2.Actor(namespace="default", app_id="evil", kind="workflow", id="boss"),
        call=peer_pb2.Call(execution_id="e", turn=1, task_id=1),
        payload=pb.HistoryEvent(execution_started=started).SerializeToString(),
    )


# ---------------------------------------------------------------- the file


def test_a_policy_is_read_with_all_that_it_may_say(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        'default = "deny"\n[[allow]]\ncaller = "a"\nactivity = "x"\n'
        '[[allow]]\ncaller = "b"\nworkflow = "y*"\noperations = ["get", "raise"]\n'
    )
    assert policy_file.read(file) == Policy(
        (
            Rule("a", "activity", "x", frozenset({Operation.SCHEDULE})),
            Rule("b", "workflow", "y*", frozenset({Operation.GET, Operation.RAISE})),
        )
    )


def test_what_must_have_happened_is_read_with_its_defaults(tmp_path: Path) -> None:
    """M82: of a call that it was completed, by any app; and only of what is scheduled."""
    file = tmp_path / "policy.yaml"
    file.write_text(
        "allow: [{caller: a, workflow: y, requires: [{activity: v}, {event: go}, "
        "{workflow: 'w*', outcome: failed, app: 'b-*'}]}]"
    )
    wanted = Required("activity", "v", "completed"), Required("event", "go", "raised")
    assert policy_file.read(file).rules == (
        Rule(
            "a",
            "workflow",
            "y",
            frozenset({Operation.SCHEDULE}),
            (*wanted, Required("workflow", "w*", "failed", "b-*")),
        ),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("default: allow", "nothing else"),
        ("rules: []", "nothing else"),
        ("allow: {a: b}", "`allow` is a list of rules"),
        ("allow: [{caller: a}]", "rule 1: .* is not a rule: write"),
        ("allow: [{caller: a, activity: x}, {caller: a, activity: x, workflow: y}]", "rule 2: .* is not a rule"),
        ("allow: [{caller: a, activity: x, when: now}]", "rule 1: .* is not a rule"),
        ("allow: [{activity: x}]", "rule 1: .* is not a rule"),
        (
            "allow: [{caller: a, activity: x, operations: [get]}]",
            "'get' names no operation: .* schedule$",
        ),
        (
            "allow: [{caller: a, workflow: x, operations: [fly]}]",
            "'fly' names no operation: .* are get, pause",
        ),
        ("allow: [{caller: a, workflow: x, operations: []}]", "an empty list names no operation"),
        ("allow: [{caller: a, workflow: x, requires: []}]", "rule 1: `requires` is a list of what must have happened"),
        ("allow: [{caller: a, workflow: x, requires: {event: e}}]", "rule 1: `requires` is a list"),
        ("allow: [{caller: a, workflow: x, requires: [e]}]", "rule 1: 'e' is not what may be required: write"),
        ("allow: [{caller: a, workflow: x, requires: [{outcome: completed}]}]", "is not what may be required"),
        ("allow: [{caller: a, workflow: x, requires: [{activity: x, event: y}]}]", "is not what may be required"),
        (
            "allow: [{caller: a, workflow: x, requires: [{activity: x, outcome: raised}]}]",
            "scheduled, completed, failed",
        ),
        ("allow: [{caller: a, workflow: x, requires: [{event: x, app: b}]}]", "is not what may be required"),
        ("allow: [{caller: a, workflow: x, requires: [{activity: ''}]}]", "is not what may be required"),
        ("allow: [{caller: a, workflow: x, requires: [{activity: x, when: 1}]}]", "is not what may be required"),
        (
            "allow: [{caller: a, workflow: x, operations: get, requires: [{event: e}]}]",
            "for `operations: schedule` alone",
        ),
    ],
)
def test_a_wrong_policy_says_which_rule_and_what(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        policy_file.read(file)


async def test_a_policy_is_read_again_when_that_is_asked_for_and_a_wrong_one_does_not_count(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "again.yaml"
    rewrite(file, "default: deny")
    ml = await Node.start("ml", tmp_path, policy=file)
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    request = pb.GetInstanceRequest(instance_id="a", router=ML)
    for text, status, counts in (
        ("default: deny", StatusCode.PERMISSION_DENIED, "0 rules"),
        ("allow: [{caller: orders, workflow: '*'}]", StatusCode.OK, "1 rules"),
        ("default: alow", StatusCode.OK, "1 rules"),
    ):
        rewrite(file, text)
        ml.sidecar.read_files()
        assert (await orders.refusal("GetInstance", request))[0] is status
        (shown,) = ml.sidecar.metadata()["files"]  # type: ignore[misc]
        assert (shown["file"], shown["counts"], bool(shown["error"])) == (str(file), counts, "alow" in text)  # type: ignore[index]
    await ml.stop()


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


async def test_a_sidecar_does_not_start_with_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        await Node.start("ml", tmp_path, policy=tmp_path / "none.yaml")
