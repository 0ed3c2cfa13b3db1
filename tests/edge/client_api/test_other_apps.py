"""`appID`: calls that name another app are done there, by the same road and under the same policy as those of SDKs."""

import pytest

from sidecar.edge.http import client_routes, connection_limit, surface
from tests.edge.client_api.documented import Answer, HttpClient, waits_for_go
from tests.edge.client_api.test_http import until_status
from tests.inprocess.sidecars import Node, Start, get
from tests.ports import free_port

Pair = tuple[HttpClient, Node]


async def pair(start: Start, policy: str = "") -> Pair:
    """A client of orders, and ml."""
    ml = await start("ml", policy)
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    return HttpClient(orders.ports.http), ml


async def test_every_call_is_done_at_the_app_that_it_names(start: Start) -> None:
    client, ml = await pair(start)
    ml.worker(waits_for_go)
    assert await client.start("flow", b"1", instanceID="i", appID="ml") == Answer(202, {"instanceID": "i"})
    assert (await get(ml, "i")).state.input.value == "1"
    assert (await client.get("i")).status == 404
    shown = await until_status(client, "i", "RUNNING", appID="ml")
    assert shown["properties"] == {"dapr.workflow.input": "1"}
    assert await client.pause("i", appID="ml") == Answer(202, {})
    await until_status(client, "i", "SUSPENDED", appID="ml")
    assert await client.resume("i", appID="ml") == Answer(202, {})
    assert await client.raise_event("i", "go", b"2", appID="ml") == Answer(202, {})
    await until_status(client, "i", "COMPLETED", appID="ml")
    assert await client.purge("i", appID="ml") == Answer(202, {})
    assert (await client.get("i", appID="ml")).status == 404
    await client.start("flow", instanceID="j", appID="ml")
    assert await client.terminate("j", appID="ml") == Answer(202, {})
    await until_status(client, "j", "TERMINATED", appID="ml")


async def test_without_an_id_the_other_app_makes_one(start: Start) -> None:
    client, ml = await pair(start)
    answer = await client.start("flow", appID="ml")
    assert (await get(ml, answer.content["instanceID"])).exists


async def test_the_own_app_may_be_named(node: Node) -> None:
    assert (await HttpClient(node.ports.http).start("flow", instanceID="i", appID="orders")).status == 202
    assert (await get(node, "i")).exists


async def test_the_policy_of_the_other_app_holds(start: Start) -> None:
    client, ml = await pair(start, "allow: [{caller: orders, workflow: 'open*', operations: [schedule]}]")
    await ml.begin("secret", "secret")
    allowed = await client.start("open", instanceID="i", appID="ml")
    assert allowed.status == 202
    denied = await client.start("secret", appID="ml")
    assert (denied.status, denied.content["errorCode"]) == (403, "ERR_PERMISSION_DENIED")
    for answer in (
        await client.get("secret", appID="ml"),
        await client.get("nobody", appID="ml"),
        await client.terminate("secret", appID="ml"),
        await client.purge("secret", appID="ml"),
        await client.raise_event("secret", "go", appID="ml"),
        await client.pause("i", appID="ml"),
    ):
        assert (answer.status, answer.content["errorCode"]) == (403, "ERR_PERMISSION_DENIED")


async def test_an_app_that_is_not_there_is_tried_for_as_long_as_a_call_may_take(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_routes, "CALL_SECONDS", 0.3)
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{free_port()}",)})
    answer = await HttpClient(orders.ports.http).start("flow", appID="ml")
    assert (answer.status, answer.content["errorCode"]) == (503, "ERR_START_WORKFLOW")
    assert "app 'ml' could not be reached" in answer.content["message"]


async def test_a_call_may_take_longer_than_a_probe(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "Doors", lambda most: connection_limit.Doors(most, seconds=0.3))
    monkeypatch.setattr(client_routes, "CALL_SECONDS", 0.8)
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{free_port()}",)})
    assert (await HttpClient(orders.ports.http).start("flow", appID="ml")).status == 503
