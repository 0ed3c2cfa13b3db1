"""A pause that reaches children over several whole sidecars (`cascade_suspend`)."""

import asyncio
from collections.abc import Callable

import pytest

from sidecar.core.model import Kind
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer, Start, get, hello
from tests.inprocess.world import COMPLETED, child, end, until

RUNNING, SUSPENDED = 0, 7
DONE, INVALID = 0, 7


def family(*made: pb.Action) -> Callable[[list[pb.HistoryEvent]], list[pb.Action]]:
    """A workflow that makes these children and ends when an event has come and all of them have ended."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        kinds = [event.WhichOneof("kind") for event in events]
        ended = kinds.count("child_completed") == kinds.count("child_created") and "event_raised" in kinds
        return [end()] if ended else [] if "child_created" in kinds else [*made]

    return flow


async def becomes(node: Node, instance_id: str, status: int) -> None:
    async with asyncio.timeout(20.0):
        # One that is not there yet has a status of 0, as one that runs.
        while (found := await get(node, instance_id)).state.status != status or not found.exists:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def three(start: Start, **settings: object) -> tuple[Node, Node, Node]:
    """App orders makes a child of its own, one at ml, and one for nobody there; that of ml makes one at ship."""
    ship = await start("ship")
    ml = await start("ml", peers={"ship": (ship.peer_address,)})
    orders = await start("orders", peers={"ml": (ml.peer_address,)}, **settings)
    detached = pb.Action(id=9, create_detached=pb.CreateDetached(instance_id="free", name="flow"))
    detached.router.target_app_id = "ml"
    orders.worker(lambda events: family(*[child(1, "kid"), child(2, "far", "ml"), detached][: _width(events)])(events))
    ml.worker(lambda events: family(*[child(1, "farther", "ship")][: _width(events)])(events))
    ship.worker(family())
    return orders, ml, ship


def _width(events: list[pb.HistoryEvent]) -> int | None:
    """None, for all, of those that have children: the roots here, and the child at ml."""
    [begun] = [event.execution_started for event in events if event.HasField("execution_started")]
    return None if begun.instance.instance_id in ("boss", "far") else 0


async def test_a_pause_reaches_all_children_over_all_apps_and_so_does_its_end(start: Start) -> None:
    orders, ml, ship = await three(start, cascade_suspend=True)
    everyone = [(orders, "boss"), (orders, "kid"), (ml, "far"), (ship, "farther")]
    await orders.begin("boss")
    for node, instance_id in (*everyone, (ml, "free")):
        await becomes(node, instance_id, RUNNING)
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="boss"))
    for node, instance_id in everyone:
        await becomes(node, instance_id, SUSPENDED)
    assert (await get(ml, "free")).state.status == RUNNING
    await orders.call("ResumeInstance", pb.ReasonRequest(instance_id="boss"))
    for node, instance_id in everyone:
        await becomes(node, instance_id, RUNNING)
    for node, instance_id in everyone:
        await node.call("RaiseEvent", pb.RaiseEventRequest(instance_id=instance_id, name="go"))
    assert (await orders.outcome("boss")).status == COMPLETED
    for node in (orders, ml, ship):
        assert await node.sidecar.store.destinations() == []


async def test_without_the_setting_a_pause_is_of_one_instance(start: Start) -> None:
    """M61."""
    orders, ml, ship = await three(start)
    await orders.begin("boss")
    await becomes(ship, "farther", RUNNING)
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="boss"))
    await asyncio.sleep(0.3)
    for node, instance_id in ((orders, "kid"), (ml, "far"), (ship, "farther")):
        assert (await get(node, instance_id)).state.status == RUNNING


async def test_a_pause_waits_for_an_app_that_is_down(start: Start) -> None:
    """It is a reminder, as a terminate is (M57)."""
    orders, ml, _ = await three(start, cascade_suspend=True)
    await orders.begin("boss")
    await becomes(ml, "far", RUNNING)
    settings = ml.sidecar.settings
    await ml.stop()
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="boss"))
    assert (await get(orders, "boss")).state.status == SUSPENDED
    back = await start("ml", peers=settings.peers, peer_port=ml.ports.peer)
    await becomes(back, "far", SUSPENDED)


@pytest.mark.parametrize("verdict", [INVALID, DONE])
async def test_the_answer_to_a_pause_is_final_also_of_a_peer_that_knows_no_such_message(
    start: Start, verdict: int
) -> None:
    orders = await start("orders", cascade_suspend=True)
    old = PlayedPeer(orders)
    await old.introduce(hello("ml"))
    orders.worker(family(child(1, "far", "ml")))
    await orders.begin("boss")
    got: list[int] = []

    async def answer() -> None:
        while (frame := await old.receive(60.0)) is not None:
            answers = peer_pb2.Answers(sequence=frame.batch.sequence)
            for message in frame.batch.messages:
                got.append(message.kind)
                answers.answers.add(id=message.id, verdict=verdict if message.kind == Kind.PAUSE else DONE)
            await old.send(peer_pb2.Frame(answers=answers))

    answering = asyncio.create_task(answer())
    await until(lambda: got == [Kind.CREATE])
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="boss"))
    await until(lambda: got == [Kind.CREATE, Kind.PAUSE])
    await until(lambda: not orders.sidecar.outbox.queue(("default", "ml")).pending)
    await asyncio.sleep(0.5)
    assert got == [Kind.CREATE, Kind.PAUSE]
    answering.cancel()
    await old.close()
