"""Stalled instances: something waits for them, but no connected worker can run them.

Such an instance is STALLED: commands of clients are refused, and what arrives waits. It goes on by itself: the next
turn that is completed ends the stall. An instance whose deliveries crash every worker is quarantined: STALLED until a
person resumes or terminates it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sidecar.core import causes, events
from sidecar.core.attempts import NONE, DeliveryAttempts, DeliveryLimit
from sidecar.core.causes import Cause
from sidecar.core.identity import Context
from sidecar.core.model import Changes, Instance, Outcome, Reply, Row, State, Status
from sidecar.core.workflow import state as states
from sidecar.schema import taskhub_pb2 as pb

# The numbers of the protocol.
PATCH_MISMATCH, VERSION_NOT_AVAILABLE, PAYLOAD_SIZE_EXCEEDED = 0, 1, 2
WORKER_CRASHED = 3  # our own: SDKs have no name for it
# Index behind all events of a turn and before its end. The revision is added, since there may be several.
_BETWEEN_TURNS = 1 << 39


class StalledError(Exception):
    """A worker cannot run the instance: nothing of its answer may be committed."""

    def __init__(self, why: pb.ExecutionStalled) -> None:
        super().__init__(why.description)
        self.why = why


def too_large(size: int, limit: int) -> pb.ExecutionStalled:
    """Return why an instance stalls whose turn is larger than any worker receives. Both sizes are in bytes."""
    text = f"Payload size exceeded: the turn has {size} bytes, and a connected worker receives at most {limit}"
    text += ": connect one that receives more, or end it (Terminate of the admin service)"
    return pb.ExecutionStalled(reason=PAYLOAD_SIZE_EXCEEDED, description=text)


def answer_too_large(text: str) -> pb.ExecutionStalled:
    """Return why an instance stalls whose worker answers with more than is taken; the text has both sizes."""
    return pb.ExecutionStalled(reason=PAYLOAD_SIZE_EXCEEDED, description=f"Payload size exceeded: {text}")


def given_back(times: int) -> pb.ExecutionStalled:
    """Return why an instance stalls whose turn came back so many times from workers that did not answer it."""
    text = f"Not answered: {times} times workers gave the turn back, were stopped with it or took too long"
    text += "; see what they log, and --turn-timeout"
    return pb.ExecutionStalled(reason=WORKER_CRASHED, description=text)


def check(instance: Instance, response: pb.OrchestratorResponse) -> None:
    """Check that the worker has the version and the patches that the history was made with.

    The patches of the history must be the first ones that the worker's code went through, in their order.

    Raises:
        StalledError: the worker does not have them.
    """
    recorded = pb.WorkflowVersion.FromString(instance.recorded)
    if any(_lacks_version(action) for action in response.actions):
        text = f"Version not available: {recorded.name}"
        raise StalledError(pb.ExecutionStalled(reason=VERSION_NOT_AVAILABLE, description=text))
    current = list(response.version.patches)
    if current[: len(recorded.patches)] != list(recorded.patches):
        history = ", ".join(recorded.patches)
        # SDKs' own tests compare it to the character, with the blank at its end.
        text = f"Patch mismatch. History patches: [{history}], current patches: [{', '.join(current)}]. "
        raise StalledError(pb.ExecutionStalled(reason=PATCH_MISMATCH, description=text))


def _lacks_version(action: pb.Action) -> bool:
    """Whether a worker says that it lacks the workflow's version; some say so by completing with status STALLED."""
    return action.HasField("version_not_available") or action.complete.status == Status.STALLED


def news(instance: Instance, version: pb.WorkflowVersion) -> pb.WorkflowVersion:
    """Return the version and patches of an answer that are not in the history yet."""
    recorded = pb.WorkflowVersion.FromString(instance.recorded)
    fresh = pb.WorkflowVersion(patches=version.patches[len(recorded.patches) :])
    if version.name != recorded.name:
        fresh.name = version.name
    return fresh


def recorded(instance: Instance, version: pb.WorkflowVersion) -> bytes:
    """Return the version and all patches of the history once this answer is part of it."""
    known = pb.WorkflowVersion.FromString(instance.recorded)
    known.MergeFrom(news(instance, version))
    return known.SerializeToString(deterministic=True)


def of_history(history: Iterable[pb.HistoryEvent]) -> bytes:
    """Return the version and all patches of a history."""
    known = pb.WorkflowVersion()
    for event in history:
        known.MergeFrom(event.orchestrator_started.version)
    return known.SerializeToString(deterministic=True)


def stalled(at: Context, state: State, why: pb.ExecutionStalled) -> Changes | None:
    """Return what stalls an instance; None if it is stalled for the same reason already or is not ready to run."""
    instance = state.instance
    encoded = why.SerializeToString(deterministic=True)
    if not instance.ready or instance.stall == encoded:
        return None
    after = states.touched(state, at.now, 0, status=Status.STALLED, stall=encoded)
    row = Row(instance.last_completed_turn, _BETWEEN_TURNS + after.revision, events.stalled(at.now, why))
    return Changes(key=instance.key, expected=instance.revision, instance=after, append=(row,))


def crashed(at: Context, state: State, error: str, delivery_limit: DeliveryLimit) -> Changes:
    """Return what counts a crash of an instance or entity. At its delivery limit it is quarantined."""
    before = state.instance
    crashes = before.crashes.another(error)
    if not delivery_limit.is_over(crashes):
        counted = replace(before, revision=before.revision + 1, crashes=crashes)
        return Changes(key=before.key, expected=before.revision, instance=counted)
    text = (
        f"Worker crashed: {crashes.times} deliveries ended with the loss of the worker ({error}): it crashed, or was "
    )
    text += "restarted so often without a goodbye; find out why, then resume it"
    return _quarantined(at, state, crashes, pb.ExecutionStalled(reason=WORKER_CRASHED, description=text))


def never_answered(at: Context, state: State, times: int) -> Changes:
    """Return what quarantines an entity whose operations came back so many times from workers that did not answer."""
    text = f"Not answered: {times} times workers gave the operations back, were stopped with them or took too long"
    text += "; see what they log"
    why = pb.ExecutionStalled(reason=WORKER_CRASHED, description=f"{text}, then resume it")
    return _quarantined(at, state, state.instance.crashes._replace(error="given back each time"), why)


def _quarantined(at: Context, state: State, crashes: DeliveryAttempts, why: pb.ExecutionStalled) -> Changes:
    before, stall = state.instance, why.SerializeToString(deterministic=True)
    fields: dict[str, Any] = {
        "status": Status.STALLED,
        "stall": stall,
        "crashes": crashes._replace(quarantined=True),
        "ready": False,
    }
    after = replace(before, revision=before.revision + 1, **fields)
    row = Row(after.last_completed_turn, _BETWEEN_TURNS + after.revision, events.stalled(at.now, why))
    rows = () if after.entity else (row,)
    return Changes(key=after.key, expected=before.revision, instance=after, append=rows)


def end_quarantine(at: Context, state: State) -> Changes:
    """Return what lets a quarantined instance be handed out again, as if no delivery had failed yet."""
    status = states.live_status(state.instance)
    after = states.touched(state, at.now, 0, status=status, stall=None, crashes=NONE)
    return Changes(key=after.key, expected=state.instance.revision, instance=after)


def standstill(instance: Instance) -> Cause | None:
    """Say why an instance stands still whatever workers there are: it is stalled, parked or suspended; else None."""
    if instance.status.terminal:
        return None
    if instance.crashes.quarantined or instance.stall is not None:
        return cause(instance)
    return causes.suspended() if instance.suspended else None


def cause(instance: Instance) -> Cause:
    """Say why an instance is stalled or parked."""
    why = pb.ExecutionStalled.FromString(instance.stall or b"").description or instance.crashes.error
    return (causes.parked if instance.crashes.quarantined else causes.stalled)(why, instance.updated_at)


def refusal(instance: Instance) -> Reply | None:
    """Return the answer to a client's command for an instance that is stalled, or None when it is not."""
    if instance.stall is None:
        return None
    why = pb.ExecutionStalled.FromString(instance.stall)
    return Reply(Outcome.WRONG_STATE, f"workflow '{instance.id}' is stalled: {why.description}")
