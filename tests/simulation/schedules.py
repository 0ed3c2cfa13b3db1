"""Clients that have schedules."""

import asyncio
import json
from typing import Any

from sidecar.schema import schedule_pb2 as pb
from tests.simulation.again import Again
from tests.simulation.clients import HUB
from tests.simulation.deployment import BASE_MICROS, Node
from tests.simulation.plan import SECONDS
from tests.simulation.programs import Program

_SECOND = 1_000_000
_LAST = BASE_MICROS + round((SECONDS + 10) * _SECOND)


class Schedulers(Again):
    """Clients that have schedules too."""

    def __init__(self, *deployment: Any) -> None:
        super().__init__(*deployment)
        self._schedules: dict[str, tuple[Node, pb.Schedule]] = {}

    async def do_schedule(self, node: Node, schedule_id: str, fields: dict[str, Any], steps: Program) -> None:
        """Define a schedule whose last time comes before the end of all."""
        schedule = pb.Schedule(id=schedule_id, workflow="flow", end=_LAST, **fields)
        schedule.input.value = json.dumps({"steps": steps, "value": 0})
        self._schedules[schedule_id] = (node, schedule)
        await self._define(node, schedule)

    async def _define(self, node: Node, schedule: pb.Schedule) -> None:
        work = lambda: node.middle.services.schedules.put(HUB, schedule)  # noqa: E731
        await self._insist(node, f"schedule {schedule.id}", work)

    async def do_hold(self, node: Node, schedule_id: str, seconds: float) -> None:
        """Pause a schedule and resume it later."""
        service = lambda: node.middle.services.schedules  # noqa: E731
        await self._insist(node, f"hold {schedule_id}", lambda: service().pause((HUB, schedule_id), "why"))
        await asyncio.sleep(seconds)
        await self._insist(node, f"go on {schedule_id}", lambda: service().resume((HUB, schedule_id)))

    async def do_trigger(self, node: Node, schedule_id: str) -> None:
        """Start a run, whatever the policy of the schedule, if there is one by then."""
        work = lambda: node.middle.services.schedules.trigger((HUB, schedule_id), pb.OVERLAP_ALLOW)  # noqa: E731
        await self._insist(node, f"trigger {schedule_id}", work)

    async def do_fill(self, node: Node, schedule_id: str, seconds: int) -> None:
        """Deal once more with times of the past."""
        last = BASE_MICROS
        first = last - seconds * _SECOND
        overlap = 0 if self._schedules.get(schedule_id, (node, pb.Schedule()))[1].app_id else pb.OVERLAP_QUEUE_ALL
        work = lambda: node.middle.services.schedules.backfill((HUB, schedule_id), first, last, overlap)  # noqa: E731
        await self._insist(node, f"fill {schedule_id}", work)

    async def repeat(self, node: Node) -> None:
        """See `Clients.repeat`: schedules too, and the ends of their pauses."""
        await super().repeat(node)
        for owner, schedule in list(self._schedules.values()):
            if owner is node:
                await self._define(node, schedule)
                work = lambda one=schedule.id: node.middle.services.schedules.resume((HUB, one))  # type: ignore[misc]  # noqa: E731
                await self._insist(node, f"go on {schedule.id}", work)
