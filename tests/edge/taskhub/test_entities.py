"""The calls about entities as SDKs make them, bytes in and bytes out, over a whole sidecar (E.10)."""

import uuid
from typing import Any

import pytest
import structlog
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sidecar.core.model import Changes
from sidecar.edge.dialects import wire
from sidecar.edge.left_out import mark
from sidecar.edge.transport.ports import DuplexCall, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, fields, work_items
from tests.inprocess.world import until
from tests.store import builders

OK = (StatusCode.OK, "")
C = "@counter@a"
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


async def worker(node: Node, **request: Any) -> DuplexCall:
    """A stream of work that takes entities."""
    return await work_items(node.channel, pb.GetWorkItemsRequest(**{"max_entities": 10} | request).SerializeToString())


async def batch(stream: DuplexCall) -> tuple[pb.EntityRequest, str]:
    item = fields(await stream.receive() or b"")
    return pb.EntityRequest.FromString(item[5][0]), item[10][0].decode()


def ran(token: str, state: str | None = "1", **more: Any) -> pb.EntityBatchResult:
    text = None if state is None else StringValue(value=state)
    results = [pb.OperationResult(success=pb.OperationSuccess())]
    return pb.EntityBatchResult(**{"results": results, "entity_state": text, "completion_token": token} | more)


async def signal(node: Node, entity: str = C, name: str = "add", **more: Any) -> None:
    await node.call("SignalEntity", pb.SignalEntityRequest(instance_id=entity, name=name, **more))


async def get(node: Node, *, include_state: bool = True) -> pb.GetEntityResponse:
    request = pb.GetEntityRequest(instance_id=C, include_state=include_state)
    return pb.GetEntityResponse.FromString(await node.call("GetEntity", request))


async def query(node: Node, **fields_: Any) -> pb.QueryEntitiesResponse:
    request = pb.QueryEntitiesRequest(query=pb.EntityQuery(**fields_))
    return pb.QueryEntitiesResponse.FromString(await node.call("QueryEntities", request))


async def test_a_signal_is_run_and_its_state_is_there(node: Node) -> None:
    stream = await worker(node)
    await signal(node, "@Counter@a", input=StringValue(value="5"), request_id=GUID)
    request, token = await batch(stream)
    assert (request.instance_id, request.HasField("entity_state")) == (C, False)
    (asked,) = request.operation_requests
    signaled = pb.EntitySignaled(
        operation="add", request_id=GUID, input={"value": "5"}, target_instance_id={"value": C}
    )
    assert asked.entity_signaled == signaled
    assert await node.refusal("CompleteEntityTask", ran(token, "five")) == OK
    found = await get(node)
    assert (found.exists, found.entity.instance_id, found.entity.serialized_state.value) == (True, C, "five")
    assert found.entity.HasField("last_modified")
    assert not found.entity.HasField("locked_by")
    assert not (await get(node, include_state=False)).entity.HasField("serialized_state")


async def test_a_request_id_of_a_client_that_is_no_guid_harms_no_worker(node: Node) -> None:
    stream = await worker(node)
    await signal(node, request_id="mine")
    request, _ = await batch(stream)
    assert uuid.UUID(request.operation_requests[0].entity_signaled.request_id)


async def test_an_entity_that_is_missing_is_no_error(node: Node) -> None:
    assert not (await get(node)).exists


@pytest.mark.parametrize("wrong", ["", "counter", "@counter", "@counter@", "@@a", "@c@" + "x" * 16_384, "@c@\n"])
async def test_what_is_no_entity_is_an_invalid_argument_and_named(node: Node, wrong: str) -> None:
    requests: dict[str, Message] = {
        "SignalEntity": pb.SignalEntityRequest(instance_id=wrong, name="x"),
        "GetEntity": pb.GetEntityRequest(instance_id=wrong),
    }
    for method, request in requests.items():
        status, text = await node.refusal(method, request)
        assert (status, repr(wrong[:80]) in text) == (StatusCode.INVALID_ARGUMENT, True), method


async def test_a_signal_needs_an_operation(node: Node) -> None:
    refused = await node.refusal("SignalEntity", pb.SignalEntityRequest(instance_id=C))
    assert refused == (StatusCode.INVALID_ARGUMENT, "the operation name is empty")


async def test_no_workflow_may_have_the_id_of_an_entity(node: Node) -> None:
    """E.10: entities must not appear among workflows."""
    await signal(node)
    status, text = await node.refusal("StartInstance", pb.CreateInstanceRequest(instance_id=C, name="flow"))
    assert (status, "entity" in text) == (StatusCode.INVALID_ARGUMENT, True)
    purge = pb.PurgeInstancesRequest(instance_id=C, force=True).SerializeToString() + wire.integer(5, 1)
    status, _ = await node.refusal("PurgeInstances", purge)
    assert status is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("flag", [b"", wire.integer(5, 0)])
async def test_an_entity_is_purged_with_its_state_and_its_queue(node: Node, flag: bytes) -> None:
    """E.16: Microsoft's flag for a workflow is not set."""
    stream = await worker(node)
    await signal(node)
    _, token = await batch(stream)
    await node.call("CompleteEntityTask", ran(token, "kept"))
    await signal(node, name="again")
    _, late = await batch(stream)
    purge = pb.PurgeInstancesRequest(instance_id="@Counter@a").SerializeToString() + flag
    counts = [pb.PurgeInstancesResponse.FromString(await node.call("PurgeInstances", purge)) for _ in range(2)]
    assert [(one.deleted_instance_count, one.is_complete.value) for one in counts] == [(1, True), (0, True)]
    await node.call("CompleteEntityTask", ran(late, "late"))
    assert not (await get(node)).exists
    await signal(node, name="fresh")
    request, _ = await batch(stream)
    operations = [one.entity_signaled.operation for one in request.operation_requests]
    assert (operations, request.HasField("entity_state")) == (["fresh"], False)


async def test_an_answer_that_comes_too_late_or_from_nowhere_is_ok(node: Node) -> None:
    """D.4: a stale or duplicate completion."""
    stream = await worker(node)
    await signal(node)
    _, token = await batch(stream)
    for state in ("first", "second"):
        assert await node.refusal("CompleteEntityTask", ran(token, state)) == OK
    tokens = ("", "e.x", "t.x.default", "a.1.1")
    with structlog.testing.capture_logs() as lines:
        for token in tokens:
            assert await node.refusal("CompleteEntityTask", ran(token)) == OK
            assert await node.refusal("AbandonTaskEntityWorkItem", pb.AbandonRequest(completion_token=token)) == OK
    said = [line for line in lines if line["event"] == "answer of a worker to what it does not have"]
    assert [line["token"] for line in said] == list(tokens)
    assert all(line["peer"] for line in said)
    assert [line["log_level"] for line in said] == ["warning", "info", "info", "info"]
    assert (await get(node)).entity.serialized_state.value == "first"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["abandoned", "requires state"])
async def test_what_a_worker_does_not_run_comes_again_with_its_state(node: Node, how: str) -> None:
    """E.10: requiresState=true -> resend."""
    stream = await worker(node)
    await signal(node)
    _, token = await batch(stream)
    await node.call("CompleteEntityTask", ran(token, "kept"))
    await signal(node, name="again")
    _, token = await batch(stream)
    if how == "abandoned":
        await node.call("AbandonTaskEntityWorkItem", pb.AbandonRequest(completion_token=token))
    else:
        await node.call("CompleteEntityTask", pb.EntityBatchResult(completion_token=token, requires_state=True))
    request, again = await batch(stream)
    operations = [one.entity_signaled.operation for one in request.operation_requests]
    assert (operations, request.entity_state.value) == (["again"], "kept")
    assert again != token


async def test_a_worker_takes_only_what_it_says_it_takes(node: Node) -> None:
    """D.2: f3; workItemFilters: an empty category list = nothing, and names without regard to case."""
    plain = await worker(node, max_entities=0)
    none = await worker(node, filters=pb.WorkItemFilters(orchestrations=[pb.WorkItemFilter(name="flow")]))
    some = await worker(node, filters=pb.WorkItemFilters(entities=[pb.WorkItemFilter(name="Counter")]))
    await until(lambda: len(node.sidecar.dispatch.pool.workers) == 3)
    await signal(node, "@other@a")
    for key in range(3):
        await signal(node, f"@counter@{key}")
    got = {(await batch(some))[0].instance_id for _ in range(3)}
    assert got == {f"@counter@{key}" for key in range(3)}
    workers = node.sidecar.dispatch.pool.workers
    assert sorted(len(one.entities) for one in workers) == [0, 0, 3]
    plain.cancel()
    none.cancel()


async def test_a_worker_that_shows_to_be_of_another_family_gets_no_entities(node: Node) -> None:
    stream = await worker(node)
    await until(lambda: node.sidecar.dispatch.pool.workers)
    answer = pb.OrchestratorResponse(instance_id="x", slot_6=b"\x12\x01v", completion_token="t.x.default")
    await node.call("CompleteOrchestratorTask", answer)
    [one] = node.sidecar.dispatch.pool.workers
    assert one.max_entities == 0
    stream.cancel()


async def test_pages_have_a_token_until_the_last(node: Node) -> None:
    """E.12: no token "0", none twice, and none at the end."""
    for key in range(5):
        await signal(node, f"@counter@{key}")
    seen, token = [], None
    for expected in (2, 2, 1):
        page = await query(node, page_size=Int32Value(value=2), include_transient=True, continuation_token=token)
        assert len(page.entities) == expected
        seen += [one.instance_id for one in page.entities]
        assert page.HasField("continuation_token") == (expected == 2)
        token = page.continuation_token if page.HasField("continuation_token") else None
    assert seen == [f"@counter@{key}" for key in range(5)]
    assert [one.backlog_queue_size for one in page.entities] == [1]


@pytest.mark.parametrize(
    ("prefix", "count"), [("", 3), ("@", 3), ("@COUNTER", 2), ("@Counter@A", 0), ("@Counter@a", 1), ("counter", 0)]
)
async def test_a_prefix_counts_without_regard_to_the_case_of_the_name(node: Node, prefix: str, count: int) -> None:
    for entity in ("@counter@a", "@counter@b", "@other@a"):
        await signal(node, entity)
    page = await query(node, instance_id_starts_with=StringValue(value=prefix), include_transient=True)
    assert len(page.entities) == count


async def test_what_has_no_state_is_shown_only_if_asked_for_and_cleaned(node: Node) -> None:
    stream = await worker(node)
    await signal(node)
    _, token = await batch(stream)
    await node.call("CompleteEntityTask", ran(token, None))
    assert not (await query(node)).entities
    assert len((await query(node, include_transient=True)).entities) == 1
    clean = pb.CleanEntityStorageRequest(remove_empty_entities=True, release_orphaned_locks=True)
    for removed in (1, 0):
        done = pb.CleanEntityStorageResponse.FromString(await node.call("CleanEntityStorage", clean))
        assert (done.empty_entities_removed, done.orphaned_locks_released) == (removed, 0)
        assert not done.HasField("continuation_token")


async def test_a_state_that_its_client_cannot_receive_hides_no_other(node: Node) -> None:
    sizes = {1: 5_000_000, 2: 3_000_000, 3: 1_500_000, 4: 1}
    changes = [
        Changes(key=key, instance=builders.entity(key, f"@a@{key}"), output="x" * size) for key, size in sizes.items()
    ]
    assert set(await node.sidecar.store.commit(changes)) == {None}
    shown, token = [], ""
    for _ in range(4):
        page = await query(node, include_state=True, continuation_token=StringValue(value=token))
        assert page.ByteSize() < 4 * 1024 * 1024
        shown += [one.serialized_state.value for one in page.entities]
        token = page.continuation_token.value
        if not token:
            break
    assert shown == [mark(sizes[1]), *("x" * sizes[key] for key in (2, 3, 4))]
