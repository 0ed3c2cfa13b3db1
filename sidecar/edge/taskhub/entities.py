"""The calls of clients about entities: to signal, look at and clean them."""

from sidecar.actors.residents import Address
from sidecar.core import events
from sidecar.core.names import entity_id, entity_prefix, invalid_name
from sidecar.edge.dialects import most_received
from sidecar.edge.left_out import as_many_as_fit, fitted
from sidecar.edge.rpc import Methods, done, hub_of, parsed
from sidecar.edge.transport.ports import Call, Refused, StatusCode
from sidecar.schema import taskhub_pb2 as pb
from sidecar.services.entities import EntityService, Query
from sidecar.store.protocol import EntityRow

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1_000
_EVER = 1 << 62  # later than any time, in µs


class EntityCalls:
    """Handlers; `limit` is the sidecar's own for messages."""

    def __init__(self, service: EntityService, limit: int) -> None:
        self._service = service
        self._limit = limit

    def methods(self) -> Methods:
        """Return the handlers by RPC."""
        return {
            "SignalEntity": parsed(pb.SignalEntityRequest, self._signal),
            "GetEntity": parsed(pb.GetEntityRequest, self._get),
            "QueryEntities": parsed(pb.QueryEntitiesRequest, self._query),
            "CleanEntityStorage": parsed(pb.CleanEntityStorageRequest, self._clean),
        }

    async def _signal(self, call: Call, request: pb.SignalEntityRequest) -> bytes:
        address = _address(call, request.instance_id)
        wrong = invalid_name("operation", request.name)
        if wrong:
            raise Refused(StatusCode.INVALID_ARGUMENT, wrong)
        signaled = pb.EntitySignaled(
            request_id=request.request_id,
            operation=request.name,
            **events.given(request, "scheduled_time", "input"),
            target_instance_id=events.text(address[1]),
        )
        return done(await self._service.signal(address, signaled))

    async def _get(self, call: Call, request: pb.GetEntityRequest) -> bytes:
        row = await self._service.get(_address(call, request.instance_id), state=request.include_state)
        if row is None:
            return b""
        return pb.GetEntityResponse(exists=True, entity=_metadata(row)).SerializeToString()

    async def _query(self, call: Call, request: pb.QueryEntitiesRequest) -> bytes:
        asked = request.query
        size = asked.page_size.value
        until = events.micros(asked.last_modified_to) if asked.HasField("last_modified_to") else _EVER
        query = Query(
            prefix=entity_prefix(asked.instance_id_starts_with.value),
            after=asked.continuation_token.value,
            page_size=min(size, _LARGEST_PAGE) if size > 0 else _DEFAULT_PAGE,
            changed=(events.micros(asked.last_modified_from) if asked.HasField("last_modified_from") else 0, until),
            states=asked.include_state,
            transient=asked.include_transient,
        )
        rows, after = await self._service.query(hub_of(call), query)
        most = most_received(call.metadata, self._limit)
        entities = [fitted(_metadata(row), most) for row in rows]
        fit = as_many_as_fit([entity.ByteSize() for entity in entities], most)
        if fit < len(rows):
            entities, after = entities[:fit], rows[fit - 1].id
        return pb.QueryEntitiesResponse(entities=entities, continuation_token=events.text(after)).SerializeToString()

    async def _clean(self, call: Call, request: pb.CleanEntityStorageRequest) -> bytes:
        removed, released, after = await self._service.clean(
            hub_of(call),
            request.continuation_token.value,
            empty=request.remove_empty_entities,
            orphans=request.release_orphaned_locks,
        )
        return pb.CleanEntityStorageResponse(
            continuation_token=events.text(after), empty_entities_removed=removed, orphaned_locks_released=released
        ).SerializeToString()


def _address(call: Call, text: str) -> Address:
    found = entity_id(text)
    if found is None:
        raise Refused(
            StatusCode.INVALID_ARGUMENT, f"{text[:80]!r} is not the ID of an entity: it has the form @name@key"
        )
    return (hub_of(call), found)


def _metadata(row: EntityRow) -> pb.EntityMetadata:
    return pb.EntityMetadata(
        instance_id=row.id,
        last_modified=events.timestamp(row.updated_at),
        backlog_queue_size=row.backlog,
        locked_by=events.text(None if row.lock is None else row.lock.owner),
        serialized_state=events.text(row.state),
    )
