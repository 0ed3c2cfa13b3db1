"""What some workers do that others do not: keep the past, lack a version, take only some events, answer in parts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar.core import events
from sidecar.core.work_items import TurnItem
from sidecar.schema import taskhub_pb2 as pb
from tests.simulation.programs import Violation

VERSIONS = ("v1", "v2")


@dataclass
class Habits:
    """How one worker is made; all of it is drawn when it connects."""

    versions: tuple[str, ...] = VERSIONS  # of the workflows that it can run
    keeps: bool = False
    forgets: float = 0.0  # chance a turn that it has lost what it kept
    cuts: float = 0.0  # chance that an answer comes in parts
    partial: float = 0.0  # chance that it takes only some of the events
    abandons: float = 0.0
    kept: dict[str, list[bytes]] = field(default_factory=dict)

    @classmethod
    def draw(cls, rng: random.Random, *, calm: bool) -> "Habits":
        """Return the habits of a worker; a calm one can do everything."""
        versions = VERSIONS if calm or rng.random() < 0.7 else (rng.choice(VERSIONS),)
        odd = 0.0 if calm else 0.1
        return cls(versions, rng.random() < 0.5, odd, rng.choice([0.0, 0.3]), rng.choice([0.0, 0.3]), odd / 3)

    # ------------------------------------------------------------ the past

    def past_of(self, item: TurnItem, rng: random.Random) -> list[bytes] | None:
        """Return the past as it puts it together from what it kept and what it was sent; None when it lacks some."""
        if not item.known:
            return list(item.past.events[: item.shown])
        kept = self.kept.get(item.instance_id, [])
        if len(kept) != item.known or rng.random() < self.forgets:
            return None
        past = kept + item.past.events[item.known : item.shown]
        if past != item.past.events[: item.shown]:
            raise Violation(f"{item.instance_id}: what was kept and what was sent are not the past")
        return past

    def keep(self, instance_id: str, past: list[bytes], response: pb.OrchestratorResponse) -> None:
        """Keep the past of a turn, unless its answer ends the execution."""
        self.kept.pop(instance_id, None)
        if self.keeps and not any(action.HasField("complete") for action in response.actions):
            self.kept[instance_id] = list(past)

    # ------------------------------------------------------------ answers

    def lacks(self, history: Sequence[bytes]) -> bool:
        """Whether the history was made with a version that it has not."""
        made_with = _version(history)
        return made_with is not None and made_with not in self.versions

    def say_version(self, history: Sequence[bytes], response: pb.OrchestratorResponse) -> None:
        """Tell the version that ran: that of the history, or its latest."""
        response.version.name = _version(history) or self.versions[-1]

    def covered(self, past: list[bytes], taken: list[bytes]) -> list[bytes]:
        """Return what the history then says: the version stands on the start of the turn that was the first."""
        if _version(past) is not None:
            return [*past, *taken]
        started = events.decode(taken[0])
        started.orchestrator_started.version.name = self.versions[-1]
        return [*past, events.encode(started), *taken[1:]]

    def some(self, new: list[bytes], rng: random.Random) -> list[bytes]:
        """Return the events of a turn that it takes: at least one behind the start."""
        if len(new) <= 2 or rng.random() >= self.partial:
            return new
        return new[: rng.randint(2, len(new) - 1)]

    def parts(self, response: pb.OrchestratorResponse, rng: random.Random) -> list[pb.OrchestratorResponse]:
        """Return an answer whole, or cut; some of the parts may come twice."""
        if rng.random() >= self.cuts:
            return [response]
        found = []
        for number in range(len(response.actions) + 1):
            part = pb.OrchestratorResponse()
            part.CopyFrom(response)
            del part.actions[:]
            part.actions.extend(response.actions[number : number + 1])
            part.is_partial, part.chunk_index.value = number < len(response.actions), number
            if number:
                part.num_events_processed.value = 0
            found += [part] * (1 + (rng.random() < 0.1))
        return found


def _version(history: Sequence[bytes]) -> str | None:
    starts = (events.decode(event).orchestrator_started for event in history)
    return next((start.version.name for start in starts if start.version.name), None)


def not_available() -> pb.OrchestratorResponse:
    """Return the answer of a worker that lacks the version."""
    return pb.OrchestratorResponse(actions=[pb.Action(id=1, version_not_available=pb.VersionNotAvailable())])
