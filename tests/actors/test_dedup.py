"""When the keys of messages that were taken in go: what was below every floor of a minute."""

from sidecar.core.receipts import Forgotten
from tests.inprocess.world import World

ML, NAMES = ("default", "ml"), ("its store", "the session")


def forgotten(world: World) -> list[Forgotten]:
    return [one for batch in world.store.batches for changes in batch for one in changes.forgotten]


async def test_the_lowest_floor_of_a_minute_counts_and_not_before_it_is_over(world: World) -> None:
    keys = world.messages.dedup_keys
    for seconds, floor in ((0, 10), (20, 8), (39, 12)):
        world.clock.steady += seconds
        await keys.forget(ML, NAMES, floor)
    assert forgotten(world) == [], "copies may be under way"
    world.clock.steady += 1
    await keys.forget(ML, NAMES, 14)
    assert forgotten(world) == [Forgotten(name, 8) for name in NAMES]


async def test_a_minute_begins_anew_with_another_session(world: World) -> None:
    keys = world.messages.dedup_keys
    await keys.forget(ML, NAMES, 10)
    world.clock.steady += 60
    await keys.forget(ML, ("its store", "another session"), 12)
    assert forgotten(world) == []
