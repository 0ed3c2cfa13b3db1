"""Clients that let run again what has ended: rewind, restart, rerun from an event."""

import asyncio
import json
from typing import Any

from sidecar.core import events
from sidecar.core.model import Instance, Outcome, Status
from sidecar.core.workflow.rerun import RerunRequest
from tests.simulation import programs
from tests.simulation.clients import HUB, Clients, Wanted
from tests.simulation.deployment import Node
from tests.simulation.programs import Violation

_TARGETS = ("task_scheduled", "timer_created", "child_created")
_PATIENCE = 400  # looks at an instance that should end


class Again(Clients):
    """Clients that do this too. `mended` has the instances whose activities do not fail any more."""

    def __init__(self, *deployment: Any) -> None:
        super().__init__(*deployment)
        self.mended: set[str] = set()
        self.disarmed: set[str] = set()
        self.given_up = False  # whether somebody saw to a turn before it was parked

    async def _ended(self, node: Node, instance_id: str) -> Instance | None:
        """Wait until an instance has ended, if it does that in time."""
        await self._started(instance_id)
        for _ in range(_PATIENCE):
            found = await self._look(node, instance_id)
            if found is not None and found.status.terminal:
                return found
            await asyncio.sleep(1.0)
        return None

    async def do_mend(self, node: Node, instance_id: str) -> None:
        """Mend what lets a workflow fail, and rewind it."""
        found = await self._ended(node, instance_id)
        if found is None or found.status is not Status.FAILED:
            return
        self.mended.add(instance_id)
        self.wanted[instance_id].mended = True
        ask = lambda: node.middle.services.administration.rewind((HUB, instance_id), events.text("mended"))  # noqa: E731
        reply = await self._insist(node, f"rewind {instance_id}", ask)
        self.wanted[instance_id].removed_first |= reply.outcome is Outcome.MISSING
        # In the wrong state it is when an earlier try, that was not answered, has rewound it.
        if reply.outcome not in (Outcome.DONE, Outcome.WRONG_STATE, Outcome.MISSING):
            raise Violation(f"{instance_id} is not rewound: {reply}")

    async def do_disarm(self, node: Node, instance_id: str) -> None:
        """See to a turn that costs its workers once it is parked, and resume it."""
        await self._started(instance_id)
        for _ in range(_PATIENCE):
            found = await self._look(node, instance_id)
            if found is None or found.status.terminal or found.crashes.quarantined:
                break
            if found.status is Status.STALLED:
                self._help(node)
            await asyncio.sleep(1.0)
        self.given_up = found is not None and not found.status.terminal and not found.crashes.quarantined
        self.disarmed.add(instance_id)
        while found is not None and found.crashes.quarantined:
            await self._resume(node, instance_id)
            await asyncio.sleep(1.0)
            found = await self._look(node, instance_id)

    async def do_restart(self, node: Node, instance_id: str) -> None:
        """Run the same once more under the same ID."""
        if await self._ended(node, instance_id) is None:
            return
        self.wanted[instance_id].runs += 1
        ask = lambda: node.middle.services.administration.restart((HUB, instance_id), None)  # noqa: E731
        await self._insist(node, f"restart {instance_id}", ask)

    async def do_rerun(self, node: Node, instance_id: str) -> None:
        """Make another instance from the past of one that has ended, up to one of its events."""
        found = await self._ended(node, instance_id)
        log: list[bytes] | None = None
        if found is not None:
            history = lambda: node.middle.services.clients.history((HUB, instance_id))  # noqa: E731
            log = await self._insist(node, f"history {instance_id}", history)
        past = [events.decode(event) for event in log or ()]
        numbers = [event.event_id for event in past if event.WhichOneof("kind") in _TARGETS]
        if not numbers:
            return
        number, new_id = self._rng.choice(numbers), f"{instance_id}r"
        request = RerunRequest(number)
        reply = await self._insist(
            node,
            f"rerun {instance_id} from {number}",
            lambda: node.middle.services.administration.rerun((HUB, instance_id), new_id, request),
        )
        if reply.outcome in (Outcome.DONE, Outcome.EXISTS):
            begun = next(event.execution_started for event in past if event.HasField("execution_started"))
            given = json.loads(begun.input.value)
            self.wanted[new_id] = Wanted(node.name, programs.worth(given["steps"], given["value"]), partly=True)
