"""What an activity is given by a workflow of another language: played SDKs on real sidecars, one or two of them."""

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.model import Kind
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Flow, PlayedPeer, PlayedWorker, Start, fields, hello
from tests.inprocess.world import COMPLETED, end, until

pytestmark = pytest.mark.slow

DOTNET, PYTHON = "durabletask-dotnet/1.28.0", "durabletask-python/1.12.0"
RUST = "dapr-durabletask/rust/0.0.4 tonic/0.14.6"
BARE = ('"text"', "7", "[1,2]", "[]", "null", '{"a":1}', "")
WRAPPED = ('["text"]', "[7]", "[[1,2]]", "[[]]", "[null]", '[{"a":1}]', "[null]")
# By caller and by the one who is called: what is sent and what is given.
PAIRS = {
    (PYTHON, DOTNET): (BARE, WRAPPED),
    (DOTNET, PYTHON): (WRAPPED, (*BARE[:-1], "null")),
    (PYTHON, PYTHON): (BARE, BARE),
    (DOTNET, DOTNET): (WRAPPED, WRAPPED),
}
TURNS = pb.GetWorkItemsRequest(filters=pb.WorkItemFilters(orchestrations=[pb.WorkItemFilter(name="flow")]))
ACTIVITIES = pb.GetWorkItemsRequest(filters=pb.WorkItemFilters(activities=[pb.WorkItemFilter(name="show")]))


def showing(inputs: tuple[str, ...], app: str = "") -> Flow:
    """A workflow that gives each of these to an activity, all at once."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        if any(event.HasField("task_scheduled") for event in events):
            done = sum(event.HasField("task_completed") for event in events)
            return [end()] if done == len(inputs) else []
        calls = []
        for number, given in enumerate(inputs):
            wanted = pb.ScheduleTask(name="show", input=StringValue(value=given))
            calls.append(pb.Action(id=number, schedule_task=wanted, router=pb.Router(target_app_id=app)))
        return calls

    return flow


def given_to(worker: PlayedWorker) -> tuple[str, ...]:
    return tuple(request.input.value for request in sorted(worker.requests, key=lambda one: one.task_id))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " calls ".join(name.partition("/")[0] for name in pair))
async def test_workers_of_one_app_are_given_inputs_as_each_writes_them(start: Start, pair: tuple[str, str]) -> None:
    node = await start("orders")
    sent, given = PAIRS[pair]
    caller = node.as_sdk(pair[0]).worker(showing(sent), asked=TURNS.SerializeToString())
    called = node.as_sdk(pair[1]).worker(None, {"show": lambda _: "1"}, ACTIVITIES.SerializeToString())
    await node.begin("a")
    assert (await node.outcome("a")).status == COMPLETED
    assert given_to(called) == given
    history = [event.task_scheduled for event in caller.turns[-1] if event.HasField("task_scheduled")]
    assert tuple(task.input.value for task in history) == sent, "history has what was sent"


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " calls ".join(name.partition("/")[0] for name in pair))
async def test_the_form_goes_to_the_other_app_with_the_call(start: Start, pair: tuple[str, str]) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    sent, given = PAIRS[pair]
    orders.as_sdk(pair[0]).worker(showing(sent, "ml"))
    called = ml.as_sdk(pair[1]).worker(None, {"show": lambda _: "1"})
    await orders.begin("a")
    assert (await orders.outcome("a")).status == COMPLETED
    assert given_to(called) == given


async def test_a_call_that_waits_over_a_restart_keeps_its_form(start: Start) -> None:
    node = await start("orders")
    caller = node.as_sdk(PYTHON).worker(showing(("[1,2]",)), asked=TURNS.SerializeToString())
    await node.begin("a")
    for _ in range(250):
        if await node.sidecar.store.activities(0, 10):
            break
        await asyncio.sleep(0.02)
    await caller.stop()
    await node.stop()
    node = await start("orders")
    called = node.as_sdk(DOTNET).worker(showing(("[1,2]",)), {"show": lambda _: "1"})
    assert (await node.outcome("a")).status == COMPLETED
    assert given_to(called) == ("[[1,2]]",)


@pytest.mark.parametrize(
    ("form", "given"), [({}, "[1,2]"), ({"input_form": 1}, "[[1,2]]"), ({"input_form": 99}, "[1,2]")]
)
async def test_an_input_of_an_older_or_a_newer_sidecar_is_given_as_it_is(
    start: Start, form: dict[str, int], given: str
) -> None:
    """One that tells no form, or one that is not known here, against one that is."""
    ml = await start("ml")
    called = ml.as_sdk(DOTNET).worker(None, {"show": lambda _: "1"})
    peer = PlayedPeer(ml)
    assert await peer.introduce(hello("orders")) == ""
    home, here = ({"namespace": "default", "app_id": app} for app in ("orders", "ml"))
    request = pb.ActivityRequest(name="show", input=StringValue(value="[1,2]"), **form)
    await peer.ask(
        peer_pb2.Message(
            kind=Kind.ACTIVITY,
            source=peer_pb2.Actor(**home, kind="workflow", id="w"),
            target=peer_pb2.Actor(**here, kind="activity", id="w::1::1"),
            call=peer_pb2.Call(execution_id="e", turn=1, task_id=1),
            name="show",
            payload=request.SerializeToString(),
        )
    )
    await until(lambda: called.requests)
    assert given_to(called) == (given,)
    await peer.close()


async def test_the_input_that_a_client_gives_for_a_rerun_is_bare_whatever_the_workflow_is_written_in(
    start: Start,
) -> None:
    node = await start("orders")
    worker = node.as_sdk(DOTNET).worker(showing(("[[1]]",)), {"show": lambda _: "1"})
    await node.begin("a")
    await node.outcome("a")
    again = pb.RerunRequest(source_instance_id="a", event_id=0, overwrite_input=True, input=StringValue(value="[3]"))
    answer = pb.RerunResponse.FromString(await node.call("RerunWorkflowFromEvent", again))
    assert (await node.outcome(answer.new_instance_id)).status == COMPLETED
    assert given_to(worker) == ("[[1]]", "[[3]]")


async def test_dotnet_reads_no_empty_text_where_others_mean_nothing_by_it(start: Start) -> None:
    """A client in JavaScript starts a workflow with one, and activities of Dapr's .NET answer with one."""
    node = await start("orders")
    worker = node.as_sdk(DOTNET).worker(showing(("[1]",)), {"show": lambda _: ""})
    await node.begin("a", data="")
    assert (await node.outcome("a")).status == COMPLETED
    begun = next(event.execution_started for event in worker.turns[-1] if event.HasField("execution_started"))
    done = next(event.task_completed for event in worker.turns[-1] if event.HasField("task_completed"))
    assert not begun.HasField("input")
    assert not done.HasField("result")


async def test_rust_reads_no_empty_text_where_others_mean_nothing_by_it(start: Start) -> None:
    """To it an empty text is JSON that ends too early: of a workflow, of an activity, and in what it has lost."""
    node = await start("orders")
    await node.begin("a", data="")
    worker = node.as_sdk(RUST).worker(showing(("",)), {"show": lambda _: ""})
    assert (await node.outcome("a")).status == COMPLETED
    begun = next(event.execution_started for event in worker.turns[-1] if event.HasField("execution_started"))
    done = next(event.task_completed for event in worker.turns[-1] if event.HasField("task_completed"))
    assert not begun.HasField("input")
    assert not done.HasField("result")
    assert not worker.requests[-1].HasField("input")
    lost = await node.as_sdk(RUST).call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id="a"))
    read = [pb.HistoryEvent.FromString(event) for event in fields(lost)[1]]
    assert not next(event.execution_started for event in read if event.HasField("execution_started")).HasField("input")
