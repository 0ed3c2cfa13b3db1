"""Payloads at hand: as many as their bytes allow, however many came and went before."""

from dataclasses import replace

from sidecar.actors.payloads import LARGEST, AtHand
from tests.actors.test_timers import reminder


def test_what_went_leaves_its_room_to_others() -> None:
    at_hand = AtHand(5_000)
    for number in range(20):
        at_hand.keep(replace(reminder(number, 0), payload=b"x" * 3_500))
        assert len(at_hand) == 1
        assert at_hand.pop(number) is not None
    assert at_hand.pop(19) is None


def test_one_that_is_kept_again_takes_its_room_once() -> None:
    at_hand = AtHand(5_000)
    for payload in (b"x" * 3_500, b"y" * 3_500):
        at_hand.keep(replace(reminder(1, 0), payload=payload))
    found = at_hand.get(1)
    assert found is not None
    assert found.payload == b"y" * 3_500


def test_a_large_one_is_read_from_the_store() -> None:
    at_hand = AtHand()
    at_hand.keep(replace(reminder(1, 0), payload=bytes(LARGEST + 1)))
    assert at_hand.get(1) is None
