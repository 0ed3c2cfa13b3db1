"""The calls about many instances, bytes in and bytes out, over a whole sidecar."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import events, model
from sidecar.core.identity import AppIdentity
from sidecar.edge.dialects import DAPR, MICROSOFT, NEUTRAL, client_family, most_received, wire
from sidecar.edge.left_out import mark
from sidecar.edge.taskhub import page_tokens, views
from sidecar.edge.taskhub.bulk import DEFAULT_PAGE, LARGEST_PAGE
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services import bulk
from sidecar.services.clients import InstanceView
from sidecar.services.purge import Purging
from sidecar.store.protocol import BEGINNING, Criteria, Cursor, Order
from sidecar.store.sqlite import restore, schema
from tests.inprocess.sidecars import SERVICE, Node, fields, work_items
from tests.inprocess.world import COMPLETED, TERMINATED, end
from tests.store.builders import instance

PENDING, RUNNING, FAILED, STALLED = 6, 0, 3, 8
TOKEN = "continuation token"
ENDED: dict[str, Any] = {"status": model.Status.COMPLETED, "completed_at": 1}
ALL_ENDED = pb.ListEndedRequest(page_size=300)


async def stored(node: Node, *instances: model.Instance, outputs: str | None = None) -> None:
    """Put instances into the store as they are."""
    changes = [model.Changes(key=one.key, instance=one, output=outputs) for one in instances]
    assert set(await node.sidecar.store.commit(changes)) <= {None}


def ended(key: int, status: model.Status = model.Status.COMPLETED, **fields: Any) -> model.Instance:
    return instance(key, f"i{key:04}", **{"status": status, "created_at": key, "completed_at": key} | fields)


async def query(node: Node, **fields: Any) -> pb.QueryInstancesResponse:
    token = fields.pop("token", "")
    request = pb.QueryInstancesRequest(query=pb.InstanceQuery(**fields))
    if token:
        request.query.continuation_token.value = token
    return pb.QueryInstancesResponse.FromString(await node.call("QueryInstances", request))


async def every_page(node: Node, **fields: Any) -> list[list[str]]:
    """The IDs of all pages, as Microsoft's Python package reads them: it stops at "0" and at a token it just had."""
    found, token = [], ""
    while True:
        page = await query(node, token=token, **fields)
        found.append([state.instance_id for state in page.states])
        following = page.continuation_token.value
        if not page.HasField("continuation_token"):
            return found
        assert following not in ("", "0", token)
        token = following


async def purge(node: Node, request: Message | bytes) -> tuple[int, bool]:
    response = pb.PurgeInstancesResponse.FromString(await node.call("PurgeInstances", request))
    return response.deleted_instance_count, response.is_complete.value


async def ids(node: Node) -> list[str]:
    return [instance_id for page in await every_page(node, max_instance_count=LARGEST_PAGE) for instance_id in page]


# ---------------------------------------------------------------- query


async def test_a_query_answers_in_pages_in_order_of_creation(node: Node) -> None:
    """E.12: a token is never "0" and never the one before, and the last page has none."""
    for number in range(5):
        await node.begin(f"a{number}")
    assert await every_page(node, max_instance_count=2) == [["a0", "a1"], ["a2", "a3"], ["a4"]]
    assert await every_page(node, max_instance_count=5) == [["a0", "a1", "a2", "a3", "a4"]]
    assert await every_page(node, instance_id_prefix=StringValue(value="a3")) == [["a3"]]
    assert await every_page(node, instance_id_prefix=StringValue(value="b")) == [[]]


async def test_a_page_has_a_default_and_a_largest_size(node: Node) -> None:
    await stored(node, *(ended(key) for key in range(1, LARGEST_PAGE + 50)))
    assert [len(page) for page in await every_page(node)][:2] == [DEFAULT_PAGE, DEFAULT_PAGE]
    assert [len(page) for page in await every_page(node, max_instance_count=2**31 - 1)] == [LARGEST_PAGE, 49]
    assert len((await every_page(node, max_instance_count=-5))[0]) == DEFAULT_PAGE


async def test_a_query_by_status_and_time(node: Node) -> None:
    await stored(node, ended(1), ended(2, model.Status.FAILED), instance(3, "r", created_at=3))
    assert await every_page(node, status=[FAILED, RUNNING]) == [["i0002", "r"]]
    assert await every_page(node, status=[99]) == [[]]
    times = {"created_from": events.timestamp(2), "created_to": events.timestamp(3)}
    assert await every_page(node, **times) == [["i0002"]]


async def test_a_stalled_instance_is_shown_and_found_as_running(node: Node) -> None:
    """D.4: status 8 is known to one family only, and a query comes from the other."""
    await stored(node, instance(1, "s", status=model.Status.STALLED))
    (state,) = (await query(node, status=[RUNNING])).states
    assert (state.instance_id, state.status) == ("s", RUNNING)


async def test_payloads_come_when_asked_for(node: Node) -> None:
    node.worker(lambda events: [end('"out"')])
    await node.begin("a", data='"in"')
    await node.outcome("a")
    (state,) = (await query(node, fetch_inputs_and_outputs=True)).states
    assert (state.input.value, state.output.value, state.status) == ('"in"', '"out"', COMPLETED)
    (state,) = (await query(node)).states
    assert not state.HasField("input")
    assert not state.HasField("output")
    assert state.name == "flow"


async def test_a_page_of_large_payloads_is_cut_to_what_a_client_can_receive(node: Node) -> None:
    """E.8: 4 MiB is what most SDKs accept; of what is larger by itself a mark comes, and what is behind it."""
    await stored(node, *(ended(key) for key in range(1, 5)), outputs="x" * 1_500_000)
    await stored(node, ended(5), outputs="x" * 5_000_000)
    await stored(node, ended(6), outputs="x")
    sizes, pages, outputs, token = [], [], [], ""
    while True:
        request = pb.QueryInstancesRequest(query=pb.InstanceQuery(fetch_inputs_and_outputs=True))
        request.query.continuation_token.value = token
        answer = await node.call("QueryInstances", request)
        page = pb.QueryInstancesResponse.FromString(answer)
        sizes.append(len(answer))
        pages.append([state.instance_id[-1] for state in page.states])
        outputs += [state.output.value for state in page.states]
        token = page.continuation_token.value
        if not token:
            break
    assert pages == [["1", "2"], ["3", "4", "5", "6"]]
    assert outputs[4:] == [mark(5_000_000), "x"]
    assert max(sizes) < 4 * 1024 * 1024


@pytest.mark.parametrize("payloads", [False, True])
@pytest.mark.parametrize("what", ["custom_status", "failure"])
async def test_what_is_no_payload_is_left_out_of_a_page_too(node: Node, what: str, payloads: bool) -> None:
    """Whether or not payloads are asked for, and for all clients but those that receive more (D.2)."""
    large = "x" * 5_000_000
    failure = events.failure("Boom", large).SerializeToString()
    await stored(node, ended(1, **{what: failure if what == "failure" else large}), ended(2))
    page = await query(node, fetch_inputs_and_outputs=payloads)
    assert page.ByteSize() < 4 * 1024 * 1024
    assert await every_page(node, fetch_inputs_and_outputs=payloads) == [["i0001"], ["i0002"]]
    shown = page.states[0].failure.error_message if what == "failure" else page.states[0].custom_status.value
    assert shown == mark(5_000_000)
    assert most_received({"user-agent": "durabletask-js grpc-node-js/1"}, 64 << 20) > 63 << 20


async def test_a_page_of_long_ids_is_cut_to_what_a_client_can_receive(node: Node) -> None:
    await stored(node, *(instance(key, f"{key:04}{'x' * 16_000}", **ENDED) for key in range(1, 301)))
    for method, token in {"ListInstanceIDs": "continuation_token", "ListInstanceIds": "last_instance_key"}.items():
        found: list[str] = []
        request: Message = pb.ListAllRequest(page_size=300) if token == "continuation_token" else ALL_ENDED
        for _ in range(3):
            answer = await node.call(method, request)
            assert len(answer) < 4 * 1024 * 1024
            page: Any = (pb.ListAllResponse if method == "ListInstanceIDs" else pb.ListEndedResponse).FromString(answer)
            found += page.instance_ids
            if not page.HasField(token):
                break
            if method == "ListInstanceIDs":
                request = pb.ListAllRequest(page_size=300, continuation_token=page.continuation_token)
            else:
                request = pb.ListEndedRequest(page_size=300, last_instance_key=page.last_instance_key)
        assert [int(one[:4]) for one in found] == list(range(1, 301)), method


async def test_large_rows_make_short_pages(node: Node) -> None:
    """What is not a payload can be large too: a page never holds more of it than a client can receive."""
    await stored(node, *(ended(key, custom_status="x" * 1_000_000) for key in range(1, 10)))
    for call, largest in (("query", 4), ("list", 5)):
        if call == "query":
            found = await every_page(node, max_instance_count=LARGEST_PAGE)
        else:
            page = pb.ListAllResponse.FromString(await node.call("ListInstanceIDs", pb.ListAllRequest(page_size=1_000)))
            found = [list(page.instance_ids)]
        assert max(map(len, found)) == largest, call
    assert sum(map(len, await every_page(node, max_instance_count=LARGEST_PAGE))) == 9


async def test_instances_that_come_meanwhile_hide_nothing(node: Node) -> None:
    for number in range(6):
        await node.begin(f"a{number}")
    first = await query(node, max_instance_count=3)
    await node.begin("late")
    await purge(node, pb.PurgeInstancesRequest(instance_id="a0", force=True))
    rest = await query(node, max_instance_count=100, token=first.continuation_token.value)
    assert [state.instance_id for state in rest.states] == ["a3", "a4", "a5", "late"]


@pytest.mark.parametrize("token", ["1", "5.3.0123456789abcdef", "..", "a.b.c", "-1.-1.x", "9" * 400, "é", "\x00.1.2"])
async def test_a_token_that_was_not_issued_is_an_invalid_argument(node: Node, token: str) -> None:
    for method, request in (
        ("QueryInstances", pb.QueryInstancesRequest(query={"continuation_token": {"value": token}})),
        ("ListInstanceIds", pb.ListEndedRequest(last_instance_key={"value": token})),
        ("ListInstanceIDs", pb.ListAllRequest(continuation_token=token)),
    ):
        status, text = await node.refusal(method, request)
        assert (status, TOKEN in text) == (StatusCode.INVALID_ARGUMENT, True), method


async def test_a_token_of_another_call_is_an_invalid_argument(node: Node) -> None:
    await stored(node, ended(1), ended(2))
    token = (await query(node, max_instance_count=1)).continuation_token.value
    assert (await node.refusal("ListInstanceIDs", pb.ListAllRequest(continuation_token=token)))[
        0
    ] is StatusCode.INVALID_ARGUMENT


def test_a_token_holds_for_its_store_hub_and_call() -> None:
    place = Cursor(1_700_000_000_000_000, 7)
    token = page_tokens.issue("store", "hub", "call", place)
    assert page_tokens.read("store", "hub", "call", token) == place
    assert page_tokens.read("store", "hub", "call", "") == BEGINNING
    for others in (("other", "hub", "call"), ("store", "other", "call"), ("store", "hub", "other")):
        with pytest.raises(Refused):
            page_tokens.read(*others, token)
    moved = token.replace(".7.", ".8.")
    assert moved != token
    with pytest.raises(Refused):
        page_tokens.read("store", "hub", "call", moved)


async def test_a_tag_is_found_as_a_tag_and_not_inside_a_value(node: Node) -> None:
    def tagged(key: int, tags: dict[str, str]) -> model.Instance:
        return ended(key, tags=pb.ExecutionStarted(tags=tags).SerializeToString(deterministic=True))

    await stored(
        node, tagged(1, {"a": "1", "b": ""}), tagged(2, {"a": "2"}), tagged(3, {"z": events.tag("a", "1").decode()})
    )
    queries = node.sidecar.services.queries
    for tags, expected in ([("a", "1")], [1]), ([("b", "")], [1]), ([("a", "1"), ("a", "2")], []), ([], [1, 2, 3]):
        criteria = Criteria("default", tags=tuple(events.tag(*tag) for tag in tags))
        page = await queries.page(criteria, Order.CREATED, BEGINNING, 10)
        assert [one.key for one in page.found] == expected


# ---------------------------------------------------------------- lists


async def test_microsofts_list_has_what_has_ended_by_the_time_of_its_end(node: Node) -> None:
    """E.16: each page with something has a key, and an empty one, which ends an export, has none."""
    order = [ended(key, completed_at=100 - key) for key in range(1, 6)]
    await stored(node, *order, instance(6, "running"), ended(7, model.Status.FAILED, completed_at=200))
    found, key = [], ""
    while True:
        request = pb.ListEndedRequest(page_size=2, status=[COMPLETED, RUNNING])
        if key:
            request.last_instance_key.value = key
        page = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
        found.append(list(page.instance_ids))
        if not page.HasField("last_instance_key"):
            break
        key = page.last_instance_key.value
        assert key
    assert found == [["i0005", "i0004"], ["i0003", "i0002"], ["i0001"], []]


async def test_the_key_of_the_last_page_is_where_a_continuous_export_goes_on(node: Node) -> None:
    await stored(node, ended(1), ended(2))
    request = pb.ListEndedRequest(status=[COMPLETED])
    first = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
    request.last_instance_key.value = first.last_instance_key.value
    empty = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
    assert (list(empty.instance_ids), empty.HasField("last_instance_key")) == ([], False)
    await stored(node, ended(3))
    after = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
    assert (list(first.instance_ids), list(after.instance_ids)) == (["i0001", "i0002"], ["i0003"])


async def test_microsofts_list_by_time(node: Node) -> None:
    await stored(node, *(ended(key) for key in range(1, 6)))
    request = pb.ListEndedRequest(completed_from=events.timestamp(2), completed_to=events.timestamp(4))
    page = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
    assert (list(page.instance_ids), page.HasField("last_instance_key")) == (["i0002", "i0003"], False)


async def test_daprs_list_has_everything_and_no_token_at_the_end(node: Node) -> None:
    await stored(node, ended(1), instance(2, "r"), ended(3), ended(4))
    found, token = [], None
    while True:
        request = pb.ListAllRequest(page_size=2, continuation_token=token)
        page = pb.ListAllResponse.FromString(await node.call("ListInstanceIDs", request))
        found.append(list(page.instance_ids))
        if not page.HasField("continuation_token"):
            break
        token = page.continuation_token
    assert found == [["i0001", "i0003"], ["i0004", "r"]]
    page = pb.ListAllResponse.FromString(await node.call("ListInstanceIDs", pb.ListAllRequest(page_size=2**32 - 1)))
    assert len(page.instance_ids) == 4


async def test_daprs_list_pages_by_as_many_as_its_own_unless_it_is_asked_for_fewer(node: Node) -> None:
    """E.15."""
    await stored(node, *(ended(key) for key in range(1, 1_024 + 50)))
    page = pb.ListAllResponse.FromString(await node.call("ListInstanceIDs"))
    assert len(page.instance_ids) == 1_024
    rest = pb.ListAllRequest(page_size=2**31, continuation_token=page.continuation_token)
    assert len(pb.ListAllResponse.FromString(await node.call("ListInstanceIDs", rest)).instance_ids) == 49


async def test_a_list_goes_on_after_a_restore(tmp_path: Path) -> None:
    """Exports keep the key of the last page for long: a restore that makes it void would end them for ever."""
    node = await Node.start("orders", tmp_path)
    await stored(node, *(ended(key) for key in range(1, 4)))
    request = pb.ListEndedRequest(page_size=2, status=[COMPLETED])
    first = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
    await node.stop()
    me, folder = AppIdentity("default", "orders"), tmp_path / "orders"
    made = restore.backup(schema.path_of(me, folder), "copy.db", 1)
    restore.restore(me, folder, Path(made.path), 2)
    node = await Node.start("orders", tmp_path)
    request.last_instance_key.value = first.last_instance_key.value
    after = pb.ListEndedResponse.FromString(await node.call("ListInstanceIds", request))
    assert (list(first.instance_ids), list(after.instance_ids)) == (["i0001", "i0002"], ["i0003"])
    await node.stop()


# ---------------------------------------------------------------- purge


def batch_of(*instance_ids: str, **fields: Any) -> bytes:
    """A purge as Microsoft's SDKs write it: the IDs are in field 4, where the other family has a flag."""
    batch = pb.InstanceBatch(instance_ids=instance_ids).SerializeToString()
    return pb.PurgeInstancesRequest(**fields).SerializeToString() + wire.frame(4, batch)


async def test_a_batch_counts_what_was_there_and_could_go(node: Node) -> None:
    """A.4: the batch is another wire type at the number of the other family's flag. D.4: counts, and `isComplete`."""
    await stored(node, ended(1), ended(2), ended(3), instance(4, "running"))
    assert await purge(node, batch_of("i0001", "nobody", "i0002", "running", "i0001", "x" * 300, "")) == (2, True)
    assert await ids(node) == ["i0003", "running"]
    assert await purge(node, batch_of()) == (0, True)


async def test_a_batch_that_is_no_batch_is_an_invalid_argument(node: Node) -> None:
    assert (await node.refusal("PurgeInstances", b"\x22\x02\xff\xff"))[0] is StatusCode.INVALID_ARGUMENT


async def test_a_purge_of_nothing_in_particular_is_an_invalid_argument(node: Node) -> None:
    for request in (b"", pb.PurgeInstancesRequest(recursive=True, force=True)):
        status, text = await node.refusal("PurgeInstances", request)
        assert (status, "filter" in text) == (StatusCode.INVALID_ARGUMENT, True)


async def test_a_filter_purges_only_what_has_ended(node: Node) -> None:
    await stored(node, *(ended(key) for key in range(1, 130)), instance(200, "running"), instance(201, "other"))
    wanted = pb.PurgeFilter(created_from=events.timestamp(10), created_to=events.timestamp(20))
    assert await purge(node, pb.PurgeInstancesRequest(filter=wanted)) == (10, True)
    assert await purge(node, pb.PurgeInstancesRequest(filter={"status": [FAILED, RUNNING, PENDING]})) == (0, True)
    assert await purge(node, pb.PurgeInstancesRequest(filter=pb.PurgeFilter())) == (119, True)
    assert await ids(node) == ["running", "other"]
    assert await purge(node, pb.PurgeInstancesRequest(filter=pb.PurgeFilter(status=[RUNNING]), force=True)) == (2, True)


async def test_a_filter_leaves_a_tree_with_a_running_child(node: Node) -> None:
    parent, child = ended(1), instance(2, "child", status=model.Status.RUNNING)
    call = model.CallId("execution-1", 1, 0)
    actor = model.ActorId("default", "orders", "workflow", "default", "child")
    child = instance(2, "child", parent=model.Parent(actor._replace(id=parent.id), call, "P"))
    changes = model.Changes(key=1, instance=parent, children=(model.Child(actor, call),))
    assert await node.sidecar.store.commit([changes]) == [None]
    await stored(node, child)
    everything = pb.PurgeFilter()
    assert await purge(node, pb.PurgeInstancesRequest(filter=everything, recursive=True)) == (0, True)
    assert await purge(node, pb.PurgeInstancesRequest(filter=everything)) == (1, True)
    assert await ids(node) == ["child"]


async def test_a_purge_of_many_may_be_addressed_to_another_app(node: Node, tmp_path: Path) -> None:
    other = await Node.start("ml", tmp_path, peers={"orders": (node.peer_address,)})
    try:
        await stored(node, *(ended(key) for key in range(1, 5)))
        await stored(other, ended(1))
        router = pb.Router(target_app_id="orders")
        wanted = pb.PurgeFilter(created_to=events.timestamp(3))
        assert await purge(other, pb.PurgeInstancesRequest(filter=wanted, router=router)) == (2, True)
        assert (await ids(node), await ids(other)) == (["i0003", "i0004"], ["i0001"])
    finally:
        await other.stop()


@pytest.mark.parametrize("by", ["filter", "deadline"])
async def test_a_purge_that_runs_out_of_time_says_that_there_is_more(
    node: Node, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(node, *(ended(key) for key in range(1, 400)))
    clock, whole = node.sidecar.engine.clock, Purging.purge

    async def slow(*given: Any) -> Any:
        await asyncio.sleep(0.02)
        return await whole(*given)

    monkeypatch.setattr(Purging, "purge", slow)
    monkeypatch.setattr(bulk, "_AT_ONCE", 5)  # a step must take less than what is left for the answer
    wanted = pb.PurgeFilter(timeout=Duration(nanos=300_000_000)) if by == "filter" else pb.PurgeFilter()
    begin = clock.monotonic()
    answer = await node.call("PurgeInstances", pb.PurgeInstancesRequest(filter=wanted), 10.0 if by == "filter" else 1.0)
    response = pb.PurgeInstancesResponse.FromString(answer)
    assert clock.monotonic() - begin < 8.0
    assert 0 < response.deleted_instance_count < 399
    assert response.HasField("is_complete")
    assert not response.is_complete.value
    monkeypatch.undo()
    assert await purge(node, pb.PurgeInstancesRequest(filter={})) == (399 - response.deleted_instance_count, True)


async def test_a_time_out_that_is_none_is_an_invalid_argument(node: Node) -> None:
    request = pb.PurgeInstancesRequest(filter=pb.PurgeFilter(timeout=Duration()))
    assert (await node.refusal("PurgeInstances", request))[0] is StatusCode.INVALID_ARGUMENT


# ---------------------------------------------------------------- ends at once


async def test_a_batch_is_terminated_at_once_and_the_others_named(node: Node) -> None:
    await node.begin("a")
    await node.begin("b")
    await stored(node, ended(100))
    batch = pb.InstanceBatch(instance_ids=["a", "nobody", "i0100", "a"])
    request = pb.SkipGracefulTerminationsRequest(batch=batch, reason=StringValue(value='no "time"'))
    answer = await node.call("SkipGracefulOrchestrationTerminations", request)
    left = pb.SkipGracefulTerminationsResponse.FromString(answer).unterminated_instance_ids
    assert list(left) == ["nobody", "i0100"]
    state = await node.outcome("a")
    assert (state.status, state.output.value) == (TERMINATED, '"no \\"time\\""')
    assert [one.instance_id for one in (await query(node, status=[PENDING])).states] == ["b"]


# ---------------------------------------------------------------- status of a stalled instance


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"user-agent": "grpc-python/1.85 grpc-c/1"}, None),
        ({"user-agent": "grpc-python/1.85 grpc-c/1", "dapr-api-token": "t"}, DAPR),
        ({"user-agent": "grpc-dotnet/2", "dapr-api-token": "t"}, None),
        ({"user-agent": "dapr-sdk-go/1 grpc-go/1"}, DAPR),
        ({"user-agent": "durabletask-js grpc-node-js/1"}, NEUTRAL),
        ({"user-agent": "grpc-python/1", "taskhub": "a"}, MICROSOFT),
        ({"x-user-agent": "durabletask-python/1"}, MICROSOFT),
        ({}, None),
    ],
)
def test_the_family_of_a_client_is_told_from_its_call(metadata: dict[str, str | bytes], family: Any) -> None:
    assert client_family(metadata) == family


@pytest.mark.parametrize(("asked", "shown"), [(None, "v1"), ("v0", "v0")])
def test_an_instance_that_was_started_without_a_version_shows_the_one_that_its_worker_took(
    asked: str | None, shown: str
) -> None:
    recorded = pb.WorkflowVersion(name="v1", patches=["p"]).SerializeToString()
    view = InstanceView(instance(1, version=asked, recorded=recorded), None, None)
    assert views.state_of(view, DAPR).version.value == shown


def test_only_one_family_is_shown_that_an_instance_is_stalled() -> None:
    """D.4: others fail on status 8."""
    view = InstanceView(instance(1, status=model.Status.STALLED), None, None)
    shown = {family.name: views.state_of(view, family).status for family in (DAPR, MICROSOFT, NEUTRAL)}
    assert shown == {"dapr": STALLED, "microsoft": RUNNING, "neutral": RUNNING}


async def test_a_client_that_cannot_be_told_is_taken_for_what_the_workers_are_or_were(node: Node) -> None:
    await stored(node, instance(1, "s", status=model.Status.STALLED))

    async def status() -> int:
        return pb.GetInstanceResponse.FromString(
            await node.call("GetInstance", pb.GetInstanceRequest(instance_id="s"))
        ).state.status

    assert await status() == RUNNING
    stream = node.channel.duplex(SERVICE + "GetWorkItems")
    await stream.send(pb.GetWorkItemsRequest(dapr_capabilities=[2, 3]).SerializeToString())
    async with asyncio.timeout(5):
        while await status() != STALLED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    stream.cancel()
    async with asyncio.timeout(5):
        while node.sidecar.dispatch.pool.workers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await status() == STALLED, "while its worker is away too"


async def test_a_worker_is_told_by_the_call_that_only_one_family_makes(node: Node) -> None:
    """Dapr's Go before 0.13 says nothing of itself, and nothing in its answers if it has no patches."""
    await stored(node, instance(1, "s", status=model.Status.STALLED))
    await node.begin("a")
    stream = await work_items(node.channel)
    token = fields(await stream.receive() or b"")[10][0].decode()
    await node.call("CompleteWorkflowTask", pb.OrchestratorResponse(instance_id="a", completion_token=token))
    answer = await node.call("GetInstance", pb.GetInstanceRequest(instance_id="s"))
    assert pb.GetInstanceResponse.FromString(answer).state.status == STALLED
    stream.cancel()
