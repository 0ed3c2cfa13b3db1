"""What a sidecar says of itself on its app port, and trees of workflows that another app has."""

import json

import pytest

from sidecar.actors.clock import Clock
from sidecar.config.settings import version
from sidecar.core import events
from sidecar.edge.methods import ADMIN as SERVICE
from sidecar.edge.methods import STATUS
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from tests.inprocess.sidecars import Node, Start


async def test_the_status_says_which_app_it_is_and_what_metadata_shows(start: Start) -> None:
    node = await start("orders", namespace="shop")
    found = pb.GetStatusResponse.FromString(await node.channel.unary(STATUS, b"", timeout=10.0))
    assert (found.app_id, found.namespace, found.version) == ("orders", "shop", version())
    assert abs(events.micros(found.now) - Clock().now()) < 60_000_000
    assert json.loads(found.metadata).keys() == node.sidecar.metadata().keys()


async def tree(node: Node, **request: str) -> pb.TreeNode:
    body = pb.GetTreeRequest(**request).SerializeToString()  # type: ignore[arg-type]
    return pb.TreeNode.FromString(await node.channel.unary(f"{SERVICE}GetTree", body, timeout=10.0))


async def test_a_tree_of_another_app_is_asked_of_that_app_which_may_deny_it(start: Start) -> None:
    ml = await start("ml")
    strict = await start("strict", policy="default: deny\n")
    peers = {"ml": (ml.peer_address,), "strict": (strict.peer_address,)}
    orders = await start("orders", peers=peers)
    for node in (ml, strict):
        await node.begin("w")
    found = await tree(orders, instance_id="w", app_id="ml")
    assert (found.app_id, found.instance_id, found.waits[0].cause.reason) == ("ml", "w", "no-worker")
    assert found == await tree(ml, instance_id="w")
    for request, status in (
        ({"instance_id": "nobody", "app_id": "ml"}, StatusCode.NOT_FOUND),
        ({"instance_id": "w", "app_id": "strict"}, StatusCode.PERMISSION_DENIED),
        ({"instance_id": "w", "app_id": "not/an/app"}, StatusCode.INVALID_ARGUMENT),
        ({"instance_id": "w", "app_id": "orders"}, StatusCode.NOT_FOUND),
    ):
        with pytest.raises(Refused) as refused:
            await tree(orders, **request)
        assert refused.value.status is status, request
