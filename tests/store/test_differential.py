"""The file store does what the reference store does: random changes to both, and everything compared.

A run ends when nothing new turns up. `STORE_SEED=7` repeats one; what fails names its seed and step.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.attempts import Crash
from sidecar.core.model import (
    FIRST_ARRIVAL,
    NO_CALL,
    ActorId,
    CallId,
    CallKind,
    Changes,
    Child,
    Instance,
    Kind,
    Lock,
    OpenCall,
    Parent,
    Position,
    Reminder,
    Rewind,
    Row,
    Status,
)
from sidecar.core.receipts import Delivered, Forgotten, Lost, Received
from sidecar.core.schedule_row import ScheduleRow, ScheduleStep
from sidecar.store.protocol import BEGINNING, Criteria, Cursor, Order, Refusal, Store
from sidecar.store.sqlite.store import Sqlite, open_store
from tests.simulation.memory_store import MemoryStore
from tests.store.builders import EVERYTHING, MAIL, MANY, ME, ML, activity, from_ml, instance, result_for, workflow
from tests.store.contents import contents

OWN = (ME.namespace, ME.app)
ELSEWHERE = ("elsewhere", ME.app)
OTHERS = [ML, MAIL, ELSEWHERE]
HUBS, IDS = ["default", "other"], ["a", "b", "@c@1", "@c@2"]
CALLS = [CallId(execution, turn, task) for execution in ("far", "near") for turn in (1, 2) for task in (0, 1)]
STORES = {app: [f"{'.'.join(app)}.{generation}" for generation in (1, 2)] for app in OTHERS}
Signature = tuple[str, str | None, tuple[bool, ...]]


class Author:
    """Writes changes as the core would, from what the reference store holds, and others that must be refused."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.store = MemoryStore(ME)  # what the next changes are written for
        self.key = self.order = self.text = 0
        self.now = 100

    def write(self) -> tuple[str, Changes]:
        """One step of something, well-formed or spoiled, and its name."""
        while True:
            name, author = self.dice.choice(AUTHORS)
            self.now += self.dice.randrange(20)
            changes = author(self)
            if changes is not None:
                return self._spoiled(name, changes) if self.dice.random() < 0.2 else (name, changes)

    def _spoiled(self, name: str, changes: Changes) -> tuple[str, Changes]:
        how = self.dice.choice(["revision", "reminder", "message", "replaced", "nothing left"])
        received = self.store.data.received
        if how == "revision" and changes.expected:
            changes = replace(changes, expected=self.dice.choice([0, changes.expected + 1_000]))
        elif how == "reminder":
            changes = replace(changes, required=(*changes.required, self.order + 1_000))
        elif how == "message" and received:
            (store, id_), app = self.dice.choice(sorted(received.items()))
            changes = replace(changes, received=(Received(*app, store, id_),))
        elif how == "replaced" and changes.key and not changes.expected:
            changes = replace(changes, replaces=self.dice.randint(1, self.key), replaced_at=self.dice.randrange(3))
        else:
            return name, changes
        return f"{name}, {how} spoiled", changes

    # ------------------------------------------------------------ dice

    def maybe(self, chance: float = 0.5) -> bool:
        return self.dice.random() < chance

    def event(self) -> bytes:
        self.text += 1
        return b"event %d" % self.text

    def new_order(self) -> int:
        self.order += self.dice.choice([1, 1, 1, 3])
        return self.order

    def any_instance(self) -> Instance | None:
        rows = list(self.store.data.instances.values())
        return self.dice.choice(rows) if rows else None

    def any_reminder(self, wanted: Callable[[Reminder], bool]) -> Reminder | None:
        found = [one for one in self.store.data.reminders.values() if wanted(one)]
        return self.dice.choice(found) if found else None

    def remind(self, owner: Instance, kind: Kind, target: ActorId, **fields: Any) -> Reminder:
        due = self.now + self.dice.randrange(50)
        source = ME.workflow(owner.hub, owner.id)
        one = Reminder(self.new_order(), kind, owner.key, target, source, NO_CALL, due, "", self.event())
        return replace(one, **fields)

    def arrivals(self, row: Instance, most: int = 2) -> tuple[Row, ...]:
        log = self.store.data.log.get(row.key, {})
        turn = max([row.last_completed_turn + 1, *(position.turn for position in log)])
        index = max([FIRST_ARRIVAL - 1, *(position.event_index for position in log if position.turn == turn)]) + 1
        return tuple(Row(turn, index + offset, self.event()) for offset in range(self.dice.randint(1, most)))

    def step(self, row: Instance, fields: dict[str, Any] | None = None, **changes: Any) -> Changes:
        fields = {"revision": row.revision + 1, "updated_at": self.now, "ready": self.maybe()} | (fields or {})
        return Changes(key=row.key, expected=row.revision, instance=replace(row, **fields), **changes)

    def lock(self) -> Lock | None:
        return Lock("w", self.dice.choice(["1", "2"]), "section") if self.maybe(0.3) else None

    # ------------------------------------------------------------ lives of instances

    def start(self) -> Changes:
        self.key += self.dice.choice([1, 1, 2])
        hub, id_ = self.dice.choice(HUBS), self.dice.choice(IDS)
        existing = self.store._find(hub, id_)
        parent = (
            Parent(workflow("p", self.dice.choice([OWN, ML])), self.dice.choice(CALLS)) if self.maybe(0.3) else None
        )
        row = instance(
            self.key,
            id_,
            hub=hub,
            version=self.dice.choice([None, "", "2"]),
            ready=self.maybe(),
            began=self.maybe(0.7),
            tags=self.event(),
            parent=parent,
            detached=self.dice.randrange(3),
            trace=self.event(),
            stall=self.dice.choice([None, b"", b"why"]),
            recorded=self.event(),
            entity=id_.startswith("@"),
            lock=self.lock(),
        )
        given = self.dice.choice([b"", b"of a caller"])
        changes = Changes(key=row.key, instance=row, append=(Row(1, 1, self.event()),), lineage=given)
        if not row.began:
            changes = replace(changes, append=(), set=(self.remind(row, Kind.START, ME.workflow(hub, id_)),))
        if existing is not None and self.maybe(0.7):
            calls = self.store.data.calls.get(existing.key, {}).values()
            dropped = tuple(call.reminder for call in calls)
            changes = replace(changes, replaces=existing.key, replaced_at=existing.revision, dropped=dropped)
        return changes

    def arrive(self) -> Changes | None:
        row = self.any_instance()
        if row is None:
            return None
        changes = self.step(row, append=self.arrivals(row))
        own = self.any_reminder(lambda one: one.target[:3] == (*OWN, "workflow"))
        if own is not None and self.maybe(0.6):
            return replace(changes, dropped=(own.id,), required=(own.id,))
        return replace(changes, received=(self.message(),)) if self.maybe() else changes

    def message(self) -> Received:
        app = self.dice.choice(OTHERS)
        return Received(*app, self.dice.choice(STORES[app]), self.dice.randint(1, 30))

    def begin(self) -> Changes | None:
        start = self.any_reminder(lambda one: one.kind is Kind.START)
        row = self.store.data.instances.get(start.owner) if start else None
        if start is None or row is None or row.began:
            return None
        used = {"dropped": (start.id,), "required": (start.id,)}
        return self.step(row, {"began": True}, append=(Row(1, 1, start.payload),), **used)

    def turn(self) -> Changes | None:
        row = self.any_instance()
        if row is None:
            return None
        number = max(
            [row.last_completed_turn + 1, *(position.turn for position in self.store.data.log.get(row.key, {}))]
        )
        rows = (
            Row(row.last_completed_turn + 1, 0, self.event()),
            *(one._replace(turn=number) for one in self.arrivals(row)),
        )
        opened, children, reminders = self.calls(row, number)
        fields = {
            "last_completed_turn": number,
            "workflow_time": self.now,
            "custom_status": self.dice.choice([None, "", "half"]),
        }
        return self.step(row, fields, append=rows, opened=opened, children=children, set=reminders)

    def calls(self, row: Instance, turn: int) -> tuple[tuple[OpenCall, ...], tuple[Child, ...], tuple[Reminder, ...]]:
        opened, children, reminders = [], [], []
        for task in self.dice.sample(range(-1, 4), self.dice.randrange(3)):
            call = CallId(row.execution, turn, task)
            kind = self.dice.choice(list(CallKind))
            app = self.dice.choice([OWN, *OTHERS])
            target = activity(f"{row.id}::{task}", app) if kind is CallKind.ACTIVITY else workflow(f"c{task}", app)
            sent = {CallKind.ACTIVITY: Kind.ACTIVITY, CallKind.CHILD: Kind.CREATE, CallKind.TIMER: Kind.TIMER}
            held = app != OWN and kind in (CallKind.ACTIVITY, CallKind.CHILD)
            target = ME.workflow(row.hub, row.id) if kind is CallKind.TIMER else target
            reminder = self.remind(row, sent.get(kind, Kind.EVENT), target, call=call, kept_until_result=held)
            reminders.append(reminder)
            entities = self.dice.choice([(), ("@c@1",), ("@c@1", "@c@2")]) if kind is CallKind.HELD else ()
            cause = 0 if kind is CallKind.EVENT else reminder.id
            opened.append(OpenCall(call, kind, "Score", target, cause, entities, self.dice.choice(["", "key"])))
            if kind is CallKind.CHILD:
                children.append(Child(target, call))
        return tuple(opened), tuple(children), tuple(reminders)

    def answer(self) -> Changes | None:
        row = self.any_instance()
        calls = list(self.store.data.calls.get(row.key, {}).values()) if row else []
        if row is None or not calls:
            return None
        call = self.dice.choice(calls)
        changes = self.step(row, append=self.arrivals(row, 1), closed=(call.call.task,), dropped=(call.reminder,))
        if call.kind is CallKind.CHILD:
            changes = replace(changes, ended=(call.call,))
        if ME.owns(call.target):
            return replace(changes, required=(call.reminder,))
        return replace(changes, received=(self.message(),))

    def let_go(self, row: Instance) -> dict[str, Any]:
        """What becomes of the open calls of an execution that ends."""
        calls = list(self.store.data.calls.get(row.key, {}).values())
        dropped = tuple(call.reminder for call in calls if ME.owns(call.target))
        released = tuple(call.reminder for call in calls if not ME.owns(call.target))
        withdrawn = [call for call in calls if call.reminder in released and self.maybe()]
        orders = tuple(self.remind(row, Kind.WITHDRAW, call.target, call=call.call) for call in withdrawn)
        return {"dropped": dropped, "released": released, "set": orders}

    def continue_as_new(self) -> Changes | None:
        row = self.any_instance()
        if row is None:
            return None
        turn = row.last_completed_turn + self.dice.randint(1, 2)
        rows = tuple(Row(turn + 1, index, self.event()) for index in range(1, self.dice.randint(2, 4)))
        fields = {"last_completed_turn": turn, "execution": f"execution {self.event()!r}"}
        last = self.dice.choice([0, turn - 1, turn + 2])
        ends = {"forgets_before": max(0, last), "close_all": True} | self.let_go(row)
        return self.step(row, fields, append=rows, truncate=Position(0, 0), **ends)

    def cut(self) -> Changes | None:
        """A rewind: the end of the log goes, and something else comes in its place."""
        row = self.any_instance()
        if row is None:
            return None
        turn, index = self.dice.randint(1, 4), self.dice.choice([0, 2, 3, 4])
        append = (Row(turn, max(index, FIRST_ARRIVAL), self.event()),) if self.maybe() else ()
        fields = {"last_completed_turn": turn if index else turn - 1, "rewind": self.dice.choice(list(Rewind))}
        return self.step(row, fields, truncate=Position(turn, index), append=append, reopened=self.maybe())

    def batch(self) -> Changes | None:
        """Operations of an entity go out of its log, with a new state or none."""
        row = self.any_instance()
        log = list(self.store.data.log.get(row.key, {})) if row else []
        if row is None or not log:
            return None
        removed = tuple(self.dice.sample(log, self.dice.randint(1, len(log))))
        state = {"output": "state"} if self.maybe() else {"no_output": True}
        return self.step(row, {"lock": self.lock()}, removed=removed, **state)

    def end(self) -> Changes | None:
        row = self.any_instance()
        if row is None:
            return None
        status = self.dice.choice([Status.COMPLETED, Status.FAILED, Status.TERMINATED])
        fields = {"status": status, "completed_at": self.now, "failure": b"why" if status is Status.FAILED else None}
        ends = self.let_go(row)
        if row.parent is not None:
            answer = self.remind(row, Kind.RESULT, row.parent.actor, call=row.parent.call)
            ends["set"] = (*ends["set"], answer)
        output = self.dice.choice([None, "", "output"])
        return self.step(row, fields, append=self.arrivals(row), output=output, close_all=True, **ends)

    def purge(self) -> Changes | None:
        row = self.any_instance()
        if row is None:
            return None
        ends = self.let_go(row)
        children = [child for child, _ in self.store.data.children.get(row.key, {}).values()]
        orders = tuple(self.remind(row, Kind.PURGE, child.actor) for child in children)
        return Changes(key=row.key, expected=row.revision, purged=True, **(ends | {"set": (*ends["set"], *orders)}))

    # ------------------------------------------------------------ between apps

    def take_in(self) -> Changes:
        app = self.dice.choice(OTHERS)
        source = workflow("far", app)
        asked = from_ml(self.new_order(), self.dice.choice(CALLS), source=source, payload=self.event(), due=self.now)
        return Changes(set=(asked,))

    def finish(self) -> Changes | None:
        asked = self.any_reminder(lambda one: one.kind is Kind.ACTIVITY and not one.owner)
        if asked is None:
            return None
        result = result_for(asked, self.new_order(), payload=self.event())
        return Changes(set=(result,), dropped=(asked.id,), required=(asked.id,))

    def withdraw(self) -> Changes | None:
        asked = self.any_reminder(lambda one: one.kind is Kind.ACTIVITY and not one.owner)
        return Changes(dropped=(asked.id,), required=(asked.id,)) if asked else None

    def deliver(self) -> Changes | None:
        away = [one for one in self.store.data.reminders.values() if not ME.owns(one.target)]
        sent = self.dice.sample(away, min(len(away), self.dice.randint(1, 3)))
        stores = [self.dice.choice(STORES[one.target[:2]]) for one in sent]
        delivered = tuple(Delivered(one.id, store) for one, store in zip(sent, stores, strict=True))
        return Changes(delivered=delivered) if sent else None

    def crash(self) -> Changes | None:
        out = self.any_reminder(lambda one: one.kind is Kind.ACTIVITY and ME.owns(one.target))
        gone = Crash(self.order + 1_000, "nobody")
        return Changes(crashed=(Crash(out.id, f"lost at {self.now}"), gone)) if out else None

    def give_up(self) -> Changes | None:
        away = self.any_reminder(lambda one: not ME.owns(one.target))
        return Changes(dropped=(away.id,)) if away else None

    def lose(self) -> Changes:
        app = self.dice.choice(OTHERS)
        return Changes(lost=(Lost(*app, self.dice.choice(STORES[app]), self.dice.choice(STORES[app])),))

    def forget(self) -> Changes:
        store = self.dice.choice(STORES[self.dice.choice(OTHERS)])
        return Changes(forgotten=(Forgotten(store, self.dice.randint(1, 31)),))

    def plan(self) -> Changes | None:
        """A step of a schedule, its first or its last, sometimes with what it starts, sometimes too late."""
        schedule_id = self.dice.choice(IDS[:2])
        found = self.store.data.schedules.get(("default", schedule_id))
        revision = found.revision if found else 0
        row = ScheduleRow("default", schedule_id, revision + 1, self.event(), self.event(), self.order)
        last = bool(found) and self.maybe(0.3)
        step = ScheduleStep("default", schedule_id, revision, None if last else row)
        if self.maybe(0.1):
            step = step._replace(expected=revision + 1_000)
        started = self.start() if self.maybe() else None
        return replace(started or Changes(), schedule=step)

    def nothing(self) -> Changes:
        """A message that comes too late is remembered, and a reminder that finds nobody is used up."""
        own = self.any_reminder(lambda one: one.target[:3] == (*OWN, "workflow"))
        if own is not None and self.maybe():
            return Changes(dropped=(own.id,), required=(own.id,))
        return Changes(received=(self.message(),))


AUTHORS: list[tuple[str, Callable[[Author], Changes | None]]] = [
    (author.__name__, author)
    for author in (
        *(Author.start, Author.start, Author.start, Author.arrive, Author.arrive, Author.begin, Author.turn),
        *(
            Author.turn,
            Author.turn,
            Author.answer,
            Author.answer,
            Author.continue_as_new,
            Author.cut,
            Author.end,
            Author.batch,
        ),
        *(Author.purge, Author.take_in, Author.take_in, Author.finish, Author.withdraw, Author.deliver),
        *(Author.deliver, Author.crash, Author.give_up, Author.lose, Author.forget, Author.nothing),
        *(Author.plan, Author.plan),
    )
]


async def reads(store: Store, dice: random.Random, keys: int, orders: int) -> list[Any]:
    """What every read answers, for arguments from the dice. Where the contract has no order, it is sorted."""
    answers: list[Any] = [await store.load(hub, id_) for hub in HUBS for id_ in IDS]
    for key in dice.sample(range(1, keys + 2), min(keys, 4)):
        after = dice.choice([EVERYTHING, Position(dice.randrange(5), dice.randrange(5))])
        answers.append(await store.events(key, after, dice.choice([MANY, dice.randrange(6)])))
        answers.append(await store.payloads(key))
        answers.append(await store.lineage(key))
        answers.append(sorted(await store.children(key)))
        answers.append(await store.creations(key))
    limit = dice.choice([1, 2, MANY])
    answers.append(await store.ready(dice.randrange(keys + 1), limit))
    answers.append(await store.ready(dice.randrange(keys + 1), limit, True))
    prefix, after = dice.choice(["@", "@c@", "@c@2"]), dice.choice(["", "@c@1"])
    answers += [await store.entities(hub, prefix, after, limit, states=dice.random() < 0.5) for hub in HUBS]
    before = dice.choice([2**62, 100 + dice.randrange(1_000)])
    answers.append(await store.due(before, Position(dice.choice([0, 150, 400]), dice.randrange(orders + 1)), limit))
    answers.append(await store.activities(dice.randrange(orders + 1), limit))
    for app in OTHERS:
        answers.append(await store.outbound(*app, dice.randrange(orders + 1), limit))
        answers.append(await store.waiting(app[1], dice.randrange(orders + 1), limit))
        answers.append(await store.foreign_activity(*app, dice.choice(CALLS)))
    answers.append(sorted(await store.destinations()))
    answers += [await store.hubs(), await queried(store, dice)]
    answers += [await store.schedule("default", IDS[0]), await store.schedules(("default", dice.choice(IDS)), limit)]
    answers += [await store.reminder(dice.randrange(orders + 2)) for _ in range(3)]
    return answers


async def queried(store: Store, dice: random.Random) -> list[Instance]:
    """All answers to a query with criteria from the dice, whatever the pages."""
    times = [None, *(100 + dice.randrange(1_000) for _ in range(2))]
    criteria = Criteria(
        dice.choice(HUBS),
        frozenset(dice.sample(list(Status), dice.randrange(len(Status) + 1))),
        since=dice.choice(times),
        before=dice.choice(times),
        prefix=dice.choice(["", "", *IDS]),
        tags=(b"event",) if dice.random() < 0.3 else (),
    )
    order, limit = dice.choice(list(Order)), dice.choice([1, 3, MANY])
    found: list[Instance] = []
    after: Cursor | None = BEGINNING
    while after is not None:
        page = await store.query(criteria, order, after, limit)
        found += page.found
        after = page.next
    return found


def signature(name: str, changes: Changes, answer: Refusal | None, store: MemoryStore) -> Signature:
    """What was done, how it ended, and on what kind of instance."""
    row = store.data.instances.get(changes.key)
    kind = (row is not None, row is not None and row.status.terminal, bool(store.data.calls.get(changes.key)))
    return name, answer.name if answer else None, kind


class Pair:
    """Both stores, with the same in them."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.directory = directory
        self.dice = random.Random(seed)
        self.author, self.memory = Author(self.dice), MemoryStore(ME)
        self.steps = 0
        self.file: Sqlite

    async def run(self, quiet: int, most: int) -> set[Signature]:
        """Change both until `quiet` steps in a row, or `most` in all, have brought nothing new."""
        found: set[Signature] = set()
        last_new = 0
        self.file = await open_store(ME, self.directory, "fresh")
        try:
            while self.steps - last_new < quiet and self.steps < most:
                self.steps += 1
                new = await self.step() - found
                last_new = self.steps if new else last_new
                found |= new
        finally:
            await self.file.close()
        return found

    async def step(self) -> set[Signature]:
        """Change both, and compare every answer, everything stored and every read."""
        before = MemoryStore(ME, data=self.memory.data.copy())
        batches = await write_batches(self.author, self.memory)
        where = f"STORE_SEED={self.seed}, step {self.steps}: {batches}"
        changes = [[one for _, one in batch] for batch in batches]
        expected = [await self.memory.commit(batch) for batch in changes]
        assert await asyncio.gather(*(self.file.commit(batch) for batch in changes)) == expected, where
        assert await contents(self.file) == self.memory.snapshot(), where
        arguments = self.dice.getrandbits(64)
        known = (self.author.key, self.author.order)
        seen = [await reads(store, random.Random(arguments), *known) for store in (self.memory, self.file)]
        assert seen[0] == seen[1], where
        if self.dice.random() < 0.02:
            await self.reopen(where)
        steps, answers = itertools.chain(*batches), itertools.chain(*expected)
        return {signature(*step, answer, before) for step, answer in zip(steps, answers, strict=True)}

    async def reopen(self, where: str) -> None:
        identity = self.file.identity
        await self.file.close()
        self.file = await open_store(ME, self.directory, "another")
        assert self.file.identity == identity, where
        assert (self.file.next_key, self.file.next_order) == (self.memory.next_key, self.memory.next_order), where


async def write_batches(author: Author, memory: MemoryStore) -> list[list[tuple[str, Changes]]]:
    """Some batches for one moment. Most of their changes know of those before them, the others cross them."""
    before = MemoryStore(ME, data=memory.data.copy())  # what the batches that are written leave
    batches = []
    for _ in range(author.dice.choice([1, 1, 2, 3])):
        batch: list[tuple[str, Changes]] = []
        after = before
        for _ in range(author.dice.choice([1, 1, 2, 4])):
            author.store = after if author.maybe(0.8) else memory
            batch.append(author.write())
            after = MemoryStore(ME, data=before.data.copy())
            await after.commit([changes for _, changes in batch])
        batches.append(batch)
        before = after
    return batches


def outcomes_of(found: set[Signature]) -> set[tuple[str, str | None]]:
    return {(name, answer) for name, answer, _ in found}


@pytest.mark.slow
async def test_both_stores_answer_and_hold_the_same(tmp_path: Path) -> None:
    found = await Pair(1, tmp_path).run(quiet=300, most=300)
    missing = {(name, None) for name, _ in AUTHORS} - outcomes_of(found)
    assert not missing, "these never succeeded"
    assert {answer for _, answer in outcomes_of(found)} == {None, *(one.name for one in Refusal)}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run_number", range(3))
async def test_both_stores_are_the_same_until_nothing_new_turns_up(tmp_path: Path, run_number: int) -> None:
    seed = int(os.environ.get("STORE_SEED", "0")) or random.SystemRandom().getrandbits(32)
    pair = Pair(seed, tmp_path)
    found = await pair.run(quiet=150, most=5_000)
    print(f"STORE_SEED={seed}: {pair.steps} steps, {len(found)} signatures")  # noqa: T201
    assert {(name, None) for name, _ in AUTHORS} <= outcomes_of(found), f"STORE_SEED={seed}"
