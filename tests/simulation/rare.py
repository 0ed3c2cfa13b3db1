"""Things that must happen sometimes in a run of simulations, recognised in the trace: else a branch is not reached."""

import re
from collections import Counter
from collections.abc import Iterable

RARE = {
    "a sidecar dies before a commit": r"dies before a commit",
    "a sidecar dies after a commit, before anybody was told": r"dies after a commit",
    "a commit fails and nothing is written": r"commit fails, nothing is written",
    "a commit fails and yet it is written": r"commit fails, and yet it is written",
    "a commit is refused: the reminder was used up": r"commit refused \(GONE\)",
    "a message that was accepted before is dropped": r"commit refused \(DUPLICATE\) received",
    "an event that was accepted before is dropped": r"commit refused \(DUPLICATE\).*event_raised",
    "an event of this app is not delivered twice": r"commit refused \(GONE\).*event_raised",
    "what was decided behind a refused change is decided anew": r"commit refused \(CONFLICT\)",
    "an activity that is here already is not taken in again": r"commit refused \(DUPLICATE\) set ACTIVITY",
    "the answer to a turn comes too late": r"turn of .*: STALE",
    "the answer to an activity comes too late": r"activity .*: STALE",
    "a turn is taken from a worker that does not answer": r"turn timed out",
    "a turn goes out with as many events as fit": r"can receive only",
    "a past is told in portions": r"can be told of",
    "a worker hangs up": r"worker \d+ leaves",
    "a link breaks": r"link .* breaks",
    "frames are lost": r"frame lost",
    "a frame comes twice": r"frame comes twice",
    "two apps are cut off from each other": r"are cut off from each other",
    "an app comes back with another store": r"loses its disk",
    "a store goes back and does not say so": r"goes back$",
    "a store is told that it went back": r"this store has gone back",
    "a backup is restored": r"by a backup that is restored",
    "a timer fires late": r"timer_fired\(late\)",
    "what can be read again is dropped from memory": r"memory is short",
    "the wall clock jumps": r"wall clock jumps",
    "an ID is used again": r"replaces \d+",
    "an activity in another app is taken back": r"set WITHDRAW",
    "a child is ended by itself": r"client   (terminate|purge)( alone)? \S+:\S+ at .*: DONE",
    "a child is terminated with its parent": r"set TERMINATE",
    "a child is purged with its parent": r"purge \S+ has removed ([2-9]|\d\d)",
    "a child is paused with its parent": r"set PAUSE",
    "events are carried into a new execution": r"\+execution_started event_raised.*truncated",
    "a child is rewound with its parent": r"set REWIND",
    "a workflow is rewound": r"rewind .*: DONE",
    "a workflow is started again": r"restart .*: DONE",
    "a workflow is rerun from an event": r"rerun .*: DONE",
    "a detached workflow is started in another app": r"set DETACHED",
    "a workflow is stalled, for want of its version": r"STALLED .*\+execution_stalled",
    "a command for a stalled workflow is refused": r"(raise|suspend|resume|terminate) .*: WRONG_STATE",
    "an activity fails that has cost its workers": r"activity fails: each worker",
    "a turn is parked that has cost its workers": r"parked: each worker",
    "a turn is given back": r"turn of .*: abandoned",
    "a worker has lost the past that it kept": r"has lost the past",
    "the rest of a turn is moved to the next": r"\+orchestrator_started.*, truncated",
    "a start finds its ID taken": r"start .*: EXISTS",
    "a list is read to its end": r"a list of \d{2,} in order of created",
    "a list of what has ended is read to its end": r"a list of \d{2,} in order of completed",
    "workflows are removed by a filter": r"a sweep of .* has removed [1-9]",
    "workflows are removed when their time is over": r"ended workflows removed",
    "a worker's answer to operations of an entity comes too late": r"batch of .*: STALE",
    "locks of entities are granted": r"\+entity_lock_granted",
    "an entity is purged": r"shed at .*: DONE",
    "a call of an entity that is purged fails": r"entity_failed",
    "a schedule starts a run": r"schedule has started a workflow",
    "times of a schedule are skipped": r"times of a schedule skipped",
    "times of a schedule are missed": r"times of a schedule missed",
    "a run of a schedule is ended for the next": r"set TERMINATE .*set SCHEDULE",
    "a run of a schedule leaves for another app": r"set DETACHED .*set SCHEDULE",
    "a schedule is paused and goes on": r"go on \S+ at .*: DONE",
    "a schedule is triggered": r"trigger \S+ at .*: DONE",
    "past times of a schedule are run": r"fill \S+ at .*: DONE",
    "a start that was repeated is recognised": r"start .*: DUPLICATE",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in RARE.items()}


def seen(trace: Iterable[str]) -> Counter[str]:
    """Count, per rare thing, the lines of a trace that show it."""
    found: Counter[str] = Counter()
    for line in trace:
        for name, pattern in _PATTERNS.items():
            if pattern.search(line):
                found[name] += 1
    return found
