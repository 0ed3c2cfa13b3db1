"""Schedules whose workflows run in another app: over a real link, under that app's policy."""

import asyncio
from typing import Any

from sidecar.schema import schedule_pb2
from tests.inprocess.sidecars import Node, Start, get
from tests.inprocess.world import end
from tests.telemetry.scrape import until_scraped

HOUR = 3_600_000_000
DENIES = "allow:\n  - caller: orders\n    workflow: allowed\n    operations: [schedule, get]\n"


async def trigger(orders: Node, schedule_id: str, **fields: Any) -> str:
    """Define a schedule and start a run of it; the ID of the run."""
    schedules = orders.sidecar.services.schedules
    wanted = schedule_pb2.Schedule(id=schedule_id, every=HOUR, **fields)
    await schedules.put("default", wanted)
    return (await schedules.trigger(("default", schedule_id), 0)).instance_id


async def arrived(node: Node, run: str) -> None:
    """Return when an app has a run."""
    async with asyncio.timeout(30):
        while not (await get(node, run)).exists:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_run_in_another_app_is_that_apps_and_takes_what_it_was_given(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    ml.worker(lambda events: [end(events[1].execution_started.input.value)])
    fields = {"workflow": "flow", "app_id": "ml", "tags": {"team": "blue"}}
    run = await trigger(orders, "far", input={"value": '"in"'}, **fields)
    await arrived(ml, run)
    state = await ml.outcome(run, 20)
    assert (state.output.value, dict(state.tags)) == ('"in"', {"team": "blue"})
    assert not (await get(orders, run)).exists


async def test_a_schedule_obeys_the_policy_of_the_app_that_is_to_run_it(start: Start) -> None:
    ml = await start("ml", policy=DENIES)
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    denied = await trigger(orders, "denied", workflow="secret", app_id="ml")
    allowed = await trigger(orders, "allowed", workflow="allowed", app_id="ml")
    await arrived(ml, allowed)
    await until_scraped(orders, "sidecar_outbox_messages", 0, app="ml")
    assert not (await get(ml, denied)).exists


async def test_a_run_for_an_app_that_is_away_starts_when_it_comes(start: Start) -> None:
    ml = await start("ml")
    address = ml.peer_address
    await ml.stop()
    orders = await start("orders", peers={"ml": (address,)})
    run = await trigger(orders, "far", workflow="flow", app_id="ml")
    await until_scraped(orders, "sidecar_outbox_messages", 1, app="ml")
    back = await start("ml", peer_port=int(address.rpartition(":")[2]))
    await arrived(back, run)
