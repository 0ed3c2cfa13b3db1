"""Where the log of a failed instance is cut: what is left replays, whatever the workflow did about the failure."""

import pytest

from sidecar.core import events
from sidecar.core.events import decode
from sidecar.core.model import Kind, Reminder, Status
from sidecar.core.workflow import cut
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import NOW, SECOND, end, kind_of, result, task, text, timer
from tests.core.workflow.test_rewind import Kept

STARTED = ["orchestrator_started", "execution_started"]
REWOUND = ["orchestrator_started", "execution_rewound"]


class Run(Kept):
    """An instance whose turns are told by the results that they begin with."""

    def made(self, number: int) -> Reminder:
        return next(one for one in reversed(self.sent) if one.call.task == number)

    def commit(self, changes):  # type: ignore[no-untyped-def]
        self.sent = [*getattr(self, "sent", ()), *changes.set]
        return super().commit(changes)

    def fails(self, number: int, message: str = "no luck") -> None:
        details = events.failure("Boom", message)
        self.arrive(result(self.made(number), events.task_failed(NOW, number, details)))

    def succeeds(self, number: int) -> None:
        self.arrive(result(self.made(number)))

    def fires(self, number: int) -> None:
        self.arrive(self.made(number))

    def step(self, *actions) -> None:  # type: ignore[no-untyped-def]
        self.complete(self.begin(), *actions)

    def end(self, message: str = "no luck") -> None:
        self.step(end(Status.FAILED, failure=events.failure("Failed", message)))

    def kept(self) -> list[str]:
        """Rewind; the kinds that are left of the log."""
        before = self.last_completed_turn()
        self.rewind()
        log = self.last_completed_turn()
        found = [kind_of(event) for event in log]
        assert found[-2:] == REWOUND
        shown = iter(before[2:])
        assert all(event in shown for event in log[2:-2]), "what is kept is of the old log, in its order"
        return found[:-2]

    def news(self) -> list[str]:
        return [kind_of(row.event) for row in self.state.inbox]


@pytest.fixture
def run() -> Run:
    flow = Run()
    flow.start()
    return flow


@pytest.mark.parametrize("numbers", [(1, 3, 5), (1, 1, 1)], ids=["new numbers", "one number"])
@pytest.mark.parametrize("pause", [True, False])
def test_a_call_that_was_tried_again_is_cut_before_its_first_failure(
    run: Run, numbers: tuple[int, ...], pause: bool
) -> None:
    """SDKs number attempts anew or not; between them is a timer, or nothing. All of that is made again."""
    run.step(task(9, "before"))
    run.succeeds(9)
    for at, number in enumerate(numbers):
        run.step(task(number, "flaky", input=text("1")))
        run.fails(number)
        if pause and at < 2:
            run.step(timer(20 + at, NOW + SECOND))
            run.fires(20 + at)
    run.end()
    assert run.kept() == [*STARTED, "task_scheduled", "orchestrator_started", "task_completed"]
    assert (run.open, run.instance.ready) == ({}, True)
    run.step(task(numbers[0], "flaky", input=text("1")))
    assert [one.call.task for one in run.last.set if one.kind is Kind.ACTIVITY] == [numbers[0]]


def test_what_was_done_about_a_failure_is_undone(run: Run) -> None:
    run.step(task(1, "charge"))
    run.fails(1)
    run.step(task(2, "clean up"))
    run.succeeds(2)
    run.end("could not charge")
    assert run.kept() == STARTED
    assert (run.news(), run.open) == ([], {})


def test_it_may_be_rewound_again_and_again(run: Run) -> None:
    run.step(task(1, "charge"))
    for _ in range(3):
        run.fails(1)
        run.step(task(2, "clean up"))
        run.succeeds(2)
        run.end()
        run.kept()
        assert [kind_of(event) for event in run.last_completed_turn()][:2] == STARTED
        run.step(task(1, "charge"))
    run.succeeds(1)
    run.step(end())
    assert run.instance.status is Status.COMPLETED


def test_a_failure_that_was_got_over_stays(run: Run) -> None:
    run.step(task(1, "first choice"))
    run.fails(1, "sold out")
    run.step(task(2, "second choice"))
    run.succeeds(2)
    run.step(task(3, "ship"))
    run.fails(3, "no ship")
    run.end("shipping: no ship")
    assert run.kept() == [
        *STARTED,
        *("task_scheduled", "orchestrator_started", "task_failed", "task_scheduled"),
        *("orchestrator_started", "task_completed"),
    ]


def test_of_failed_calls_the_one_counts_whose_text_the_end_repeats(run: Run) -> None:
    run.step(task(1, "charge"))
    run.fails(1, "card refused")
    run.step(task(2, "tell the customer"))
    run.fails(2, "no such address")
    run.end("Activity task #1 failed: card refused")
    assert run.kept() == STARTED


def test_a_call_that_succeeded_between_is_another_one(run: Run) -> None:
    """A loop over the same call: what went well once is not done again."""
    for number in range(1, 4):
        run.step(task(number, "tick", input=text("1")))
        run.fails(number)
        run.step(task(10 + number, "tick", input=text("1")))
        run.succeeds(10 + number)
    run.step(task(4, "tick", input=text("1")))
    run.fails(4)
    run.end()
    assert run.kept().count("task_completed") == 3


def test_calls_that_failed_together_are_all_made_again_and_what_went_well_is_kept(run: Run) -> None:
    run.step(*(task(number, f"part {number}") for number in range(1, 6)))
    run.fails(2, "two")
    run.step()
    run.succeeds(1)
    run.step()
    run.fails(4, "four")
    run.succeeds(3)
    run.end("two")
    assert run.kept() == [*STARTED, *["task_scheduled"] * 3]
    assert run.news() == ["task_completed", "task_completed"]
    assert set(run.open) == {5}
    run.step(task(2, "part 2"), task(4, "part 4"))
    assert set(run.open) == {2, 4, 5}


def test_what_was_raised_and_what_had_fired_comes_again_but_for_timers_that_were_made_later(run: Run) -> None:
    run.step(task(1, "charge"), timer(2))
    run.fails(1)
    run.event("approved")
    run.step(timer(3))
    run.fires(3)
    run.fires(2)
    run.step()
    run.event("late")
    turn = run.begin()
    run.event("unseen")
    run.complete(turn, end(Status.FAILED, failure=events.failure("Failed", "no luck")))
    assert run.kept() == [*STARTED, "timer_created"]
    raised = [events.decode(row.event).event_raised.name for row in run.state.inbox]
    assert raised == ["approved", "", "late", "unseen"]
    assert run.news()[1] == "timer_fired"
    assert run.open == {}


def test_a_result_of_a_call_that_was_made_behind_the_cut_is_dropped(run: Run) -> None:
    run.step(task(1, "charge"))
    run.fails(1)
    run.step(task(2, "clean up"), task(3, "more"))
    run.succeeds(2)
    turn = run.begin()
    run.succeeds(3)
    run.complete(turn, end(Status.FAILED, failure=events.failure("Failed", "no luck")))
    assert run.kept() == STARTED
    assert run.news() == []


def test_a_call_that_has_several_ends_behind_the_cut_keeps_the_first_result_and_is_not_made_again() -> None:
    started = pb.HistoryEvent(orchestrator_started=pb.OrchestratorStarted())
    calls = [pb.HistoryEvent(event_id=number, task_scheduled=pb.TaskScheduled(name="work")) for number in (1, 2)]
    failure = events.failure("Boom", "no luck")
    failed = [decode(events.task_failed(NOW, number, failure)) for number in (1, 2)]
    done = pb.HistoryEvent(task_completed=pb.TaskCompleted(task_scheduled_id=1))
    begun = [started, pb.HistoryEvent(execution_started=pb.ExecutionStarted(name="flow"))]
    found = cut.before_failure([*begun, *calls, started, *failed], [done, done], failure)
    assert found.history == [*begun, calls[0]]
    assert found.arrivals == [done]


def test_a_workflow_that_failed_by_itself_keeps_all_of_its_log(run: Run) -> None:
    run.step(task(1))
    run.succeeds(1)
    run.end("a mistake")
    assert run.kept() == [*STARTED, "task_scheduled", "orchestrator_started", "task_completed"]


def test_a_call_that_could_not_be_made_is_made_again(run: Run) -> None:
    run.step(task(1, app="m!l"))
    run.end()
    assert run.kept() == STARTED
