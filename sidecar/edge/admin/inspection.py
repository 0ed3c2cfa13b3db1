"""`sidecar.admin.AdminService`: why workflows wait, the way out, and a workflow with its children over all its apps.

What another app does not tell, or cannot be asked, is shown as such in its place in the tree.
"""

import asyncio
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from sidecar.core import events
from sidecar.core.causes import Cause
from sidecar.core.errors import DeniedError
from sidecar.core.ids import LARGEST_NUMBER
from sidecar.core.model import DEFAULT_HUB, ActorId, CallId, Kind, Outcome
from sidecar.core.names import invalid_app_id
from sidecar.edge import causes, methods
from sidecar.edge.left_out import as_many_as_fit, fitted
from sidecar.edge.peer.forward import Forwarder
from sidecar.edge.rpc import Methods, address_of, caller_of, done, guarded, parsed
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from sidecar.services.clients import Caller
from sidecar.services.inspection import Inspection, TreeNode, Wait
from sidecar.store.protocol import Waiting

TREE = "GetTree"
_PAGE, _LARGEST_PAGE = 100, 1_000
_DEPTH, _DEEPEST = 16, 64
_PEER_SECONDS = 3.0
_MOST_CHILDREN = 1_000  # of one instance
_MOST_BYTES = 3 * 1024 * 1024  # of an answer: its caller receives 4 MiB
_MOST_QUESTIONS = 1_000  # to other apps, for one tree: what they answer leads to more


@dataclass(slots=True)
class _Looks:
    """For whom a tree is put together, and how many questions may still be asked of other apps."""

    caller: Caller
    left: int = _MOST_QUESTIONS


class Admin:
    """Handlers."""

    def __init__(self, inspection: Inspection, forwarder: Forwarder) -> None:
        self._inspection = inspection
        self._forwarder = forwarder
        self._me = forwarder.engine.me

    def handlers(self) -> Handlers:
        """Return the handlers by path."""
        return Handlers(unary={methods.ADMIN + name: method for name, method in self.methods().items()})

    def methods(self) -> Methods:
        """Return the handlers by RPC; `TREE` is also what a peer may ask."""
        methods = {
            "ListWaiting": parsed(pb.ListWaitingRequest, self._list_waiting),
            "Retry": parsed(pb.RetryRequest, self._retry),
            "Unpark": parsed(pb.UnparkRequest, self._unpark),
            "Terminate": parsed(pb.TerminateRequest, self._terminate),
            "FailCall": parsed(pb.FailCallRequest, self._fail_call),
            TREE: parsed(pb.GetTreeRequest, self._tree),
        }
        return {name: guarded(method) for name, method in methods.items()}

    async def _list_waiting(self, call: Call, request: pb.ListWaitingRequest) -> bytes:
        limit = min(request.limit or _PAGE, _LARGEST_PAGE)
        after = min(request.after, LARGEST_NUMBER)
        found = await self._inspection.waiting(request.app_id, after, limit)
        calls = [fitted(_waiting(*one), _MOST_BYTES) for one in found]
        calls = calls[: as_many_as_fit([one.ByteSize() for one in calls], _MOST_BYTES)]
        return pb.ListWaitingResponse(calls=calls).SerializeToString()

    async def _retry(self, call: Call, request: pb.RetryRequest) -> bytes:
        return pb.RetryResponse(app_ids=self._inspection.retry(request.app_id)).SerializeToString()

    async def _unpark(self, call: Call, request: pb.UnparkRequest) -> bytes:
        done(await self._inspection.unpark(address_of(call, request.instance_id)))
        return pb.UnparkResponse().SerializeToString()

    async def _terminate(self, call: Call, request: pb.TerminateRequest) -> bytes:
        if not request.reason:
            raise Refused(StatusCode.INVALID_ARGUMENT, "say why the workflow is to end: it becomes its output")
        address = address_of(call, request.instance_id)
        done(await self._inspection.terminate(address, request.reason, recursive=request.recursive))
        return pb.TerminateResponse().SerializeToString()

    async def _fail_call(self, call: Call, request: pb.FailCallRequest) -> bytes:
        if not request.reason:
            raise Refused(StatusCode.INVALID_ARGUMENT, "say why the call is to fail: its workflow gets the reason")
        reply = await self._inspection.fail(min(request.id, LARGEST_NUMBER), request.reason)
        if reply.outcome is Outcome.MISSING:
            raise Refused(StatusCode.NOT_FOUND, f"no call {request.id} waits: it has an answer, or never was")
        done(reply)
        return pb.FailCallResponse().SerializeToString()

    async def _tree(self, call: Call, request: pb.GetTreeRequest) -> bytes:
        tree = await self._root(call, request, min(request.depth or _DEPTH, _DEEPEST))
        _prune(tree, _MOST_BYTES)
        return tree.SerializeToString()

    async def _root(self, call: Call, request: pb.GetTreeRequest, depth: int) -> pb.TreeNode:
        """Return the tree of an instance of this app, or of the app that an own client names: another may name none."""
        address = address_of(call, request.instance_id)
        app, namespace = request.app_id or self._me.app, request.namespace or self._me.namespace
        looks = _Looks(caller_of(call))
        if (namespace, app) != (self._me.namespace, self._me.app):
            wrong = invalid_app_id(app) or invalid_app_id(namespace)
            if wrong or looks.caller.app:
                raise Refused(StatusCode.INVALID_ARGUMENT, wrong or "an app is asked for its own instances only")
            try:
                return await self._elsewhere(ActorId(namespace, app, "workflow", "", address[1]), depth, looks)
            except DecodeError as error:
                raise Refused(StatusCode.UNAVAILABLE, f"the answer of app '{app}' cannot be read") from error
        branch = await self._inspection.branch(address, looks.caller)
        if branch is None:
            raise Refused(StatusCode.NOT_FOUND, "no such instance exists")
        return await self._node(branch, depth, looks)

    async def _node(self, branch: TreeNode, depth: int, looks: _Looks) -> pb.TreeNode:
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
        found = (self._child(child.actor, child.call, depth - 1, looks) for child in children)
        node.children.extend(await asyncio.gather(*found))
        return node

    async def _child(self, actor: ActorId, call: CallId | None, depth: int, looks: _Looks) -> pb.TreeNode:
        """Return a part of a tree; for another app only that a third one has it, which it may ask itself.

        The third app may let this one see more than that other.
        """
        node = pb.TreeNode(app_id=actor.app, namespace=actor.namespace, instance_id=actor.id)
        try:
            if not self._me.owns(actor):
                return node if looks.caller.app else await self._elsewhere(actor, depth, looks)
            branch = await self._inspection.branch((actor.hub or DEFAULT_HUB, actor.id), looks.caller)
            parent = None if branch is None else branch.view.parent
            if branch is not None and parent is not None and call in (None, parent.call):
                return await self._node(branch, depth, looks)
            node.error = "it is not there: not created yet, or purged"
        except DeniedError as error:
            node.error = str(error)
        except Refused as refused:
            node.error = refused.message
        except DecodeError:
            node.error = f"the answer of app '{actor.app}' cannot be read"
        return node

    async def _elsewhere(self, actor: ActorId, depth: int, looks: _Looks) -> pb.TreeNode:
        looks.left -= 1
        if looks.left < 0:
            raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"other apps were asked {_MOST_QUESTIONS} times for this tree")
        request = pb.GetTreeRequest(instance_id=actor.id, depth=depth).SerializeToString()
        answer = await self._forwarder.ask((actor.namespace, actor.app), TREE, request, _PEER_SECONDS)
        return await self._completed(pb.TreeNode.FromString(answer), depth, looks)

    async def _completed(self, node: pb.TreeNode, depth: int, looks: _Looks) -> pb.TreeNode:
        """Return what another app has answered, with the parts of third apps, which are bare in it."""
        parts = await asyncio.gather(*(self._part(part, depth - 1, looks) for part in node.children[:_MOST_CHILDREN]))
        del node.children[:]
        node.children.extend(parts)
        return node

    async def _part(self, node: pb.TreeNode, depth: int, looks: _Looks) -> pb.TreeNode:
        if node.name or node.error or depth < 1:
            return await self._completed(node, depth, looks)
        return await self._child(
            ActorId(node.namespace, node.app_id, "workflow", "", node.instance_id), None, depth, looks
        )


def _prune(node: pb.TreeNode, room: int) -> int:
    """Leave out what of a tree is beyond so many bytes, and say so where it was; return how many are left."""
    waits, children = list(node.waits), list(node.children)
    del node.waits[:], node.children[:]
    room -= node.ByteSize()
    shown = as_many_as_fit([wait.ByteSize() for wait in waits], room) if waits else 0
    node.waits.extend(waits[:shown])
    room -= sum(wait.ByteSize() for wait in node.waits)
    for child in children:
        if room < 0:
            break
        room = _prune(child, room)
        node.children.append(child)
    left_out = len(waits) - shown + len(children) - len(node.children)
    if left_out:
        node.error = f"{left_out} entries of this part are left out: the caller cannot receive more"
    return room


def _waiting(call: Waiting, attempts: int, cause: Cause | None) -> pb.WaitingCall:
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
        attempts=attempts,
        error=call.crashes.error or ("" if cause is None else cause.text),
        cause=None if cause is None else causes.message(cause),
        crashes=call.crashes.times,
        caller=call.instance.app,
    )


def _wait(wait: Wait) -> pb.Wait:
    shown = pb.Wait(
        kind=wait.kind,
        name=wait.name,
        app_id=wait.app,
        task_id=wait.task,
        state=wait.state,
        error=wait.error,
        crashes=wait.crashes,
        cause=None if wait.cause is None else causes.message(wait.cause),
    )
    if wait.since:
        shown.since.CopyFrom(events.timestamp(wait.since))
    return shown
