"""When an ID may be used again: the instance that had it has ended, and all that it left below it, in every app."""

from collections.abc import Callable

from sidecar.actors.residents import Address, Decide
from sidecar.actors.trees import REACH_SECONDS, Node, TreeOptions, Trees, UnreachableError
from sidecar.core import operations
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Instance, Outcome, Reply, State

LOOK = Reply(Outcome.UNAVAILABLE, "the children of the instance that has this ID are being looked at")


async def running_child(trees: Trees, instance: Instance, seconds: float, reach: float = REACH_SECONDS) -> str:
    """Return which child of an ended instance has not ended, with the path to it; "" if none.

    Raises UnavailableError and UnreachableError.
    """
    options = TreeOptions(False, trees.until(min(seconds, REACH_SECONDS)), reach)
    return (await trees.look([Node(instance, (), 0)], options)).running or ""


async def replacing(
    trees: Trees,
    address: Address,
    takes_place: Callable[[Instance], bool],
    decide: Decide,
    seconds: float | None = None,
) -> Reply:
    """Take a decision that may put a new instance in the place of one that has ended.

    `takes_place` says whether it does that, so that the children must have ended too; `seconds` are how long the caller
    waits. Raises UnavailableError.
    """
    looked = 0
    while True:
        seen: list[Instance] = []

        def look_first(at: Context, state: State | None, looked: int = looked, seen: list[Instance] = seen) -> Decision:
            if state is not None and state.instance.key != looked and takes_place(state.instance):
                seen.append(state.instance)
                return Decision(None, DONE)
            return decide(at, state)

        reply = await trees.engine.submit(address, look_first)
        if not seen:
            return reply
        try:
            running = await running_child(trees, seen[-1], REACH_SECONDS if seconds is None else seconds)
        except UnreachableError as error:
            return Reply(Outcome.UNAVAILABLE, unknown_children(address[1], str(error)))
        if running:
            return Reply(Outcome.EXISTS, operations.not_reusable(address[1], f"{running} has not ended"))
        looked = seen[-1].key


def unknown_children(instance_id: str, why: str) -> str:
    """Say that nobody knows yet whether an ID is free."""
    return operations.not_reusable(instance_id, f"whether its last children have ended cannot be found out: {why}")
