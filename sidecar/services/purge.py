"""The removal of workflows by clients: of one alone, or of one with all that is below it, in every app."""

from typing import NamedTuple

from sidecar.actors.residents import Address
from sidecar.actors.trees import MOST_SECONDS, REACH_SECONDS, Node, TreeOptions, UnreachableError
from sidecar.core import operations
from sidecar.core.model import DONE, Instance, Outcome, Reply
from sidecar.core.policy import Operation
from sidecar.services.clients import OWN, Caller, ClientService


class Purge(NamedTuple):
    """How instances are removed: with what is below them, even if they run, and on whose behalf.

    `until` is when to be done, as a monotonic time; `reach` is how many seconds an app without a link is tried.
    """

    recursive: bool
    force: bool
    caller: Caller = OWN
    until: float | None = None
    reach: float = REACH_SECONDS


class Purging:
    """Purges over one sidecar."""

    def __init__(self, service: ClientService) -> None:
        self._service = service
        self._engine = service.engine
        self._trees = service.trees

    async def purge(self, address: Address, how: Purge) -> tuple[Reply, int]:
        """Remove an instance that has ended; return how many instances went, in all apps.

        With what is below it, nothing goes while something there runs, unless by force, or while an app that has a part
        of it cannot be reached. Raises UnavailableError and DeniedError.
        """
        instance = await self._service.instance(address)
        self._service.access.check(how.caller.app, Operation.PURGE, None if instance is None else instance.name)
        if instance is None:
            return operations.MISSING, 0
        refusal = operations.refuse_purge(instance, how.force)
        if refusal is not None:
            return refusal, 0
        if how.recursive:
            return await self._with_all_below(instance, how)
        reply = await self._engine.submit(address, lambda at, state: operations.purge(at, state, how.force))
        return reply, int(reply.outcome is Outcome.DONE)

    async def _with_all_below(self, instance: Instance, how: Purge) -> tuple[Reply, int]:
        tops = [Node(instance, (), 0)]
        until = self._trees.until(MOST_SECONDS) if how.until is None else how.until
        options = TreeOptions(how.force, until, how.reach)
        try:
            found = await self._trees.remove(tops, options, look_first=True)
        except UnreachableError as error:
            return Reply(Outcome.UNAVAILABLE, f"workflow '{instance.id}' is kept: {error}"), 0
        if found.running is None:
            return DONE, found.removed
        which = f"its {found.running} has not ended: terminate it first, or purge by force"
        text = which if found.running else "it runs again"
        return Reply(Outcome.WRONG_STATE, f"workflow '{instance.id}' is kept: {text}"), found.removed
