"""Random workflow programs, what each must come to, and an SDK small enough to read.

A program is plain data: a list of steps, run one after the other; each adds to the workflow's value. Its outcome can
be told without running it (`outcome`), so that a result that was lost or counted twice shows.
"""

import json
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from sidecar.core import events
from sidecar.schema import taskhub_pb2 as pb
from tests.simulation import entities

Step = list[Any]
Program = list[Step]
DEEPEST = 2
_CONFIRMS = ("task_scheduled", "timer_created", "child_created", "event_sent", "detached_created", *entities.CONFIRMED)
COMPLETED, FAILED, TERMINATED, CONTINUED = 1, 3, 5, 2
WEAK = -1  # attempts of an activity that fail: all, until it is mended


class Violation(AssertionError):  # noqa: N818 (what is broken is a promise, not the test)
    """A worker was told something that cannot be."""


# ---------------------------------------------------------------- programs


def program(rng: random.Random, apps: list[str], hosts: list[str], depth: int = 0) -> Program:
    """Return a random program: `apps` may run its activities, `hosts` its children too."""
    steps = [_step(rng, apps, hosts, depth) for _ in range(rng.randint(1, 4 if depth == 0 else 2))]
    # An event for a workflow that has failed is dropped, and a rewind takes a failure away that was caught, with which
    # what came after it does not replay: in a workflow that is to be rewound there is neither.
    caught = any(step[0] == "child" and outcome(step[-1])[0] == FAILED for step in steps)
    return [step for step in steps if step[0] not in ("weak", "must")] if caught or waits(steps) else steps


def _step(rng: random.Random, apps: list[str], hosts: list[str], depth: int) -> Step:
    number = rng.randint(1, 99)
    simple = {
        "act": lambda: ["act", rng.choice(apps), number],
        "fan": lambda: ["fan", [[rng.choice(apps), rng.randint(1, 9)] for _ in range(rng.randint(2, 8))]],
        "flaky": lambda: ["flaky", rng.choice(apps), number, rng.randint(1, 2)],
        "timer": lambda: ["timer", rng.choice([0, 0.05, 0.5, 3, 40, -5])],
        "never": lambda: ["never", rng.choice(apps), number],
        "leave": lambda: ["leave", rng.choice(apps), number],
        "can": lambda: ["can"],
        "event": lambda: ["event", f"e{rng.randrange(10**6)}", number],
        "weak": lambda: ["weak", rng.choice(apps), number],
    }
    kinds = ["act", "act", "fan", "flaky", "timer", "never", "leave"] + ["event", "event", "weak"] * (depth == 0)
    kinds += ["child", "child", "can", "tell", "detach"] * (depth < DEEPEST) + ["must"] * (depth == 0)
    kind = rng.choice([*kinds, *entities.STEPS])
    if kind in entities.STEPS:
        return entities.step(rng, kind)
    if kind in simple:
        return simple[kind]()
    if kind == "must":
        return ["must", rng.choice(hosts), [["act", rng.choice(apps), number], ["weak", rng.choice(apps), number]]]
    inner = program(rng, apps, hosts, depth + 1)
    if kind == "detach":
        return ["detach", rng.choice(hosts), inner]
    if kind == "tell":
        return ["tell", rng.choice(hosts), number, [["event", f"e{rng.randrange(10**6)}", number], *inner]]
    if rng.random() < 0.15:
        inner.append(["fail"])
    return ["child", rng.choice(hosts), inner]


def outcome(steps: Program, value: int = 0, *, mended: bool = False) -> tuple[int, int]:
    """Return the status that a program ends with, and its value; what is weak in it fails unless it was mended."""
    for step in steps:
        kind = step[0]
        if kind in ("act", "flaky", "never"):
            value += activity(step[2])
        elif kind == "fan" or kind in entities.STEPS:
            value += sum(activity(number) for _, number in step[1]) if kind == "fan" else entities.gain(step)
        elif kind in ("event", "worth"):
            value += step[2]
        elif kind in ("weak", "must") and not mended:
            return FAILED, value
        elif kind == "weak":
            value += activity(step[2])
        elif kind == "must":
            value += outcome(step[-1], mended=mended)[1]
        elif kind in ("child", "tell"):
            status, inner = outcome(step[-1])
            value += inner if status == COMPLETED else 1
        elif kind == "fail":
            return FAILED, value
    return COMPLETED, value


def worth(steps: Program, value: int) -> Program:
    """Return a program that comes to what these steps come to after others that came to a value."""
    return [["worth", "", value], *steps]


def weak(steps: Program) -> bool:
    """Whether something in a program must be mended before it can succeed."""
    return any(step[0] in ("weak", "must") for step in steps)


def plain(steps: Program) -> bool:
    """Whether a program needs nobody, neither for events nor to mend it: it can be run any number of times."""
    text = json.dumps(steps)
    return not any(f'["{kind}"' in text for kind in ("event", "tell", "weak", "must"))


def waits(steps: Program) -> list[tuple[str, int]]:
    """Return the events that the program itself waits for, with their values."""
    return [(step[1], step[2]) for step in steps if step[0] == "event"]


def activity(number: int) -> int:
    """What an activity answers."""
    return number * 3 + 1


# ---------------------------------------------------------------- the SDK


@dataclass(eq=False)
class Task:
    """Something that a program waits for."""

    done: bool = False
    result: Any = None
    failed: bool = False


@dataclass
class Replay:
    """One run of a program over its history, as an SDK does it: events in, actions out."""

    instance_id: str
    next_id: int = 0
    actions: dict[int, pb.Action] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    waiting: dict[str, list[Task]] = field(default_factory=dict)
    buffered: dict[str, list[int]] = field(default_factory=dict)
    flow: Generator[list[Task], None, None] | None = None
    awaited: list[Task] = field(default_factory=list)
    ended: pb.Complete | None = None
    clock: int = 0

    def run(self, past: list[bytes], new: list[bytes]) -> pb.OrchestratorResponse:
        """Return the answer to a turn."""
        if not new:
            raise Violation("a turn without new events")
        for event in (*past, *new):
            self._event(pb.HistoryEvent.FromString(event))
        response = pb.OrchestratorResponse(instance_id=self.instance_id, actions=self.actions.values())
        if self.ended is not None:
            if self.ended.status == CONTINUED:
                self.ended.carryover_events.extend(self._carried())
            response.actions.append(pb.Action(id=self._number(), complete=self.ended))
        return response

    def _carried(self) -> list[pb.HistoryEvent]:
        """Return the events that nobody has waited for yet."""
        pairs = [(name, value) for name, values in self.buffered.items() for value in values]
        return [events.decode(events.event_raised(0, name, events.text(str(value)))) for name, value in pairs]

    def _number(self) -> int:
        self.next_id += 1
        return self.next_id

    # ------------------------------------------------------------ events

    def _event(self, event: pb.HistoryEvent) -> None:
        kind = event.WhichOneof("kind") or "nothing"
        if kind == "orchestrator_started":
            now = events.micros(event.timestamp)
            if now < self.clock:
                raise Violation("the workflow's clock went back")
            self.clock = now
        elif kind == "execution_started":
            given = json.loads(event.execution_started.input.value)
            self.flow = self._steps(given["steps"], given["value"])
            self._go_on()
        elif kind in _CONFIRMS:
            if self.actions.pop(event.event_id, None) is None:
                raise Violation(f"{kind} {event.event_id} confirms an action that this replay does not take")
        elif kind == "event_raised":
            self._raised(event.event_raised.name, int(event.event_raised.input.value))
        elif kind == "execution_terminated":
            self.ended = pb.Complete(status=TERMINATED)
        elif kind not in ("execution_suspended", "execution_resumed", "execution_rewound", "execution_stalled"):
            self._result(kind, event)

    def _result(self, kind: str, event: pb.HistoryEvent) -> None:
        body = getattr(event, kind)
        if kind in entities.ANSWERS:
            number = entities.number_in(getattr(body, entities.ANSWERS[kind]))
        else:
            number = body.timer_id if kind == "timer_fired" else body.task_scheduled_id
        task = self.tasks.pop(number, None)
        if task is None:
            raise Violation(f"{kind} {number}: nothing waits for it, or it was told twice")
        if kind == "timer_fired" and events.micros(body.fire_at) >= self.clock:
            raise Violation("a timer fired at a workflow time that is not after it")
        task.done, task.failed = True, kind in ("task_failed", "child_failed")
        task.result = (
            body.failure.error_type
            if task.failed
            else getattr(body, "output" if kind == "entity_completed" else "result", None)
        )
        self._go_on()

    def _raised(self, name: str, value: int) -> None:
        tasks = self.waiting.get(name)
        if tasks:
            task = tasks.pop(0)
            task.done, task.result = True, value
            self._go_on()
        else:
            self.buffered.setdefault(name, []).append(value)

    def _go_on(self) -> None:
        while self.flow is not None and self.ended is None and all(task.done for task in self.awaited):
            try:
                self.awaited = next(self.flow)
            except StopIteration:
                return

    # ------------------------------------------------------------ steps

    def _steps(self, steps: Program, value: int) -> Generator[list[Task], None, None]:
        for position, step in enumerate(steps):
            kind = step[0]
            if kind == "fail":
                details = events.failure("Planned", f"failed at {value}")
                self.ended = pb.Complete(status=FAILED, failure=details)
                return
            if kind == "can":
                left = json.dumps({"steps": steps[position + 1 :], "value": value})
                self.ended = pb.Complete(status=CONTINUED, result=events.text(left))
                return
            if kind in entities.STEPS:
                value += yield from self._over_entities(step)
            else:
                value = yield from getattr(self, f"_do_{kind}")(step, value)
            if self.ended is not None:
                return
        self.ended = pb.Complete(status=COMPLETED, result=events.text(str(value)))

    def _call(self, app: str, number: int, attempt: int = 0, fails: int = 0, task_id: int = 0) -> Task:
        task_id = task_id or self._number()
        given = json.dumps({"number": number, "attempt": attempt, "fails": fails})
        action = pb.Action(id=task_id, schedule_task=pb.ScheduleTask(name="work", input=events.text(given)))
        action.router.target_app_id = app
        return self._take(action)

    def _take(self, action: pb.Action) -> Task:
        self.actions[action.id] = action
        task = self.tasks[action.id] = Task()
        return task

    def _over_entities(self, step: Step) -> Generator[list[Task], None, int]:
        def take(action: pb.Action, waited_for: bool) -> Task | None:
            if waited_for:
                return self._take(action)
            self.actions[action.id] = action
            return None

        messages = entities.Messages(self._number, lambda number: f"{self.instance_id}/{self.clock}/{number}")
        return (yield from entities.run_step(step, messages, take, self.clock))

    def _do_act(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        task = self._call(step[1], step[2])
        yield [task]
        return value + int(task.result.value)

    def _do_fan(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        tasks = [self._call(app, number) for app, number in step[1]]
        yield tasks
        return value + sum(int(task.result.value) for task in tasks)

    def _do_flaky(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Try again under the same task ID, as some SDKs do."""
        _, app, number, fails = step
        task_id = self._number()
        for attempt in range(fails + 1):
            task = self._call(app, number, attempt, fails, task_id)
            yield [task]
            if not task.failed:
                return value + int(task.result.value)
        raise Violation("an activity failed more often than it was told to")

    def _do_weak(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Fail with an activity that fails until it is mended."""
        task = self._call(step[1], step[2], fails=WEAK)
        yield [task]
        return value + self._must(task, value)

    def _do_must(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Fail with a child."""
        task = self._create(step[1], step[-1])
        yield [task]
        return value + self._must(task, value)

    def _must(self, task: Task, value: int) -> int:
        if not task.failed:
            return int(task.result.value)
        self.ended = pb.Complete(status=FAILED, failure=events.failure("Weak", f"failed at {value}"))
        return 0

    def _do_detach(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Start a workflow and forget it."""
        number = self._number()
        given = json.dumps({"steps": step[-1], "value": 0})
        wanted = pb.CreateDetached(
            instance_id=f"{self.instance_id}:d{number}.{self.clock}", name="flow", input=events.text(given)
        )
        action = self.actions[number] = pb.Action(id=number, create_detached=wanted)
        action.router.target_app_id = step[1]
        yield []
        return value

    def _do_never(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Set a timer that never fires beside a call."""
        never = pb.Action(id=self._number())
        never.create_timer.fire_at.seconds = events.NEVER_SECONDS
        self.actions[never.id] = never
        return (yield from self._do_act(step, value))

    def _do_leave(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Call an activity and do not wait for it: its answer may come to a later execution, or to nobody."""
        self._call(step[1], step[2])
        yield []
        return value

    def _do_timer(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        action = pb.Action(id=self._number())
        action.create_timer.fire_at.CopyFrom(events.timestamp(self.clock + int(step[1] * 1e6)))
        yield [self._take(action)]
        return value

    def _do_event(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        if self.buffered.get(step[1]):
            return value + self.buffered[step[1]].pop(0)
        task = Task()
        self.waiting.setdefault(step[1], []).append(task)
        yield [task]
        return value + int(task.result)

    def _do_child(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        task = self._create(step[1], step[-1])
        yield [task]
        return value + (1 if task.failed else int(task.result.value))

    def _do_tell(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Create a child and send it the event that it waits for."""
        _, app, number, steps = step
        task = self._create(app, steps)
        child_id = self.actions[self.next_id].create_child.instance_id
        action = pb.Action(id=self._number())
        action.send_event.name, action.send_event.data.value = steps[0][1], str(number)
        action.send_event.instance.instance_id = child_id
        action.router.target_app_id = app
        self.actions[action.id] = action
        yield [task]
        return value + (1 if task.failed else int(task.result.value))

    def _create(self, app: str, steps: Program) -> Task:
        number = self._number()
        given = json.dumps({"steps": steps, "value": 0})
        child = pb.CreateChild(
            instance_id=f"{self.instance_id}:{number}.{self.clock}", name="flow", input=events.text(given)
        )
        action = pb.Action(id=number, create_child=child)
        action.router.target_app_id = app
        return self._take(action)


# ---------------------------------------------------------------- the rewind of the SDK


def rewritten(past: list[bytes], new: list[bytes], execution: str) -> pb.OrchestratorResponse:
    """Answer the question for a new history: without the calls of activities that failed, and without failures."""
    if [events.decode(event).WhichOneof("kind") for event in new] != ["orchestrator_started", "execution_rewound"]:
        raise Violation("a question for a new history with other news")
    if events.decode(past[-1]).WhichOneof("kind") != "execution_completed":
        raise Violation("a question for a new history of what has not ended")
    failed = set()
    kept = []
    for event in map(events.decode, reversed([*past, *new])):
        kind = event.WhichOneof("kind")
        if kind in ("task_failed", "child_failed"):
            number = getattr(event, kind).task_scheduled_id
            # Read from the end: an attempt that failed before one that did not is part of a success.
            if not any(
                one.task_completed.task_scheduled_id == number for one in kept if one.HasField("task_completed")
            ):
                failed.add(number)
                continue
        if kind == "execution_completed" or (kind == "task_scheduled" and event.event_id in failed):
            continue
        if kind == "execution_started":
            event.execution_started.instance.execution_id.value = execution
        kept.append(event)
    action = pb.Action(id=-1, rewind=pb.Rewind(new_history=reversed(kept)))
    return pb.OrchestratorResponse(actions=[action])
