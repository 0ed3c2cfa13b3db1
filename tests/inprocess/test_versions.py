"""Versions that workers are strict about, over apps (E.15)."""

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Flow, Node, Start
from tests.inprocess.world import call, end

STRICT, TURNS = (
    pb.GetWorkItemsRequest(filters=filters).SerializeToString()
    for filters in (
        pb.WorkItemFilters(activities=[pb.WorkItemFilter(name="work", versions=["2"])]),
        pb.WorkItemFilters(orchestrations=[pb.WorkItemFilter(name="flow")]),
    )
)


def asks(app: str, version: str = "") -> Flow:
    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        done = [event.task_completed.result.value for event in events if event.HasField("task_completed")]
        return [end(done[0])] if done else [call(1, "work", app, version)]

    return flow


async def begin(node: Node, instance_id: str, version: str) -> None:
    request = pb.CreateInstanceRequest(instance_id=instance_id, name="flow", version=StringValue(value=version))
    await node.call("StartInstance", request)


@pytest.mark.parametrize("app", ["", "ml"])
async def test_an_activity_without_a_version_is_taken_as_of_that_of_its_workflow(start: Start, app: str) -> None:
    """Also in another app: a strict worker has filters that take its own version alone, and all would wait for ever."""
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    (ml if app else orders).worker(activities={"work": lambda request: f'"{request.version.value}"'}, asked=STRICT)
    orders.worker(asks(app), asked=TURNS)
    await begin(orders, "a", "2")
    assert (await orders.outcome("a")).output.value == '""', "its own version is none still"


@pytest.mark.parametrize(("of_workflow", "own"), [("1", ""), ("2", "3"), ("", "")])
async def test_an_activity_of_another_version_waits(start: Start, of_workflow: str, own: str) -> None:
    orders = await start("orders")
    orders.worker(activities={"work": lambda request: '"done"'}, asked=STRICT)
    orders.worker(asks("", own), asked=TURNS)
    await begin(orders, "a", of_workflow)
    request = pb.GetInstanceRequest(instance_id="a")
    assert (await orders.refusal("WaitForInstanceCompletion", request, 0.5))[0] is StatusCode.DEADLINE_EXCEEDED
