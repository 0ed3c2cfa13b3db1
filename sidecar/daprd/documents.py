"""Dapr's YAML files: the documents in them, by kind. What is for something else than workflows is read past."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from sidecar.config import formats
from sidecar.config.settings import ConfigError

_SUFFIXES = (".yaml", ".yml")
_BORDER = re.compile(r"^---(?:\s.*)?$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
log = structlog.get_logger(__name__)


class Document(NamedTuple):
    """One resource: what it says, and the file that it stands in, for errors."""

    file: Path
    content: Mapping[str, Any]

    @property
    def spec(self) -> Mapping[str, Any]:
        """What the resource says for itself. Raises ConfigError."""
        return mapping(self.content.get("spec"), f"{self.file}: spec")


def in_folders(folders: Iterable[str]) -> tuple[Path, ...]:
    """Return the files of resources in some folders, not in those below them.

    Raises:
        ConfigError: there is no such folder.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        try:
            inside = sorted(Path(folder).expanduser().iterdir())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"--resources-path: cannot read the folder {folder}: {reason}") from error
        found |= dict.fromkeys(file for file in inside if file.suffix.lower() in _SUFFIXES and file.is_file())
    return tuple(found)


def of_kind(kind: str, files: Sequence[Path]) -> list[Document]:
    """Return the resources of a kind in some files.

    Raises:
        ConfigError: a file cannot be read, and has such a resource or may have one.
    """
    return [document for file in files for document in _of_kind(kind, file)]


def _of_kind(kind: str, file: Path) -> Iterator[Document]:
    text = read_text(file)
    for part in _BORDER.split(text):
        try:
            content = formats.yaml(part)
        except ValueError as error:
            # Templates and components of all sorts may lie in the folder. What may be meant for us is not guessed at.
            if kind in part:
                raise ConfigError(f"{file}: {error}") from error
            log.info("a resource is not read: it is not for workflows", file=str(file), error=str(error))
            continue
        if isinstance(content, dict) and content.get("kind") == kind:
            yield Document(file, content)


def read_text(file: Path) -> str:
    """Return the text of a file. Raises ConfigError."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})") from error


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """Put the values of variables in the place of $NAME and ${NAME}, nothing for those that are not set."""
    return _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], ""), text)


def mapping(raw: object, at: str) -> Mapping[str, Any]:
    """Return what must be keys with values; nothing is none. Raises ConfigError."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{at}: write keys with values")
    return raw


def mappings(raw: object, at: str) -> list[Mapping[str, Any]]:
    """Return what must be a list of such; nothing is an empty one. Raises ConfigError."""
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise ConfigError(f"{at}: write a list")
    return [mapping(one, at) for one in raw]
