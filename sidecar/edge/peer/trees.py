"""What sidecars ask each other about trees of workflows: to look at children of theirs, or to remove them.

Who asks is known by the link. The access policy is not asked: a child obeys the workflow that made it, and one who is
not its parent learns nothing of it.
"""

from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from sidecar.actors.trees import (
    MOST_CHILDREN,
    MOST_HOPS,
    MOST_SECONDS,
    Answer,
    Branch,
    TreeOptions,
    Trees,
    UnreachableError,
)
from sidecar.core.ids import PeerId
from sidecar.core.model import ActorId, CallId, Child
from sidecar.edge.peer.forward import Forwarder
from sidecar.edge.peer.handshake import SMALLEST_LIMIT
from sidecar.edge.rpc import Forwarded, Methods, guarded, parse
from sidecar.edge.transport.ports import Call, Refused, StatusCode, UnaryHandler
from sidecar.schema import peer_pb2 as pb

LOOK, REMOVE = "LookAtChildren", "RemoveChildren"
MOST_COUNT = (1 << 31) - 1  # that an answer to a client has room for
_MOST_BYTES = SMALLEST_LIMIT // 2  # of the children in one request
_AROUND = 8  # bytes around each of them, at most
_LONGEST_PATH = 1_000  # characters that are shown of a path of IDs
_SHORTEST = 0.05  # seconds that an app has at least, and that it leaves for the way back of its answer


class PeerTrees:
    """Both ends: asks other apps, and answers them. Implements `trees.Elsewhere`."""

    def __init__(self, forwarder: Forwarder, trees: Trees) -> None:
        self._forwarder = forwarder
        self._trees = trees
        self._clock = forwarder.engine.clock
        self._me = forwarder.engine.me

    async def ask(self, peer: PeerId, remove: bool, branches: Sequence[Branch], options: TreeOptions) -> Answer:
        """See `Elsewhere`."""
        removed = first = 0
        for children in _portions([_message(branch) for branch in branches]):
            answer = await self._ask(peer, remove, children, options)
            removed += answer.removed
            if answer.running is not None:
                return Answer(removed, answer.running, first + answer.top)
            first += len(children)
        return Answer(removed)

    async def _ask(self, peer: PeerId, remove: bool, children: list[pb.Child], options: TreeOptions) -> Answer:
        seconds = max(_SHORTEST, options.until - self._clock.monotonic())
        reach = min(options.reach, seconds)
        request = pb.ChildrenRequest(
            children=children, force=options.force, hops=options.hops, reach_milliseconds=int(reach * 1000)
        )
        try:
            body = await self._forwarder.ask(
                peer, REMOVE if remove else LOOK, request.SerializeToString(), seconds, reach
            )
            return _answer(pb.ChildrenAnswer.FromString(body), len(children))
        except (Refused, DecodeError, ValueError) as error:
            why = error.message if isinstance(error, Refused) else "its answer makes no sense"
            raise UnreachableError(f"app '{peer[1]}' did not do its part: {why}") from error

    def methods(self) -> Methods:
        """Return what peers may ask, by name."""
        return {LOOK: guarded(self._serving(remove=False)), REMOVE: guarded(self._serving(remove=True))}

    def _serving(self, *, remove: bool) -> UnaryHandler:
        async def serve(call: Call, body: bytes) -> bytes:
            request = parse(pb.ChildrenRequest, body)
            if not isinstance(call, Forwarded) or len(request.children) > MOST_CHILDREN:
                text = f"a sidecar asks another about at most {MOST_CHILDREN} children at once"
                raise Refused(StatusCode.INVALID_ARGUMENT, text)
            tops = await self._trees.own(self._branch(call, child) for child in request.children)
            options = self._options(call, request)
            try:
                if remove:  # the app where the tree begins has had all of it looked at
                    answer = await self._trees.remove(tops, options, look_first=False)
                else:
                    answer = await self._trees.look(tops, options)
            except UnreachableError as error:
                raise Refused(StatusCode.UNAVAILABLE, str(error)) from error
            return pb.ChildrenAnswer(
                removed=answer.removed, running=answer.running, child=answer.top
            ).SerializeToString()

        return serve

    def _branch(self, call: Forwarded, child: pb.Child) -> Branch:
        parent = ActorId(call.received.namespace, call.received.app, "workflow", "", child.parent_id)
        made_by = CallId(child.call.execution_id, child.call.turn, child.call.task_id)
        return Branch(parent, Child(self._me.workflow("", child.id), made_by))

    def _options(self, call: Call, request: pb.ChildrenRequest) -> TreeOptions:
        seconds = MOST_SECONDS if call.deadline is None else call.deadline
        reach = min(seconds, request.reach_milliseconds / 1000)
        return TreeOptions(
            request.force, self._trees.until(seconds, shortest_margin=_SHORTEST), reach, min(request.hops, MOST_HOPS)
        )


def _portions(children: list[pb.Child]) -> Iterator[list[pb.Child]]:
    """Return the children in portions that any sidecar receives in one frame."""
    portion: list[pb.Child] = []
    size = 0
    for child in children:
        size += child.ByteSize() + _AROUND
        if portion and size > _MOST_BYTES:
            yield portion
            portion, size = [], child.ByteSize() + _AROUND
        portion.append(child)
    if portion:
        yield portion


def _message(branch: Branch) -> pb.Child:
    execution, turn, task = branch.child.call
    call = pb.Call(execution_id=execution, turn=turn, task_id=task)
    return pb.Child(parent_id=branch.parent.id, id=branch.child.actor.id, call=call)


def _answer(answer: pb.ChildrenAnswer, asked: int) -> Answer:
    """Read what a peer says, who may say anything. Raises ValueError."""
    if answer.removed > MOST_COUNT:
        raise ValueError
    if not answer.HasField("running"):
        return Answer(answer.removed)
    if answer.child >= asked or not answer.running.isprintable():
        raise ValueError
    return Answer(answer.removed, answer.running[:_LONGEST_PATH], answer.child)
