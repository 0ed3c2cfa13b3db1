"""Messages of other apps: each is taken in once, if that app may send it, or gets a final answer."""

from functools import partial

from sidecar.actors.dedup import DedupKeys
from sidecar.actors.engine import Engine
from sidecar.actors.highest import HighestNumbers
from sidecar.actors.reminders import Reminders
from sidecar.core import activities, delivery
from sidecar.core.errors import DeniedError, MalformedError
from sidecar.core.identity import Context
from sidecar.core.model import DONE, Decision, Kind, Outcome, Reminder, Reply, State
from sidecar.core.policy import Operation
from sidecar.core.receipts import Received
from sidecar.peers.calls_under_way import CallsUnderWay, CallUnderWay
from sidecar.services.access import Access
from sidecar.store.protocol import Refusal


class PeerMessages:
    """Takes messages in."""

    def __init__(self, engine: Engine, reminders: Reminders, access: Access) -> None:
        self.engine = engine
        self.dedup_keys = DedupKeys(engine)
        self.highest = HighestNumbers(engine)
        self.calls = CallsUnderWay()
        self._reminders = reminders
        self._access = access

    async def deliver(self, message: Reminder, received: Received, call: CallUnderWay | None = None) -> Reply:
        """Take a message of another app: done, or a final answer. `call` is what was noted when it came, if it is one.

        Raises:
            UnavailableError: try again.
        """
        try:
            self._access.check_message(message, received.app)
            return await self._take(message, received, call or CallUnderWay())
        except DeniedError as error:
            return Reply(Outcome.DENIED, str(error))
        except MalformedError as error:
            return Reply(Outcome.INVALID, str(error))

    async def _take(self, message: Reminder, received: Received, call: CallUnderWay) -> Reply:
        engine = self.engine
        if message.kind is Kind.ACTIVITY:
            if not call.is_answered():
                await engine.commit(activities.accept_activity(engine.context(), message))
            return DONE
        if message.kind is Kind.WITHDRAW:
            return await self._withdraw(message)
        may_create = partial(self._access.check_creation, message, received.app)
        may_replace = partial(self._access.check_replacing, received.app)
        arrival = delivery.Arrival(
            message,
            received=(received,),
            is_answered=call.is_answered,
            may_create=may_create,
            may_replace=may_replace,
        )
        if message.kind is not Kind.EVENT:
            return await self._reminders.take(arrival)

        def decide(at: Context, state: State | None) -> Decision:
            self._access.check(received.app, Operation.RAISE, None if state is None else state.instance.name)
            return delivery.arrive(at, state, arrival)

        return await engine.submit((message.target.hub, message.target.id), decide)

    async def _withdraw(self, message: Reminder) -> Reply:
        found = await self.engine.store.foreign_activity(*message.source[:2], message.call)
        if found is not None:
            outcome = await self.engine.commit(activities.withdrawn(found))
            return DONE if outcome is not Refusal.CONFLICT else Reply(Outcome.STALE)
        return DONE
