"""The calls of clients about many instances: query, list, purge, terminate at once, make and remove task hubs.

Lists come in pages of a bounded number of instances and bytes: a page that would be larger than a client can receive
ends earlier. Times in a filter count from the first up to, without, the second, as in Microsoft's own test backend.
"""

import json
from collections.abc import Iterable, Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from sidecar.actors.clock import usable
from sidecar.actors.residents import Address
from sidecar.config.settings import Settings
from sidecar.core import events
from sidecar.core.model import Outcome, Status
from sidecar.core.names import entity_id, invalid_instance_id
from sidecar.edge.dialects import MICROSOFT, is_microsoft_dotnet, most_received, wire
from sidecar.edge.left_out import as_many_as_fit, fitted
from sidecar.edge.peer.trees import MOST_COUNT
from sidecar.edge.rpc import Forwarded, Methods, address_of, caller_of, done, hub_of, parse, parsed
from sidecar.edge.taskhub import page_tokens
from sidecar.edge.taskhub.hubs import Hubs
from sidecar.edge.taskhub.views import state_of
from sidecar.edge.transport.ports import Call, Refused
from sidecar.edge.transport.ports import StatusCode as Code
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.bulk import mark_of
from sidecar.services.purge import Purge
from sidecar.services.services import Services
from sidecar.services.waiting import Memo
from sidecar.store.protocol import Criteria, Order, Page, store_id

DEFAULT_PAGE, LARGEST_PAGE = 100, 1_024  # Dapr's list has the largest one unless it is asked for fewer
_AROUND = 16  # bytes around an ID or an instance in an answer
_BATCH = 4  # of a purge: Microsoft's batch of IDs, where Dapr has a flag
_FLAG = 5  # of a purge: Microsoft's flag for a workflow, where Dapr has a router


class Many:
    """Handlers."""

    def __init__(self, services: Services, hubs: Hubs, settings: Settings) -> None:
        self._service = services.clients
        self._queries = services.queries
        self._purging = services.purging
        self._entities = services.entities
        self._hubs = hubs
        self._may_delete_hubs = settings.allow_hub_deletion
        self._limit = settings.max_message_bytes

    def methods(self) -> Methods:
        """Return the handlers by RPC. Two of them differ in the case of one letter."""
        return {
            "QueryInstances": parsed(pb.QueryInstancesRequest, self._query),
            "ListInstanceIds": parsed(pb.ListEndedRequest, self._list_ended),
            "ListInstanceIDs": parsed(pb.ListAllRequest, self._list_all),
            "PurgeInstances": parsed(pb.PurgeInstancesRequest, self._purge),
            "SkipGracefulOrchestrationTerminations": parsed(pb.SkipGracefulTerminationsRequest, self._terminate),
            "CreateTaskHub": parsed(pb.CreateTaskHubRequest, self._create_hub),
            "DeleteTaskHub": parsed(Empty, self._delete_hub),
        }

    # ------------------------------------------------------------ lists

    async def _query(self, call: Call, request: pb.QueryInstancesRequest) -> bytes:
        query, hub = request.query, hub_of(call)
        named = {name.value for name in query.task_hub_names}
        elsewhere = self._hubs.separate and bool(named) and hub not in named
        criteria = Criteria(
            hub,
            frozenset() if elsewhere else _statuses(query.status),
            since=_time(query, "created_from"),
            before=_time(query, "created_to"),
            prefix=query.instance_id_prefix.value,
        )
        page = await self._page(call, criteria, Order.CREATED, query.continuation_token.value, query.max_instance_count)
        payloads = query.fetch_inputs_and_outputs
        states = await self._states(call, page, payloads)
        response = pb.QueryInstancesResponse()
        token = self._token(call, Order.CREATED, page, len(states))
        if token is not None:
            response.continuation_token.value = token
        return b"".join(states) + response.SerializeToString()

    async def _states(self, call: Call, page: Page, payloads: bool) -> list[bytes]:
        """Return the instances of a page, encoded, as many as fit into an answer: at least one.

        What of one instance alone does not fit is left out, so that the list goes on behind it.
        """
        bare = is_microsoft_dotnet(call.metadata) and not payloads
        states: list[bytes] = []
        room, memo = most_received(call.metadata, self._limit), Memo()
        for instance in page.found:
            view = await self._queries.view(instance, payloads, memo)
            shown = fitted(state_of(view, MICROSOFT, bare=bare), most_received(call.metadata, self._limit))
            state = wire.frame(1, shown.SerializeToString())
            room -= len(state)
            if states and room < 0:
                break
            states.append(state)
        return states

    async def _list_ended(self, call: Call, request: pb.ListEndedRequest) -> bytes:
        """Serve Microsoft's list: what has ended, by the time of its end.

        Its exports of histories end on an empty page, and keep the key of the last one that had something, from which
        one that is continuous goes on. They name the statuses that they want, always; a list without any ends with its
        last page.
        """
        criteria = Criteria(
            hub_of(call),
            _statuses(request.status),
            since=_time(request, "completed_from"),
            before=_time(request, "completed_to"),
        )
        page = await self._page(call, criteria, Order.COMPLETED, request.last_instance_key.value, request.page_size)
        ids = self._ids(call, page)
        response = pb.ListEndedResponse(instance_ids=ids)
        if request.status and page.found and page.next is None:
            page = page._replace(next=mark_of(page.found[-1], Order.COMPLETED))
        token = self._token(call, Order.COMPLETED, page, len(ids))
        if token is not None:
            response.last_instance_key.value = token
        return response.SerializeToString()

    async def _list_all(self, call: Call, request: pb.ListAllRequest) -> bytes:
        """Serve Dapr's list: all instances."""
        criteria = Criteria(hub_of(call))
        size = request.page_size or LARGEST_PAGE
        page = await self._page(call, criteria, Order.CREATED, request.continuation_token, size)
        ids = self._ids(call, page)
        token = self._token(call, Order.CREATED, page, len(ids))
        return pb.ListAllResponse(instance_ids=ids, continuation_token=token).SerializeToString()

    def _ids(self, call: Call, page: Page) -> list[str]:
        """Return the IDs of a page, as many as fit into an answer."""
        ids = [one.id for one in page.found]
        sizes = [len(one.encode()) + _AROUND for one in ids]
        return ids[: as_many_as_fit(sizes, most_received(call.metadata, self._limit))]

    async def _page(self, call: Call, criteria: Criteria, order: Order, token: str, size: int) -> Page:
        after = page_tokens.read(self._store_id(), criteria.hub, call.method, token)
        limit = min(size, LARGEST_PAGE) if size > 0 else DEFAULT_PAGE
        return await self._queries.page(criteria, order, after, limit, caller_of(call))

    def _store_id(self) -> str:
        """Return what tokens hold for: they outlive the restore of a backup."""
        return store_id(self._service.engine.store.identity)

    def _token(self, call: Call, order: Order, page: Page, sent: int) -> str | None:
        """Return the token for what comes behind what is sent of a page; None when nothing does."""
        cursor = page.next if sent == len(page.found) else mark_of(page.found[sent - 1], order)
        if cursor is None:
            return None
        return page_tokens.issue(self._store_id(), hub_of(call), call.method, cursor)

    # ------------------------------------------------------------ ends

    async def _purge(self, call: Call, request: pb.PurgeInstancesRequest) -> bytes:
        batch = _batch(request)
        entity = None if _names_a_workflow(request) else entity_id(request.instance_id)
        if entity is not None:
            count, complete = await self._purge_entity(call, entity), True
        elif request.HasField("instance_id"):
            count, complete = await self._purge_one(call, request), True
        elif batch is not None:
            count, complete = await self._queries.purge_batch(_addresses(call, batch), self._how(call, request))
        elif request.HasField("filter"):
            count, complete = await self._purge_matching(call, request)
        else:
            raise Refused(Code.INVALID_ARGUMENT, "a purge names an instance, several, or a filter")
        response = pb.PurgeInstancesResponse(deleted_instance_count=min(count, MOST_COUNT))
        response.is_complete.value = complete
        return response.SerializeToString()

    async def _purge_one(self, call: Call, request: pb.PurgeInstancesRequest) -> int:
        address = address_of(call, request.instance_id)
        how = self._how(call, request)
        if call.deadline is not None:
            how = how._replace(reach=call.deadline)
        reply, count = await self._purging.purge(address, how)
        if reply.outcome is not Outcome.MISSING:
            done(reply)
        return count

    async def _purge_entity(self, call: Call, entity: str) -> int:
        if isinstance(call, Forwarded):
            raise Refused(Code.PERMISSION_DENIED, "an entity is purged by its own app only")
        reply = await self._entities.purge((hub_of(call), entity))
        return int(reply.outcome is Outcome.DONE)

    async def _purge_matching(self, call: Call, request: pb.PurgeInstancesRequest) -> tuple[int, bool]:
        """Purge by filter, until its time-out, or until shortly before the caller would hear nothing of it."""
        wanted = request.filter
        criteria = Criteria(
            hub_of(call),
            _statuses(wanted.status),
            since=_time(wanted, "created_from"),
            before=_time(wanted, "created_to"),
        )
        limits = [] if call.deadline is None else [usable(call.deadline)]
        if wanted.HasField("timeout"):
            limits.append(wanted.timeout.ToMicroseconds() / 1e6)
            if limits[-1] <= 0:
                raise Refused(Code.INVALID_ARGUMENT, "the time-out of a purge must be over zero")
        seconds = min(limits, default=None)
        return await self._queries.purge(criteria, self._how(call, request), seconds)

    def _how(self, call: Call, request: pb.PurgeInstancesRequest) -> Purge:
        until = None if call.deadline is None else self._service.trees.until(call.deadline)
        return Purge(request.recursive, request.force, caller_of(call), until)

    async def _terminate(self, call: Call, request: pb.SkipGracefulTerminationsRequest) -> bytes:
        """End instances at once; the answer has those of them that did not run.

        Here every terminate holds from its commit, whatever a worker does: this one only takes several.
        """
        output = json.dumps(request.reason.value) if request.HasField("reason") else None
        addresses = _addresses(call, request.batch.instance_ids)
        ended = await self._queries.end_batch(addresses, output)
        gone = {instance_id for (_, instance_id), was_ended in zip(addresses, ended, strict=True) if was_ended}
        left = [instance_id for instance_id in dict.fromkeys(request.batch.instance_ids) if instance_id not in gone]
        return pb.SkipGracefulTerminationsResponse(unterminated_instance_ids=left).SerializeToString()

    # ------------------------------------------------------------ hubs

    async def _create_hub(self, call: Call, request: pb.CreateTaskHubRequest) -> bytes:
        """Serve a request for a hub: there is nothing to create, and what is in one goes only if it is to go."""
        return await self._delete_hub(call, Empty()) if request.recreate_if_exists else b""

    async def _delete_hub(self, call: Call, request: Empty) -> bytes:
        if not self._may_delete_hubs:
            text = f"the instances of task hub '{hub_of(call)}' are not deleted by a call: --allow-hub-deletion lets it"
            raise Refused(Code.PERMISSION_DENIED, text)
        await self._queries.delete_hub(hub_of(call))
        return b""


def _statuses(numbers: Sequence[int]) -> frozenset[Status]:
    """Return the statuses that a filter means: all if it names none; STALLED is shown as RUNNING, and found so."""
    if not numbers:
        return frozenset(Status)
    meant = frozenset(status for status in Status if status in numbers)
    return meant | {Status.STALLED} if Status.RUNNING in meant else meant


def _time(message: Message, name: str) -> int | None:
    return events.micros(getattr(message, name)) if message.HasField(name) else None


def _addresses(call: Call, batch: Iterable[str]) -> list[Address]:
    """Return whom a batch means: each instance once, and no entity, whatever the IDs say."""
    return [(hub_of(call), one) for one in dict.fromkeys(batch) if invalid_instance_id(one) is None]


def _names_a_workflow(request: pb.PurgeInstancesRequest) -> bool:
    """Whether the ID is that of a workflow, as Microsoft's flag says. Its number is that of Dapr's router."""
    return wire.unknown(request, _FLAG, wire.INTEGER) == [1]


def _batch(request: pb.PurgeInstancesRequest) -> Iterable[str] | None:
    """Return the IDs of Microsoft's batch. Its number is that of Dapr's flag, so it is not among the known fields."""
    batches = wire.unknown(request, _BATCH, wire.LENGTH_DELIMITED)
    if not batches:
        return None
    return [instance_id for data in batches for instance_id in parse(pb.InstanceBatch, data).instance_ids]
