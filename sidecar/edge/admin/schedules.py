"""`sidecar.admin.AdminService`, the part about schedules: who defines, looks at and steers them."""

from sidecar.core.model import DONE, Outcome, Reply
from sidecar.edge import methods
from sidecar.edge.left_out import as_many_as_fit, fitted
from sidecar.edge.rpc import done, guarded, hub_of, parsed
from sidecar.edge.transport.ports import Call, Handlers, Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from sidecar.services.schedule_steps import MISSING, Found
from sidecar.services.schedules import Difference, Schedules

_PAGE, _LARGEST_PAGE = 100, 100  # each may have a large input
_UPCOMING, _MOST_UPCOMING = 5, 50
_MOST_BYTES = 3 * 1024 * 1024  # of an answer: its caller receives 4 MiB
_NEW, _EXISTING = pb.ApplySchedulesRequest.NEW, pb.ApplySchedulesRequest.EXISTING


class ScheduleAdmin:
    """Handlers."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    def handlers(self) -> Handlers:
        """Return the handlers by path."""
        found = {
            "ApplySchedules": parsed(pb.ApplySchedulesRequest, self._apply),
            "ListSchedules": parsed(pb.ListSchedulesRequest, self._list),
            "GetSchedule": parsed(pb.GetScheduleRequest, self._get),
            "DeleteSchedule": parsed(pb.DeleteScheduleRequest, self._delete),
            "PauseSchedule": parsed(pb.PauseScheduleRequest, self._pause),
            "ResumeSchedule": parsed(pb.ResumeScheduleRequest, self._resume),
            "TriggerSchedule": parsed(pb.TriggerScheduleRequest, self._trigger),
            "BackfillSchedule": parsed(pb.BackfillScheduleRequest, self._backfill),
        }
        return Handlers(unary={methods.ADMIN + name: guarded(method) for name, method in found.items()})

    async def _apply(self, call: Call, request: pb.ApplySchedulesRequest) -> bytes:
        hub = hub_of(call)
        differences = await self._schedules.differences(hub, request.schedules, prune=request.prune)
        for one in differences:
            done(_refusal(one, request.mode))
        for one in () if request.dry_run else differences:
            done(await self._written(hub, one))
        shown = [fitted(_difference(one), _MOST_BYTES // max(1, len(differences))) for one in differences]
        return pb.ApplySchedulesResponse(differences=shown).SerializeToString()

    async def _written(self, hub: str, one: Difference) -> Reply:
        if one.after is None:
            return await self._schedules.delete((hub, one.id))
        return await self._schedules.put(hub, one.after)

    async def _list(self, call: Call, request: pb.ListSchedulesRequest) -> bytes:
        limit = min(request.limit or _PAGE, _LARGEST_PAGE)
        found = await self._schedules.list(hub_of(call), request.after, limit)
        views = [await self._view(hub_of(call), _shortened(one)) for one in found]
        views = views[: as_many_as_fit([one.ByteSize() for one in views], _MOST_BYTES)] if views else []
        return pb.ListSchedulesResponse(schedules=views).SerializeToString()

    async def _get(self, call: Call, request: pb.GetScheduleRequest) -> bytes:
        upcoming = min(request.upcoming or _UPCOMING, _MOST_UPCOMING)
        found = await self._schedules.get((hub_of(call), request.id), upcoming)
        if found is None:
            raise Refused(StatusCode.NOT_FOUND, MISSING.text)
        return fitted(await self._view(hub_of(call), found), _MOST_BYTES).SerializeToString()

    async def _view(self, hub: str, found: Found) -> pb.ScheduleView:
        return pb.ScheduleView(
            schedule=found.schedule,
            progress=found.progress,
            upcoming=found.upcoming,
            statuses=await self._schedules.statuses(found, hub),
        )

    async def _delete(self, call: Call, request: pb.DeleteScheduleRequest) -> bytes:
        done(await self._schedules.delete((hub_of(call), request.id)))
        return pb.DeleteScheduleResponse().SerializeToString()

    async def _pause(self, call: Call, request: pb.PauseScheduleRequest) -> bytes:
        done(await self._schedules.pause((hub_of(call), request.id), request.reason))
        return pb.PauseScheduleResponse().SerializeToString()

    async def _resume(self, call: Call, request: pb.ResumeScheduleRequest) -> bytes:
        done(await self._schedules.resume((hub_of(call), request.id)))
        return pb.ResumeScheduleResponse().SerializeToString()

    async def _trigger(self, call: Call, request: pb.TriggerScheduleRequest) -> bytes:
        taken = await self._schedules.trigger((hub_of(call), request.id), request.overlap)
        done(taken.reply)
        return pb.TriggerScheduleResponse(instance_id=taken.instance_id, text=taken.error).SerializeToString()

    async def _backfill(self, call: Call, request: pb.BackfillScheduleRequest) -> bytes:
        address = (hub_of(call), request.id)
        done(await self._schedules.backfill(address, request.first, request.last, request.overlap))
        return pb.BackfillScheduleResponse().SerializeToString()


def _refusal(one: Difference, mode: int) -> Reply:
    if mode == _NEW and one.after is not None and one.before is not None:
        return Reply(Outcome.EXISTS, f"a schedule '{one.id}' exists")
    if mode == _EXISTING and one.before is None:
        return Reply(Outcome.MISSING, f"no schedule '{one.id}' exists")
    return DONE


def _difference(one: Difference) -> pb.ScheduleDifference:
    return pb.ScheduleDifference(id=one.id, change=one.word, before=one.before, after=one.after)


def _shortened(found: Found) -> Found:
    found.schedule.ClearField("input")
    del found.progress.recent[:-1]
    del found.progress.queue[100:]
    return found
