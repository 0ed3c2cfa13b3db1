"""`/metrics` of whole sidecars: what two apps show of a workflow over both, who may ask, that nothing is left out."""

from sidecar.config.parsers import Secret
from sidecar.schema import schedule_pb2
from sidecar.telemetry import catalog
from tests.edge.http.test_surface import ask
from tests.inprocess.sidecars import Start
from tests.inprocess.world import call, end
from tests.telemetry.scrape import scraped, until_scraped, value

RUNTIME = "dapr_runtime_workflow_"


def flow(events):  # type: ignore[no-untyped-def]
    return [end()] if any(event.HasField("task_completed") for event in events) else [call(1, "score", app="ml")]


async def test_both_apps_show_their_part_of_a_workflow(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(flow)
    ml.worker(activities={"score": lambda request: '"9"'})
    await orders.begin("w")
    await orders.outcome("w")
    here, there = await scraped(orders), await scraped(ml)
    assert value(here, RUNTIME + "operation_count", operation="create_workflow", status="success") == 1
    assert value(here, RUNTIME + "execution_count", workflow_name="flow", status="success") == 1
    assert value(there, RUNTIME + "activity_execution_count", activity_name="score", status="success") == 1
    assert value(here, "sidecar_peer_connected", app="ml") == 1
    assert value(here, "sidecar_outbox_messages", app="ml") == 0
    assert value(here, "sidecar_store_commit_seconds_count") >= 3
    assert value(here, "sidecar_store_commit_changes_sum") >= 3
    assert value(here, "sidecar_call_seconds_count", method="StartInstance", status="OK") == 1
    assert value(here, "sidecar_store_bytes", part="database") > 0
    assert value(here, "sidecar_workers") == value(here, "sidecar_ready") == value(here, "sidecar_store_works") == 1
    assert value(here, "process_resident_memory_bytes") > 0


async def test_what_waits_for_an_app_that_is_away_is_shown(start: Start) -> None:
    orders = await start("orders", peers={"ml": ("127.0.0.1:1",)})
    orders.worker(flow)
    await orders.begin("w")
    shown = await until_scraped(orders, "sidecar_outbox_messages", 1, app="ml")
    assert value(shown, "sidecar_peer_connected", app="ml") == 0
    assert 0 <= value(shown, "sidecar_outbox_oldest_seconds", app="ml") < 60


async def test_a_call_that_is_refused_counts_as_failed(start: Start) -> None:
    orders = await start("orders")
    await orders.refusal("RaiseEvent", b"\xff")
    shown = await scraped(orders)
    assert value(shown, RUNTIME + "operation_count", operation="add_event", status="failed") == 1
    assert value(shown, "sidecar_call_seconds_count", method="RaiseEvent", status="INVALID_ARGUMENT") == 1


async def test_a_call_counts_by_whichever_way_it_comes(start: Start) -> None:
    orders = await start("orders")
    await ask(orders.ports.http, "/v1.0/workflows/dapr/flow/start?instanceID=w", method="POST")
    await ask(orders.ports.http, "/v1.0/workflows/dapr/w")
    shown = await scraped(orders)
    for operation in ("create_workflow", "get_workflow"):
        assert value(shown, RUNTIME + "operation_count", operation=operation, status="success") == 1, operation


async def test_what_becomes_of_the_times_of_a_schedule_is_counted(start: Start) -> None:
    orders = await start("orders")
    schedules = orders.sidecar.services.schedules
    await schedules.put("default", schedule_pb2.Schedule(id="hourly", every=3_600_000_000, workflow="flow"))
    for _ in range(2):
        await schedules.trigger(("default", "hourly"), 0)
    shown = await scraped(orders)
    for outcome in ("started", "skipped"):
        assert value(shown, "sidecar_schedule_times_total", schedule="hourly", outcome=outcome) == 1


async def test_the_lag_of_the_event_loop_is_measured_while_it_serves(start: Start) -> None:
    orders = await start("orders")
    for _ in range(100):
        if value(await scraped(orders), "sidecar_event_loop_lag_seconds_count") > 0:
            return
    raise AssertionError("nothing was measured")


async def test_every_metric_is_shown_under_the_name_that_the_reference_has(start: Start) -> None:
    orders = await start("orders")
    text = (await ask(orders.ports.http, "/metrics")).body.decode()
    missing = [metric.name for metric in catalog.ALL if f"# TYPE {metric.name} " not in text]
    assert not missing


async def test_metrics_are_guarded_as_metadata_is(start: Start) -> None:
    orders = await start("orders", api_token=Secret("open sesame"))
    refused = await ask(orders.ports.http, "/metrics")
    assert (refused.status, refused.json()["errorCode"]) == (401, "ERR_UNAUTHENTICATED")
    given = await ask(orders.ports.http, "/metrics", headers="Authorization: Bearer open sesame\r\n")
    assert (given.status, given.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
