"""Which workflows a command is about: by name, status and age. Pure, but for the question."""

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from sidecar.cli import when
from sidecar.cli.exits import Exit, Failure
from sidecar.cli.operate.client import Client
from sidecar.cli.show.instances import status
from sidecar.core.model import Status
from sidecar.schema import taskhub_pb2 as pb


class Filter(NamedTuple):
    """What a person gives: names are patterns, ages such as 1h30m or a date; empty means any."""

    names: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    max_age: str = ""
    min_age: str = ""

    def query(self, now: int) -> pb.InstanceQuery:
        """Return the question for the sidecar, which knows no names. Raises Failure: a word is wrong."""
        query = pb.InstanceQuery(status=[int(_status(word)) for word in self.statuses])
        for option, text, field in (
            ("--filter-max-age", self.max_age, query.created_from),
            ("--filter-min-age", self.min_age, query.created_to),
        ):
            if text:
                try:
                    field.FromMicroseconds(when.moment(text, now, -1))
                except ValueError as error:
                    raise Failure(Exit.WRONG, f"{option}: {error}") from error
        return query

    def fits(self, state: pb.InstanceState) -> bool:
        """Whether a workflow that the sidecar found is meant."""
        named = not self.names or any(fnmatchcase(state.name, one) for one in self.names)
        return named and (not self.statuses or status(state) in map(str.upper, self.statuses))


def _status(word: str) -> Status:
    try:
        return Status[word.upper()]
    except KeyError:
        known = ", ".join(one.name for one in Status)
        raise Failure(Exit.WRONG, f"--filter-status: {word[:80]!r} is no status", f"give one of {known}") from None


async def found(client: Client, wanted: Filter, now: int, *, payloads: bool = False) -> AsyncIterator[pb.InstanceState]:
    """Yield the workflows that are meant, the oldest first."""
    query = wanted.query(now)
    query.fetch_inputs_and_outputs = payloads
    async for page in client.pages(query):
        for state in page:
            if wanted.fits(state):
                yield state


def joined(texts: object) -> tuple[str, ...]:
    """Return what a repeated option gave, each of which may be a list with commas."""
    given = texts if isinstance(texts, list) else []
    return tuple(part.strip() for text in given for part in str(text).split(",") if part.strip())
