"""Running again what has ended: rewind, restart, and rerun from an event."""

from google.protobuf.wrappers_pb2 import StringValue

from sidecar.actors.id_reuse import replacing
from sidecar.actors.reminders import Reminders
from sidecar.actors.residents import Address
from sidecar.core import events, operations
from sidecar.core.identity import Context
from sidecar.core.model import Decision, Instance, Outcome, Reply, State
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

    async def rewind(self, address: Address, reason: StringValue | None, caller: Caller = OWN) -> Reply:
        """Let an instance that has failed run again from before its failures, and its children with it.

        Raises:
            DeniedError: the policy does not let the caller's app do that.
        """
        for _ in range(_MOST_TRIES):
            reply = await self._rewind_once(address, reason, caller)
            if reply.outcome is not Outcome.UNAVAILABLE:
                return reply
        return rewind.MOVED

    async def _rewind_once(self, address: Address, reason: StringValue | None, caller: Caller) -> Reply:
        self._check(caller, await self._service.instance(address))
        record, execution = await self._reminders.record(address), self._execution_for(caller)

        def decide(at: Context, state: State | None) -> Decision:
            return rewind.rewind(at, state, reason, record, execution)

        return await self._engine.submit(address, with_dedup_keys(caller, decide))

    def _check(self, caller: Caller, instance: Instance | None) -> None:
        """See that the caller's app may let an instance run again. Raises DeniedError."""
        self._service.access.check(caller.app, Operation.RERUN, None if instance is None else instance.name)

    def _execution_for(self, caller: Caller) -> str:
        """Return the ID of a new execution. Of a call that was sent on, which may come twice, it is always the same."""
        return "-".join(f"{key.store}-{key.id}" for key in caller.dedup_keys) or self._engine.ids.new_id()

    async def restart(self, address: Address, new_id: str | None, caller: Caller = OWN) -> tuple[Reply, str]:
        """Start what an instance does once more, under a new ID or, when it has ended, its own; return that ID too.

        Name, version, tags and the input of its last execution are the same. It is nobody's child, and starts at once.

        Raises:
            DeniedError: the policy does not let the caller's app do that, or take the place of the one that has ended.
        """
        instance = await self._service.instance(address)
        self._check(caller, instance)
        if instance is None:
            return rewind.MISSING, ""
        identity = Identity(instance.hub, new_id or instance.id, self._execution_for(caller))
        if instance.origin == identity.execution:
            return Reply(Outcome.DUPLICATE), identity.id
        if new_id is None and not instance.status.terminal:
            text = f"workflow '{instance.id}' is {instance.status.name}: its ID is free for that when it has ended"
            return Reply(Outcome.WRONG_STATE, text), ""
        begun, _ = await self._engine.store.payloads(instance.key)
        if begun is None:
            return rewind.MOVED, ""
        started = _anew(events.decode(begun).execution_started, identity, self._engine.me.app)
        if new_id is not None:
            request = Start(identity, started, None, unique=True)
            return await self._service.start(request, caller._replace(app="")), new_id  # asked of the policy above
        self._service.access.check_replacing(caller.app, instance)
        reply = await replacing(
            self._service.trees,
            address,
            lambda existing: existing.status.terminal,
            with_dedup_keys(caller, lambda at, state: operations.restart(at, state, instance.key, identity, started)),
        )
        return reply, identity.id

    async def rerun(self, address: Address, new_id: str, request: rerun.RerunRequest, caller: Caller = OWN) -> Reply:
        """Make a new instance with the past of one that has ended up to an event, and let it go on from there.

        Raises:
            DeniedError: the policy does not let the caller's app do that.
        """
        source = await self._service.instance(address)
        self._check(caller, source)
        record = await self._reminders.record(address, log=True)
        if source is None:
            return Reply(Outcome.MISSING, f"workflow instance does not exist with ID '{address[1]}'")
        if record is None or not record.is_of(source):
            return rewind.MOVED
        if new_id == source.id:
            text = "rerun workflow instance ID must be different from the original instance ID"
            return Reply(Outcome.INVALID, text)
        identity, of = Identity(source.hub, new_id, self._execution_for(caller)), rerun.Source(source, record.log)
        decide = with_dedup_keys(caller, lambda at, state: rerun.rerun(at, state, of, identity, request))
        return await self._engine.submit((source.hub, new_id), decide)


def _anew(begun: pb.ExecutionStarted, identity: Identity, app: str) -> pb.ExecutionStarted:
    return pb.ExecutionStarted(
        name=begun.name,
        **events.given(begun, "version", "input"),
        tags=begun.tags,
        instance=pb.WorkflowInstance(instance_id=identity.id, execution_id=events.text(identity.execution), app_id=app),
    )
