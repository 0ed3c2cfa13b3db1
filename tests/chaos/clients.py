"""Clients of apps whose stores lose time: what they start, what may be gone of it, and what they start again."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from tests.blackbox.harness import CallError, attempt
from tests.blackbox.test_crash import Load, Started, Work, begin, ended

AGAIN_SECONDS = 20.0  # a client starts again what it has started so lately and is gone
EVENT = "wait_events"
_LEAST_SECONDS = 1.0
# Of a workflow that is started again while a child of its earlier life, which its own app forgot, runs in another app.
_TAKEN = "an active workflow with ID"


class Loss(NamedTuple):
    """An app's store went back: what was acknowledged after `moment` and asked for before `until` may be gone."""

    app: str
    moment: float
    until: float

    def may_have_taken(self, one: Started) -> bool:
        return one.app.label == self.app and one.asked < self.until and self.moment < one.acknowledged


class Client(Load):
    """Starts workflows, and again those that are gone."""

    def begin(self, work: Work, number: int) -> Started:
        """A start whose instance is gone before its event comes is made again, as a client would."""
        while True:
            try:
                return begin(self.app, work, number)
            except CallError as error:
                if error.code != "NOT_FOUND":
                    raise

    def start_again(self, loss: Loss) -> int:
        """Start again what was lost lately, under the same IDs; return how many there are."""
        recent = loss.until - AGAIN_SECONDS
        lost = [one for one in list(self.started) if loss.may_have_taken(one) and one.asked > recent]
        for one in lost:
            self.started.append(self.begin(one.work, int(one.id.rpartition("-")[2])))
        return len(lost)


def may_be_gone(one: Started, losses: Iterable[Loss]) -> bool:
    return any(loss.may_have_taken(one) for loss in losses)


def latest(started: Iterable[Started]) -> list[Started]:
    """Each workflow as it was started last."""
    return list({(one.app.label, one.id): one for one in started}.values())


class Verdict(NamedTuple):
    """What has not come out as it must; how many are gone as they may, or say why they could not be started again."""

    wrong: list[str]
    gone: int
    refused: int


def verdict(started: Sequence[Started], losses: Sequence[Loss], seconds: float) -> Verdict:
    """Wait for all that was started, and judge how it ended."""
    found, gone, refused = [], 0, 0
    excused = _raised_again(latest(started), losses)
    times = Counter(one.id for one in started)
    end = time.monotonic() + seconds
    for one in latest(started):
        if one.id in excused and attempt(one.app, "get", id=one.id) is None:
            gone += 1
            continue
        state = ended(one.app, one.id, max(_LEAST_SECONDS, end - time.monotonic()))
        if state is None:
            found.append(f"{one.id}: is gone")
        elif times[one.id] > 1 and _TAKEN in (state["failure"] or {}).get("message", ""):
            refused += 1
        elif (state["status"], state["output"]) != ("COMPLETED", one.work.output):
            found.append(f"{one.id}: {state}, not {one.work.output}")
    return Verdict(found, gone, refused)


def _raised_again(started: Sequence[Started], losses: Sequence[Loss]) -> set[str]:
    """The workflows that may be gone. Their events may be, too: these are raised again."""
    excused = [one for one in started if may_be_gone(one, losses)]
    for one in excused:
        if one.work.workflow == EVENT:
            with suppress(CallError):  # the workflow may be gone
                attempt(one.app, "raise", id=one.id, name="go", value="went")
    return {one.id for one in excused}
