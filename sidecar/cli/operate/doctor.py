"""`sidecar doctor`: looks at all that must be right for an app's sidecar, and says of what is not what to do.

Each check is a function that returns what it has found; nothing is changed by any of them.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidecar.actors.clock import Clock
from sidecar.cli import screen, store
from sidecar.cli.exits import Exit, Failure
from sidecar.cli.forms import Form
from sidecar.cli.operate.client import Client
from sidecar.cli.operate.sidecars import status
from sidecar.cli.show import words
from sidecar.cli.show.sidecars import Finding, Level, findings, waiting
from sidecar.config import policy_file
from sidecar.config import settings as config
from sidecar.config.own_address import reached
from sidecar.config.settings import ConfigError, Settings, StartError
from sidecar.edge.security import certificates, trust
from sidecar.edge.transport import listening

_SECOND = 1_000_000
_SKEW_WARNING, _SKEW_ERROR = 2 * _SECOND, 60 * _SECOND
_FEW_BYTES, _VERY_FEW_BYTES = 1 << 30, 256 << 20
_WARN_DAYS = 14
_DAY = 86_400
_DIAL_SECONDS = 2.0
OK, NOTE, WARNING, ERROR = Level


def check(flags: Mapping[str, object], environ: Mapping[str, str], form: Form) -> None:
    """Write what is found. Raises Failure if something of it is an error."""
    found = list(_all(flags, environ))
    if form.is_data:
        rows = [{"area": one.area, "level": one.level.value, "text": one.text, "advice": one.advice} for one in found]
        screen.write(rows, form)
    else:
        screen.show(findings(found))
    if any(one.level is ERROR for one in found):
        raise Failure(Exit.NO)


def _all(flags: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Finding]:
    yield from versions()
    try:
        settings = config.load(flags, environ)
    except ConfigError as error:
        yield Finding("configuration", ERROR, str(error), "`sidecar config` shows each value and where it comes from")
        return
    yield Finding("configuration", OK, f"app '{settings.app_id}' in namespace '{settings.namespace}'")
    now = Clock().now()
    yield from files(settings)
    yield from proofs(settings, now)
    yield from disk(settings, now)
    try:
        client = Client(flags, environ)
        answer = status(client)
    except StartError:
        return  # a token file that cannot be used: said already
    except Failure as failure:
        yield Finding("sidecar", ERROR, failure.what, failure.how)
        yield from ports(settings)
        yield from dialled(settings)
        return
    yield from running(settings, answer.app_id, answer.namespace, answer.version)
    yield from clock(words.micros(answer.now), now)
    yield from http(settings)
    yield from told(client.metadata)


def versions() -> Iterator[Finding]:
    """Look at what the sidecar runs on."""
    version, known = store.sqlite_version()
    yield Finding("version", OK, f"sidecar {config.version()}")
    if known:
        yield Finding("version", NOTE, f"SQLite {version} {known}", "use `sidecar store` to check and to copy it")


def files(settings: Settings) -> Iterator[Finding]:
    """Look at the files of the access policy and of the peers."""
    how = "mend the file, or the setting that names it: the sidecar does not start with it"
    try:
        if settings.policy is not None:
            policy_file.watched(settings.policy)
    except (ConfigError, ValueError) as error:
        yield Finding("configuration", ERROR, str(error), how)
    if settings.peer_file is not None and not settings.peer_file.exists():
        text = f"{settings.peer_file} (--peer-file) is not there yet"
        yield Finding("configuration", WARNING, text, "write it: it is read when it comes")
    elif settings.peer_file is not None:
        try:
            config.read_peers(settings.peer_file, settings.peers_stay_here)
        except ValueError as error:
            yield Finding("configuration", ERROR, str(error), how)


def proofs(settings: Settings, now: int) -> Iterator[Finding]:
    """Look at the certificates and the token file: whether they can be used, and when they end."""
    try:
        # Of a token that a file replaces the reader would warn on stdout.
        trust.read(settings if settings.api_token_file is None else replace(settings, api_token=None))
    except StartError as error:
        how = "mend the file, or the setting that names it: the sidecar does not start with it"
        yield Finding("certificates", ERROR, str(error), how)
    for name in ("peer_cert", "peer_ca", "app_cert"):
        file: Path | None = getattr(settings, name)
        if file is not None:
            yield from _end(name, file, now)
    if settings.peers_stay_here:
        text = "peers prove nothing: peer links stay on this machine"
        yield Finding("certificates", OK, text)
    elif settings.insecure_peers:
        how = "give --peer-cert, --peer-key and --peer-ca; `sidecar dev-ca` makes them for development"
        yield Finding("certificates", WARNING, "--insecure-peers lets anybody in who reaches the peer port", how)


def _end(name: str, file: Path, now: int) -> Iterator[Finding]:
    try:
        end = certificates.ends(file)
    except StartError:
        return  # said already
    left = end.timestamp() - now / _SECOND
    flag, when = name.replace("_", "-"), words.ago(now + round(left * _SECOND), now)
    text = f"--{flag} {file} ends on {end:%Y-%m-%d %H:%M} UTC, {when}"
    level = ERROR if left <= 0 else WARNING if left < _WARN_DAYS * _DAY else OK
    yield Finding(
        "certificates", level, text, "" if level is OK else "renew it: a new file is taken up without a restart"
    )


def disk(settings: Settings, now: int) -> Iterator[Finding]:
    """Look at the folder of the database, and the room that is left on its disk."""
    folder, file = settings.data_dir, store.path(settings)
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path())
    if not os.access(there, os.W_OK | os.X_OK):
        how = f"give the user that runs the sidecar the right to write there, or another --data-dir (it is {folder})"
        yield Finding("disk", ERROR, f"{there} cannot be written", how)
    free = shutil.disk_usage(there).free
    level = ERROR if free < _VERY_FEW_BYTES else WARNING if free < _FEW_BYTES else OK
    how = "" if level is OK else "make room, purge what has ended (`sidecar workflow purge`), or set --retention"
    yield Finding("disk", level, f"{free / 2**30:.1f} GiB are free at {there.absolute()}", how)
    if file.exists():
        seen = file.stat()
        yield Finding("disk", OK, f"{file} has {seen.st_size / 2**20:.1f} MiB")
        if seen.st_mtime * _SECOND > now + _SKEW_ERROR:
            text = f"{file} was written {words.ago(round(seen.st_mtime * _SECOND), now)}: the clock was set back"
            yield Finding("clock", WARNING, text, "set the clock by NTP: timers fire when it is that time again")


def ports(settings: Settings) -> Iterator[Finding]:
    """Look, as no sidecar answers, whether its ports are free."""
    wanted = [("--grpc-port", settings.listen_host, port) for port in settings.grpc_port]
    wanted += [("--http-port", settings.listen_host, settings.http_port)]
    wanted += [("--peer-port", settings.peer_host, settings.peer_port)]
    for flag, host, port in wanted:
        try:
            listening.probe(listening.LOOPBACK[0] if listening.both_loopbacks(host) else host, port)
            yield Finding("ports", OK, f"port {port} of {host} is free" if port else f"{flag} is any free one")
        except OSError as error:
            how = f"stop what listens there, or choose another port with {flag}"
            yield Finding("ports", ERROR, str(error), how)


def dialled(settings: Settings) -> Iterator[Finding]:
    """Look, as no sidecar can say it, whether somebody listens at the addresses of the peers."""
    listed = [(app, address) for app, addresses in settings.peers.items() for address in addresses]
    errors = asyncio.run(_dial_all([address for _, address in listed]))
    for (app, address), error in zip(listed, errors, strict=True):
        if error:
            how = "start the sidecar of that app, or correct its address (--peer, --peer-file)"
            yield Finding("peers", WARNING, f"app '{app}' at {address}: {error}", how)
        else:
            yield Finding("peers", OK, f"app '{app}' at {address}: somebody listens")


async def _dial_all(addresses: Sequence[str]) -> list[str]:
    return await asyncio.gather(*map(_dial, addresses))


async def _dial(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
    except TimeoutError:
        return f"no answer in {_DIAL_SECONDS:.0f} s"
    except socket.gaierror as error:
        return f"no such host ({error.strerror})"
    except OSError as error:  # asyncio writes the address into its text
        return (os.strerror(error.errno) if error.errno else str(error)).lower()
    return ""


def running(settings: Settings, app: str, namespace: str, version: str) -> Iterator[Finding]:
    """Look whether the sidecar that answers is the right one."""
    if (app, namespace) != (settings.app_id, settings.namespace):
        text = f"on port {settings.grpc_port[0]} answers the sidecar of app '{app}' in namespace '{namespace}'"
        yield Finding("sidecar", ERROR, text, f"name the port of that of '{settings.app_id}' with --grpc-port")
    else:
        yield Finding("sidecar", OK, f"it answers on port {settings.grpc_port[0]}")
    if version != config.version():
        text = f"the sidecar is of version {version}, and this command of {config.version()}"
        yield Finding("version", WARNING, text, "restart the sidecar, or use the command of its environment")


def clock(theirs: int, ours: int) -> Iterator[Finding]:
    """Compare the clock of the sidecar, which may be on another machine, with that of this one."""
    apart = abs(theirs - ours)
    level = ERROR if apart > _SKEW_ERROR else WARNING if apart > _SKEW_WARNING else OK
    text = f"the sidecar's clock and this one are {words.span(apart)} apart"
    yield Finding(
        "clock", level, text, "" if level is OK else "set both by NTP: the sidecar's clock decides what is due"
    )


def http(settings: Settings) -> Iterator[Finding]:
    """Look whether the HTTP port is there."""
    host, port = reached(settings.listen_host), settings.http_port
    error = asyncio.run(_dial(f"{host}:{port}")) if port else ""
    if error:
        how = "name it with --http-port: SDKs and probes ask for health there"
        yield Finding("ports", WARNING, f"nothing answers on the HTTP port {port} of {host}: {error}", how)
    elif port:
        yield Finding("ports", OK, f"the HTTP port {port} is there")


def told(metadata: Mapping[str, Any]) -> Iterator[Finding]:
    """Return what the sidecar itself says of its health, peers, workers and files."""
    if not metadata["actorRuntime"]["hostReady"]:
        how = "`sidecar health` and the log of the sidecar say why"
        yield Finding("sidecar", ERROR, "it is not ready", how)
    for file in metadata["files"]:
        if file["error"]:
            text = f"{file['file']} is wrong, and what it said before counts: {file['error']}"
            yield Finding("configuration", WARNING, text, "mend the file: it is read again by itself")
    for peer in metadata["peers"]:
        yield from _peer(peer)
    count = metadata["workflows"]["connectedWorkers"]
    how = "" if count else "start the app, and see that its SDK connects to this sidecar's port"
    yield Finding("workers", OK if count else WARNING, f"{words.count(count, 'worker')} connected", how)
    for worker in metadata["workers"]:
        if worker["error"]:
            text = f"worker at {worker['peer']} is of no use: {worker['error']}"
            yield Finding("workers", WARNING, text, "register in the app what its workflows call")
    for row in metadata["untaken"]:
        yield Finding("work", WARNING, waiting(row), row["advice"])
    for row in metadata["largeHistories"]:
        text = (
            f"the history of workflow '{row['instance']}' has {row['bytes']:,} of the {row['limit']:,} bytes that fit"
        )
        yield Finding("work", WARNING, text, "let it continue as new, or let the workers receive more")


def _peer(peer: Mapping[str, Any]) -> Iterator[Finding]:
    waiting = f", {words.count(peer['waiting'], 'message')} waiting for it" if peer["waiting"] else ""
    if peer["state"] == "connected":
        yield Finding("peers", OK, f"app '{peer['appId']}' is connected{waiting}")
    else:
        text = f"app '{peer['appId']}': {peer['state']}{waiting}" + (f": {peer['error']}" if peer["error"] else "")
        how = "start the sidecar of that app, or give its address with --peer, --peer-file or --peer-pattern"
        yield Finding("peers", WARNING, text, how)
    for cause in peer["says"]:
        yield Finding("peers", WARNING, f"app '{peer['appId']}' says: {cause['why']}", cause["advice"])
