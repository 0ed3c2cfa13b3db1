"""Starts, ends and failures of workflows, for the log: a logger of their own, whose level says which of them are told.

Pure but for the log. It must not know how a line looks.
"""

import logging

import structlog

from sidecar.core.model import Changes, Instance, Status
from sidecar.schema import taskhub_pb2 as pb

LOGGER = "sidecar.workflows"
_logger = logging.getLogger(LOGGER)
log = structlog.wrap_logger(_logger, wrapper_class=structlog.stdlib.BoundLogger)


def began(changes: Changes) -> Instance | None:
    """Return the workflow that changes create, or None."""
    instance = changes.instance
    return None if instance is None or instance.entity or changes.expected else instance


def ended(changes: Changes) -> Instance | None:
    """Return the workflow that changes end, or None."""
    instance = changes.instance
    if instance is None or instance.entity or not changes.expected:
        return None
    return instance if changes.close_all and instance.status.terminal else None


def tell(changes: Changes) -> None:
    """Log what committed changes begin or end: at info, a failure at warning. See `engine.Observer`."""
    new, old = began(changes), ended(changes)
    if new is not None:
        _started(new)
    elif old is not None:
        _ended(old)


def _started(instance: Instance) -> None:
    if _logger.isEnabledFor(logging.INFO):
        parent = (
            {} if instance.parent is None else {"parent": instance.parent.actor.id, "by": instance.parent.actor.app}
        )
        event = "workflow started" if instance.began else "workflow scheduled"
        log.info(event, workflow=instance.name, instance=instance.id, **parent)


def _ended(instance: Instance) -> None:
    failed = instance.status is Status.FAILED
    if not _logger.isEnabledFor(logging.WARNING if failed else logging.INFO):
        return
    seconds = round(((instance.completed_at or instance.created_at) - instance.created_at) / 1e6, 3)
    fields = {"workflow": instance.name, "instance": instance.id, "seconds": seconds}
    if failed:
        failure = pb.FailureDetails.FromString(instance.failure or b"")
        log.warning("workflow failed", **fields, error=f"{failure.error_type}: {failure.error_message}")
    else:
        log.info("workflow ended", **fields, status=instance.status.name)
