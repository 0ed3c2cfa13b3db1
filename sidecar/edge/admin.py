"""`sidecar.admin.AdminService`: why workflows wait, the way out, and a workflow with its children over all its apps.

What another app does not tell, or cannot be asked, is shown as such in its place in the tree.
"""

import asyncio

from sidecar.core import events
from sidecar.core.errors import DeniedError
from sidecar.core.model import DEFAULT_HUB, Child, Kind, Outcome
from sidecar.edge.forward import Forwarder
from sidecar.edge.rpc import Methods, address_of, caller_of, done, guarded, parsed
from sidecar.edge.transport import Call, Handlers, Refused, Status
from sidecar.inspection import Branch, Inspection, Wait
from sidecar.schema import admin_pb2 as pb
from sidecar.service import Caller
from sidecar.store.protocol import Waiting

SERVICE = "/sidecar.admin.AdminService/"
TREE = "GetTree"
_PAGE, _LARGEST_PAGE = 100, 1_000
_DEPTH, _DEEPEST = 16, 64
_PEER_SECONDS = 3.0
_MOST_CHILDREN = 1_000  # of one instance


class Admin:
    """Handlers."""

    def __init__(self, inspection: Inspection, forwarder: Forwarder) -> None:
        self._inspection = inspection
        self._forwarder = forwarder
        self._me = forwarder.engine.me

    def handlers(self) -> Handlers:
        """Return the handlers by path."""
        return Handlers(unary={SERVICE + name: method for name, method in self.methods().items()})

    def methods(self) -> Methods:
        """Return the handlers by RPC; `TREE` is also what a peer may ask."""
        methods = {
            "ListWaiting": parsed(pb.ListWaitingRequest, self._list_waiting),
            "Retry": parsed(pb.RetryRequest, self._retry),
            "FailCall": parsed(pb.FailCallRequest, self._fail_call),
            TREE: parsed(pb.GetTreeRequest, self._tree),
        }
        return {name: guarded(method) for name, method in methods.items()}

    async def _list_waiting(self, call: Call, request: pb.ListWaitingRequest) -> bytes:
        limit = min(request.limit or _PAGE, _LARGEST_PAGE)
        found = await self._inspection.waiting(request.app_id, request.after, limit)
        return pb.ListWaitingResponse(calls=[_waiting(*one) for one in found]).SerializeToString()

    async def _retry(self, call: Call, request: pb.RetryRequest) -> bytes:
        return pb.RetryResponse(app_ids=self._inspection.retry(request.app_id)).SerializeToString()

    async def _fail_call(self, call: Call, request: pb.FailCallRequest) -> bytes:
        if not request.reason:
            raise Refused(Status.INVALID_ARGUMENT, "say why the call is to fail: its workflow gets the reason")
        reply = await self._inspection.fail(request.id, request.reason)
        if reply.outcome is Outcome.MISSING:
            raise Refused(Status.NOT_FOUND, f"no call {request.id} waits: it has an answer, or never was")
        done(reply)
        return pb.FailCallResponse().SerializeToString()

    async def _tree(self, call: Call, request: pb.GetTreeRequest) -> bytes:
        address = address_of(call, request.instance_id)
        branch = await self._inspection.branch(address, caller_of(call))
        if branch is None:
            raise Refused(Status.NOT_FOUND, "no such instance exists")
        depth = min(request.depth or _DEPTH, _DEEPEST)
        return (await self._node(branch, depth, caller_of(call))).SerializeToString()

    async def _node(self, branch: Branch, depth: int, caller: Caller) -> pb.TreeNode:
        instance = branch.view.instance
        node = pb.TreeNode(
            app_id=self._me.app,
            namespace=self._me.namespace,
            instance_id=instance.id,
            name=instance.name,
            status=instance.status.name,
            created=events.timestamp(instance.created_at),
            waits=[_wait(wait) for wait in branch.waits],
        )
        if instance.completed_at is not None:
            node.completed.CopyFrom(events.timestamp(instance.completed_at))
        children = list(branch.children)[:_MOST_CHILDREN] if depth > 1 else []
        node.children.extend(await asyncio.gather(*(self._child(child, depth - 1, caller) for child in children)))
        return node

    async def _child(self, child: Child, depth: int, caller: Caller) -> pb.TreeNode:
        actor = child.actor
        missing = pb.TreeNode(app_id=actor.app, namespace=actor.namespace, instance_id=actor.id)
        try:
            if not self._me.owns(actor):
                return await self._elsewhere(child, depth)
            branch = await self._inspection.branch((actor.hub or DEFAULT_HUB, actor.id), caller)
            if branch is not None and branch.view.parent is not None and branch.view.parent.call == child.call:
                return await self._node(branch, depth, caller)
            missing.error = "it is not there: not created yet, or purged"
        except DeniedError as error:
            missing.error = str(error)
        except Refused as refused:
            missing.error = refused.message
        return missing

    async def _elsewhere(self, child: Child, depth: int) -> pb.TreeNode:
        request = pb.GetTreeRequest(instance_id=child.actor.id, depth=depth).SerializeToString()
        peer = (child.actor.namespace, child.actor.app)
        return pb.TreeNode.FromString(await self._forwarder.ask(peer, TREE, request, _PEER_SECONDS))


def _waiting(call: Waiting, attempts: int, error: str) -> pb.WaitingCall:
    return pb.WaitingCall(
        id=call.id,
        instance_id=call.instance.id,
        task_id=call.call.task,
        kind="child" if call.kind is Kind.CREATE else "activity",
        name=call.name,
        app_id=call.target.app,
        namespace=call.target.namespace,
        since=events.timestamp(call.since),
        delivered=call.delivered,
        attempts=0 if call.delivered else attempts,
        error="" if call.delivered else error,
    )


def _wait(wait: Wait) -> pb.Wait:
    shown = pb.Wait(
        kind=wait.kind, name=wait.name, app_id=wait.app, task_id=wait.task, state=wait.state, error=wait.error
    )
    if wait.since:
        shown.since.CopyFrom(events.timestamp(wait.since))
    return shown
