"""The highest numbers that are seen of other stores, and what a store does that learns that it has gone back."""

import pytest

from tests.inprocess.world import World

ML = ("default", "ml")


async def test_what_counts_is_the_highest_number_of_the_store_that_was_seen_last(world: World) -> None:
    highest = world.messages.highest
    assert highest.of(ML) == ("", 0)
    for number in (3, 9, 4):
        highest.note(ML, "first", number)
    assert highest.of(ML) == ("first", 9)
    highest.note(ML, "second", 2)
    assert highest.of(ML) == ("second", 2)


@pytest.mark.parametrize(("ahead", "gone_back"), [(-1, False), (0, True), (5, True)])
async def test_a_number_that_was_not_given_yet_shows_that_the_store_has_gone_back(
    world: World, ahead: int, gone_back: bool
) -> None:
    """The next one that would be given is the first of those."""
    engine = world.engine
    await world.start("a")
    before, number = (engine.identity, engine.start_id), engine.ids.next_order + ahead
    assert await world.messages.highest.told("ml", engine.identity, number) is gone_back
    assert (engine.identity != before[0], engine.start_id != before[1]) == (gone_back, gone_back)
    assert engine.ids.next_order > number
