"""Deliberate bugs, each put into a copy of the code, that the tests or the simulation must find: proof that they can.

python -m tests.simulation.mutants            all of them, as a table
python -m tests.simulation.mutants lost-timer only those whose name begins so

Those of `mutants_by_tests` name fast tests that must find them; what these miss, the simulation is asked for.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.simulation import mutants_by_tests
from tests.simulation.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


BY_SIMULATION = (
    Mutant(
        "page-ends-one-too-far",
        "queries",
        "services/bulk.py",
        "            return Page(found[:limit], mark_of(found[limit - 1], order))\n",
        "            return Page(found[:limit], mark_of(found[limit], order))\n",
    ),
    Mutant(
        "suspects-together",
        "workers",
        "work/workers.py",
        "return bool(self.on_probation)",
        "return False",
    ),
    Mutant(
        "patience-is-half",
        "core",
        "core/attempts.py",
        "crashes.times >= self.most",
        "crashes.times >= self.most // 2",
    ),
    Mutant(
        "kept-for-ever",
        "retention",
        "services/retention.py",
        "frozenset({status}), before=due + 1)",
        "frozenset({status}), before=0)",
    ),
    Mutant(
        "results-not-deduplicated",
        "core",
        "core/delivery.py",
        "    if call is None or call.call != reminder.call or call.kind in UNANSWERED:\n        return None\n",
        "    if call is None:\n        return OpenCall(reminder.call, CallKind.ACTIVITY, '', reminder.source, 0)\n",
    ),
    Mutant(
        "call-named-by-task-alone",
        "core",
        "core/delivery.py",
        "if call is None or call.call != reminder.call or",
        "if call is None or call.call.task != reminder.call.task or",
    ),
    Mutant(
        "pauses-reach-no-grandchild",
        "core",
        "core/workflow/pauses.py",
        "    _pass_on(draft, order.payload)\n",
        "",
    ),
    Mutant(
        "paused-children-forgotten",
        "core",
        "core/workflow/pauses.py",
        "    if instance.suspended and (draft.me.cascade_suspend or instance.last_order):\n",
        "    if not draft:\n",
    ),
    Mutant(
        "end-of-a-child-not-told",
        "core",
        "core/workflow/turn.py",
        "    calls.answer_parent(draft, _answer(draft, complete_))\n",
        "",
    ),
    Mutant(
        "timer-fires-at-its-own-time",
        "core",
        "core/events.py",
        "time = max(time, micros(event.timer_fired.fire_at) + 1)",
        "time = max(floor, micros(event.timer_fired.fire_at))",
    ),
    Mutant(
        "events-lost-at-continue-as-new",
        "core",
        "core/workflow/turn.py",
        "carried += [row.event for row in draft.waiting if events.belongs_to_no_call(row.event)]",
        "carried += []",
    ),
    Mutant(
        "confirmations-in-front-of-events",
        "core",
        "core/workflow/turn.py",
        "    index = max(last + 1, FIRST_ARRIVAL)\n",
        "    index = last + 1 if last < FIRST_ARRIVAL else -len(draft.confirmed)\n",
    ),
    Mutant(
        "rewind-keeps-the-failure",
        "core",
        "core/workflow/cut.py",
        "    at = _turn_of(log, _first_failure(log, failure))\n",
        "    at = len(log)\n",
    ),
    Mutant(
        "rewind-leaves-calls-closed",
        "core",
        "core/workflow/rewind.py",
        "            call_emission.send(draft, event)\n",
        "            pass\n",
    ),
    Mutant(
        "rewound-child-is-not-told",
        "core",
        "core/workflow/rewind.py",
        "    if instance.status is Status.FAILED and not followed:\n        rewound",
        "    if False:\n        rewound",
    ),
    Mutant(
        "past-survives-a-rewind",
        "engine",
        "work/dispatch.py",
        "        if instance is None or changes.replaces or changes.reopened:\n",
        "        if instance is None or changes.replaces:\n",
    ),
    Mutant(
        "rerun-asks-for-nothing",
        "core",
        "core/workflow/rerun.py",
        "        call_emission.send(draft, event)\n",
        "        pass\n",
    ),
    Mutant(
        "detached-workflow-lost-at-the-end",
        "core",
        "core/workflow/turn.py",
        "    calls.end_all(draft, withdraw=complete_.status == Status.TERMINATED)\n",
        "    calls.end_all(draft, withdraw=complete_.status == Status.TERMINATED)\n"
        "    draft.reminders = [one for one in draft.reminders if one.kind != 10]\n",
    ),
    Mutant(
        "overtaken-turn-accepted",
        "core",
        "core/workflow/turn.py",
        "    _check_current(state.instance, turn)\n",
        "",
    ),
    Mutant(
        "parent-not-told-of-terminate",
        "core",
        "core/operations.py",
        '    calls.fail_at_parent(draft, "WorkflowTerminated", "was terminated")\n',
        "",
    ),
    Mutant(
        "parent-not-told-of-purge",
        "core",
        "core/operations.py",
        '        calls.fail_at_parent(draft, "WorkflowPurged", "was purged")\n',
        "        pass\n",
    ),
    Mutant(
        "purge-leaves-children-of-other-apps",
        "trees",
        "actors/trees.py",
        "        answer = await self._ask_others(part.elsewhere, True, options)\n",
        "        answer = Answer()\n",
    ),
    Mutant(
        "act-before-commit",
        "engine",
        "actors/engine.py",
        "        batch = [decision.changes for _, decision in decided if decision.changes is not None]\n",
        "        batch = [decision.changes for _, decision in decided if decision.changes is not None]\n"
        "        for changes in batch:\n            self._act(changes, actor)\n",
    ),
    Mutant(
        "state-kept-after-refusal",
        "engine",
        "actors/engine.py",
        "        if any(outcome is not None and one.key for one, outcome in zip(changed, outcomes, strict=True)):\n",
        "        if False:\n",
    ),
    Mutant(
        "unknown-commit-not-recovered",
        "engine",
        "work/dispatch.py",
        "        if not self._recovering:\n",
        "        if self._recovering:\n",
    ),
    Mutant(
        "past-survives-reuse-of-id",
        "engine",
        "work/dispatch.py",
        "        if instance is None or changes.replaces or changes.reopened:\n",
        "        if changes.reopened:\n",
    ),
    Mutant(
        "lease-forgotten",
        "engine",
        "work/leases.py",
        "                self.settle(lease)\n                self._came_back(lease)\n            lease.forsaken",
        "                pass\n            lease.forsaken",
    ),
    Mutant(
        "a-turn-is-not-closed-again",
        "engine",
        "core/workflow/turn.py",
        "    state.tail = after(state, turn)\n    return turn.number",
        "    return turn.number",
    ),
    Mutant(
        "what-is-stored-with-an-answer-is-seen",
        "engine",
        "work/turns.py",
        "not self.claimed or self.stored or changes.instance is None",
        "not self.claimed or changes.instance is None",
    ),
    Mutant(
        "a-batch-answers-what-came-into-its-place",
        "engine",
        "work/entities.py",
        "            lease.void = state is None or not lease.fits(state)\n",
        "            lease.void = state is None\n",
    ),
    Mutant(
        "any-token-answers-a-turn",
        "engine",
        "work/turns.py",
        "(token == lease.token or (not token and lease.worker.peer == peer))",
        "(bool(token) or lease.worker.peer == peer)",
    ),
    Mutant(
        "done-activity-keeps-its-slot",
        "engine",
        "work/activities.py",
        "        self.discard(reminder.id)\n        return Reply(outcome)\n",
        "        return Reply(outcome)\n",
    ),
    Mutant(
        "rest-of-a-turn-lost",
        "core",
        "core/workflow/turn.py",
        "    return tuple(state.inbox[bisect_right(state.inbox, end, key=states.POSITION) :])",
        "    return tuple(row for row in state.inbox if row.turn > turn.number)",
    ),
    Mutant(
        "stall-is-news-to-the-worker",
        "core",
        "core/workflow/stalls.py",
        "row = Row(instance.last_completed_turn, _BETWEEN_TURNS + after.revision,",
        "row = Row(instance.last_completed_turn + 1, _BETWEEN_TURNS + after.revision,",
    ),
    Mutant(
        "only-the-last-part-counts",
        "core",
        "core/workflow/chunks.py",
        "        for part in self._parts:\n",
        "        for part in self._parts[-1:]:\n",
    ),
    Mutant(
        "lost-timer",
        "timers",
        "actors/timers.py",
        "            if reminder_id in self._known:\n",
        "            if reminder_id in self._known and reminder_id % 97:\n",
    ),
    Mutant(
        "timers-not-read-at-start",
        "timers",
        "actors/timers.py",
        "                for reminder in page:\n                    self.add(reminder)\n",
        "",
    ),
    Mutant(
        "router-forgets-after-a-broken-link",
        "router",
        "peers/outbox.py",
        "            answers = await link.deliver(sent, queue.floor)\n",
        "            floor = queue.floor\n"
        "            for reminder in batch:\n                queue.pending.pop(reminder.id)\n"
        "            answers = await link.deliver(sent, floor)\n",
    ),
    Mutant(
        "no-try-after-a-pause",
        "router",
        "peers/rounds.py",
        "        elif pause is not None:\n",
        "        elif pause == 0.5:\n",
    ),
    Mutant(
        "new-store-of-a-peer-not-noticed",
        "router",
        "peers/outbox.py",
        "        await self.engine.commit(Changes(lost=(Lost(*link.peer, link.store, link.session),)))\n",
        "",
    ),
    Mutant(
        "what-was-accepted-is-believed-for-ever",
        "lost time",
        "edge/peer/link.py",
        '        self.session = f"{self.store}/',
        '        self.session = f"{self.store}/" or f"{self.store}/',
    ),
    Mutant(
        "a-child-answers-once",
        "lost time",
        "core/workflow/called_again.py",
        "if record is not None and instance.status.terminal:",
        "if record is not None and parent is None:",
    ),
    Mutant(
        "calls-are-remembered-as-messages",
        "lost time",
        "edge/peer/link.py",
        "name = self.session if reminder.kind in KNOWN_BY_CALL else self.store",
        "name = self.store",
    ),
    Mutant(
        "two-messages-on-one-wire",
        "router",
        "edge/peer/link.py",
        "        async with self._sending:\n            await self._wire.send(frame.SerializeToString())\n",
        "        await self._wire.send(frame.SerializeToString())\n",
    ),
    Mutant(
        "entity-locked-for-nobody",
        "entities",
        "core/entity/inbox.py",
        "        if lock is None or is_of_holder(event, lock):\n",
        "        if event.WhichOneof('kind') in ('entity_called', 'entity_signaled'):\n",
    ),
    Mutant(
        "entity-locks-in-the-worker's-order",
        "entities",
        "core/workflow/entity_calls.py",
        "entities = sorted({_target(draft, text).id for text in wanted.lock_set})",
        "entities = [_target(draft, text).id for text in wanted.lock_set]",
    ),
    Mutant(
        "entity-locks-kept-at-the-end",
        "entities",
        "core/workflow/calls.py",
        "        elif call.kind in (CallKind.LOCK, CallKind.HELD):\n",
        "        elif call.kind is None:\n",
    ),
    Mutant(
        "unlock-overtakes-calls-of-its-holder",
        "entities",
        "core/entity/locks.py",
        "    if not may_run(state.inbox, state.instance.lock):",
        "    if True:",
    ),
    Mutant(
        "entities-not-read-at-the-start",
        "entities",
        "work/dispatch.py",
        "            await self.entities.refill(entities)\n",
        "",
    ),
    Mutant(
        "messages-not-remembered",
        "store",
        "store/sqlite/writes.py",
        "    for message in changes.received:\n        connection.execute(\n",
        "    for message in ():\n        connection.execute(\n",
    ),
    Mutant(
        "used-up-reminder-not-required",
        "store",
        "store/sqlite/writes.py",
        "        if connection.execute(_HAS_REMINDER, (reminder,)).fetchone() is None:\n",
        "        if False:\n",
    ),
    Mutant(
        "batch-goes-on-behind-a-refusal",
        "store",
        "store/sqlite/writes.py",
        "refusal = Refusal.CONFLICT if broken else _one(connection, me, changes)",
        "refusal = _one(connection, me, changes)",
    ),
    Mutant(
        "calls-of-a-lost-store-not-sent-again",
        "store",
        "store/sqlite/writes.py",
        "        connection.execute(_RESEND, (lost.namespace, lost.app, lost.session))\n",
        "",
    ),
    Mutant(
        "accepted-call-not-kept",
        "store",
        "store/sqlite/writes.py",
        "DELETE FROM reminders WHERE id = ? AND held = 0",
        "DELETE FROM reminders WHERE id = ?",
    ),
    Mutant(
        "released-call-stays",
        "store",
        "store/sqlite/writes.py",
        "    for statement in _RELEASE:\n",
        "    for statement in _RELEASE[1:]:\n",
    ),
    Mutant(
        "calls-not-closed-at-the-end",
        "store",
        "store/sqlite/writes.py",
        "    if changes.close_all:\n",
        "    if False:\n",
    ),
    Mutant(
        "half-a-transaction-stays",
        "store",
        "store/sqlite/writes.py",
        '            connection.execute("ROLLBACK")\n',
        '            connection.execute("COMMIT")\n',
    ),
    Mutant(
        "refusals-not-told",
        "store",
        "store/sqlite/store.py",
        "            done.set_result(found)\n",
        "            done.set_result([None] * len(found))\n",
    ),
    Mutant(
        "calls-without-the-form-of-their-input",
        "core",
        "core/workflow/call_emission.py",
        "        input_form=task.input_form,\n",
        "",
    ),
    Mutant(
        "numbers-used-again-after-a-start",
        "store",
        "store/sqlite/schema.py",
        '    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()\n'
        "    return found[0] + 1 if found else 1\n",
        '    found = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()\n'
        "    return (found[0] or 0) + 1\n",
    ),
)


MUTANTS = BY_SIMULATION + mutants_by_tests.MUTANTS


def run(mutant: Mutant) -> tuple[str, float]:
    """Look for the bug in a copy of the code; return what was found and after how many seconds."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for part in ("sidecar", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "sdks"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        file = copy / "sidecar" / mutant.file
        source = file.read_text()
        if source.count(mutant.text) != 1:
            return "NOT APPLIED: the text is not there once", 0.0
        file.write_text(source.replace(mutant.text, mutant.becomes))
        began = time.monotonic()
        found = (mutant.tests and _by_tests(copy, mutant)) or _by_simulation(copy, mutant)
        return found, time.monotonic() - began


def _by_tests(copy: Path, mutant: Mutant) -> str:
    """Return the test that fails on the bug, "" if none does."""
    done = _python(copy, "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *shlex.split(mutant.tests))
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found and done.returncode == pytest.ExitCode.TESTS_FAILED else ""


def _by_simulation(copy: Path, mutant: Mutant) -> str:
    """Return the promise that the simulation sees broken, or that it sees none."""
    options = ["--seconds", str(SECONDS), "--no-shrink"]
    if mutant.layer == "store":
        options += ["--first", "2", "--every", "2"]  # the others have another store
    if mutant.layer == "lost time":
        options += ["--losing"]
    done = _python(copy, "tests.simulation", *options)
    found = re.search(r"^(seed \d+): (.*)", done.stdout, re.MULTILINE)
    if found is None:
        return f"NOT FOUND (exit code {done.returncode}) {done.stderr[-200:]}"
    return f"{found[1]}: {found[2][:90]}"


def _python(copy: Path, *module: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, cwd=copy, env=environment, text=True, capture_output=True, check=False)


def main() -> int:
    """Run the mutants that the command line names, all without; return 1 if one was not found."""
    wanted = [one for one in MUTANTS if not sys.argv[1:] or one.name.startswith(tuple(sys.argv[1:]))]
    missed = 0
    for mutant in wanted:
        found, seconds = run(mutant)
        missed += found.startswith("NOT")
        print(f"{mutant.layer:7} {mutant.name:36} {seconds:5.0f} s  {found}", flush=True)  # noqa: T201
    print(f"{len(wanted) - missed} of {len(wanted)} found")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
