"""Dapr's `Configuration` files, as far as they concern workflows: retention, limits, traces."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog

from sidecar.config import formats
from sidecar.config.durations import duration
from sidecar.config.parsers import quoted
from sidecar.config.settings import ConfigError
from sidecar.daprd.documents import Document, expanded, mapping, read_text

_KIND = "Configuration"
_ENDS = {"anyTerminal": "any", "completed": "completed", "failed": "failed", "terminated": "terminated"}
_LIMITS = {"maxConcurrentWorkflowInvocations": "workflows", "maxConcurrentActivityInvocations": "activities"}
_SHORTEST = 0.001  # seconds that an ended workflow is kept where nothing was wanted
_OTLP_PATH = "/v1/traces"
log = structlog.get_logger(__name__)


class Wish(NamedTuple):
    """A value for a setting, as a config file has it, and where it stands."""

    raw: object
    source: str


def read(files: Sequence[str], environ: Mapping[str, str]) -> dict[str, Wish]:
    """Return what some files want, by setting; the last one counts. A file that is not there wants nothing.

    Raises:
        ConfigError: a file cannot be read or is wrong.
    """
    found: dict[str, Wish] = {}
    for name in files:
        file = Path(name).expanduser()
        if not file.exists():
            log.info("there is no such configuration: nothing is read from it", file=name)
            continue
        found |= dict(_wishes(_document(file, environ)))
    return found


def _document(file: Path, environ: Mapping[str, str]) -> Document:
    try:
        content = formats.yaml(expanded(read_text(file), environ))
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    found = mapping(content, str(file))
    if found and found.get("kind", _KIND) != _KIND:
        raise ConfigError(f"{file}: this is no {_KIND}")
    return Document(file, found)


def _wishes(document: Document) -> Iterator[tuple[str, Wish]]:
    at = f"{document.file}: workflow"
    workflow = mapping(document.spec.get("workflow"), at)
    if kept := _retention(mapping(workflow.get("stateRetentionPolicy"), at), f"{at}: stateRetentionPolicy"):
        yield "retention", Wish(kept, f"{at}: stateRetentionPolicy")
    if limits := {kind: workflow[key] for key, kind in _LIMITS.items() if _is_limit(workflow.get(key))}:
        yield "limits", Wish(limits, at)
    at = f"{document.file}: tracing"
    tracing = mapping(document.spec.get("tracing"), at)
    if _is_off(tracing.get("samplingRate")):
        return
    if zipkin := mapping(tracing.get("zipkin"), at).get("endpointAddress"):
        yield "trace_zipkin", Wish(zipkin, f"{at}: zipkin")
    if otlp := _otlp(mapping(tracing.get("otel"), at), at):
        yield "trace_otlp", Wish(otlp, f"{at}: otel")


def _retention(given: Mapping[str, Any], at: str) -> dict[str, float]:
    found = {}
    for key, value in given.items():
        if key not in _ENDS:
            raise ConfigError(f"{at}: {quoted(key)} is not known: there are {', '.join(_ENDS)}")
        try:
            seconds = duration(str(value)) / 1e6
        except ValueError as error:
            raise ConfigError(f"{at}: {key}: {error}") from error
        found[_ENDS[key]] = max(_SHORTEST, seconds)
    return found


def _is_limit(raw: object) -> bool:
    """Whether a number limits anything: Dapr takes none or zero for no limit. What is no number is refused later."""
    return raw is not None and not (isinstance(raw, int) and raw <= 0)


def _is_off(raw: object) -> bool:
    """Whether no trace is to be sampled; a rate between none and all is taken for all."""
    try:
        return raw is not None and raw != "" and float(str(raw)) <= 0
    except ValueError:
        return False


def _otlp(given: Mapping[str, Any], at: str) -> str:
    """Return the URL of a collector, "" for none; an address over HTTP without a path gets the usual one.

    Raises:
        ConfigError: the address is none.
    """
    address = str(given.get("endpointAddress") or "")
    if not address:
        return ""
    secure = given.get("isSecure") is not False
    if str(given.get("protocol") or "http").lower() == "grpc":
        return f"{'grpcs' if secure else 'grpc'}://{address.rpartition('://')[2]}"
    if "://" not in address:
        address = f"{'https' if secure else 'http'}://{address}"
    try:
        path = urlsplit(address).path.strip("/")
    except ValueError as error:
        raise ConfigError(f"{at}: otel: {quoted(address)} is no address of a collector") from error
    return address if path else address.rstrip("/") + _OTLP_PATH
