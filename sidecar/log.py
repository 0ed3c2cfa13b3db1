"""How the sidecar logs: one line an event on stderr, for people or as JSON, `logging` of libraries included.

Owns the look of a line and what may not be in one: values under secret names, and client texts that are long
or could forge a line. Events are constant texts; what varies is a field. Lines about workflows have a level of
their own, and every logger can be given one while the sidecar runs.
"""

import logging
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from sidecar.work import lifecycle

MAX_CHARACTERS = 256
_MAX_EVENT_CHARACTERS = 1024
_MAX_TRACE_LINES = 200
_MAX_DEPTH = 4
_HANDLER = "sidecar"
_OF_CALLERS = ("Invalid encoding", "ExecuteBatchError raised in core")
_HIDDEN = re.compile(r"token|secret|password|authorization|input|output|payload", re.IGNORECASE)
_REDACTED = "[redacted]"
# At lower levels they tell of every statement (with its values, which are payloads), socket and lock.
_LIBRARIES = ("aiohttp", "aiosqlite", "asyncio", "filelock", "grpc", "opentelemetry", "urllib3")
_OWN = "sidecar"  # above all loggers of this package
_OFF = logging.CRITICAL + 1
_LEVELS = ("debug", "info", "warning", "error", "off", "default")
Level = Literal["debug", "info", "warning", "error"]


def configure(
    format: Literal["console", "json"],
    level: Level,
    *,
    app_id: str = "",
    workflows: Level | Literal["off"] = "info",
) -> None:
    """Sends the log of this process to stderr in `format`, from `level` up. A second call replaces the first.

    Each line has `app_id`, if there is one. `workflows` is the level of the lines about starts and ends of workflows.
    Times are UTC, ISO 8601. `set_level` changes the level of single loggers later.
    """
    threshold = _number(level)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if app_id:
        shared.append(lambda _logger, _method, event: {"app_id": app_id} | dict(event))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_HANDLER)
    handler.setFormatter(_formatter(format, shared))
    root = logging.getLogger()
    root.handlers = [known for known in root.handlers if known.get_name() != _HANDLER] + [handler]
    root.setLevel(threshold)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.getLogger(lifecycle.LOGGER).setLevel(_number(workflows))
    logging.getLogger("grpc._cython.cygrpc").addFilter(_not_of_callers)


def levels() -> dict[str, str]:
    """Return the level of the sidecar, and of each of its loggers that has one of its own."""
    known = [_OWN, *sorted(name for name in logging.root.manager.loggerDict if name.startswith(f"{_OWN}."))]
    own = {name: logging.getLogger(name) for name in known}
    return {name: _name(one.getEffectiveLevel()) for name, one in own.items() if one.level or name == _OWN}


def set_level(name: str, level: str) -> None:
    """Change the level of one of the sidecar's loggers and of those below it; "default" is that of the one above it.

    Loggers of libraries stay as they are: at lower levels they write payloads.

    Raises:
        ValueError: there is no such logger or level; the text says what there is.
    """
    if name != _OWN and not (name.startswith(f"{_OWN}.") and (name in sys.modules or name in levels())):
        parts = f"{_OWN} is all of it, {_OWN}.FOLDER.MODULE a part, {lifecycle.LOGGER} what begins and ends"
        raise ValueError(f"there is no such logger: {parts}")
    if level not in _LEVELS:
        raise ValueError(f"there is no such level: {', '.join(_LEVELS)}")
    logging.getLogger(name).setLevel(logging.NOTSET if level == "default" else _number(level))
    structlog.get_logger(__name__).warning("the level of a logger was changed", of=name, to=level)


def _name(number: int) -> str:
    return "off" if number == _OFF else logging.getLevelName(number).lower()


def _number(level: str) -> int:
    return _OFF if level == "off" else logging.getLevelNamesMapping()[level.upper()]


def own_stderr() -> None:
    """Log what Python would write to stderr by itself: warnings, and errors that nothing catches."""
    logging.captureWarnings(True)
    logger = structlog.get_logger(__name__)

    def uncaught(event: str, kind: Any, error: BaseException | None, trace: Any) -> None:
        logger.error(event, exc_info=(kind, error, trace))

    sys.excepthook = lambda kind, error, trace: uncaught("ended by an error", kind, error, trace)
    threading.excepthook = lambda args: uncaught("thread ended by an error", *args[:3])
    sys.unraisablehook = lambda args: uncaught(
        "error that nothing can catch", args.exc_type, args.exc_value, args.exc_traceback
    )


def _not_of_callers(record: logging.LogRecord) -> bool:
    """Leave out tracebacks that any caller can have grpc write: for headers that are no UTF-8, for going early."""
    return not str(record.msg).startswith(_OF_CALLERS)


def safe(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A copy of an event that may be written: secrets and payloads hidden, long texts cut, and whatever does
    not print escaped, so that no value can forge a line. A traceback stays in lines, indented.
    """
    return {key: _safe_field(key, value) for key, value in event.items()}


def _formatter(format: str, shared: list[Processor]) -> logging.Formatter:
    render: Processor = structlog.processors.JSONRenderer()
    if format == "console":
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Here and not in the console renderer, which prints local variables, and those hold payloads.
            structlog.processors.format_exc_info,
            safe,
            render,
        ],
    )


def _safe_field(key: str, value: object) -> object:
    if key == "exception":
        lines = str(value).splitlines()[-_MAX_TRACE_LINES:]
        return "\n".join(f"    {_safe_text(line, MAX_CHARACTERS)}" for line in lines)
    if _HIDDEN.search(key):
        return _REDACTED
    if key == "event":
        return _safe_text(str(value), _MAX_EVENT_CHARACTERS)
    return _safe_value(value, _MAX_DEPTH)


def _safe_value(value: object, depth: int) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping() if depth:
            return {
                _safe_text(str(key), MAX_CHARACTERS): _REDACTED
                if _HIDDEN.search(str(key))
                else _safe_value(item, depth - 1)
                for key, item in value.items()
            }
        case list() | tuple() | set() | frozenset() if depth:
            return [_safe_value(item, depth - 1) for item in value]
    return _safe_text(str(value), MAX_CHARACTERS)


def _safe_text(text: str, limit: int) -> str:
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(mark if mark.isprintable() else _escaped(mark) for mark in cut)
    return cut if len(text) <= limit else f"{cut}… ({len(text)} characters)"


def _escaped(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
