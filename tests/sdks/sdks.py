"""The builds of SDKs that the matrix knows: read from the `sdk.json` of each program's folder, and prepared from it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILDS = ROOT / "build" / "sdks"
LOGS = BUILDS / "logs"
FAMILIES = ("microsoft", "dapr")
_KEYS = {"id", "package", "version", "language", "family", "tools", "prepare", "run"}
_MORE_KEYS = {"locks", "shared", "reason", "passed_over"}
_PREPARE_SECONDS = 1200
_STAMP = "prepared"
# What tools leave in a folder: no part of a program.
_LEFT = {"node_modules", "__pycache__", "target", "build", "dist", "bin", "obj"}


class NotRunError(Exception):
    """A build that cannot be tested here; `missing` are the tools that this machine lacks, if that is why."""

    def __init__(self, text: str, missing: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.missing = frozenset(missing)

    @property
    def excused(self) -> bool:
        """A machine without the tools of a language can still test the rest; CI says without which of them it does."""
        if os.environ.get("CI") != "true":
            return bool(self.missing)
        return bool(self.missing) and self.missing <= _excused_tools()


@dataclass(frozen=True, slots=True)
class Build:
    """One program with one version of its SDK."""

    id: str
    package: str
    version: str
    language: str
    family: str
    folder: Path
    tools: tuple[str, ...]
    locks: tuple[str, ...]
    shared: tuple[str, ...]
    prepare: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]
    reason: str
    passed_over: Mapping[str, str]  # newer versions that are not tested, and why
    ready: bool = False  # built elsewhere, so that it may not know the newest scenarios

    @property
    def missing_tools(self) -> list[str]:
        return [tool for tool in self.tools if not _is_there(tool)]

    @property
    def sources(self) -> list[Path]:
        """The files of its folder and of those that it shares."""
        return [path for folder in (self.folder, *self._beside()) for path in files(folder)]

    @property
    def directory(self) -> Path:
        """Where all is that was installed or built for it."""
        return BUILDS / self.id

    def command(self, *arguments: str) -> list[str]:
        return [*self._filled(self.run), *arguments]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """What its processes see: nothing of the caller's Python, of Dapr or of the sidecar but what is given."""
        unwanted = ("SIDECAR_", "DAPR_", "PYTEST_", "PYTHON", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        return {**kept, "SDK_BUILD": str(self.directory), **more}

    def prepared(self) -> None:
        """Installs and builds it unless that was done from the same locks and shared files."""
        if absent := self.missing_tools:
            raise NotRunError(f"no {' and no '.join(absent)} on the path", (tool.partition(">=")[0] for tool in absent))
        stamp, wanted = self.directory / _STAMP, self._stamp()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{self.id}-prepare.log"
        with log.open("w") as output:
            for command in self.prepare:
                self._run(self._filled(command), output)
        stamp.write_text(wanted)

    def _run(self, command: Sequence[str], output: Any) -> None:
        where, environment = self.folder, self.environment({})
        try:
            subprocess.run(
                command,
                cwd=where,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_PREPARE_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log = Path(output.name)
            tail = log.read_text(errors="replace")[-2000:]
            raise NotRunError(f"cannot be prepared: {error}; the end of {log.relative_to(ROOT)}:\n{tail}") from error

    def _filled(self, words: Iterable[str]) -> list[str]:
        return [word.replace("{build}", str(self.directory)).replace("{python}", sys.executable) for word in words]

    def _stamp(self) -> str:
        """What the build was made from: the commands, and the content of the locks and of what it shares."""
        digest = hashlib.sha256(json.dumps(self.prepare).encode())
        own = [self.folder / name for name in self.locks] or files(self.folder)
        beside = [path for folder in self._beside() for path in files(folder)]
        for path in own + beside:
            digest.update(f"\0{os.path.relpath(path, self.folder)}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def _beside(self) -> list[Path]:
        return [self.folder.parent / name for name in self.shared]


def builds() -> list[Build]:
    """All builds, by folder; raises ValueError for a row that is not right."""
    found = [_build(row, path.parent) for path in sorted(HERE.glob("*/sdk.json")) for row in _rows(path)]
    ids = [build.id for build in found]
    twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
    if twice:
        raise ValueError(f"two builds have the same id: {', '.join(twice)}")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    for row in rows:
        wrong = _KEYS.symmetric_difference(row) - _MORE_KEYS
        if wrong:
            raise ValueError(
                f"{path.relative_to(ROOT)}: {row.get('id')}: missing or unknown: {', '.join(sorted(wrong))}"
            )
        if row["family"] not in FAMILIES:
            raise ValueError(f"{path.relative_to(ROOT)}: {row['id']}: no such family: {row['family']}")
    return rows


def _build(row: dict[str, Any], folder: Path) -> Build:
    return Build(
        **{key: row[key] for key in ("id", "package", "version", "language", "family")},
        folder=folder,
        tools=tuple(row["tools"]),
        locks=tuple(row.get("locks", ())),
        shared=tuple(row.get("shared", ())),
        prepare=tuple(tuple(command) for command in row["prepare"]),
        run=tuple(row["run"]),
        reason=row.get("reason", ""),
        passed_over=row.get("passed_over", {}),
    )


def _excused_tools() -> set[str]:
    """Commands that this machine is without, or whose packages cannot be fetched here."""
    return set(os.environ.get("EXCUSED_TOOLS", "").split())


def _is_there(tool: str) -> bool:
    """Whether the command is on the path, can be used, and is of the version that `command>=version` asks for."""
    name, _, least = tool.partition(">=")
    if name in _excused_tools() or shutil.which(name) is None:
        return False
    return not least or _version(name) >= numbers(least)


def _version(command: str) -> list[int]:
    """What `command --version` says; nothing if it says none."""
    said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return numbers(found.group()) if found else []


def numbers(version: str) -> list[int]:
    """A version to compare: `1.9` is older than `1.10`."""
    return [int(part) for part in version.split(".")]


def files(folder: Path) -> list[Path]:
    """The files of a program or of what programs share, in a fixed order."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and not _LEFT & set(path.parts[len(folder.parts) :])
    )
