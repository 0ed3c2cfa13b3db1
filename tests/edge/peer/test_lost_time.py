"""Stores that lose time: what was kept comes back, or nothing does, at the caller, at the callee or at both."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from sidecar import wiring
from sidecar.actors.clock import Clock
from sidecar.core.identity import AppIdentity
from sidecar.core.ids import LARGEST_NUMBER, Ids
from sidecar.core.model import Reminder, Reply
from sidecar.edge.peer.link import PeerLink
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.sqlite import restore, schema
from tests.edge.peer.test_two_sidecars import echo, flow_of
from tests.inprocess.sidecars import Flow, Node, PlayedPeer, PlayedWorker, Run, get, hello
from tests.inprocess.world import COMPLETED, call, child, end, until
from tests.peers.test_outbox import event_to
from tests.ports import free_port

pytestmark = pytest.mark.slow

SECONDS = 20.0


class App:
    """A sidecar that comes and goes over a store that can be put back to what it was when it was kept."""

    def __init__(self, name: str, other: str, directory: Path, ports: Mapping[str, int], flow: Flow) -> None:
        self.name, self.flow = name, flow
        self.activities: dict[str, Run] = {"score": echo}
        self.node: Node
        self._directory = directory
        self._settings = {"peer_port": ports[name], "peers": {other: (f"127.0.0.1:{ports[other]}",)}}
        self._up = False

    async def up(self) -> None:
        self.node, self._up = await Node.start(self.name, self._directory, **self._settings), True

    async def down(self) -> None:
        if self._up:
            self._up = False
            await self.node.stop()

    def work(self) -> PlayedWorker:
        return self.node.worker(self.flow, self.activities)

    @property
    def _kept(self) -> Path:
        return self._directory / f"{self.name} kept"

    async def keep(self) -> None:
        """Keep what is stored, as a snapshot of the volume would."""
        await self.down()
        shutil.copytree(self._directory / self.name, self._kept)
        await self.up()

    def go_back(self) -> None:
        """Put the store back as a snapshot does, without a word to anybody."""
        shutil.rmtree(self._directory / self.name)
        shutil.copytree(self._kept, self._directory / self.name)

    def restore(self) -> None:
        """Put the store back with the command."""
        me = AppIdentity("default", self.name)
        restore.restore(me, self._directory / self.name, schema.path_of(me, self._kept), Clock().now())

    def wipe(self) -> None:
        shutil.rmtree(self._directory / self.name)

    async def loses(self, how: str) -> None:
        await self.down()
        {"rollback": self.go_back, "restore": self.restore, "wipe": self.wipe}[how]()


def by_name(**flows: Flow) -> Flow:
    """Run the flow of the workflow's name."""

    def flow(events: list[pb.HistoryEvent]) -> list[pb.Action]:
        name = next(event.execution_started.name for event in events if event.HasField("execution_started"))
        return list(flows[name](events))

    return flow


def sub(task: int, name: str, app: str) -> pb.Action:
    action = child(task, name, app)
    action.create_child.name = name
    return action


def hears(events: list[pb.HistoryEvent]) -> list[pb.Action]:
    """End with the first event."""
    heard = [event.event_raised.name for event in events if event.HasField("event_raised")]
    return [end(heard[0])] if heard else []


def patient(events: list[pb.HistoryEvent]) -> list[pb.Action]:
    """Call a leaf at orders after two events, and end with its result."""
    results = [event.child_completed.result.value for event in events if event.HasField("child_completed")]
    failures = [event.child_failed.failure.error_message for event in events if event.HasField("child_failed")]
    if results or failures:
        return [end(*results, *failures)]
    called = any(event.HasField("child_created") for event in events)
    heard = sum(event.HasField("event_raised") for event in events)
    return [sub(1, "leaf", "orders")] if heard == 2 and not called else []


ORDERS = by_name(
    activity=flow_of(call(1, "score", "ml")),
    child=flow_of(sub(1, "kid", "ml")),
    broken=flow_of(sub(1, "odd", "ml")),
    chain=flow_of(sub(1, "middle", "ml")),
    slow=flow_of(sub(1, "patient", "ml")),
    leaf=hears,
    tell=lambda _: [event_to("listener", 1, "ml"), end("told")],
)
ODD = pb.FailureDetails(error_type="Odd", error_message="odd failure")
ML = by_name(
    kid=lambda _: [end("kid of ml")],
    odd=lambda _: [pb.Action(id=9, complete=pb.Complete(status=3, failure=ODD))],
    middle=flow_of(sub(1, "leaf", "orders")),
    patient=patient,
    hears=hears,
)
OUTPUTS = {"activity": "score for orders", "child": "kid of ml", "broken": "odd failure", "chain": "go"}


@pytest.fixture(params=[0.0, 0.1], ids=["", "acknowledged late"])
async def apps(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[App, App]]:
    """Two apps; each hears a while after the other has acted on a message that it was taken, as on a busy machine."""
    deliver = PeerLink.deliver

    async def late(link: PeerLink, batch: Sequence[Reminder], floor: int) -> list[Reply]:
        replies = await deliver(link, batch, floor)
        await asyncio.sleep(request.param)
        return replies

    monkeypatch.setattr(PeerLink, "deliver", late)
    ports = {"orders": free_port(), "ml": free_port()}
    pair = App("orders", "ml", tmp_path, ports, ORDERS), App("ml", "orders", tmp_path, ports, ML)
    await asyncio.gather(*(app.up() for app in pair))
    yield pair
    await asyncio.gather(*(app.down() for app in pair))


async def accepted(app: App, other: App) -> None:
    """Wait until what an app has asked of the other has arrived there."""
    sidecar, store = other.node.sidecar, other.node.sidecar.store
    queue = app.node.sidecar.outbox.queue(("default", other.name))
    async with asyncio.timeout(SECONDS):
        while queue.pending or not (await store.activities(0, 1) or await store.ready(0, 1)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not sidecar.dispatch.pool.workers


async def exists(app: App, instance_id: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not (await get(app.node, instance_id)).exists:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def tell(app: App, instance_id: str, name: str) -> None:
    await app.node.call("RaiseEvent", pb.RaiseEventRequest(instance_id=instance_id, name=name))


async def ends(app: App, instance_id: str) -> str:
    state = await app.node.outcome(instance_id, SECONDS)
    assert state.status == COMPLETED
    return str(state.output.value)


@pytest.mark.fault(43, "A caller whose store goes back sends the calls of then again, and they are answered again")
@pytest.mark.parametrize("how", ["rollback", "restore"])
@pytest.mark.parametrize("name", ["activity", "child", "broken"])
async def test_a_caller_that_went_back_is_answered_again(apps: tuple[App, App], name: str, how: str) -> None:
    orders, ml = apps
    orders.work()
    await orders.node.begin("a", name)
    await accepted(orders, ml)
    await orders.keep()
    orders.work()
    ml.work()
    assert await ends(orders, "a") == OUTPUTS[name]

    await orders.loses(how)
    await orders.up()
    orders.work()
    assert await ends(orders, "a") == OUTPUTS[name]


@pytest.mark.fault(43, "A callee whose store goes back or is wiped gets the calls that it had accepted again")
@pytest.mark.parametrize("how", ["rollback", "restore", "wipe"])
@pytest.mark.parametrize("name", ["activity", "child"])
async def test_a_callee_that_went_back_gets_the_calls_again(apps: tuple[App, App], name: str, how: str) -> None:
    orders, ml = apps
    await ml.keep()
    orders.work()
    await orders.node.begin("a", name)
    await accepted(orders, ml)

    await ml.loses(how)
    await ml.up()
    ml.work()
    assert await ends(orders, "a") == OUTPUTS[name]


@pytest.mark.parametrize("how", ["rollback", "restore"])
@pytest.mark.parametrize("name", ["activity", "child"])
async def test_both_go_back_to_different_moments(apps: tuple[App, App], name: str, how: str) -> None:
    orders, ml = apps
    await ml.keep()
    orders.work()
    await orders.node.begin("a", name)
    await accepted(orders, ml)
    await orders.keep()
    orders.work()
    ml.work()
    assert await ends(orders, "a") == OUTPUTS[name]

    await asyncio.gather(orders.loses(how), ml.loses(how))
    await asyncio.gather(orders.up(), ml.up())
    orders.work()
    ml.work()
    assert await ends(orders, "a") == OUTPUTS[name]


@pytest.mark.fault(
    43, "In a chain A, B, A whose middle is wiped or goes back, the calls that B makes anew are the same"
)
@pytest.mark.parametrize("how", ["rollback", "restore", "wipe"])
@pytest.mark.parametrize("ended", [False, True], ids=["the leaf runs", "the leaf has ended"])
async def test_the_middle_of_a_chain_loses_time(apps: tuple[App, App], how: str, ended: bool) -> None:
    orders, ml = apps
    await ml.keep()
    orders.work()
    worker = ml.work()
    await orders.node.begin("a", "chain")
    await exists(orders, "leaf")
    await worker.stop()
    if ended:
        await tell(orders, "leaf", "go")
        assert await ends(orders, "leaf") == "go"

    await ml.loses(how)
    await ml.up()
    ml.work()
    if not ended:
        await exists(ml, "middle")
        await tell(orders, "leaf", "go")
    assert await ends(orders, "a") == OUTPUTS["chain"]


@pytest.mark.fault(43, "In such a chain the middle may come to its call in another turn: it is the same call")
@pytest.mark.parametrize("how", ["rollback", "restore", "wipe"])
@pytest.mark.parametrize("ended", [False, True], ids=["the leaf runs", "the leaf has ended"])
async def test_the_middle_of_a_chain_makes_its_call_anew_in_another_turn(
    apps: tuple[App, App], how: str, ended: bool
) -> None:
    orders, ml = apps
    await ml.keep()
    orders.work()
    worker = ml.work()
    await orders.node.begin("a", "slow")
    for number in (1, 2):
        await until(lambda number=number: len(worker.turns) == number)
        await tell(ml, "patient", f"e{number}")
    await exists(orders, "leaf")
    await worker.stop()
    if ended:
        await tell(orders, "leaf", "go")
        assert await ends(orders, "leaf") == "go"

    await ml.loses(how)
    await ml.up()
    await exists(ml, "patient")
    await tell(ml, "patient", "e1")
    await tell(ml, "patient", "e2")
    worker = ml.work()
    if not ended:
        await until(lambda: worker.turns and not ml.node.sidecar.outbox.queue(("default", "orders")).pending)
        await tell(orders, "leaf", "go")
    assert await ends(orders, "a") == "go"


@pytest.mark.fault(43, "Messages that a store sends after it went back are no copies of those that it has forgotten")
@pytest.mark.parametrize("behind", [False, True], ids=["the clock is right", "the clock is behind"])
async def test_what_is_sent_after_going_back_is_new(
    apps: tuple[App, App], behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock may have gone back too: then the other app is the one that knows."""
    orders, ml = apps
    if behind:
        monkeypatch.setattr(wiring, "_ids", lambda store, clock: Ids(store.next_key, store.next_order, clock.new_id))
    ml.work()
    orders.work()
    await ml.node.begin("listener", "hears")
    await orders.keep()
    orders.work()
    await orders.node.begin("first", "tell")
    assert await ends(ml, "listener") == "e1"

    await orders.loses("rollback")
    await orders.up()
    orders.work()
    await ml.node.begin("listener", "hears")
    await orders.node.begin("second", "tell")
    assert await ends(ml, "listener") == "e1"
    same = orders.node.sidecar.engine.identity == orders.node.sidecar.store.identity
    assert same is not behind, "another generation where numbers were given again"
    before = orders.node.sidecar.engine.identity
    await orders.down()
    await orders.up()
    assert orders.node.sidecar.store.identity == before


async def test_a_clock_that_goes_back_is_no_store_that_does(
    apps: tuple[App, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a start has told others of itself, none of which it has stored, the next one does not miss."""
    orders, ml = apps
    await ml.node.begin("listener", "hears")
    orders.work()
    await orders.node.begin("first", "tell")
    queue = orders.node.sidecar.outbox.queue(("default", "ml"))
    await until(lambda: not queue.pending)
    before = ml.node.sidecar.engine.identity
    await ml.down()
    behind = ml.node.sidecar.store.next_order
    monkeypatch.setattr(wiring, "_ids", lambda store, clock: Ids(store.next_key, behind, clock.new_id, behind - 1))
    await ml.up()
    await until(lambda: orders.node.sidecar.peers.link("default", "ml") is not None)
    await asyncio.sleep(0.3)
    assert ml.node.sidecar.engine.identity == before


async def test_an_app_that_says_it_has_seen_more_than_there_is_does_little_harm(apps: tuple[App, App]) -> None:
    engine = apps[0].node.sidecar.engine
    first = engine.identity

    async def says(number: int) -> None:
        liar = PlayedPeer(apps[0].node)
        frame = hello("liar")
        frame.hello.seen_store, frame.hello.seen = engine.identity, number
        assert await liar.introduce(frame) == ""
        await liar.close()

    for number in (engine.ids.next_order - 1, 1 << 63, (1 << 64) - 1, LARGEST_NUMBER):
        await says(number)
        assert engine.identity == first, "what is known, and what no store gives, is not looked at"
    await says(engine.ids.next_order + 1_000)
    second = engine.identity
    assert second != first
    await says(engine.ids.next_order + 1_000)
    assert engine.identity == second, "once a while"
