"""Clients of Dapr's workflow API, written from Dapr's documentation alone, and the workflow that they play with."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp

from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.world import end


class Answer(NamedTuple):
    """What came back: `content` is the JSON in it, None without a body."""

    status: int
    content: Any


class HttpClient:
    """https://docs.dapr.io/reference/api/workflow_api: one method for each request that it has."""

    def __init__(self, port: int, version: str = "v1.0", headers: Mapping[str, str] | None = None) -> None:
        self._base = f"http://localhost:{port}/{version}"
        self._headers = dict(headers or {})

    async def start(self, name: str, body: bytes = b"", **query: str) -> Answer:
        return await self.send("POST", f"workflows/dapr/{quote(name, '')}/start", body, **query)

    async def get(self, instance: str, **query: str) -> Answer:
        return await self.send("GET", f"workflows/dapr/{quote(instance, '')}", **query)

    async def terminate(self, instance: str, **query: str) -> Answer:
        return await self.send("POST", f"workflows/dapr/{quote(instance, '')}/terminate", **query)

    async def pause(self, instance: str, **query: str) -> Answer:
        return await self.send("POST", f"workflows/dapr/{quote(instance, '')}/pause", **query)

    async def resume(self, instance: str, **query: str) -> Answer:
        return await self.send("POST", f"workflows/dapr/{quote(instance, '')}/resume", **query)

    async def purge(self, instance: str, **query: str) -> Answer:
        return await self.send("POST", f"workflows/dapr/{quote(instance, '')}/purge", **query)

    async def raise_event(self, instance: str, event: str, body: bytes = b"", **query: str) -> Answer:
        return await self.send(
            "POST", f"workflows/dapr/{quote(instance, '')}/raiseEvent/{quote(event, '')}", body, **query
        )

    async def set_metadata(self, key: str, value: bytes) -> Answer:
        return await self.send("PUT", f"metadata/{quote(key, '')}", value)

    async def send(self, method: str, path: str, body: bytes | None = None, **query: str) -> Answer:
        """Send what a test makes itself; a path that is quoted stays as it is."""
        url = f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")
        async with (
            aiohttp.ClientSession(headers=self._headers) as session,
            session.request(method, aiohttp.client.URL(url, encoded=True), data=io.BytesIO(body or b"")) as response,
        ):
            text = await response.read()
            if text:
                assert response.content_type == "application/json"
            return Answer(response.status, await response.json() if text else None)


def waits_for_go(history: list[pb.HistoryEvent]) -> list[pb.Action]:
    """Ends with what comes with the event "go", which is an error if it is "no"."""
    for event in history:
        if event.HasField("event_raised") and event.event_raised.name == "go":
            data = event.event_raised.input.value
            if data == "no":
                failure = pb.FailureDetails(error_type="Oops", error_message="said no")
                failure.stack_trace.value = "line 1"
                return [pb.Action(id=9, complete=pb.Complete(status=3, failure=failure))]
            return [end(data)]
    return []
