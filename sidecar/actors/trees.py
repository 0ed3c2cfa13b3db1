"""Workflows with all that is below them, in this app and in others: looked at, and removed from the leaves up.

Each app walks the part of a tree that it has, and asks other apps for what they have below that. A child obeys the
call that made it and nothing else, so whoever is no child of the one who asks is treated as if it were not there.
Every step may be repeated: what is gone is skipped.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from sidecar.actors.clock import usable
from sidecar.actors.engine import Engine
from sidecar.actors.residents import Address
from sidecar.core import operations
from sidecar.core.identity import Context
from sidecar.core.ids import PeerId
from sidecar.core.model import DEFAULT_HUB, ActorId, CallId, Child, Decision, Instance, Outcome, Reply, State

T = TypeVar("T")
R = TypeVar("R")
MOST_HOPS = 64  # apps that are asked one behind the other: a peer that lies might make a tree endless
MOST_CHILDREN = 200  # that an app is asked about at once
MOST_SECONDS = 60.0  # of one errand for a caller without a deadline
REACH_SECONDS = 5.0  # how long an app is tried for such a caller
_AT_ONCE = 50  # instances that are worked on side by side
_MOST_TRIES = 8
_PAUSE = 0.05  # seconds between two looks whether children were created
_GONE = Reply(Outcome.STALE)
_MORE_BELOW = Reply(Outcome.UNAVAILABLE, "it has made more children meanwhile")


class UnreachableError(Exception):
    """Another app that has a part of the tree gave no answer in time; the text names it."""


class Branch(NamedTuple):
    """A child, and the workflow that made it."""

    parent: ActorId
    child: Child


class TreeOptions(NamedTuple):
    """How an errand over a tree is done.

    `force` says that it does not matter whether instances have ended; `until` is when it must be done, as a monotonic
    time; an app without a link is tried for `reach` seconds, and at most `hops` apps are asked one behind the other.
    """

    force: bool
    until: float
    reach: float = REACH_SECONDS
    hops: int = MOST_HOPS


class Answer(NamedTuple):
    """How many instances were removed, and the path to one that is in the way because it has not ended, in words.

    `top` says which of those that were asked about that one is, or is below.
    """

    removed: int = 0
    running: str | None = None
    top: int = 0


class Elsewhere(Protocol):
    """The sidecars of other apps."""

    async def ask(self, peer: PeerId, remove: bool, branches: Sequence[Branch], options: TreeOptions) -> Answer:
        """Have an app look at children of ours, or remove them, with all that is below. Raises UnreachableError."""


class Node(NamedTuple):
    """An instance of this app in a tree; `path` has the IDs that lead to it."""

    instance: Instance
    path: tuple[str, ...]
    top: int

    @property
    def address(self) -> Address:
        """Where its actor is."""
        return self.instance.hub, self.instance.id


def _stopped_at(node: Node) -> Answer:
    return Answer(0, _in_words(node.path), node.top)


def _in_words(path: Sequence[str], end: str = "") -> str:
    """Return a path in the words that SDKs' users know; `end` is what another app has told of the rest."""
    return ": ".join([*(f"child workflow '{instance_id}'" for instance_id in path), *([end] if end else [])])


class _Step(NamedTuple):
    """A child in another app, and what leads to it."""

    branch: Branch
    path: tuple[str, ...]
    top: int


@dataclass(slots=True)
class _Part:
    """What this app has of a tree, level by level from the top, and which apps have more of it."""

    levels: list[list[Node]] = field(default_factory=list)
    calls: dict[int, set[CallId]] = field(default_factory=dict)  # of the children that an instance had, by its key
    elsewhere: defaultdict[PeerId, list[_Step]] = field(default_factory=lambda: defaultdict(list))
    running: Node | None = None


async def in_groups(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do something to each, some at a time: those of a group share commits."""
    done: list[R] = []
    for start in range(0, len(items), _AT_ONCE):
        done += await asyncio.gather(*map(work, items[start : start + _AT_ONCE]))
    return done


class Trees:
    """The trees over one sidecar's instances. `elsewhere` is set once there are links."""

    elsewhere: Elsewhere

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def until(self, seconds: float, **margin: float) -> float:
        """Return when to be done for a caller who waits so long, as a monotonic time."""
        return self.engine.clock.monotonic() + usable(seconds, **margin)

    async def own(self, branches: Iterable[Branch]) -> list[Node]:
        """Return those children that are here, as tops of trees, each with its place among the branches."""
        found = [(top, await self._own(branch)) for top, branch in enumerate(branches)]
        return [Node(instance, (instance.id,), top) for top, instance in found if instance is not None]

    async def _own(self, branch: Branch) -> Instance | None:
        actor = branch.child.actor
        state = await self.engine.store.load(actor.hub or DEFAULT_HUB, actor.id)
        if state is None or not operations.is_child_of(state.instance, branch.parent, branch.child.call):
            return None
        return state.instance

    async def look(self, tops: list[Node], options: TreeOptions) -> Answer:
        """Look at whole trees, their tops as well: is there one that has not ended, can every app be reached?

        Raises:
            UnreachableError: an app cannot be asked, and none of the others has one that runs.
        """
        return await self._look(await self._walk(tops, options), options)

    async def _look(self, part: _Part, options: TreeOptions) -> Answer:
        if part.running is not None:
            return _stopped_at(part.running)
        return await self._ask_others(part.elsewhere, False, options)

    async def remove(self, tops: list[Node], options: TreeOptions, *, look_first: bool) -> Answer:
        """Remove whole trees, each instance after those below it; stop at one that has not ended, unless by force.

        `look_first` says that nothing is to go unless `look` finds nothing in the way.

        Raises:
            UnreachableError: an app did not do its part. What is above that is kept, and a repetition goes on there.
        """
        count = 0
        for attempt in range(_MOST_TRIES):
            part = await self._walk(tops, options)
            if look_first and not attempt:
                answer = await self._look(part, options)
                if answer.running is not None:
                    return answer
            answer, finished = await self._remove_part(part, options)
            count += answer.removed
            if finished:
                return answer._replace(removed=count)
        raise UnreachableError(f"workflows of app '{self.engine.me.app}' make more children all the time: try again")

    async def _remove_part(self, part: _Part, options: TreeOptions) -> tuple[Answer, bool]:
        """Remove what a walk has found; return also whether that was all, or something stands in the way."""
        if part.running is not None:
            return _stopped_at(part.running), True
        answer = await self._ask_others(part.elsewhere, True, options)
        if answer.running is not None:
            return answer, True
        count = answer.removed
        for level in reversed(part.levels):
            self._check_time(options)
            replies = await in_groups(
                level, lambda node: self._remove_one(node, part.calls[node.instance.key], options)
            )
            count += sum(reply.outcome is Outcome.DONE for reply in replies)
            runs = [node for node, reply in zip(level, replies, strict=True) if reply.outcome is Outcome.WRONG_STATE]
            if runs:
                return _stopped_at(runs[0])._replace(removed=count), True
            if _MORE_BELOW in replies:
                return Answer(count), False
        return Answer(count), True

    async def _remove_one(self, node: Node, known: set[CallId], options: TreeOptions) -> Reply:
        def decide(at: Context, state: State | None) -> Decision:
            if state is None or state.instance.key != node.instance.key:
                return Decision(None, _GONE)
            if not known.issuperset(state.children):
                return Decision(None, _MORE_BELOW)
            return operations.purge(at, state, options.force)

        return await self.engine.submit(node.address, decide)

    # ------------------------------------------------------------ the own part

    async def _walk(self, tops: list[Node], options: TreeOptions) -> _Part:
        """Find what is here of trees, down to the first instance that runs, unless by force."""
        part = _Part()
        level = tops
        while level:
            part.levels.append(level)
            below: list[Node] = []
            for node in level:
                self._check_time(options)
                if not (options.force or node.instance.status.terminal):
                    part.running = node
                    return part
                below += await self._below(node, part, options)
                if part.running is not None:
                    return part
            level = below
        return part

    async def _below(self, node: Node, part: _Part, options: TreeOptions) -> list[Node]:
        """Return the children of an instance that are here, and note those in other apps."""
        me = self.engine.me
        late = await self._created(node.instance, options)
        if late is not None:
            part.running = node._replace(path=(*node.path, late))
            return []
        children = await self.engine.store.children(node.instance.key)
        part.calls[node.instance.key] = {child.call for child in children}
        here = []
        for child in children:
            branch = Branch(me.workflow(*node.address), child)
            if not me.owns(child.actor):
                part.elsewhere[child.actor[:2]].append(_Step(branch, node.path, node.top))
            elif (instance := await self._own(branch)) is not None:
                here.append(Node(instance, (*node.path, instance.id), node.top))
        return here

    async def _created(self, instance: Instance, options: TreeOptions) -> str | None:
        """Wait until the children that an instance has asked for are there: else they would come to be later.

        Return the ID of one of this app that does not come, which counts as running: its start may wait for this look.
        """
        store, clock = self.engine.store, self.engine.clock
        expected = await store.creations(instance.key)
        until = min(options.until, clock.monotonic() + options.reach)
        while expected:
            if clock.monotonic() >= until:
                child = expected[0].actor
                if self.engine.me.owns(child) and not options.force:
                    return child.id
                raise UnreachableError(f"app '{child.app}' has not taken in the start of '{child.id}' yet")
            await clock.sleep(_PAUSE)
            left = await store.creations(instance.key)
            expected = [child for child in expected if child in left]
        return None

    def _check_time(self, options: TreeOptions) -> None:
        if self.engine.clock.monotonic() >= options.until:
            raise UnreachableError(f"app '{self.engine.me.app}' has too much of the tree to be done in time")

    # ------------------------------------------------------------ other apps

    async def _ask_others(self, steps: dict[PeerId, list[_Step]], remove: bool, options: TreeOptions) -> Answer:
        """Ask all apps that have more of the trees; an instance that runs is said first, then who gave no answer."""
        if steps and not options.hops:
            raise UnreachableError(f"the tree leads through more than {MOST_HOPS} apps one behind the other")
        asked = (self._ask(peer, remove, of_peer, options) for peer, of_peer in steps.items())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        count, running, top, failed = 0, None, 0, None
        for answer in answers:
            if isinstance(answer, BaseException):
                failed = failed or answer
                continue
            count += answer.removed
            if answer.running is not None:
                running, top = answer.running, answer.top
        if failed is not None and running is None:
            raise failed
        return Answer(count, running, top)

    async def _ask(self, peer: PeerId, remove: bool, steps: list[_Step], options: TreeOptions) -> Answer:
        count = 0
        fewer = options._replace(hops=options.hops - 1)
        for start in range(0, len(steps), MOST_CHILDREN):
            some = steps[start : start + MOST_CHILDREN]
            answer = await self.elsewhere.ask(peer, remove, [step.branch for step in some], fewer)
            count += answer.removed
            if answer.running is not None:
                step = some[answer.top]
                return Answer(count, _in_words(step.path, answer.running), step.top)
        return Answer(count)
