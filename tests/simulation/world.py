"""Runs a plan: clients, faults, and in the end the question whether everything came out as it must."""

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from sidecar.core import events
from sidecar.core.model import Instance, Outcome, Reply, Status
from sidecar.core.operations import Identity, Start
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import Order, UnavailableError
from tests.simulation import entities, invariants, programs
from tests.simulation import loop as loops
from tests.simulation.again import Again, Wanted
from tests.simulation.deployment import Node, track_tasks
from tests.simulation.many import Many
from tests.simulation.network import Network
from tests.simulation.plan import SECONDS, Operation, Plan
from tests.simulation.programs import Program, Violation
from tests.simulation.workers import Manners, Seen, SimWorker

_CALL_SECONDS = 30.0
_REST_SECONDS = 4000.0
HUB = "default"


@dataclass
class Result:
    """What came of a plan."""

    plan: Plan
    trace: list[str] = field(default_factory=list)
    violation: str = ""
    workflows: int = 0
    seconds: float = 0.0
    signatures: set[tuple[Any, ...]] = field(default_factory=set)


class DownError(Exception):
    """The sidecar is not there, or was not there any more when the answer came: the outcome is unknown."""


class World(Again):
    """One deployment from its first moment to its rest."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed * 7919 + 1)
        self.trace: list[str] = []
        self.network = Network(self.rng, lambda text: self.note("network", text))
        retention = {} if plan.kept is None else {"completed": plan.kept}
        self.nodes = {
            app: Node(app, [one for one in plan.apps if one != app], self.network, self.note, retention)
            for app in plan.apps
        }
        self.many = Many(self._insist, self.rng)
        self.wanted: dict[str, Wanted] = {}
        self.seen: Seen = {}
        self.mended: set[str] = set()
        self.detached: dict[str, tuple[str, Program]] = {}
        self.rewinds = {app: self.rng.random() < 0.5 for app in plan.apps}  # whose workers write new histories
        self.manners = Manners()
        self.workers: dict[str, list[SimWorker]] = {app: [] for app in plan.apps}
        self.numbers = 0
        self.healed = False
        self.outcomes: set[tuple[Any, ...]] = set()

    def note(self, actor: str, text: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{asyncio.get_running_loop().time():11.4f}  {actor:8} {text}")

    # ------------------------------------------------------------ running

    async def run(self) -> Result:
        """Run the plan, heal everything, wait for rest, check."""
        track_tasks(asyncio.get_running_loop())
        if not self.plan.calm:
            self._misbehave()
        for node in self.nodes.values():
            node.on_up = lambda node=node: self._staff(node)  # type: ignore[misc]
            node.start()
        clients = [asyncio.create_task(self._do(operation)) for operation in self.plan.possible()]
        violation = ""
        try:
            await self._rest(clients)
            await self._expire()
            self._check_end()
        except Violation as found:
            violation = str(found)
            self.note("END", f"VIOLATION {violation}")
        violation = self._first_violation() or violation
        signatures = self.outcomes.union(*(node.signatures for node in self.nodes.values()))
        seconds = asyncio.get_running_loop().time()
        return Result(self.plan, self.trace, violation, len(self.wanted), seconds, signatures)

    def _misbehave(self) -> None:
        chance = self.rng.choice([0.0, 0.01, 0.05])
        self.manners = Manners(slow=chance, die=chance, twice=2 * chance, wrong=chance, silent=chance)
        self.network.faults.twice = self.rng.choice([0.0, 0.02])

    def _first_violation(self) -> str:
        found = [violation for node in self.nodes.values() for violation in node.violations]
        errors = asyncio.get_running_loop().errors  # type: ignore[attr-defined]
        bad = [error for error in errors if not isinstance(error.get("exception"), asyncio.CancelledError)]
        if bad:
            return f"an exception nobody handled: {bad[0].get('exception')!r} {bad[0].get('message')}"
        return str(found[0]) if found else ""

    def _staff(self, node: Node) -> None:
        """Connect workers to a sidecar that has just come up."""
        self.workers[node.name] = []
        for _ in range(self.rng.randint(1, 2)):
            self._hire(node)

    def _hire(self, node: Node, *, full: bool = False) -> None:
        self.numbers += 1
        worker = SimWorker(node, self.numbers, self.manners, self.seen, full=full or self.plan.calm)
        worker.mended, worker.detached, worker.may_rewind = self.mended, self.detached, self.rewinds[node.name]
        worker.join()
        self.workers[node.name].append(worker)

    async def _rest(self, clients: list["asyncio.Task[None]"]) -> None:
        """Let the plan happen, keep workers coming, heal, and wait until nothing moves any more."""
        clock = asyncio.get_running_loop()
        while clock.time() < SECONDS + 30 or not all(client.done() for client in clients):
            await asyncio.sleep(2.0)
            self._keep_staffed()
            self._raise_violations()
            if clock.time() > _REST_SECONDS:
                raise Violation("clients wait for ever")
        for client in clients:
            client.result()
        self._heal()
        end = clock.time() + _REST_SECONDS
        while not self._at_rest():
            if clock.time() > end:
                return
            await asyncio.sleep(5.0)
            self._keep_staffed()
            self._raise_violations()

    async def _expire(self) -> None:
        """Wait until what has completed is to be gone, if it is not kept for ever."""
        if self.plan.kept is None:
            return
        await asyncio.sleep(self.plan.kept + 5.0)
        for node in self.nodes.values():
            left = [one.id for one in node.data.instances.values() if one.status is Status.COMPLETED]
            if left:
                raise Violation(f"{node.name}: {left[:5]} completed and are kept for too long")

    def _raise_violations(self) -> None:
        for node in self.nodes.values():
            if node.violations:
                raise node.violations[0]

    def _keep_staffed(self) -> None:
        for node in self.nodes.values():
            if node.up and not any(worker.joined and (worker.full or not self.healed) for worker in self._of(node)):
                self._hire(node, full=self.healed)

    def _of(self, node: Node) -> list[SimWorker]:
        return self.workers[node.name]

    def _heal(self) -> None:
        """End all faults: from here on everything must finish, once a worker with every version is there."""
        self.healed = True
        self.note("world", "heals")
        self.network.faults.cut.clear()
        self.network.faults.twice = 0.0
        self.manners.__dict__.update(Manners().__dict__)
        for node in self.nodes.values():
            node.clock.jump = 0.0
            if not node.up:
                node.start()
            node.store.trouble = type(node.store.trouble)()
            node.store.die_at = None
            for worker in list(self.workers[node.name]):
                worker.leave()

    def _at_rest(self) -> bool:
        if not all(node.up for node in self.nodes.values()):
            return False
        for node in self.nodes.values():
            if node.data.reminders or any(self._is_busy(node, one) for one in node.data.instances.values()):
                return False
        return True

    def _is_busy(self, node: Node, instance: Instance) -> bool:
        return bool(node.data.log.get(instance.key)) if instance.entity else not instance.status.terminal

    # ------------------------------------------------------------ clients

    async def _do(self, operation: Operation) -> None:
        await asyncio.sleep(operation.at)
        node = self.nodes[operation.app]
        handler = getattr(self, "_do_" + operation.kind.replace(" ", "_"))
        await handler(node, *operation.details)

    async def _ask(self, node: Node, what: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
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
        outcome = answer.outcome.name if isinstance(answer, Reply) else type(answer).__name__
        self.outcomes.add((what.split(maxsplit=1)[0], outcome))
        self.note("client", f"{what} at {node.name}: {outcome}")
        return answer

    async def _insist(self, node: Node, what: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Call until there is an answer."""
        while True:
            try:
                answer = await self._ask(node, what, work)
            except DownError:
                await asyncio.sleep(self.rng.uniform(0.1, 2.0))
                continue
            if not (isinstance(answer, Reply) and "is stalled" in answer.text):
                return answer
            await asyncio.sleep(self.rng.uniform(0.5, 3.0))
            self._help(node)

    def _help(self, node: Node) -> None:
        """Somebody who is told that a workflow is stalled sees to it, after a while, that it can run."""
        if node.up and self.rng.random() < 0.2:
            self._hire(node, full=True)

    async def _do_start(self, node: Node, instance_id: str, steps: Program, delay: float) -> None:
        given = json.dumps({"steps": steps, "value": 0})
        started = pb.ExecutionStarted(name="flow", input=events.text(given))
        execution = f"{instance_id}-{self.rng.getrandbits(32):08x}"
        started.instance.instance_id = instance_id
        scheduled = node.clock.now() + int(delay * 1e6) if delay else None
        wish = Start(Identity(HUB, instance_id, execution), started, scheduled)
        reply = await self._insist(node, f"start {instance_id}", lambda: node.middle.service.start(wish))
        if reply.outcome is not Outcome.INVALID and instance_id not in self.wanted:
            self.wanted[instance_id] = Wanted(node.name, steps)

    async def _do_again(self, node: Node, instance_id: str, steps: Program, delay: float) -> None:
        """Use an ID again: only if the first instance has ended."""
        wanted = self.wanted.get(instance_id)
        if wanted is not None and not programs.waits(steps):
            wanted.runs += 1
            await self._do_start(node, instance_id, steps, delay)

    async def _started(self, instance_id: str) -> Wanted:
        while instance_id not in self.wanted:  # noqa: ASYNC110 (simulated time costs nothing)
            await asyncio.sleep(0.5)
        return self.wanted[instance_id]

    async def _do_raise(self, node: Node, instance_id: str, name: str, value: int) -> None:
        await self._started(instance_id)
        data = events.text(str(value))
        await self._insist(
            node, f"raise {instance_id}", lambda: node.middle.service.raise_event((HUB, instance_id), name, data)
        )

    async def _do_pause(self, node: Node, instance_id: str, seconds: float) -> None:
        """Suspend an instance and resume it later."""
        await self._started(instance_id)
        address = (HUB, instance_id)
        await self._insist(node, f"suspend {instance_id}", lambda: node.middle.service.suspend(address, ""))
        await asyncio.sleep(seconds)
        await self._insist(node, f"resume {instance_id}", lambda: node.middle.service.resume(address, ""))

    async def _look(self, node: Node, instance_id: str) -> Instance | None:
        found: Instance | None = await self._insist(
            node, f"get {instance_id}", lambda: node.middle.service.instance((HUB, instance_id))
        )
        return found

    async def _do_get(self, node: Node, instance_id: str) -> None:
        await self._look(node, instance_id)

    async def _do_terminate(self, node: Node, instance_id: str, recurse: bool) -> None:
        wanted = await self._started(instance_id)
        wanted.terminated = True
        work = lambda: node.middle.service.terminate((HUB, instance_id), "over", recurse)  # noqa: E731
        await self._insist(node, f"terminate {instance_id}", work)

    async def _do_purge(self, node: Node, instance_id: str) -> None:
        wanted = await self._started(instance_id)
        wanted.purged = True
        work = lambda: node.middle.service.purge((HUB, instance_id), True, False)  # noqa: E731
        reply, _ = await self._insist(node, f"purge {instance_id}", work)
        wanted.purged = reply.outcome is not Outcome.WRONG_STATE

    async def _do_list(self, node: Node, order: Order, limit: int) -> None:
        await self.many.list(node, order, limit)

    async def _do_sweep(self, node: Node, statuses: frozenset[Status], prefix: str, recursive: bool) -> None:
        await self.many.sweep(node, statuses, prefix, recursive)

    # ------------------------------------------------------------ faults

    async def _do_crash(self, node: Node, lasting: float) -> None:
        node.crash()
        await self._come_back(node, lasting)

    async def _come_back(self, node: Node, lasting: float) -> None:
        await asyncio.sleep(lasting)
        if not node.up:
            node.start()

    async def _do_die_in_commit(self, node: Node, moment: str, lasting: float) -> None:
        if node.up:
            node.store.die_at = moment
        await asyncio.sleep(5.0)
        await self._come_back(node, lasting)

    async def _do_lose_disk(self, node: Node, lasting: float) -> None:
        node.lose_disk()
        await self._come_back(node, lasting)

    async def _do_bad_disk(self, node: Node, lasting: float) -> None:
        await self._trouble(node, lasting, before=0.3, after=0.2)

    async def _do_slow_disk(self, node: Node, lasting: float) -> None:
        await self._trouble(node, lasting, slow=(0.05, 1.0))

    async def _trouble(self, node: Node, lasting: float, **changes: Any) -> None:
        if not node.up:
            return
        store = node.store
        node.note(f"disk trouble {changes}")
        normal = dict(store.trouble.__dict__)
        store.trouble.__dict__.update(changes)
        await asyncio.sleep(lasting)
        store.trouble.__dict__.update(normal)

    async def _do_cut(self, node: Node, other: str, lasting: float) -> None:
        ends = frozenset((node.name, other))
        self.note("network", f"{node.name} and {other} are cut off from each other")
        self.network.faults.cut.add(ends)
        await asyncio.sleep(lasting)
        self.network.faults.cut.discard(ends)
        self.note("network", f"{node.name} and {other} can reach each other")

    async def _do_break(self, node: Node, lasting: float) -> None:
        self.network.break_one()

    async def _do_jump(self, node: Node, seconds: float, lasting: float) -> None:
        node.note(f"wall clock jumps by {seconds} s")
        node.clock.jump += seconds
        await asyncio.sleep(lasting)
        node.clock.jump -= seconds

    async def _do_worker_leaves(self, node: Node, lasting: float) -> None:
        joined = [worker for worker in self.workers[node.name] if worker.joined]
        if joined:
            self.rng.choice(joined).leave()

    # ------------------------------------------------------------ the end

    def _check_end(self) -> None:
        for instance_id, wanted in self.wanted.items():
            self._check_workflow(instance_id, wanted)
        for instance_id, (app, steps) in self.detached.items():
            self._check_workflow(instance_id, Wanted(app, steps))
        self._check_entities()
        for node in self.nodes.values():
            invariants.at_rest(node.name, node.data)

    def _check_entities(self) -> None:
        """See that each entity holds what was added to it, in full by every workflow that nobody ended."""
        least, most = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        again = sum(wanted.runs - 1 + wanted.partly for wanted in self.wanted.values())
        detached = [Wanted(app, steps, runs=1 + again) for app, steps in self.detached.values()]
        for wanted in (*self.wanted.values(), *detached):
            whole = entities.added(wanted.steps, wanted.app)
            sure = not (wanted.terminated or wanted.partly)
            least += entities.added(wanted.steps, wanted.app, mended=False) if sure else Counter()
            most += Counter({key: amount * wanted.runs for key, amount in whole.items()})
        found = Counter[tuple[str, str]]()
        for app, node in self.nodes.items():
            for row in node.data.instances.values():
                if row.entity:
                    found[app, row.id] = int(node.data.outputs.get(row.key, "0"))
        for key in most | found:
            if not least[key] <= found[key] <= most[key]:
                raise Violation(f"entity {key} holds {found[key]}, not {least[key]} to {most[key]}")

    def _check_workflow(self, instance_id: str, wanted: Wanted) -> None:
        """Check what a workflow came to: what is stored of it, or its last end if it was removed since."""
        node = self.nodes[wanted.app]
        found = [one for one in node.data.instances.values() if one.id == instance_id]
        if not found and not (wanted.purged or self.plan.kept or self.many.swept(node, instance_id)):
            raise Violation(f"{instance_id} was accepted and is gone")
        ended_with = (int(found[0].status), node.data.outputs.get(found[0].key)) if found else None
        self._check_outcome(instance_id, wanted, ended_with or node.watch.ends.get(instance_id))

    def _check_outcome(self, instance_id: str, wanted: Wanted, ended_with: tuple[int, str | None] | None) -> None:
        if ended_with is None:
            raise Violation(f"{instance_id} was removed and had never ended")
        if ended_with[0] == Status.TERMINATED and wanted.terminated:
            return
        status, value = programs.outcome(wanted.steps, mended=wanted.mended)
        if ended_with != (status, str(value) if status == programs.COMPLETED else None):
            what = f"is {Status(ended_with[0]).name} with {ended_with[1]}"
            raise Violation(f"{instance_id} {what}, not {Status(status).name} with {value}: {wanted.steps}")


def simulate(plan: Plan) -> Result:
    """Run a plan from its first moment to its rest, on a loop of its own."""

    async def main() -> Result:
        world = World(plan)
        _log_to(lambda text: world.note("log", text))
        return await world.run()

    before = structlog.get_config()
    try:
        return loops.run(main())
    finally:
        structlog.configure(**before)


def _log_to(note: Callable[[str], None]) -> None:
    """Let what the sidecars log be part of the trace."""

    def line(_logger: Any, _name: str, event: Any) -> str:
        what = event.pop("event")
        rest = " ".join(f"{key}={value}" for key, value in sorted(event.items()) if key != "exc_info")
        note(f"{what} {rest}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
