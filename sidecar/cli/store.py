"""What `sidecar store` does. A sidecar that has the store open is asked to do it; else this process does it.

With the SQLite of many systems, a second process that opens a database in use can damage it.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from sidecar.actors.clock import Clock
from sidecar.cli import dial, progress
from sidecar.config.settings import Settings, StartError
from sidecar.core.identity import AppIdentity
from sidecar.edge.admin.store import BACKUP, CHECK, WORK
from sidecar.edge.transport.ports import Refused, StatusCode
from sidecar.schema import admin_pb2 as pb
from sidecar.store.progress import At, Progress
from sidecar.store.protocol import Copied, CopyError
from sidecar.store.sqlite import restore as offline
from sidecar.store.sqlite import schema

_LOOK_SECONDS = 0.5  # between two questions how far it is


def check(settings: Settings) -> list[str]:
    """Return what is wrong with the store. Raises CopyError: it could not be checked."""
    try:
        with _told() as tell:
            return offline.check(path(settings), tell)
    except offline.RunningError:
        request = pb.CheckStoreRequest(namespace=settings.namespace, app_id=settings.app_id)
        answer = _ask(settings, CHECK, request.SerializeToString())
        return list(pb.CheckStoreResponse.FromString(answer).problems)


def backup(settings: Settings, name: str) -> Copied:
    """Make a backup. Raises CopyError."""
    try:
        with _told() as tell:
            return offline.backup(path(settings), name, Clock().now(), tell)
    except offline.RunningError:
        request = pb.BackupStoreRequest(namespace=settings.namespace, app_id=settings.app_id, name=name)
        answer = _ask(settings, BACKUP, request.SerializeToString())
        made = pb.BackupStoreResponse.FromString(answer)
        return Copied(made.path, made.bytes)


def restore(settings: Settings, source: Path) -> Path | None:
    """Replace the store by a backup. Return where the old store is kept, if there was one. Raises CopyError."""
    try:
        with _told() as tell:
            return offline.restore(_me(settings), settings.data_dir, source, Clock().now(), tell)
    except offline.RunningError:
        text = f"the sidecar of app '{settings.app_id}' has the store open"
        raise CopyError(f"{text}: stop it first, and start it when the backup is in place") from None


def _me(settings: Settings) -> AppIdentity:
    return AppIdentity(settings.namespace, settings.app_id)


def sqlite_version() -> tuple[str, str]:
    """Return the version of SQLite, and what is to be known of it, "" if nothing is."""
    return schema.version_of_sqlite()


def path(settings: Settings) -> Path:
    """Return where the database of an app is."""
    return schema.path_of(_me(settings), settings.data_dir)


def _ask(settings: Settings, method: str, request: bytes) -> bytes:
    try:
        with _told() as tell:
            return asyncio.run(_call(settings, method, request, tell))
    except StartError as error:
        raise CopyError(str(error)) from error
    except Refused as refused:
        if refused.status is StatusCode.UNAVAILABLE:
            text = f"a sidecar has the store open and does not answer on port {settings.grpc_port[0]}"
            hint = f"name its port with --grpc-port, and how it is reached with {dial.HOW} ({refused.message})"
            raise CopyError(f"{text}: {hint}") from refused
        raise CopyError(refused.message) from refused


async def _call(settings: Settings, method: str, request: bytes, tell: Progress) -> bytes:
    shown = dial.credentials(settings.api_token, settings.api_token_file)
    channel = dial.channel(settings.listen_host, settings.grpc_port[0], settings.app_cert)
    asking = asyncio.create_task(channel.unary(method, request, shown))
    try:
        while not (await asyncio.wait([asking], timeout=_LOOK_SECONDS))[0]:
            with contextlib.suppress(Refused):  # one of an older version does not say how far it is
                at = pb.GetStoreWorkResponse.FromString(await channel.unary(WORK, b"", shown, timeout=_LOOK_SECONDS))
                tell(At(at.what, at.done, at.total))
        return await asking
    finally:
        await channel.close()


@contextlib.contextmanager
def _told() -> Iterator[Progress]:
    """Show how far work on the store is."""
    with progress.progress("the store") as told:
        yield lambda at: told(at.done, at.total or None, at.what)
