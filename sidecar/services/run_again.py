"""Running again what has ended: rewind, restart, and rerun from an event."""

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.id_reuse import replacing
from sidecar.actors.reminders import Reminders
from sidecar.actors.residents import Address
from sidecar.core import events, operations
from sidecar.core.model import Outcome, Reply
from sidecar.core.operations import Start
from sidecar.core.policy import Operation
from sidecar.core.workflow import rerun, rewind
from sidecar.core.workflow.creation import Identity
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.clients import OWN, Caller, ClientService, with_dedup_keys

_MOST_TRIES = 8


class Administration:
    """What may be done with instances that have ended."""

    def __init__(self, service: ClientService, reminders: Reminders) -> None:
        self._service = service
        self._engine = service.engine
        self._reminders = reminders

    async def rewind(self, address: Address, reason: StringValue | None) -> Reply:
        """Let an instance that has failed run again from before its failures, and its children with it."""
        for _ in range(_MOST_TRIES):
            reply = await self._rewind_once(address, reason)
            if reply.outcome is not Outcome.UNAVAILABLE:
                return reply
        return rewind.MOVED

    async def _rewind_once(self, address: Address, reason: StringValue | None) -> Reply:
        record = await self._reminders.record(address)
        return await self._engine.submit(address, lambda at, state: rewind.rewind(at, state, reason, record))

    async def restart(self, address: Address, new_id: bool) -> tuple[Reply, str]:
        """Start what an instance does once more, under a new ID or, when it has ended, its own; return that ID too.

        Name, version, tags and the input of its last execution are the same. It is nobody's child, and starts at once.
        """
        instance = await self._service.instance(address)
        if instance is None:
            return rewind.MISSING, ""
        if not new_id and not instance.status.terminal:
            text = f"workflow '{instance.id}' is {instance.status.name}: its ID is free for that when it has ended"
            return Reply(Outcome.WRONG_STATE, text), ""
        begun, _ = await self._engine.store.payloads(instance.key)
        if begun is None:
            return rewind.MOVED, ""
        ids = self._engine.ids
        identity = Identity(instance.hub, ids.new_id() if new_id else instance.id, ids.new_id())
        started = _anew(events.decode(begun).execution_started, identity, self._engine.me.app)
        if new_id:
            return await self._service.start(Start(identity, started, None, unique=True)), identity.id
        reply = await replacing(
            self._service.trees,
            address,
            lambda existing: existing.status.terminal,
            lambda at, state: operations.restart(at, state, instance.key, identity, started),
        )
        return reply, identity.id

    async def rerun(self, address: Address, new_id: str, request: rerun.RerunRequest, caller: Caller = OWN) -> Reply:
        """Make a new instance with the past of one that has ended up to an event, and let it go on from there.

        Raises:
            DeniedError: the policy does not let the caller's app do that.
        """
        source = await self._service.instance(address)
        self._service.access.check(caller.app, Operation.RERUN, None if source is None else source.name)
        record = await self._reminders.record(address, log=True)
        if source is None:
            return Reply(Outcome.MISSING, f"workflow instance does not exist with ID '{address[1]}'")
        if record is None or not record.is_of(source):
            return rewind.MOVED
        if new_id == source.id:
            text = "rerun workflow instance ID must be different from the original instance ID"
            return Reply(Outcome.INVALID, text)
        # A call that was sent on may come twice: its execution ID says that it is the same one.
        execution = "-".join(f"{key.store}-{key.id}" for key in caller.dedup_keys) or self._engine.ids.new_id()
        identity, of = Identity(source.hub, new_id, execution), rerun.Source(source, record.log)
        decide = with_dedup_keys(caller, lambda at, state: rerun.rerun(at, state, of, identity, request))
        return await self._engine.submit((source.hub, new_id), decide)


def _anew(begun: pb.ExecutionStarted, identity: Identity, app: str) -> pb.ExecutionStarted:
    return pb.ExecutionStarted(
        name=begun.name,
        **events.given(begun, "version", "input"),
        tags=begun.tags,
        instance=pb.WorkflowInstance(instance_id=identity.id, execution_id=events.text(identity.execution), app_id=app),
    )
