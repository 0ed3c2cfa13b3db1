"""An SDK small enough to read: it replays programs over their histories."""

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from sidecar.core import events
from sidecar.schema import taskhub_pb2 as pb
from tests.simulation import entities
from tests.simulation.programs import COMPLETED, FAILED, POISON, WEAK, Program, Step, Violation, said_by

_TERMINATED, _CONTINUED = 5, 2
CRASHED = "WorkerCrashed"
_CONFIRMS = ("task_scheduled", "timer_created", "child_created", "event_sent", "detached_created", *entities.CONFIRMED)


@dataclass(eq=False)
class Task:
    """Something that a program waits for."""

    done: bool = False
    result: Any = None
    failed: bool = False
    poison: bool = False  # it costs each worker that gets it


class TrapError(Exception):
    """The program costs its worker."""


@dataclass
class Replay:
    """One run of a program over its history, as an SDK does it: events in, actions out."""

    instance_id: str
    next_id: int = 0
    actions: dict[int, pb.Action] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    waiting: dict[str, list[Task]] = field(default_factory=dict)
    buffered: dict[str, list[str]] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)
    parent: pb.ParentInstance | None = None
    flow: Generator[list[Task], None, None] | None = None
    awaited: list[Task] = field(default_factory=list)
    ended: pb.Complete | None = None
    clock: int = 0
    disarmed: bool = False  # whether its traps do nothing any more

    def run(self, past: list[bytes], new: list[bytes]) -> pb.OrchestratorResponse:
        """Return the answer to a turn."""
        if not new:
            raise Violation("a turn without new events")
        for event in (*past, *new):
            self._event(pb.HistoryEvent.FromString(event))
        response = pb.OrchestratorResponse(instance_id=self.instance_id, actions=self.actions.values())
        if self.ended is not None:
            if self.ended.status == _CONTINUED:
                self.ended.carryover_events.extend(self._carried())
            response.actions.append(pb.Action(id=self._number(), complete=self.ended))
        return response

    def _carried(self) -> list[pb.HistoryEvent]:
        """Return the events that nobody has waited for yet."""
        pairs = [(name, text) for name, texts in self.buffered.items() for text in texts]
        return [events.decode(events.event_raised(0, name, events.text(text))) for name, text in pairs]

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
            self.parent = event.execution_started.parent
            self._go_on()
        elif kind in _CONFIRMS:
            if self.actions.pop(event.event_id, None) is None:
                raise Violation(f"{kind} {event.event_id} confirms an action that this replay does not take")
        elif kind == "event_raised":
            self._raised(event.event_raised.name, event.event_raised.input.value)
        elif kind == "execution_terminated":
            self.ended = pb.Complete(status=_TERMINATED)
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
        task.done, task.failed = True, kind in ("task_failed", "child_failed", "entity_failed")
        if task.failed and body.failure.error_type == CRASHED and not task.poison:
            raise Violation(f"{kind} {number}: it costs no workers, and failed as if it did")
        task.result = (
            body.failure.error_type
            if task.failed
            else getattr(body, "output" if kind == "entity_completed" else "result", None)
        )
        self._go_on()

    def _raised(self, name: str, text: str) -> None:
        if "#" in text:  # from a workflow, which is no client that may try again: it comes once
            if (name, text) in self.told:
                raise Violation(f"event {name} {text} was sent once and came twice")
            self.told.add((name, text))
        tasks = self.waiting.get(name)
        if tasks:
            task = tasks.pop(0)
            task.done, task.result = True, text
            self._go_on()
        else:
            self.buffered.setdefault(name, []).append(text)

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
                self.ended = pb.Complete(status=_CONTINUED, result=events.text(left))
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
        form = task_id % 3  # how the input is written: it must come to whoever runs the activity
        given = json.dumps({"number": number, "attempt": attempt, "fails": fails, "form": form})
        wanted = pb.ScheduleTask(name="work", input=events.text(given), input_form=form)
        action = pb.Action(id=task_id, schedule_task=wanted)
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

    def _do_poison(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Call an activity that costs each worker that gets it, and catch its failure."""
        task = self._call(step[1], step[2], fails=POISON)
        task.poison = True
        yield [task]
        if task.result != CRASHED:
            raise Violation("an activity that nobody can run has an answer of a worker")
        return value + step[2]

    def _do_trap(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Cost the worker, unless somebody has seen to it."""
        if not self.disarmed:
            raise TrapError
        yield []
        return value

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
        task = self._create(step)
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
        return value + (yield from self._next_event(step[1]))

    def _do_hear(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Wait for what the parent sends."""
        for _ in step[2]:
            value += yield from self._next_event(step[1])
        return value

    def _next_event(self, name: str) -> Generator[list[Task], None, int]:
        if self.buffered.get(name):
            text = self.buffered[name].pop(0)
        else:
            task = Task()
            self.waiting.setdefault(name, []).append(task)
            yield [task]
            text = task.result
        return int(text.partition("#")[0])

    def _do_say(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Send an event to the parent."""
        assert self.parent is not None
        self._send(self.parent.app_id, self.parent.instance.instance_id, step[1], step[2])
        yield []
        return value

    def _do_child(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        return (yield from self._join(self._create(step), step[-1], value))

    def _do_tell(self, step: Step, value: int) -> Generator[list[Task], None, int]:
        """Create a child and send it what it waits for, in the same turn: a parent may end before its next one."""
        _, app, tag, numbers, steps = step
        task = self._create(step)
        child_id = self.actions[self.next_id].create_child.instance_id
        for number in numbers:
            self._send(app, child_id, tag, number)
        return (yield from self._join(task, steps, value))

    def _join(self, task: Task, steps: Program, value: int) -> Generator[list[Task], None, int]:
        """Wait for a child, and for what it has sent if it came to its end."""
        yield [task]
        if task.failed:
            return value + 1
        for name, _ in said_by(steps):
            value += yield from self._next_event(name)
        return value + int(task.result.value)

    def _create(self, step: Step) -> Task:
        number = self._number()
        given = json.dumps({"steps": step[-1], "value": 0})
        child_id = f"{self.instance_id}:{step[2]}.{number}.{self.clock}"
        child = pb.CreateChild(instance_id=child_id, name="flow", input=events.text(given))
        action = pb.Action(id=number, create_child=child)
        action.router.target_app_id = step[1]
        return self._take(action)

    def _send(self, app: str, instance_id: str, name: str, number: int) -> None:
        """Send an event that no other has the text of."""
        action = pb.Action(id=self._number())
        text = f"{number}#{self.instance_id}.{action.id}.{self.clock}"
        action.send_event.name, action.send_event.data.value = name, text
        action.send_event.instance.instance_id = instance_id
        action.router.target_app_id = app
        self.actions[action.id] = action
