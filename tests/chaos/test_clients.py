"""What chaos excuses: of an app whose store went back, what was acknowledged after the moment and asked for before."""

from pathlib import Path

from tests.blackbox.harness import App
from tests.blackbox.test_crash import Started, Work
from tests.chaos.clients import Loss, latest, may_be_gone

LOSS = Loss("orders", moment=100.0, until=130.0)
WORK = Work("hello", "you", "Hello, you!")


def started(asked: float, acknowledged: float, app: str = "orders", id: str = "a") -> Started:
    return Started(App("dapr", 1, Path(), app), id, WORK, asked, acknowledged)


def test_what_was_acknowledged_before_the_moment_or_asked_for_after_the_loss_must_be_there() -> None:
    assert not may_be_gone(started(98.0, 99.0), [LOSS])
    assert not may_be_gone(started(131.0, 132.0), [LOSS])
    assert not may_be_gone(started(110.0, 111.0, app="ml"), [LOSS])
    assert not may_be_gone(started(110.0, 111.0), [])


def test_what_was_acknowledged_in_the_time_that_is_lost_may_be_gone() -> None:
    assert may_be_gone(started(98.0, 101.0), [LOSS])
    assert may_be_gone(started(110.0, 111.0), [LOSS])
    assert may_be_gone(started(129.0, 131.0), [Loss("orders", 0.0, 1.0), LOSS])


def test_a_workflow_that_was_started_again_counts_as_it_was_started_last() -> None:
    again = started(131.0, 132.0)
    assert latest([started(110.0, 111.0), started(1.0, 2.0, id="b"), again])[0] == again
    assert len(latest([started(110.0, 111.0), started(110.0, 111.0, app="ml"), again])) == 2
