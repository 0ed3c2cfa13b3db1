"""Starts, ends and failures of workflows, for the log: a logger of their own, whose level says which of them are told.

And that one stands still: stalled, parked or suspended. Pure but for the log. It must not know how a line looks.
"""

import logging
from collections import OrderedDict

import structlog

from sidecar.core.causes import Cause, Reason
from sidecar.core.model import Changes, Instance, Status
from sidecar.core.workflow import stalls
from sidecar.schema import taskhub_pb2 as pb

LOGGER = "sidecar.workflows"
_MOST_REMEMBERED = 10_000
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


class Standstills:
    """Tells once that a workflow or an entity stands still, in the words that all use, and once that it goes on.

    Which have been told is kept in memory, as far as there is room: after a restart one may be told again.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[int, Cause] = OrderedDict()

    def tell(self, changes: Changes) -> None:
        """See `engine.Observer`."""
        instance = changes.instance
        found = None if instance is None else stalls.standstill(instance)
        before = self._told.get(changes.key)
        if found is None and before is None:
            return
        if found is None or instance is None:
            del self._told[changes.key]
            if instance is not None and not instance.status.terminal and before is not None:
                log.info("workflow goes on", workflow=instance.name, instance=instance.id, waited=before.text)
        elif before is None or before.reason is not found.reason:
            self._told[changes.key] = found
            if len(self._told) > _MOST_REMEMBERED:
                self._told.popitem(last=False)
            write = log.info if found.reason is Reason.SUSPENDED else log.warning
            write("workflow waits", workflow=instance.name, instance=instance.id, why=found.text, advice=found.advice)
