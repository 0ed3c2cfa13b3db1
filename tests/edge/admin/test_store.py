"""The calls for checks and backups, over a store that can do them itself and one that cannot."""

import pytest

from sidecar.actors.clock import Clock
from sidecar.core.identity import AppIdentity
from sidecar.edge.admin.store import BACKUP, CHECK, WORK, StoreAdmin
from sidecar.edge.transport.ports import Call, Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from sidecar.store.progress import At
from sidecar.store.protocol import Copied, Maintenance

ME = AppIdentity("default", "orders")
REQUESTS = {CHECK: pb.CheckStoreRequest, BACKUP: pb.BackupStoreRequest}


class Able(Maintenance):
    """A store that is checked and copied at once."""

    async def check(self) -> list[str]:
        return ["a page is damaged"]

    async def backup(self, name: str, now: int) -> Copied:
        return Copied(f"/backups/{name}", 7)

    def at(self) -> At | None:
        return At("pages copied", 3, 9)


async def ask(maintenance: Maintenance | None, method: str, app: str = ME.app) -> bytes:
    handler = StoreAdmin(ME, maintenance, Clock()).handlers().unary[method]
    request = REQUESTS[method](namespace=ME.namespace, app_id=app)
    return await handler(Call(method, {}, None, "", ()), request.SerializeToString())


async def test_a_store_that_can_is_checked_and_copied() -> None:
    assert pb.CheckStoreResponse.FromString(await ask(Able(), CHECK)).problems == ["a page is damaged"]
    made = pb.BackupStoreResponse.FromString(await ask(Able(), BACKUP))
    assert (made.path, made.bytes) == ("/backups/", 7)


@pytest.mark.parametrize(("maintenance", "expected"), [(Able(), ("pages copied", 3, 9)), (None, ("", 0, 0))])
async def test_how_far_it_is_can_be_asked(maintenance: Maintenance | None, expected: tuple[str, int, int]) -> None:
    handler = StoreAdmin(ME, maintenance, Clock()).handlers().unary[WORK]
    work = pb.GetStoreWorkResponse.FromString(await handler(Call(WORK, {}, None, "", ()), b""))
    assert (work.what, work.done, work.total) == expected


@pytest.mark.parametrize("method", REQUESTS)
async def test_a_store_without_maintenance_answers_that_it_cannot_and_what_to_use(method: str) -> None:
    with pytest.raises(Refused, match="use the tools of its database") as refused:
        await ask(None, method)
    assert refused.value.status is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("maintenance", [Able(), None])
async def test_a_request_for_another_app_is_refused(maintenance: Maintenance | None, method: str) -> None:
    with pytest.raises(Refused, match="this is the sidecar of app 'orders'") as refused:
        await ask(maintenance, method, app="ml")
    assert refused.value.status is StatusCode.FAILED_PRECONDITION
