"""An answer to a turn that comes in several parts: some SDKs split large answers."""

from sidecar.core import events
from sidecar.core.model import Status
from sidecar.schema import taskhub_pb2 as pb

MOST_BYTES = 128 * 1024 * 1024
MOST_PARTS = 1_000


class Parts:
    """The parts that have arrived, in order."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[pb.OrchestratorResponse] = []

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, part: pb.OrchestratorResponse) -> bool:
        """Add the next part. Return False if the answer is larger than may be kept in memory."""
        self.size += part.ByteSize()
        self._parts.append(part)
        return self.size <= MOST_BYTES and len(self._parts) <= MOST_PARTS

    def whole(self) -> pb.OrchestratorResponse:
        """Return the answer with the actions of all parts.

        The other fields are the same in every part, but for the count of processed events and the trace, which the
        first part has.
        """
        first, last = self._parts[0], self._parts[-1]
        answer = pb.OrchestratorResponse()
        answer.CopyFrom(last)
        for name in ("actions", "is_partial", "chunk_index", "num_events_processed"):
            answer.ClearField(name)
        if first.HasField("num_events_processed"):
            answer.num_events_processed.CopyFrom(first.num_events_processed)
        answer.orchestration_trace = first.orchestration_trace
        for part in self._parts:
            answer.actions.extend(part.actions)
        return answer


def index_of(part: pb.OrchestratorResponse, expected: int) -> int:
    """Return the number of a part, from 0. A part without a number is the expected one."""
    return part.chunk_index.value if part.HasField("chunk_index") else expected


def too_large(part: pb.OrchestratorResponse) -> pb.OrchestratorResponse:
    """Return the answer that replaces one which is larger than may be kept in memory: it fails the execution."""
    message = f"the answer to the turn has more than {MOST_BYTES} bytes or {MOST_PARTS} parts"
    details = events.failure("AnswerTooLarge", message, retriable=False)
    failed = pb.Action(id=-1, complete=pb.Complete(status=Status.FAILED, failure=details))
    return pb.OrchestratorResponse(
        instance_id=part.instance_id, completion_token=part.completion_token, actions=[failed]
    )
