"""An app that cannot be reached: everybody who waits for it is told why, and the log once when it begins and ends."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sidecar.edge.peer import dial_line, links, troubles
from sidecar.edge.transport.ports import StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, PlayedPeer, Start, hello
from tests.inprocess.world import FakeClock, call, until
from tests.ports import free_port

ABOUT = (
    "peer cannot be reached",
    "peer is reached again",
    "peer refused",
    "messages for an app wait",
    "messages for an app leave again",
)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    monkeypatch.setattr(troubles, "LASTING", 300_000)
    with structlog.testing.capture_logs() as lines:
        yield lines


def about(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] in ABOUT and line["log_level"] != "debug"]


def peer_state(node: Node, app: str) -> Any:
    return next(one for one in node.sidecar._peers() if one["appId"] == app)


async def test_a_peer_that_is_not_there_is_told_once_and_once_that_it_is_back(start: Start, logged: list[Any]) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    orders = await start("orders", peers={"ml": (address,)})
    orders.worker(lambda events: [call(1, "score", app="ml")])
    await orders.begin("a")
    await until(lambda: about(logged))
    await asyncio.sleep(1.0)
    why = f"app 'ml' is not connected: {address}: connection refused: nothing listens there"
    [line] = about(logged)
    assert (line["event"], line["log_level"], line["app"]) == ("peer cannot be reached", "warning", "ml")
    assert (line["why"], line["advice"]) == (why, "start the sidecar of that app, or correct its address")
    state = peer_state(orders, "ml")
    assert (state["state"], state["error"]) == ("connecting", f"{address}: connection refused: nothing listens there")
    assert state["since"]
    cause = orders.sidecar.outbox.queues["default", "ml"].cause
    assert cause is not None
    assert (cause.reason, cause.text, cause.since > 0) == ("unreachable", why, True)
    request = pb.GetInstanceRequest(instance_id="x", router=pb.Router(target_app_id="ml"))
    assert await orders.refusal("GetInstance", request, 5.0) == (
        StatusCode.UNAVAILABLE,
        f"app 'ml' could not be reached: {why}",
    )
    await start("ml", peer_port=port)
    await until(lambda: len(about(logged)) == 2)
    assert about(logged)[1]["event"] == "peer is reached again"
    assert about(logged)[1]["seconds"] >= 1.0
    assert peer_state(orders, "ml")["error"] == ""


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("http", "it answers as an HTTP server, not as a sidecar's peer port"),
        ("grpc", "a gRPC server answers that is no sidecar's peer port: is it the port for apps?"),
        ("peer", "the peer refused: the peer is of namespace 'default', this is 'other'"),
    ],
)
async def test_an_address_that_is_no_peers_says_what_is_there(
    start: Start, logged: list[Any], kind: str, why: str
) -> None:
    ml = await start("ml", namespace="other")
    port = {"http": ml.ports.http, "grpc": ml.ports.grpc[0], "peer": ml.ports.peer}[kind]
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    await until(lambda: peer_state(orders, "ml")["error"], 5.0)
    assert peer_state(orders, "ml")["error"] == f"127.0.0.1:{port}: {why}"
    await asyncio.sleep(1.0)
    refusals = [line for line in about(logged) if line["event"] == "peer refused"]
    assert len(refusals) == (kind == "peer"), "once, though it is tried again and again"


async def test_an_app_without_an_address_is_told_once(start: Start, logged: list[Any]) -> None:
    orders = await start("orders")
    orders.worker(lambda events: [call(1, "score", app="mistyped")])
    await orders.begin("a")
    await until(lambda: about(logged))
    await asyncio.sleep(1.0)
    [line] = about(logged)
    assert (line["event"], line["why"]) == ("messages for an app wait", "the address of app 'mistyped' was not found")
    mistyped = PlayedPeer(orders)
    assert await mistyped.introduce(hello("mistyped")) == ""
    await until(lambda: len(about(logged)) == 2)
    assert about(logged)[1]["event"] == "messages for an app leave again"
    await mistyped.close()


def dialling() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("link to made-of-data")]


async def test_apps_that_have_an_address_by_a_pattern_alone_are_dialled_in_turn(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that says nothing costs an attempt its full time; then it refuses."""
    monkeypatch.setattr(dial_line, "MOST_UNLISTED", 4)
    monkeypatch.setattr(links, "HANDSHAKE_SECONDS", 300.0)
    heard: set[str] = set()
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    there = await start("there")
    orders = await start("orders", peer_pattern=address, peers={"listed": (address,)})
    connect = orders.sidecar.peers._connect

    def noted(at: str, peer: tuple[str, str]) -> Any:
        heard.add(peer[1])
        return connect(there.peer_address if peer[1] == "there" else at, peer)

    orders.sidecar.peers._connect = noted
    names = [*(f"made-of-data{number}" for number in range(12)), "there"]
    orders.worker(lambda events: [call(number, "score", app=name) for number, name in enumerate(names)])
    await orders.begin("a")
    await until(dialling, 20.0)
    assert len(dialling()) <= 4
    request = pb.GetInstanceRequest(instance_id="x", router=pb.Router(target_app_id="made-of-data77"))
    asked = asyncio.create_task(orders.refusal("GetInstance", request, 3.0))
    await until(lambda: "made-of-data77" in heard)  # a client that waits goes before the others
    assert len(heard - {"listed"}) <= 5
    assert (await asked)[0] is StatusCode.UNAVAILABLE
    silent.close()
    await until(lambda: heard >= {*names, "listed"})
    await until(lambda: "there" in orders.sidecar.peers.connected())
    assert len(dialling()) <= 5


def test_a_link_that_is_up_takes_no_place_among_those_that_are_dialled() -> None:
    turns: list[str] = []
    line = dial_line.DialLine(turns.append)
    entered = [f"app{number}" for number in range(dial_line.MOST_UNLISTED)]
    assert all(line.enter(app) for app in entered)
    assert not line.enter("one-more")
    assert not line.enter("another")
    line.leave("listed")
    assert turns == []
    line.leave("app3")
    assert turns == ["one-more"]
    assert line.enter("one-more")
    line.leave("one-more")
    assert turns == ["one-more", "another"]
    line.leave("one-more")
    assert len(turns) == 2


async def test_of_apps_without_number_no_more_than_some_are_remembered() -> None:
    troubled = troubles.Troubles(FakeClock())
    for number in range(5_000):
        troubled.failed(f"made-of-data{number}", ("here",), "here", "no such host")
    assert len(troubled._of) == 2_000
    assert troubled.error("made-of-data4999")
