"""Clients of apps whose stores lose time: what they start, what may be gone of it, and what they start again."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from tests.blackbox.harness import CallError, attempt
from tests.blackbox.test_crash import Load, Started, Work, begin, ended

AGAIN_SECONDS = 20.0  # a client starts again what it has started so lately and is gone
EVENT = "wait_events"
_LEAST_SECONDS = 1.0


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


def wrong(started: Sequence[Started], losses: Sequence[Loss], seconds: float) -> tuple[list[str], int]:
    """What has not come out as it must, and how many are gone with their store, as they may."""
    excused = {one.id for one in started if may_be_gone(one, losses)}
    for one in started:
        if one.id in excused and one.work.workflow == EVENT:
            with suppress(CallError):  # the event may be gone, or the workflow
                attempt(one.app, "raise", id=one.id, name="go", value="went")
    end, found, gone = time.monotonic() + seconds, [], 0
    for one in started:
        state = ended(one.app, one.id, max(_LEAST_SECONDS, end - time.monotonic()))
        if state is None and one.id in excused:
            gone += 1
        elif state is None:
            found.append(f"{one.id}: is gone")
        elif (state["status"], state["output"]) != ("COMPLETED", one.work.output):
            found.append(f"{one.id}: {state}, not {one.work.output}")
    return found, gone
