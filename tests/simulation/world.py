"""Runs a plan: clients, faults, and in the end the question whether everything came out as it must."""

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from sidecar.core import events
from sidecar.core.model import Changes, Instance, Reminder, Status
from tests.simulation import entities, invariants, programs
from tests.simulation import loop as loops
from tests.simulation.clients import Wanted
from tests.simulation.deployment import Node, track_tasks
from tests.simulation.faulty_store import MemoryDisk, Trouble
from tests.simulation.network import Network
from tests.simulation.plan import LONGEST_JUMP, SECONDS, Operation, Plan
from tests.simulation.programs import Program, Violation
from tests.simulation.schedules import Schedulers
from tests.simulation.sql_store import SqlDisk
from tests.simulation.workers import Manners, Seen, SimWorker

_REST_SECONDS = 4000.0
MOST = 10  # deliveries that may end with the loss of the worker, where that is counted


@dataclass
class Result:
    """What came of a plan."""

    plan: Plan
    trace: list[str] = field(default_factory=list)
    violation: str = ""
    workflows: int = 0
    seconds: float = 0.0
    signatures: set[tuple[Any, ...]] = field(default_factory=set)


class World:
    """One deployment from its first moment to its rest."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed * 7919 + 1)
        self.trace: list[str] = []
        self.network = Network(self.rng, lambda text: self.note("network", text))
        new_disk = SqlDisk if plan.sql else MemoryDisk
        retention = {} if plan.kept is None else {"completed": plan.kept}
        self.nodes = {
            app: Node(
                app,
                [one for one in plan.apps if one != app],
                self.network,
                self.note,
                new_disk=new_disk,
                retention=retention,
                cascade=plan.cascade,
                most=MOST if plan.poison else None,
            )
            for app in plan.apps
        }
        self.clients = Schedulers(self.nodes, self.rng, self.note, self._help)
        self.clients.pauses_reach = plan.cascade and plan.calm
        self.seen: Seen = {}
        self.detached: dict[str, tuple[str, Program]] = {}
        self.scheduled: dict[str, Wanted] = {}
        self.manners = Manners()
        self.workers: dict[str, list[SimWorker]] = {app: [] for app in plan.apps}
        self.numbers = 0
        self.costs: list[str] = []
        self.healed = False
        self._twice = 0.0

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
            node.on_detached = self._note_detached
            node.on_scheduled = partial(self._note_scheduled, node.name)
            node.on_begun = partial(self._begins, node.name)
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
        signatures = self.clients.outcomes.union(*(node.signatures for node in self.nodes.values()))
        seconds = asyncio.get_running_loop().time()
        return Result(self.plan, self.trace, violation, len(self.clients.wanted), seconds, signatures)

    def _misbehave(self) -> None:
        chance = self.rng.choice([0.0, 0.01, 0.05])
        lost = 0.0 if self.plan.poison else chance  # else everything would be poison
        self.manners = Manners(slow=chance, die=lost, twice=2 * chance, wrong=chance, silent=lost)
        self._twice = self.network.faults.twice = self.rng.choice([0.0, 0.02])

    def _first_violation(self) -> str:
        found = [violation for node in self.nodes.values() for violation in node.violations]
        errors = asyncio.get_running_loop().errors  # type: ignore[attr-defined]
        # Without an exception: a task of a process that died was collected, maybe that of an earlier deployment.
        bad = [error for error in errors if not isinstance(error.get("exception"), asyncio.CancelledError | None)]
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
        worker.disarmed, worker.costs = self.clients.disarmed, self.costs
        worker.mended, worker.detached = self.clients.mended, self.detached
        worker.join()
        self.workers[node.name].append(worker)

    def _note_detached(self, reminder: Reminder) -> None:
        """Remember what is to be started for good, also if the worker that asked for it never hears of it."""
        started = events.decode(reminder.payload).execution_started
        self.detached[reminder.target.id] = (reminder.target.app, json.loads(started.input.value)["steps"])

    def _note_scheduled(self, app: str, changes: Changes) -> None:
        """Remember a run of a schedule, also if the schedule or its app goes: it may be ended for the next one."""
        assert changes.instance is not None
        started = events.decode(changes.append[0].event).execution_started
        steps = json.loads(started.input.value)["steps"]
        self.scheduled[changes.instance.id] = Wanted(app, steps, terminated=True)

    def _help(self, node: Node) -> None:
        """Somebody who is told that a workflow is stalled sees to it, after a while, that it can run."""
        if node.up and self.rng.random() < 0.2:
            self._hire(node, full=True)

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
        clock = asyncio.get_running_loop()
        end = clock.time() + self.plan.kept + LONGEST_JUMP + 5.0  # it may have ended by a clock that was ahead
        for node in self.nodes.values():
            while left := [one.id for one in node.disk.instances() if one.status is Status.COMPLETED]:
                if clock.time() > end:
                    raise Violation(f"{node.name}: {left[:5]} completed and are kept for too long")
                await asyncio.sleep(1.0)

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
            node.faults.trouble = Trouble()
            node.faults.die_at = None
            for worker in list(self.workers[node.name]):
                worker.leave()

    def _at_rest(self) -> bool:
        if not all(node.up for node in self.nodes.values()):
            return False
        for node in self.nodes.values():
            if node.disk.reminders() or any(self._is_busy(node, one) for one in node.disk.instances()):
                return False
        return True

    def _is_busy(self, node: Node, instance: Instance) -> bool:
        return bool(node.disk.log(instance.key)) if instance.entity else not instance.status.terminal

    async def _do(self, operation: Operation) -> None:
        await asyncio.sleep(operation.at)
        node = self.nodes[operation.app]
        name = "do_" + operation.kind.replace(" ", "_")
        handler = getattr(self.clients, name, None) or getattr(self, "_" + name)
        await handler(node, *operation.details)

    # ------------------------------------------------------------ faults

    async def _do_crash(self, node: Node, lasting: float) -> None:
        node.crash()
        await self._come_back(node, lasting)

    async def _come_back(self, node: Node, lasting: float) -> None:
        await asyncio.sleep(lasting)
        if not node.up:
            node.start()

    async def _do_die_in_commit(self, node: Node, moment: str, lasting: float) -> None:
        faults = node.faults
        faults.die_at = moment
        await asyncio.sleep(5.0)
        faults.die_at = None  # there was none: later nobody would start it again
        await self._come_back(node, lasting)

    async def _do_lose_disk(self, node: Node, lasting: float) -> None:
        node.lose_disk()
        await self._come_back(node, lasting)

    def _begins(self, name: str, instance: Instance) -> None:
        """Forget what was seen of an execution that begins: a start that a client repeats may bring the same again."""
        self.seen.pop((name, instance.id, instance.execution), None)

    async def _do_keep(self, node: Node) -> None:
        node.keep()

    async def _do_lose_time(self, node: Node, how: str, lasting: float) -> None:
        """Let a store go back to what was kept, or to nothing; its clients ask again for what they had asked for."""
        if how == "wipe":
            node.lose_disk()
        else:
            node.go_back(restored=how == "restore")
        if how == "rollback, clock too":  # as with the machine under it; it is right again when the world heals
            node.clock.jump = -LONGEST_JUMP
        node.lost_time = True
        for one in [one for one in self.seen if one[0] == node.name]:
            del self.seen[one]
        await self._come_back(node, lasting)
        await self.clients.repeat(node)

    async def _do_bad_disk(self, node: Node, lasting: float) -> None:
        await self._trouble(node, lasting, before=0.3, after=0.2)

    async def _do_slow_disk(self, node: Node, lasting: float) -> None:
        await self._trouble(node, lasting, slow=(0.05, 1.0))

    async def _trouble(self, node: Node, lasting: float, **changes: Any) -> None:
        if not node.up:
            return
        trouble = node.faults.trouble
        node.note(f"disk trouble {changes}")
        normal = dict(trouble.__dict__)
        trouble.__dict__.update(changes)
        await asyncio.sleep(lasting)
        trouble.__dict__.update(normal)

    async def _do_storm(self, node: Node, lasting: float) -> None:
        """Have much go wrong together, so that what was repeated meets what was delayed."""
        node.note("is in a storm")
        trouble = asyncio.create_task(self._trouble(node, lasting, before=0.1, after=0.15, slow=(0.02, 0.25)))
        self.network.faults.twice = 0.5
        while not trouble.done():
            await asyncio.wait([trouble], timeout=self.rng.uniform(0.1, 1.0))
            self.network.break_one(node.name)
        self.network.faults.twice = self._twice

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

    async def _do_short_memory(self, node: Node, lasting: float) -> None:
        node.note("memory is short")
        loop = asyncio.get_running_loop()
        end = loop.time() + lasting
        while node.up and loop.time() <= end:
            node.middle.dispatch.relieve()
            await asyncio.sleep(1.0)

    async def _do_worker_leaves(self, node: Node, lasting: float) -> None:
        joined = [worker for worker in self.workers[node.name] if worker.joined]
        if joined:
            self.rng.choice(joined).leave(farewell=self.rng.random() < 0.5)

    # ------------------------------------------------------------ the end

    def _check_end(self) -> None:
        for instance_id, wanted in self.clients.wanted.items():
            self._check_workflow(instance_id, wanted)
        for instance_id, (app, steps) in {} if self._lost else self.detached.items():
            self._check_workflow(instance_id, Wanted(app, steps))
        for instance_id, wanted in {} if self._lost else self.scheduled.items():
            self._check_workflow(instance_id, wanted)
        self._check_costs()
        self._check_entities()
        for node in self.nodes.values():
            invariants.at_rest(node.name, node.disk)

    @property
    def _lost(self) -> bool:
        """Whether any store has lost time: then what was done may have been done for nothing, or twice."""
        return any(node.lost_time for node in self.nodes.values())

    def _check_costs(self) -> None:
        """See that what costs workers was given up for that alone: our own crashes do not count."""
        ended = self.plan.poison and not self.clients.given_up and "p0" in self.clients.wanted
        if ended and len(self.costs) < MOST:
            raise Violation(f"given up after it has cost only {len(self.costs)} workers")

    def _check_entities(self) -> None:
        """See that each entity holds what was added to it, in full by every workflow that nobody ended."""
        least, most = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        if self._lost:
            return
        every, struck = self.clients.wanted.values(), self.clients.struck
        again = sum(wanted.runs - 1 + wanted.partly for wanted in every)
        detached = [Wanted(app, steps, runs=1 + again) for app, steps in self.detached.values()]
        for wanted in (*every, *detached):
            whole = entities.added(wanted.steps, wanted.app)
            sure = not (wanted.terminated or wanted.partly)
            least += entities.added(wanted.steps, wanted.app, struck, mended=False) if sure else Counter()
            most += Counter({key: amount * wanted.runs for key, amount in whole.items()})
        found = Counter[tuple[str, str]]()
        for app, node in self.nodes.items():
            for row in (one for one in node.disk.instances("@") if one.id != entities.SHED):
                found[app, row.id] = int(node.disk.output(row.key) or "0")
        for key in most | found:
            if not least[key] <= found[key] <= most[key]:
                raise Violation(f"entity {key} holds {found[key]}, not {least[key]} to {most[key]}")

    def _check_workflow(self, instance_id: str, wanted: Wanted) -> None:
        """Check what a workflow came to: what is stored of it, or its last end if it was removed since."""
        node = self.nodes[wanted.app]
        found = [one for one in node.disk.instances(instance_id) if one.id == instance_id]
        if (
            not found
            and not (wanted.partly and self._lost)
            and not (wanted.purged or self.plan.kept or self.clients.many.swept(node, instance_id))
        ):
            raise Violation(f"{instance_id} was accepted and is gone")
        ended_with = (int(found[0].status), node.disk.output(found[0].key)) if found else None
        self._check_outcome(instance_id, wanted, ended_with or node.watch.ends.get(instance_id))

    def _check_outcome(self, instance_id: str, wanted: Wanted, ended_with: tuple[int, str | None] | None) -> None:
        if ended_with is None and self._lost:
            return
        if ended_with is None:
            raise Violation(f"{instance_id} was removed and had never ended")
        if ended_with[0] == Status.TERMINATED and wanted.terminated:
            return
        ends = programs.outcomes(wanted.steps, self.clients.struck, mended=wanted.mended)
        if wanted.removed_first or self._lost:
            ends |= programs.outcomes(wanted.steps, self.clients.struck, mended=False)
        right = {(status, str(value) if status == programs.COMPLETED else None) for status, value in ends}
        if ended_with not in right:
            what = f"is {Status(ended_with[0]).name} with {ended_with[1]}"
            raise Violation(f"{instance_id} {what}, not one of {sorted(right, key=str)}: {wanted.steps}")


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
