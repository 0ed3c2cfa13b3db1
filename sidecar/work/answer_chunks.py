"""Answers of workers that come in several parts: kept until they are whole, within a limit for all of them together."""

import structlog

from sidecar.core.workflow import chunks
from sidecar.core.workflow.chunks import Parts
from sidecar.schema import taskhub_pb2 as pb

ALL_PARTS_BYTES = 256 * 1024 * 1024  # of answers that are not whole yet
log = structlog.get_logger(__name__)


class BrokenAnswerError(Exception):
    """Parts of an answer are missing, or too much comes at once: the turn is to be handed out again."""


class AnswerChunks:
    """The parts of answers, by the token of the turn that they answer."""

    def __init__(self) -> None:
        self._parts: dict[str, Parts] = {}
        self.bytes = 0

    def join(self, token: str, answer: pb.OrchestratorResponse) -> pb.OrchestratorResponse | None:
        """Take an answer, or a part of one: return it when it is whole, None while more must come.

        A part that comes twice is taken once.

        Raises:
            BrokenAnswerError: it will never be whole.
        """
        parts = self._parts.get(token)
        if parts is None and not answer.is_partial and chunks.index_of(answer, 0) == 0:
            return answer
        expected = 0 if parts is None else len(parts)
        index = chunks.index_of(answer, expected)
        if index < expected:
            return None
        if index > expected or self.bytes > ALL_PARTS_BYTES:
            log.warning("parts of an answer are missing or too many at once", instance=answer.instance_id)
            raise BrokenAnswerError
        parts = self._parts.setdefault(token, Parts())
        before = parts.size
        fits = parts.add(answer)
        self.bytes += parts.size - before
        if not fits:
            return chunks.too_large(answer)
        return None if answer.is_partial else parts.whole()

    def forget(self, token: str) -> None:
        """Drop what has come for a turn that is answered or void."""
        parts = self._parts.pop(token, None)
        if parts is not None:
            self.bytes -= parts.size
