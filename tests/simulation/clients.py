"""What clients do in a deployment, and what they may expect of it afterwards."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core import events
from sidecar.core.model import Instance, Outcome, Reply, Status
from sidecar.core.operations import Start
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.purge import Purge
from sidecar.store.protocol import Order, UnavailableError
from tests.simulation import entities, programs
from tests.simulation.deployment import Node
from tests.simulation.many import Many
from tests.simulation.programs import Program, Violation

_CALL_SECONDS = 30.0
_PURGE_SECONDS = 20.0
_TRIES = 15  # looks for a child that runs
_REACH_SECONDS = 3.0  # within which a pause has reached all children, where nothing goes wrong
HUB = "default"
Work = Callable[[], Coroutine[Any, Any, Any]]


@dataclass
class Wanted:
    """What a workflow that was accepted must come to. `mended`: what is weak in it holds from some moment on."""

    app: str
    steps: Program
    terminated: bool = False
    purged: bool = False
    mended: bool = False
    removed_first: bool = False  # perhaps before it was mended: then it has failed, and nothing let it run again
    runs: int = 1  # how often it may have been run
    partly: bool = False  # whether it begins somewhere in its program


class DownError(Exception):
    """The sidecar is not there, or was not there any more when the answer came: the outcome is unknown."""


class Clients:
    """All clients of a deployment. `wanted` has the workflows that were accepted.

    `help_` sees to it that what is stalled there can run.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        rng: random.Random,
        note: Callable[[str, str], None],
        help_: Callable[[Node], None],
    ) -> None:
        self.wanted: dict[str, Wanted] = {}
        self._starts: dict[str, tuple[Node, Start]] = {}
        self.struck: set[str] = set()  # tags of the children that a client ended
        self._torn: set[str] = set()  # instances of whose trees a part was removed without what is below it
        self.outcomes: set[tuple[Any, ...]] = set()
        self.many = Many(self._insist, rng)
        self.pauses_reach = False  # children too, and nothing is in the way
        self._accepted: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._nodes = nodes
        self._rng = rng
        self._note = note
        self._help = help_

    async def _ask(self, node: Node, what: str, work: Work) -> Any:
        """Call a sidecar as a client does. Raises DownError when the outcome is unknown."""
        if not node.up:
            raise DownError
        task = node.run(work(), what)
        await asyncio.wait([task], timeout=_CALL_SECONDS)
        if not task.done():
            task.cancel()
        if not task.done() or task.cancelled():
            raise DownError
        if isinstance(task.exception(), UnavailableError):
            raise DownError
        answer = task.result()
        reply = _reply_in(answer)
        outcome = type(answer).__name__ if reply is None else reply.outcome.name
        self.outcomes.add((what.split(maxsplit=1)[0], outcome))
        self._note("client", f"{what} at {node.name}: {outcome}")
        return answer

    async def _insist(self, node: Node, what: str, work: Work) -> Any:
        """Call until there is an answer: every app that it takes is there by then, and the workflow is not stalled."""
        while True:
            try:
                answer = await self._ask(node, what, work)
            except DownError:
                await asyncio.sleep(self._rng.uniform(0.1, 2.0))
                continue
            reply = _reply_in(answer)
            if reply is None or not (reply.outcome is Outcome.UNAVAILABLE or "is stalled" in reply.text):
                return answer
            await asyncio.sleep(self._rng.uniform(0.5, 3.0))
            if reply.outcome is not Outcome.UNAVAILABLE:
                self._help(node)

    async def do_list(self, node: Node, order: Order, limit: int) -> None:
        await self.many.list(node, order, limit)

    async def do_sweep(self, node: Node, statuses: frozenset[Status], prefix: str, recursive: bool) -> None:
        await self.many.sweep(node, statuses, prefix, recursive)

    async def do_start(self, node: Node, instance_id: str, steps: Program, delay: float) -> None:
        given = json.dumps({"steps": steps, "value": 0})
        started = pb.ExecutionStarted(name="flow", input=events.text(given))
        execution = f"{instance_id}-{self._rng.getrandbits(32):08x}"
        started.instance.instance_id = instance_id
        scheduled = node.clock.now() + int(delay * 1e6) if delay else None
        wish = Start(Identity(HUB, instance_id, execution), started, scheduled)
        reply = await self._insist(node, f"start {instance_id}", lambda: node.middle.services.clients.start(wish))
        if reply.outcome is not Outcome.INVALID and instance_id not in self.wanted:
            self.wanted[instance_id], self._starts[instance_id] = Wanted(node.name, steps), (node, wish)
            self._accepted[instance_id].set()

    async def repeat(self, node: Node) -> None:
        """Ask again for what was accepted of a store that has lost time since: starts, and ends of pauses."""
        for instance_id, (owner, wish) in list(self._starts.items()):
            if owner is node and not self.wanted[instance_id].purged:
                again = lambda wish=wish: node.middle.services.clients.start(wish)  # type: ignore[misc]  # noqa: E731
                await self._insist(node, f"start {instance_id}", again)
                await self._resume(node, instance_id)

    async def do_again(self, node: Node, instance_id: str, steps: Program, delay: float) -> None:
        """Use an ID again: only if the first instance has ended."""
        wanted = self.wanted.get(instance_id)
        if wanted is not None and not programs.waits(steps):
            wanted.runs += 1
            await self.do_start(node, instance_id, steps, delay)

    async def _started(self, instance_id: str) -> Wanted:
        await self._accepted[instance_id].wait()
        return self.wanted[instance_id]

    async def do_raise(self, node: Node, instance_id: str, name: str, value: int) -> None:
        await self._started(instance_id)
        data = events.text(str(value))
        await self._insist(
            node,
            f"raise {instance_id}",
            lambda: node.middle.services.clients.raise_event((HUB, instance_id), name, data),
        )

    async def _suspend(self, node: Node, instance_id: str) -> None:
        work = lambda: node.middle.services.clients.suspend((HUB, instance_id), "")  # noqa: E731
        await self._insist(node, f"suspend {instance_id}", work)

    async def _resume(self, node: Node, instance_id: str) -> None:
        work = lambda: node.middle.services.clients.resume((HUB, instance_id), "")  # noqa: E731
        await self._insist(node, f"resume {instance_id}", work)

    async def do_pause(self, node: Node, instance_id: str, seconds: float) -> None:
        """Suspend an instance and resume it later."""
        await self._started(instance_id)
        await self._suspend(node, instance_id)
        await asyncio.sleep(seconds)
        if self.pauses_reach and seconds > _REACH_SECONDS:
            self._check_paused(node, instance_id)
        await self._resume(node, instance_id)

    def _check_paused(self, node: Node, instance_id: str) -> None:
        """See that no child of an instance that is paused runs, nor a child of a child."""
        paused = any(one.id == instance_id and one.suspended for one in node.disk.instances(instance_id))
        running = [
            one.id for owner in self._nodes.values() for one in _running(owner, instance_id) if not one.suspended
        ]
        if paused and running:
            raise Violation(f"{instance_id} is paused, and {running} are not")

    async def do_burst(self, node: Node, instance_id: str, commands: Sequence[tuple[float, str]]) -> None:
        """Turn to one instance from several sides at about the same time; in the end it is not suspended."""
        await self._started(instance_id)
        await asyncio.gather(*(self._command(node, instance_id, *command) for command in commands))
        await self._resume(node, instance_id)

    async def _command(self, node: Node, instance_id: str, delay: float, what: str) -> None:
        await asyncio.sleep(delay)
        if what == "raise":
            await self.do_raise(node, instance_id, "noise", 0)
        elif what == "terminate":
            await self.do_terminate(node, instance_id, recurse=True)
        elif what == "suspend":
            await self._suspend(node, instance_id)
        else:
            await self._resume(node, instance_id)

    async def _look(self, node: Node, instance_id: str) -> Instance | None:
        found: Instance | None = await self._insist(
            node, f"get {instance_id}", lambda: node.middle.services.clients.instance((HUB, instance_id))
        )
        return found

    async def do_get(self, node: Node, instance_id: str) -> None:
        await self._look(node, instance_id)

    async def do_shed(self, node: Node) -> None:
        """Purge an entity: its callers are told."""
        work = lambda: node.middle.services.entities.purge((HUB, entities.SHED))  # noqa: E731
        await self._insist(node, "shed", work)

    async def do_terminate(self, node: Node, instance_id: str, recurse: bool) -> None:
        wanted = await self._started(instance_id)
        wanted.terminated = True
        work = lambda: node.middle.services.clients.terminate((HUB, instance_id), "over", recurse)  # noqa: E731
        await self._insist(node, f"terminate {instance_id}", work)

    async def do_purge(self, node: Node, instance_id: str) -> None:
        """Remove an instance with all that is below it: then nothing of that is left, in any app."""
        wanted = await self._started(instance_id)
        wanted.purged = True
        work = lambda: _purge(node, instance_id, recursive=True, force=False)  # noqa: E731
        reply, count = await self._insist(node, f"purge {instance_id}", work)
        wanted.purged = reply.outcome is not Outcome.WRONG_STATE
        if reply.outcome is Outcome.DONE:
            self._note("client", f"purge {instance_id} has removed {count}")
            self._check_purged(node, instance_id, wanted)

    def _check_purged(self, node: Node, instance_id: str, wanted: Wanted) -> None:
        """See that nothing is left below a tree that was removed, unless something else had taken a part out of it."""
        swept = any(self.many.swept(one, instance_id) for one in self._nodes.values())
        lost = any(one.lost_time for one in self._nodes.values())
        if wanted.runs > 1 or swept or node.retention or instance_id in self._torn or lost:
            return
        below = ((one.name, child) for one in self._nodes.values() for child in one.disk.instances(f"{instance_id}:"))
        # A detached workflow is nobody's child, and stays.
        left = [f"{child.id} in {name}" for name, child in below if ":d" not in child.id]
        if left:
            raise Violation(f"{node.name}: {instance_id} was purged with all that is below it, and {left} are left")

    async def do_strike(self, node: Node, instance_id: str, how: str, share: float) -> None:
        """End a child by itself, if there is one that runs: its parent has to be told."""
        await self._started(instance_id)
        for _ in range(_TRIES):
            found = [(owner, child) for owner in self._nodes.values() for child in _children(owner, instance_id)]
            if found:
                self._torn |= {instance_id} if how == "purge alone" else set()
                await self._strike(*found[int(share * len(found))], how)
                return
            await asyncio.sleep(0.2)

    async def _strike(self, owner: Node, child: tuple[str, str], how: str) -> None:
        child_id, tag = child
        self.struck.add(tag)
        recurse = not how.endswith("alone")
        if how.startswith("terminate"):
            work: Work = lambda: owner.middle.services.clients.terminate((HUB, child_id), "over", recurse)  # noqa: E731
        else:
            work = lambda: _purge(owner, child_id, recursive=recurse, force=True)  # noqa: E731
        await self._insist(owner, f"{how} {child_id}", work)


def _running(owner: Node, instance_id: str) -> list[Instance]:
    """Return the children below an instance that an app has and that have not ended."""
    found = owner.disk.instances(f"{instance_id}:")
    return [one for one in found if not one.status.terminal and programs.tag_of(one.id) is not None]


def _reply_in(answer: Any) -> Reply | None:
    """Return what an answer says of the outcome; some have more in them."""
    first = answer[0] if isinstance(answer, tuple) and not isinstance(answer, Reply) else answer
    return first if isinstance(first, Reply) else None


def _purge(node: Node, instance_id: str, *, recursive: bool, force: bool) -> Coroutine[Any, Any, tuple[Reply, int]]:
    until = node.clock.monotonic() + _PURGE_SECONDS
    return node.middle.services.purging.purge((HUB, instance_id), Purge(recursive, force, until=until))


def _children(owner: Node, instance_id: str) -> list[tuple[str, str]]:
    """Return the running children below an instance that an app has, with their tags."""
    return [(one.id, programs.tag_of(one.id) or "") for one in _running(owner, instance_id)]
