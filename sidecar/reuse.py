"""When an ID may be used again: the instance that had it has ended, and all children that it left in this app too."""

from collections.abc import Callable

from sidecar.core.model import DONE, Child, Context, Decision, Instance, Outcome, Reply, State
from sidecar.engine import Address, Decide, Engine

LOOK = Reply(Outcome.UNAVAILABLE, "the children of the instance that has this ID are being looked at")


async def running_child(engine: Engine, instance: Instance) -> str:
    """Return the ID of a child that has not ended, or the path of IDs to a later one; "" when there is none.

    Children in other apps are not looked at. Raises UnavailableError.
    """
    store, me = engine.store, engine.me
    left: list[tuple[Child, tuple[str, ...]]] = [(child, ()) for child in await store.children(instance.key)]
    while left:
        child, above = left.pop()
        state = await store.load(child.actor.hub, child.actor.id) if me.owns(child.actor) else None
        if state is None or state.instance.parent is None or state.instance.parent.call != child.call:
            continue
        path = (*above, state.instance.id)
        if not state.instance.status.terminal:
            return "/".join(path)
        left += [(one, path) for one in await store.children(state.instance.key)]
    return ""


async def replacing(engine: Engine, address: Address, takes_place: Callable[[Instance], bool], decide: Decide) -> Reply:
    """Take a decision that may put a new instance in the place of one that has ended.

    `takes_place` says whether it does that, so that the children must have ended too. Raises UnavailableError.
    """
    looked = 0
    while True:
        seen: list[Instance] = []

        def look_first(at: Context, state: State | None, looked: int = looked, seen: list[Instance] = seen) -> Decision:
            if state is not None and state.instance.key != looked and takes_place(state.instance):
                seen.append(state.instance)
                return Decision(None, DONE)
            return decide(at, state)

        reply = await engine.submit(address, look_first)
        if not seen:
            return reply
        running = await running_child(engine, seen[-1])
        if running:
            return Reply(Outcome.EXISTS, taken_by_child(address[1], running))
        looked = seen[-1].key


def taken_by_child(instance_id: str, path: str) -> str:
    """Say that an ID is not free yet; some SDKs look for the first part of the text."""
    return f"an active workflow with ID '{instance_id}' already exists: its child '{path}' has not ended"
