"""Workers of a simulated app: they run programs and activities, slowly, twice, late, wrongly, or not at all."""

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any

from sidecar.core import events
from sidecar.core.model import DEFAULT_HUB, Outcome
from sidecar.core.work_items import ActivityItem, EntityItem, TurnItem, WorkItem, fitting
from sidecar.schema import taskhub_pb2 as pb
from sidecar.store.protocol import UnavailableError
from sidecar.work.workers import Filter, Worker
from tests.simulation import entities, habits, programs, sdk
from tests.simulation.deployment import Node
from tests.simulation.habits import Habits
from tests.simulation.programs import Violation

Seen = dict[tuple[str, str, str], list[bytes]]  # by app, instance and execution: what completed turns covered


@dataclass
class Manners:
    """How workers behave: chances a work item, and how long one takes, in seconds."""

    pause: tuple[float, float] = (0.001, 0.02)
    slow: float = 0.0
    die: float = 0.0
    twice: float = 0.0
    wrong: float = 0.0
    silent: float = 0.0


class SimWorker:
    """One worker of an app, connected from `join` to `leave`."""

    def __init__(self, node: Node, number: int, manners: Manners, seen: Seen, *, full: bool = False) -> None:
        self.node = node
        self.rng: random.Random = node.network.rng
        self.manners = manners
        self.joined = False
        self.full = full  # whether it is sure to have all versions
        self.habits = Habits()
        self._seen = seen
        self._number = number
        self.mended: set[str] = set()
        self.disarmed: set[str] = set()
        self.dead = False  # it has left and answers nothing any more
        self.costs: list[str] = []  # the workers that poison has cost, shared with all of them
        self.detached: dict[str, tuple[str, Any]] = {}
        self.room = 0  # bytes of new events that it receives at once
        self.portion = 0  # events of a past that it can be told of at once if it keeps them; 0 for any number
        self.worker: Worker

    def join(self) -> None:
        """Connect: from now on there is work."""
        size = self.rng.choice([1, 3, 20])
        self.room = self.rng.choice([1 << 20, 1 << 20, 400])
        self.habits = Habits.draw(self.rng, calm=self.full)
        self.portion = self.rng.choice([0, 0, 9, 25])
        self.worker = Worker(
            name=f"worker {self._number}",
            peer=f"peer {self._number}",
            max_turns=size,
            max_activities=size,
            max_bytes=1 << 20,
            turn_filter=Filter(),
            activity_filter=Filter(),
            is_full=lambda: False,
            send=self._got,
            fits=self._fits,
            shows=self._shows,
            keeps_history=self.habits.keeps,
            max_entities=size,
        )
        self.joined = True
        self.node.note(f"{self.worker.name} joins, with {' and '.join(self.habits.versions)}")
        self.node.middle.dispatch.add_worker(self.worker)

    def leave(self, *, farewell: bool = False) -> None:
        """Hang up, with or without a goodbye; what it has goes back, though it may still answer."""
        if self.joined:
            self.joined = False
            self.node.note(f"{self.worker.name} leaves")
            self.node.running = {activity: who for activity, who in self.node.running.items() if who[0] != self._number}
            if self.node.up:
                self.node.middle.dispatch.remove_worker(self.worker, farewell=farewell)
                if any(lease.worker is self.worker for lease in self.node.middle.dispatch.turns.out.values()):
                    self.node.violations.append(Violation(f"{self.worker.name} has left and still has a turn"))

    def _shows(self, item: TurnItem) -> int:
        if not self.portion:
            return len(item.past.events)
        shown = min(item.known + self.portion, len(item.past.events))
        self.node.note(f"{self.worker.name} can be told of {shown} of {len(item.past.events)} events at once")
        return shown

    def _fits(self, item: TurnItem) -> int:
        if self.habits.keeps and self.portion and len(item.past.events) - item.known > self.portion:
            return 1
        count = fitting(map(len, item.new), self.room)
        if count < len(item.new):
            self.node.note(
                f"{self.worker.name} can receive only {count} of {len(item.new)} events of {item.instance_id}"
            )
        return count

    def _got(self, item: WorkItem) -> int:
        try:
            if isinstance(item, TurnItem):
                past, new = list(item.past.events[: item.shown]), list(item.new)
                self.node.note(f"{self.worker.name} gets turn of {item.instance_id} ({len(past)} + {len(new)} events)")
                self._check_past(item, list(item.past.events))
                self._check_room(item, new)
                self.node.run(self._turn(item, self.habits.past_of(item, self.rng), new), "worker")
            elif isinstance(item, EntityItem):
                self.node.note(f"{self.worker.name} gets {len(item.operations)} operations of {item.entity_id}")
                self.node.run(self._batch(item), "worker")
            else:
                self._check_alone(item)
                _check_form(item)
                self.node.run(self._activity(item), "worker")
        except Violation as violation:
            self.node.note(f"VIOLATION {violation}")
            self.node.violations.append(violation)
        return 0

    def _check_past(self, item: TurnItem, past: list[bytes]) -> None:
        before = self._seen.get((self.node.name, item.instance_id, item.execution), [])
        if past[: len(before)] != before and _of_turns(past)[: len(_of_turns(before))] != _of_turns(before):
            raise Violation(f"{item.instance_id}: the past is not what a completed turn covered")

    def _check_room(self, item: TurnItem, new: list[bytes]) -> None:
        if len(new) > 2 and sum(map(len, new)) > self.room:
            raise Violation(f"{item.instance_id}: more than one event, and more than its worker receives")

    def _check_alone(self, item: ActivityItem) -> None:
        activity, _, number = item.token.rpartition(".")
        if activity in self.node.running:
            raise Violation(f"activity {activity} was handed out while a worker has it")
        self.node.running[activity] = (self._number, number)
        self.node.note(f"{self.worker.name} gets activity {item.token}")

    # ------------------------------------------------------------ behaviour

    async def _behave(self) -> int:
        """Take time; return how often to answer: 0 when silent or dead."""
        manners, rng = self.manners, self.rng
        await asyncio.sleep(rng.uniform(*manners.pause))
        if rng.random() < manners.slow:
            await asyncio.sleep(rng.choice([1.0, 10.0, 45.0]))
        if rng.random() < manners.die:
            self.leave()
            return rng.choice([0, 1])
        if self.dead or rng.random() < manners.silent:
            return 0
        return 2 if rng.random() < manners.twice else 1

    async def _turn(self, item: TurnItem, past: list[bytes] | None, new: list[bytes]) -> None:
        whole = past if past is not None else await self._fetch(item)
        if whole is None:
            return
        taken = self.habits.some(new, self.rng)
        try:
            response = self._replay(item.instance_id, whole, taken)
        except sdk.TrapError:
            self._die_of(item.token)
            return
        except Violation as violation:
            self.node.note(f"VIOLATION {item.instance_id}: {violation}")
            self.node.violations.append(violation)
            return
        lacks = self.habits.lacks(whole)
        if len(taken) < len(new) and not lacks:
            response.num_events_processed.value = len(taken)
        answers = await self._behave()
        if self.rng.random() < self.habits.abandons:
            self.node.note(f"turn of {item.instance_id}: abandoned")
            self.node.middle.services.answers.abandon_turn(item.token)
            return
        if self.rng.random() < self.manners.wrong:
            await self._answer_turn(item, response, f"t.{self.rng.getrandbits(64):016x}.default", None)
        self.habits.keep(item.instance_id, whole, response)
        covered = whole if lacks else self.habits.covered(whole, taken)
        for _ in range(answers):
            accepted = [
                await self._answer_turn(item, part, item.token, covered)
                for part in self.habits.parts(response, self.rng)
            ]
            if any(accepted):
                self._note_detached(response)

    def _die_of(self, token: str) -> None:
        """Be lost before anything else that it has is answered."""
        if self.joined:
            self.costs.append(token)
            self.dead = True
            self.leave()

    async def _fetch(self, item: TurnItem) -> list[bytes] | None:
        """Read the past that was kept and is lost, as it is now; without it hang up."""
        try:
            whole = await self.node.middle.services.clients.history((DEFAULT_HUB, item.instance_id))
        except UnavailableError:
            whole = None
        self.node.note(f"{self.worker.name} has lost the past of {item.instance_id} and reads it")
        if whole[: item.shown] != item.past.events[: item.shown]:
            self.leave()
            return None
        return whole[: item.shown]

    def _replay(self, instance_id: str, past: list[bytes], new: list[bytes]) -> pb.OrchestratorResponse:
        if self.habits.lacks(past):
            response = habits.not_available()
            response.instance_id = instance_id
            return response
        if self._number % 2:
            past, new = entities.in_older_form(past, new)
        response = sdk.Replay(instance_id, disarmed=instance_id in self.disarmed).run(past, new)
        if self._number % 2:
            entities.answered_in_older_form(response)
        self.habits.say_version(past, response)
        return response

    def _note_detached(self, response: pb.OrchestratorResponse) -> None:
        """Remember what was started for good: a turn that was taken has done so."""
        for action in response.actions:
            wanted = action.create_detached
            if wanted.instance_id:
                steps = json.loads(wanted.input.value)["steps"]
                self.detached[wanted.instance_id] = (action.router.target_app_id, steps)

    async def _answer_turn(
        self, item: TurnItem, response: pb.OrchestratorResponse, token: str, covered: list[bytes] | None
    ) -> bool:
        """Send an answer, or a part; return whether the whole was taken."""
        sent = pb.OrchestratorResponse()
        sent.CopyFrom(response)
        sent.completion_token = token
        try:
            reply = await self.node.middle.services.answers.complete_turn(DEFAULT_HUB, self.worker.peer, sent)
        except UnavailableError:
            self.node.note(f"turn of {item.instance_id}: unavailable")
            return False
        self.node.note(f"turn of {item.instance_id}: {reply.outcome.name}")
        if reply.outcome is not Outcome.DONE or response.is_partial:
            return False
        if covered is None:
            raise Violation("a token that nobody gave was accepted")
        self._seen[self.node.name, item.instance_id, item.execution] = covered
        return True

    async def _batch(self, item: EntityItem) -> None:
        result = entities.run(item)
        for _ in range(await self._behave()):
            try:
                reply = await self.node.middle.services.answers.complete_batch("peer", result)
            except UnavailableError:
                self.node.note(f"batch of {item.entity_id}: unavailable")
                continue
            self.node.note(f"batch of {item.entity_id}: {reply.outcome.name}")

    async def _activity(self, item: ActivityItem) -> None:
        request = pb.ActivityRequest.FromString(item.request)
        if json.loads(request.input.value)["fails"] == programs.POISON:
            self._die_of(item.token)
            return
        response = work(request, self.mended)
        answers = await self._behave()
        if not answers and self.joined:
            # Activities have no time limit of their own: only a worker that hangs up gives one back.
            await asyncio.sleep(5.0)
            self.leave()
        for _ in range(answers):
            response.completion_token = item.token
            activity, _, number = item.token.rpartition(".")
            if self.node.running.get(activity) == (self._number, number):
                del self.node.running[activity]
            try:
                reply = await self.node.middle.services.answers.complete_activity(
                    DEFAULT_HUB, self.worker.peer, response
                )
            except UnavailableError:
                self.node.note(f"activity {item.token}: unavailable")
                continue
            self.node.note(f"activity {item.token}: {reply.outcome.name}")


def _of_turns(past: list[bytes]) -> list[bytes]:
    """Return a past without its stalls: one is noted behind the last turn, in front of an answer that comes late."""
    return [event for event in past if not events.decode(event).HasField("execution_stalled")]


def _check_form(item: ActivityItem) -> None:
    request = pb.ActivityRequest.FromString(item.request)
    if request.input_form != json.loads(request.input.value)["form"]:
        raise Violation(f"activity {item.token} does not tell how its input is written")


def work(request: pb.ActivityRequest, mended: set[str]) -> pb.ActivityResponse:
    """Run the one activity there is."""
    given: dict[str, Any] = json.loads(request.input.value)
    response = pb.ActivityResponse(instance_id=request.instance.instance_id, task_id=request.task_id)
    weak = given["fails"] == programs.WEAK and request.instance.instance_id.split(":")[0] not in mended
    if weak or given["attempt"] < given["fails"]:
        response.failure.error_type = "Flaky"
    else:
        response.result.value = str(programs.activity(given["number"]))
    return response
