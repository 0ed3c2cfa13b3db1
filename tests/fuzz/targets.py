"""All that is fuzzed in process: where its inputs come from, how they are mutated, and what takes them."""

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from grpc_health.v1 import health_pb2

from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.fuzz import files, http_bytes, mutate, plots, pure, seeds, story

_POOL = 300
Mutate = Callable[[bytes, random.Random], bytes]


class Target(NamedTuple):
    """`run` takes one input and returns how many messages that were, if not one; what it raises is a finding.

    `share` is the part of a run's time that it gets. Where coverage leads, one of `every` mutations is ours:
    libFuzzer's are much faster, and know nothing of the format.
    """

    name: str
    pool: Callable[[], Sequence[bytes]]
    mutate: Mutate
    run: Callable[[bytes], int | None]
    share: float = 1.0
    every: int = 8


def _messages(
    name: str, kinds: Sequence[Any], run: Callable[[bytes], int | None], head: bytes = b"", **more: Any
) -> Target:
    """A target that takes messages of some kinds, with `head` before each; the corpus has those of a method."""

    @cache
    def pool() -> list[bytes]:
        rng = random.Random(name)
        made = [seeds.made(kind, rng).SerializeToString() for kind in kinds for _ in range(_POOL // len(kinds))]
        return [head + one for one in made + seeds.recorded().get(more.get("method", ""), [])]

    def mutated(data: bytes, rng: random.Random) -> bytes:
        front = mutate.raw(data[: len(head)], rng) if head and rng.random() < 0.2 else data[: len(head)]
        return front + mutate.message(data[len(head) :], rng, pool())

    return Target(name, pool, mutated, run, more.get("share", 1.0))


def _texts(name: str, pool: Sequence[bytes], words: Sequence[bytes], run: Callable[[bytes], int | None]) -> Target:
    return Target(name, lambda: pool, lambda data, rng: mutate.text(data, rng, words), run)


def _stories(name: str, *, peers: bool) -> Target:
    @cache
    def pool() -> list[bytes]:
        rng = random.Random(name)
        return [plots.story(rng, peers) for _ in range(_POOL)]

    return Target(name, pool, lambda data, rng: plots.mutated(data, rng, pool()), story.tell, 5.0, 1)


_HEAD = b"user-agent=grpc-python/1.85\ntaskhub=default\n\n"
_NAMES = (b"default", b"blue", b"localhost:3500", b"[::1]:3500", b"1700000000000000.12.0123456789abcdef", b"1.1.")
_SETTINGS_TOML = partial(files.settings, suffix=".toml")
_SETTINGS_YAML = partial(files.settings, suffix=".yaml")

TARGETS: tuple[Target, ...] = (
    _stories("calls", peers=False),
    _stories("peer", peers=True),
    _messages("answer", [pb.OrchestratorResponse], pure.answer, b"\x00", method="CompleteOrchestratorTask", share=2.0),
    _messages("event", [pb.HistoryEvent], pure.event, share=2.0),
    _messages("request", [pb.ActivityRequest], pure.request),
    _messages("fields", [pb.CreateInstanceRequest, pb.Router], pure.fields),
    _messages("link", [peer_pb2.Frame], pure.link, share=2.0),
    _messages("worker", [pb.GetWorkItemsRequest], pure.worker, _HEAD, method="GetWorkItems"),
    _messages("health", [health_pb2.HealthCheckRequest], pure.health, share=0.3),
    _texts("header", _NAMES, mutate.TEXTS, pure.header),
    _texts("settings-yaml", [files.YAML], files.WORDS, _SETTINGS_YAML),
    _texts("settings-toml", [files.TOML], files.WORDS, _SETTINGS_TOML),
    _texts("policy", [files.POLICY], files.WORDS, files.policy),
    _texts("resources", [files.RESOURCES], files.WORDS, files.resources),
    _texts("configuration", [files.CONFIGURATION], files.WORDS, files.configuration),
    _texts("apps", [files.APPS], files.WORDS, files.apps),
    _texts("peers", [files.PEERS], files.WORDS, files.peers),
    _texts("http", http_bytes.REQUESTS, http_bytes.WORDS, http_bytes.connection),
)
BY_NAME = {target.name: target for target in TARGETS}
