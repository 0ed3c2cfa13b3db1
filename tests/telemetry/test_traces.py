"""Traces of whole sidecars, as a collector reads them: one over three apps, its shape, and where a new one begins."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar import app
from sidecar.config.settings import Settings, StartError
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, Start
from tests.inprocess.world import CONTINUED_AS_NEW, call, child, end, timer
from tests.telemetry.collector import Collector, attributes

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Events = list[pb.HistoryEvent]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    await collector.start()
    yield collector
    await collector.stop()


@pytest.fixture
def traced(start: Start, collector: Collector) -> Start:
    async def begin(app_id: str, **settings: Any) -> Node:
        return await start(app_id, **{"trace_otlp": f"{collector.address}/v1/traces"} | settings)

    return begin


async def stopped(*nodes: Node) -> None:
    """Stop sidecars, which send their last spans then."""
    await asyncio.gather(*(node.stop() for node in nodes))


def answered(events: Events, kind: str) -> bool:
    return any(event.HasField(kind) for event in events)


def orders_flow(events: Events) -> Sequence[pb.Action]:
    if not answered(events, "child_completed"):
        return [child(1, "c", app="ml")]
    return [end()]


def ml_flow(events: Events) -> Sequence[pb.Action]:
    return [end()] if answered(events, "task_completed") else [call(1, "ship", app="logistics")]


async def over_three_apps(traced: Start, context: pb.TraceContext | None) -> str:
    """Run a workflow whose child is in another app and calls an activity in a third; return what its worker got."""
    logistics = await traced("logistics")
    ml = await traced("ml", peers={"logistics": (logistics.peer_address,)})
    orders = await traced("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(orders_flow)
    ml.worker(ml_flow)
    asked = pb.GetWorkItemsRequest(dapr_capabilities=[1]).SerializeToString()
    worker = logistics.worker(activities={"ship": lambda request: '"sent"'}, asked=asked)
    request = pb.CreateInstanceRequest(instance_id="w", name="flow", parent_trace_context=context)
    await orders.call("StartInstance", request)
    await orders.outcome("w")
    await stopped(orders, ml, logistics)
    return worker.requests[0].parent_trace_context.trace_parent


@pytest.mark.parametrize("given", [True, False])
async def test_a_workflow_over_three_apps_is_one_trace(traced: Start, collector: Collector, given: bool) -> None:
    """M93, also when the client sent no context."""
    context = pb.TraceContext(trace_parent=f"00-{TRACE}-{CLIENT}-01") if given else None
    await over_three_apps(traced, context)
    names = {
        "create_orchestration||flow": "orders",
        "orchestration||flow": "orders",
        "orchestration||sub": "ml",
        "activity||ship": "logistics",
    }
    assert {span.name: app for app, span in collector.spans} == names
    assert len(collector.spans) == len(names)
    (trace,) = {span.trace_id.hex() for _, span in collector.spans}
    assert not given or trace == TRACE
    created, flow, sub, ship = (collector.one(name) for name in names)
    assert created.parent_span_id.hex() == (CLIENT if given else "")
    assert [one.parent_span_id for one in (flow, sub, ship)] == [created.span_id, flow.span_id, sub.span_id]
    assert flow.start_time_unix_nano <= sub.start_time_unix_nano <= ship.start_time_unix_nano
    assert ship.end_time_unix_nano <= sub.end_time_unix_nano <= flow.end_time_unix_nano
    assert attributes(ship) == {
        "durabletask.type": "activity",
        "durabletask.task.name": "ship",
        "durabletask.task.instance_id": "c",
        "durabletask.task.task_id": 1,
    }
    assert attributes(flow)["durabletask.runtime_status"] == "COMPLETED"


async def test_the_worker_is_given_the_span_of_its_attempt(traced: Start, collector: Collector) -> None:
    got = await over_three_apps(traced, None)
    ship = collector.one("activity||ship")
    assert got == f"00-{ship.trace_id.hex()}-{ship.span_id.hex()}-01"


async def test_a_trace_that_is_not_to_be_collected_is_not(traced: Start, collector: Collector) -> None:
    await over_three_apps(traced, pb.TraceContext(trace_parent=f"00-{TRACE}-{CLIENT}-00"))
    assert collector.spans == []


async def test_nothing_is_added_to_contexts_where_nothing_is_exported(start: Start) -> None:
    orders = await start("orders")
    worker = orders.worker(
        lambda events: [end()] if answered(events, "task_completed") else [call(1, "work")], {"work": lambda _: "1"}
    )
    await orders.begin("w")
    await orders.outcome("w")
    assert not worker.requests[0].HasField("parent_trace_context")


@pytest.mark.parametrize("given", [True, False])
async def test_each_continue_as_new_is_the_root_of_a_trace_that_is_linked(
    traced: Start, collector: Collector, given: bool
) -> None:
    """M94: an eternal workflow would make a trace without end."""
    orders = await traced("orders")
    rounds = iter([CONTINUED_AS_NEW, CONTINUED_AS_NEW, 1])

    def flow(events: Events) -> Sequence[pb.Action]:
        if not answered(events, "task_completed"):
            return [call(1, "work")]
        return [end(status=next(rounds))]

    orders.worker(flow, {"work": lambda request: "1"})
    context = pb.TraceContext(trace_parent=f"00-{TRACE}-{CLIENT}-01") if given else None
    await orders.call(
        "StartInstance", pb.CreateInstanceRequest(instance_id="w", name="flow", parent_trace_context=context)
    )
    await orders.outcome("w")
    await stopped(orders)
    runs = sorted(collector.all("orchestration||flow"), key=lambda span: span.start_time_unix_nano)
    assert len({run.trace_id for run in runs}) == len(runs) == 3
    assert [bool(run.parent_span_id) for run in runs] == [True, False, False]
    for before, run in itertools.pairwise(runs):
        (link,) = run.links
        assert (link.trace_id, link.span_id) == (before.trace_id, before.span_id)
        assert before.end_time_unix_nano <= run.start_time_unix_nano
    work = {span.trace_id: span.parent_span_id for span in collector.all("activity||work")}
    assert work == {run.trace_id: run.span_id for run in runs}


async def test_each_attempt_of_an_activity_is_a_span_and_says_how_it_failed(
    traced: Start, collector: Collector
) -> None:
    orders = await traced("orders")

    def flow(events: Events) -> Sequence[pb.Action]:
        if answered(events, "task_completed"):
            return [end()]
        return [call(2 if answered(events, "task_failed") else 1, "work")]

    def work(request: pb.ActivityRequest) -> str:
        if request.task_id == 1:
            raise ValueError("the password is 1234")
        return "1"

    orders.worker(flow, {"work": work})
    await orders.begin("w")
    await orders.outcome("w")
    await stopped(orders)
    first, second = sorted(collector.all("activity||work"), key=lambda span: span.start_time_unix_nano)
    assert first.span_id != second.span_id
    assert first.parent_span_id == second.parent_span_id == collector.one("orchestration||flow").span_id
    assert (first.status.code, first.status.message) == (2, "ValueError")
    assert second.status.code == 0
    assert "1234" not in str(collector.spans)


async def test_a_timer_is_a_span_and_what_reaches_a_workflow_is_an_event_of_its_span(
    traced: Start, collector: Collector
) -> None:
    """As in Dapr's runtime, but for reasons: they may be anything."""
    orders = await traced("orders")

    def flow(events: Events) -> Sequence[pb.Action]:
        if answered(events, "event_raised") and answered(events, "timer_fired"):
            return [end()]
        return [] if answered(events, "timer_created") else [timer(1, time.time_ns() // 1_000)]

    orders.worker(flow)
    await orders.begin("w")
    await orders.call("SuspendInstance", pb.ReasonRequest(instance_id="w", reason=StringValue(value="secret")))
    await orders.call("ResumeInstance", pb.ReasonRequest(instance_id="w"))
    await orders.call("RaiseEvent", pb.RaiseEventRequest(instance_id="w", name="paid", input=StringValue(value="1234")))
    await orders.outcome("w")
    await stopped(orders)
    fired, run = collector.one("timer"), collector.one("orchestration||flow")
    assert (fired.trace_id, fired.parent_span_id, fired.kind) == (run.trace_id, run.span_id, 1)
    assert attributes(fired).keys() >= {"durabletask.fire_at", "durabletask.task.task_id", "durabletask.type"}
    assert fired.start_time_unix_nano <= fired.end_time_unix_nano <= run.end_time_unix_nano
    happened = {event.name: attributes(event) for event in run.events}
    assert happened == {
        "Execution suspended": {},
        "Execution resumed": {},
        "Received external event": {"name": "paid", "size": 4},
    }
    assert "secret" not in str(collector.spans)


async def test_zipkin_gets_the_same_spans(start: Start, collector: Collector) -> None:
    orders = await start("orders", trace_zipkin=f"{collector.address}/api/v2/spans")
    orders.worker(
        lambda events: [end()] if answered(events, "task_completed") else [call(1, "work")], {"work": lambda _: "1"}
    )
    await orders.begin("w")
    await orders.outcome("w")
    await stopped(orders)
    spans = {span["name"]: span for span in collector.zipkin}
    assert spans.keys() == {"create_orchestration||flow", "orchestration||flow", "activity||work"}
    created, flow, work = (
        spans[name] for name in ("create_orchestration||flow", "orchestration||flow", "activity||work")
    )
    assert "parentId" not in created
    assert (flow["parentId"], work["parentId"]) == (created["id"], flow["id"])
    assert {span["traceId"] for span in spans.values()} == {created["traceId"]}
    assert (work["kind"], work["localEndpoint"]) == ("SERVER", {"serviceName": "orders"})
    assert flow["timestamp"] <= work["timestamp"]
    assert work["duration"] >= 1
    assert work["tags"]["durabletask.task.task_id"] == "1"


async def test_a_collector_is_reached_over_grpc_too(start: Start, collector: Collector) -> None:
    orders = await start("orders", trace_otlp=collector.grpc_address)
    orders.worker(lambda events: [end()])
    await orders.begin("w")
    await orders.outcome("w")
    await stopped(orders)
    assert collector.one("orchestration||flow").parent_span_id == collector.one("create_orchestration||flow").span_id


async def test_a_collector_that_is_not_there_holds_nothing_up(start: Start) -> None:
    orders = await start("orders", trace_otlp="http://127.0.0.1:1/v1/traces", trace_zipkin="http://127.0.0.1:1/spans")
    orders.worker(lambda events: [end()])
    await orders.begin("w")
    await orders.outcome("w")
    async with asyncio.timeout(15):
        await stopped(orders)


async def test_without_the_extra_a_sidecar_that_is_to_export_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sidecar.telemetry.exporting", None)
    with pytest.raises(StartError, match=r"pip install 'multiapp-workflow-sidecar\[otel\]'"):
        await app.create(Settings(app_id="orders", data_dir=tmp_path, trace_otlp="http://127.0.0.1:1/v1/traces"))
    await (await app.create(Settings(app_id="orders", data_dir=tmp_path))).store.close()
