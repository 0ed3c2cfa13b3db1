"""Builds made elsewhere, for machines that lack a language's tools: taken only if they are of exactly these sources.

A folder of ready builds has `SHA256SUMS`, which names the sources they were made from by their paths in this folder,
and `builds.tar.xz` with a folder for each build, in which all is that it needs.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tests.sdks.sdks import BUILDS, Build, NotRunError

SUMS, ARCHIVE = "SHA256SUMS", "builds.tar.xz"
_STAMP = "unpacked"
_LAUNCHER = "dotnet"  # `dotnet PATH/NAME.dll` runs what, ready, is the program NAME


def taken(builds: Sequence[Build], ready: Path | None) -> list[Build]:
    """The builds, with a ready one in the place of each whose tools are missing and whose folder `ready` is for.

    Raises NotRunError if the folder is not as it must be, or its builds are of other sources than these.
    """
    if ready is None:
        return list(builds)
    sums = _sums(ready)
    folders = {PurePosixPath(name).parts[0] for name in sums}
    wanted = [build for build in builds if build.missing_tools and build.folder.name in folders]
    if not wanted:
        return list(builds)
    if differences := sorted({text for build in wanted for text in _differences(build, sums)}):
        raise NotRunError(f"the builds in {ready} are of other sources:\n  " + "\n  ".join(differences))
    unpacked = _unpacked(ready / ARCHIVE)
    return [_ready(build, unpacked) if build in wanted else build for build in builds]


def _sums(ready: Path) -> dict[str, str]:
    """The digests of the sources by path."""
    try:
        lines = (ready / SUMS).read_text().splitlines()
    except OSError as error:
        raise NotRunError(f"no ready builds: {error}") from error
    return {name.lstrip("*"): digest for digest, name in (line.split(maxsplit=1) for line in lines if line.strip())}


def _differences(build: Build, sums: dict[str, str]) -> Iterator[str]:
    """What is not the same in the folders of the build and in what its ready form was made from."""
    folders = {build.folder.name, *build.shared}
    named = {name: digest for name, digest in sums.items() if PurePosixPath(name).parts[0] in folders}
    root = build.folder.parent
    here = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in build.sources}
    for name in sorted(named.keys() | here.keys()):
        if name not in here:
            yield f"{name} is not here"
        elif name not in named:
            yield f"{name} is only here"
        elif here[name] != named[name]:
            yield f"{name} differs"


def _unpacked(archive: Path) -> Path:
    """The folder with the content of the archive, which is unpacked once."""
    try:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise NotRunError(f"no ready builds: {error}") from error
    target = BUILDS / "ready"
    stamp = target / _STAMP
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            with tarfile.open(archive) as content:
                content.extractall(target, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise NotRunError(f"{archive} cannot be unpacked: {error}") from error
        stamp.write_text(digest)
    return target


def _ready(build: Build, unpacked: Path) -> Build:
    """The build as it lies there: nothing to prepare, no tools needed."""
    place = build.run.index(_LAUNCHER)
    program = unpacked / build.id / PurePosixPath(build.run[place + 1]).stem
    if not os.access(program, os.X_OK):
        raise NotRunError(f"no program {program.name} for {build.id} among the ready builds")
    run = (*build.run[:place], str(program), *build.run[place + 2 :])
    return replace(build, tools=(), prepare=(), run=run, ready=True)
