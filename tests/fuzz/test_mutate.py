"""The mutation of messages: it reads what it writes, and a seed stands for one run."""

import random
from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError

from sidecar.schema import taskhub_pb2 as pb
from tests.fuzz import mutate, plots, seeds, story
from tests.fuzz.run import MUTATION, Tally, finding, shortened
from tests.fuzz.targets import BY_NAME, TARGETS, Target

ANSWERS = seeds.recorded()["CompleteOrchestratorTask"]


def test_a_message_that_is_taken_apart_and_joined_is_the_same() -> None:
    for body in ANSWERS:
        assert mutate.join(mutate.parse(body) or []) == body


def test_a_seed_stands_for_one_run() -> None:
    first, second = ([mutate.message(body, random.Random(7), ANSWERS) for body in ANSWERS] for _ in range(2))
    assert first == second
    assert first != ANSWERS


def test_many_mutated_messages_can_still_be_read() -> None:
    """Else only the decoder would be tested, and nothing behind it."""
    rng = random.Random(1)
    read = 0
    for _ in range(1_000):
        with suppress(DecodeError):
            pb.OrchestratorResponse.FromString(mutate.message(rng.choice(ANSWERS), rng, ANSWERS))
            read += 1
    assert read > 300


def test_any_bytes_are_a_story_and_a_written_one_is_read_back() -> None:
    rng = random.Random(1)
    steps = story.read(plots.story(rng, peers=True))
    assert len(steps) > 5
    assert story.read(story.written(steps)) == steps
    for _ in range(100):
        story.read(rng.randbytes(200))


def test_a_method_is_named_the_same_when_there_are_more() -> None:
    for path in plots.paths():
        assert story.named([*plots.paths(), "/new/Method"], story.place_of(path)) == path


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_inputs_that_mutation_begins_with_do_no_harm(target: Target) -> None:
    for data in target.pool()[:10]:
        assert finding(target, data) is None


def test_what_a_target_raises_is_found_named_and_shortened() -> None:
    def run(data: bytes) -> None:
        if b"bad" in data:
            raise KeyError("bad")

    target = BY_NAME["fields"]._replace(run=run)
    tally = Tally("fields", MUTATION)
    wrong = finding(target, b"x" * 100 + b"bad" + b"y" * 100, tally)
    assert wrong == "KeyError at ?: 'bad'"
    assert shortened(target, b"x" * 100 + b"bad" + b"y" * 100, "KeyError at ?") == b"bad"
    assert (tally.runs, tally.inputs) == (1, 1)
