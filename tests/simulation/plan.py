"""What is to happen in one simulated deployment: all of it drawn from the seed before it begins.

A plan is a list of operations with their times, so that a failing one can be shortened and run again.
"""

import random
from dataclasses import dataclass
from typing import Any

from sidecar.core.model import Status
from sidecar.schema import schedule_pb2 as pb
from sidecar.store.protocol import Order
from tests.simulation import programs
from tests.simulation.programs import Program

SECONDS = 60.0
LONGEST_JUMP = 120.0  # of a wall clock, in seconds
_ON_INSTANCES = (
    *("start", "raise", "pause", "terminate", "purge", "get", "again", "mend", "restart", "rerun"),
    *("strike", "burst", "disarm"),
)
EXACT = "exact"  # what the ID of a schedule begins with of which no past times are dealt with again
_POLICIES = [number for number in pb.Overlap.values() if number]
_MICROS = 1_000_000
_APPS = ("orders", "ml", "ship", "bank")


@dataclass(frozen=True)
class Operation:
    """Something that a client or the world does at a time, in seconds."""

    at: float
    kind: str
    app: str
    details: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """One deployment: its apps, those that host workflows, and what happens."""

    seed: int
    apps: tuple[str, ...]
    hosts: tuple[str, ...]
    operations: tuple[Operation, ...]
    calm: bool = False  # workers and network behave
    kept: float | None = None  # seconds that the sidecars keep completed workflows; None: for ever
    sql: bool = False  # the stores are SQLite's, not the reference store
    cascade: bool = False  # a pause reaches children
    poison: bool = False  # one workflow costs its workers, and nothing else does
    loses: bool = False  # stores lose time

    def possible(self) -> list[Operation]:
        """Return the operations that make sense in a plan that was cut: on instances that get all their events."""
        raised = {one.details[1] for one in self.operations if one.kind == "raise"}
        starts = [one.details for one in self.operations if one.kind == "start"]
        whole = {id_ for id_, steps, _ in starts if raised.issuperset(name for name, _ in programs.waits(steps))}
        return [one for one in self.operations if one.kind not in _ON_INSTANCES or one.details[0] in whole]


def make(seed: int, workflows: int = 67) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(seed)
    apps = _APPS[: rng.randint(2, 4)]
    hosts = apps[: rng.randint(1, len(apps))]
    operations = [operation for number in range(workflows) for operation in _workflow(rng, apps, hosts, number)]
    operations += [_on_many(rng, hosts) for _ in range(rng.randint(0, 4))]
    operations += [Operation(rng.uniform(0, SECONDS), "shed", rng.choice(hosts)) for _ in range(rng.randint(0, 9))]
    kept = 12.0 if rng.random() < 0.25 else None
    starts = [one for one in operations if one.kind == "start"]
    operations += [one for start in starts if programs.may_be_struck(start.details[1]) for one in _strike(rng, start)]
    crowded = rng.random() < 0.35
    operations += [_burst(rng, start) for start in starts if rng.random() < (0.5 if crowded else 0.04)]
    calm = rng.random() < 0.1
    if not calm:
        operations += [_fault(rng, apps, hosts) for _ in range(rng.randint(0, 25))]
        operations += [_storm(rng, hosts) for _ in range(rng.randint(2, 6) if crowded else rng.randint(0, 1))]
    cascade = rng.random() < 0.5
    families = [start for start in starts if programs.has_children(start.details[1])]
    operations += [one for start in families if cascade and rng.random() < 0.3 for one in _pause(rng, start)]
    poison = rng.random() < 0.2
    if poison:
        operations = [one for one in operations if one.kind != "worker leaves"] + _poison(rng, apps, hosts)
    loses = not calm and not poison and rng.random() < 0.2
    if loses:
        operations = [one for one in operations if one.kind not in ("list", "sweep", "lose disk")]
        operations = _without_events(operations) + _losses(rng, apps)
        kept = None  # else clients would start again what was removed since
    # With dice of their own, so that all else of a seed is what it is without them.
    operations += _schedules(random.Random(f"schedules {seed}"), apps, hosts)
    operations.sort(key=lambda operation: operation.at)
    return Plan(
        seed, apps, hosts, tuple(operations), calm, kept, sql=seed % 2 == 0, cascade=cascade, poison=poison, loses=loses
    )


def _schedules(rng: random.Random, apps: tuple[str, ...], hosts: tuple[str, ...]) -> list[Operation]:
    """Draw some schedules for half of the deployments, and what is done with each."""
    found: list[Operation] = []
    if rng.random() < 0.5:
        return found
    for number in range(rng.randint(1, 3)):
        app, at = rng.choice(hosts), rng.uniform(0, SECONDS / 2)
        filled = rng.random() < 0.2
        schedule_id = f"{'filled' if filled else EXACT}{number}"
        target = rng.choice(hosts) if rng.random() < 0.3 else app
        fields = {
            "every": rng.choice([2, 5, 13]) * _MICROS,
            "offset": rng.choice([0, _MICROS // 3]),
            "jitter": rng.choice([0, 0, 1]) * _MICROS,
            "catch_up": rng.choice([3, 60, 3_600]) * _MICROS,
            "overlap": pb.OVERLAP_ALLOW if target != app else rng.choice(_POLICIES),
            "app_id": "" if target == app else target,
        }
        found.append(Operation(at, "schedule", app, (schedule_id, fields, _steps(rng, apps))))
        later = at + rng.expovariate(0.1)
        if rng.random() < 0.4:
            found.append(Operation(later, "hold", app, (schedule_id, rng.choice([1.0, 9.0]))))
        if rng.random() < 0.4:
            found.append(Operation(later + rng.uniform(0, 5), "trigger", app, (schedule_id,)))
        if filled:
            found.append(Operation(later + 1.0, "fill", app, (schedule_id, rng.choice([20, 60]))))
    return found


def _steps(rng: random.Random, apps: tuple[str, ...]) -> Program:
    """Return a program that needs nobody, which may take longer than the time until the next run."""
    steps: Program = [["act", rng.choice(apps), rng.randint(1, 9)]]
    return [["timer", rng.choice([0.5, 3, 20])], *steps] if rng.random() < 0.6 else steps


def _workflow(rng: random.Random, apps: tuple[str, ...], hosts: tuple[str, ...], number: int) -> list[Operation]:
    """Return a start, the events that the program waits for, and what else may happen to an instance."""
    steps: Program = programs.program(rng, list(apps), list(hosts))
    app, instance_id = rng.choice(hosts), f"w{number}"
    at = rng.uniform(0, SECONDS)
    scheduled = rng.random() < 0.1
    operations = [Operation(at, "start", app, (instance_id, steps, 5.0 if scheduled else 0.0))]
    for name, value in programs.waits(steps):
        operations.append(Operation(at + rng.expovariate(0.5), "raise", app, (instance_id, name, value)))
    chance = rng.random()
    if programs.weak(steps):
        operations.append(Operation(at + rng.expovariate(0.1), "mend", app, (instance_id,)))
    if chance < 0.12:
        pause = at + rng.expovariate(0.3)
        operations.append(Operation(pause, "pause", app, (instance_id, rng.expovariate(0.2))))
    elif chance < 0.2:
        operations.append(Operation(at + rng.expovariate(0.2), "terminate", app, (instance_id, rng.random() < 0.7)))
    elif chance < 0.24:
        operations.append(Operation(at + rng.expovariate(0.2), "purge", app, (instance_id,)))
    elif chance < 0.3:
        operations.append(Operation(at + rng.expovariate(0.2), "get", app, (instance_id,)))
    elif chance < 0.34:
        operations.append(Operation(at + rng.expovariate(0.05), "again", app, (instance_id, steps, 0.0)))
    elif chance < 0.46 and programs.plain(steps):
        operations.append(Operation(at + rng.expovariate(0.1), rng.choice(["restart", "rerun"]), app, (instance_id,)))
    return operations


def _poison(rng: random.Random, apps: tuple[str, ...], hosts: tuple[str, ...]) -> list[Operation]:
    """Return a workflow with an activity, or a turn, that costs every worker that gets it, and who sees to it."""
    at, app, number = rng.uniform(0, SECONDS / 2), rng.choice(hosts), rng.randint(1, 99)
    step = rng.choice([["poison", rng.choice(apps), number], ["trap"]])
    steps: Program = [["act", rng.choice(apps), 1], step, ["act", rng.choice(apps), 2]]
    return [Operation(at, "start", app, ("p0", steps, 0.0)), Operation(at + 1.0, "disarm", app, ("p0",))]


def _without_events(operations: list[Operation]) -> list[Operation]:
    """Return what has to do with workflows that wait for nothing but their calls: an event may be lost with a store."""
    silent = {one.details[0] for one in operations if one.kind == "start" and not programs.hears(one.details[1])}
    return [one for one in operations if one.kind not in _ON_INSTANCES or one.details[0] in silent]


def _losses(rng: random.Random, apps: tuple[str, ...]) -> list[Operation]:
    """Let stores be kept, and go back to that or to nothing: one of them, or two at about the same time."""
    operations: list[Operation] = []
    for _ in range(rng.randint(1, 3)):
        kept, at = sorted(rng.uniform(0, SECONDS) for _ in range(2))
        how = rng.choice(["rollback", "rollback, clock too", "restore", "wipe"])
        for app in rng.sample(apps, rng.choice([1, 2])):
            operations.append(Operation(kept + rng.uniform(0, 1), "keep", app))
            operations.append(
                Operation(at + 1 + rng.uniform(0, 1), "lose time", app, (how, rng.choice([0.05, 1.0, 8.0])))
            )
    return operations


def _on_many(rng: random.Random, hosts: tuple[str, ...]) -> Operation:
    """Let a client read a list of all workflows of an app, or remove some of those that have ended."""
    at, app = rng.uniform(0, SECONDS), rng.choice(hosts)
    if rng.random() < 0.6:
        return Operation(at, "list", app, (rng.choice(list(Order)), rng.choice([1, 3, 20])))
    statuses = rng.choice(
        [frozenset(Status), frozenset({Status.COMPLETED}), frozenset({Status.TERMINATED, Status.RUNNING})]
    )
    return Operation(at, "sweep", app, (statuses, f"w{rng.choice('123456')}", rng.random() < 0.5))


def _strike(rng: random.Random, start: Operation) -> list[Operation]:
    """Let a client end a child by itself, sometimes."""
    if rng.random() > 0.25:
        return []
    how = rng.choice(["terminate", "terminate", "terminate alone", "purge", "purge alone"])
    return [Operation(start.at + rng.expovariate(1.0), "strike", start.app, (start.details[0], how, rng.random()))]


def _pause(rng: random.Random, start: Operation) -> list[Operation]:
    """Let a client pause a workflow that has children, and perhaps end it alone meanwhile."""
    at, seconds, instance_id = start.at + rng.expovariate(1.0), rng.expovariate(0.2), start.details[0]
    operations = [Operation(at, "pause", start.app, (instance_id, seconds))]
    if rng.random() < 0.3:
        operations.append(Operation(at + seconds * rng.random(), "terminate", start.app, (instance_id, False)))
    return operations


def _burst(rng: random.Random, start: Operation) -> Operation:
    """Let several clients turn to one instance in the same moment, close to what its workers answer."""
    moments = [start.details[2] + rng.choice([rng.uniform(0, 0.1), rng.expovariate(0.5)]) for _ in range(3)]
    commands = []
    for moment in moments:
        last = rng.choice(["terminate", "suspend", "suspend", "resume", "raise"])
        awake = moment + rng.uniform(0.001, 0.03)  # a turn goes out after the first event: be there when it comes back
        commands += [(moment, "raise"), (awake, "raise"), (awake + rng.uniform(0, 0.003), last)]
    return Operation(start.at, "burst", start.app, (start.details[0], tuple(commands)))


def _storm(rng: random.Random, hosts: tuple[str, ...]) -> Operation:
    """Let much go wrong at a time with an app that has workflows."""
    return Operation(rng.uniform(0, SECONDS), "storm", rng.choice(hosts), (rng.choice([2.0, 6.0, 12.0]),))


def _fault(rng: random.Random, apps: tuple[str, ...], hosts: tuple[str, ...]) -> Operation:
    at, app = rng.uniform(0, SECONDS), rng.choice(apps)
    kinds = ["crash"] * 4 + ["die in commit"] * 3 + ["bad disk", "slow disk", "cut", "break", "break", "jump"]
    kinds += ["worker leaves"] * 3 + ["short memory"]
    targets = [one for one in apps if one not in hosts]
    if targets:
        kinds += ["lose disk"]
    kind = rng.choice(kinds)
    lasting = rng.choice([0.05, 1.0, 8.0, 20.0])
    if kind == "lose disk":
        return Operation(at, kind, rng.choice(targets), (lasting,))
    if kind == "die in commit":
        return Operation(at, kind, app, (rng.choice(["before", "after"]), lasting))
    if kind == "cut":
        return Operation(at, kind, app, (rng.choice([one for one in apps if one != app]), lasting))
    if kind == "jump":
        return Operation(at, kind, app, (rng.choice([-90.0, -5.0, 7.0, LONGEST_JUMP]), lasting))
    return Operation(at, kind, app, (lasting,))
