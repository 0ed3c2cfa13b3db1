"""Dapr's HTTP workflow API, by a client that knows its documentation: every path, every answer."""

import asyncio
import re
from pathlib import Path

import pytest

from sidecar.edge.http.client_routes import ClientRoutes
from sidecar.edge.transport.ports import Handlers
from tests.edge.client_api.documented import Answer, HttpClient, waits_for_go
from tests.edge.http.test_surface import ask
from tests.inprocess.sidecars import Node, PlayedWorker, get


def missing(instance_id: str) -> Answer:
    """What Dapr's runtime says, word by word."""
    text = f"unable to find workflow with the provided instance ID: {instance_id}"
    return Answer(404, {"errorCode": "ERR_INSTANCE_ID_NOT_FOUND", "message": text})


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture
async def client(node: Node) -> HttpClient:
    return HttpClient(node.ports.http)


@pytest.fixture
async def worker(node: Node) -> PlayedWorker:
    return node.worker(waits_for_go)


async def until_status(client: HttpClient, instance: str, status: str, **query: str) -> dict[str, object]:
    async with asyncio.timeout(10):
        while True:
            answer = await client.get(instance, **query)
            if answer.status == 200 and answer.content["runtimeStatus"] == status:
                return dict(answer.content)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", ["v1.0", "v1.0-beta1", "v1.0-alpha1"])
async def test_a_workflow_from_its_start_to_its_purge(node: Node, version: str) -> None:
    node.worker(waits_for_go)
    client = HttpClient(node.ports.http, version)
    assert await client.start("flow", b'{"a": 1}', instanceID="i-1") == Answer(202, {"instanceID": "i-1"})
    shown = await until_status(client, "i-1", "RUNNING")
    for moment in ("createdAt", "lastUpdatedAt"):
        assert TIME.fullmatch(str(shown.pop(moment)))
    assert shown == {
        "instanceID": "i-1",
        "workflowName": "flow",
        "runtimeStatus": "RUNNING",
        "properties": {"dapr.workflow.input": '{"a": 1}'},
    }
    assert await client.pause("i-1") == Answer(202, {})
    await until_status(client, "i-1", "SUSPENDED")
    assert await client.resume("i-1") == Answer(202, {})
    await until_status(client, "i-1", "RUNNING")
    assert await client.raise_event("i-1", "go", b'"yes"') == Answer(202, {})
    shown = await until_status(client, "i-1", "COMPLETED")
    assert shown["properties"] == {"dapr.workflow.input": '{"a": 1}', "dapr.workflow.output": '"yes"'}
    assert await client.purge("i-1") == Answer(202, {})
    assert await client.get("i-1") == missing("i-1")


async def test_without_an_id_one_is_made_and_without_a_body_there_is_no_input(
    worker: PlayedWorker, client: HttpClient
) -> None:
    started = await client.start("flow")
    assert started.status == 202
    shown = await until_status(client, started.content["instanceID"], "RUNNING")
    assert "properties" not in shown


async def test_a_terminate_ends_what_runs(worker: PlayedWorker, client: HttpClient) -> None:
    await client.start("flow", instanceID="i-1")
    await until_status(client, "i-1", "RUNNING")
    assert await client.terminate("i-1") == Answer(202, {})
    await until_status(client, "i-1", "TERMINATED")


async def test_a_workflow_that_failed_has_what_it_failed_of_and_no_output(
    worker: PlayedWorker, client: HttpClient
) -> None:
    await client.start("flow", instanceID="i-1")
    await client.raise_event("i-1", "go", b"no")
    shown = await until_status(client, "i-1", "FAILED")
    assert shown["properties"] == {
        "dapr.workflow.failure.error_type": "Oops",
        "dapr.workflow.failure.error_message": "said no",
        "dapr.workflow.failure.stack_trace": "line 1",
    }


async def test_a_get_says_why_the_workflow_waits(node: Node) -> None:
    client = HttpClient(node.ports.http)  # and no worker
    await client.start("flow", instanceID="i-1")
    shown = (await client.get("i-1")).content
    assert "no worker" in shown["properties"]["sidecar.workflow.causes"]


async def test_what_there_is_not_is_said_to_be_missing(client: HttpClient) -> None:
    for verb in ("terminate", "pause", "resume", "purge", "raiseEvent/go"):
        assert await client.send("POST", f"workflows/dapr/nobody/{verb}") == missing("nobody"), verb


async def test_an_id_that_is_used_and_runs_is_a_conflict_and_so_is_the_purge_of_what_runs(
    worker: PlayedWorker, client: HttpClient
) -> None:
    await client.start("flow", instanceID="i-1")
    again = await client.start("flow", instanceID="i-1")
    assert (again.status, again.content["errorCode"]) == (409, "ERR_START_WORKFLOW")
    kept = await client.purge("i-1")
    assert (kept.status, kept.content["errorCode"]) == (409, "ERR_PURGE_WORKFLOW")


async def test_any_component_is_the_one_engine_and_ids_may_have_what_urls_quote(
    worker: PlayedWorker, client: HttpClient
) -> None:
    odd = "a/b c?d#ü"
    assert await client.start("flow/ü", instanceID=odd) == Answer(202, {"instanceID": odd})
    shown = await until_status(client, odd, "RUNNING")
    assert (shown["instanceID"], shown["workflowName"]) == (odd, "flow/ü")
    assert (await client.send("POST", "workflows/other/a%2Fb%20c%3Fd%23%C3%BC/pause")).status == 202


WRONG = {
    "an ID of control characters": ("POST", "workflows/dapr/flow/start?instanceID=%01", "ERR_INSTANCE_ID_INVALID"),
    "an ID that is long": ("POST", f"workflows/dapr/flow/start?instanceID={'x' * 257}", "ERR_INSTANCE_ID_TOO_LONG"),
    "the ID of an entity": ("POST", "workflows/dapr/@a@b/purge", "ERR_INSTANCE_ID_INVALID"),
    "an app ID that cannot be": ("POST", "workflows/dapr/i/pause?appID=a.b", "ERR_WORKFLOW_APP_ID_INVALID"),
    "the same of a start": ("POST", "workflows/dapr/flow/start?appID=%20", "ERR_WORKFLOW_APP_ID_INVALID"),
    "the same of a get": ("GET", "workflows/dapr/i?appID=..", "ERR_WORKFLOW_APP_ID_INVALID"),
    "half a surrogate pair": ("GET", "workflows/dapr/%ED%A0%80", ""),
    "bytes that are no text": ("POST", "workflows/dapr/%FF/terminate?appID=%FF", ""),
    "a long name": ("POST", f"workflows/dapr/{'x' * 300}/start", "ERR_START_WORKFLOW"),
}


async def test_what_cannot_be_is_refused_under_a_code(client: HttpClient) -> None:
    for what, (method, path, code) in WRONG.items():
        answer = await client.send(method, path)
        assert answer.status in ((400,) if code else (400, 404)), what
        assert answer.content["errorCode"] == code or (not code and answer.content["message"]), what


async def test_other_methods_are_not_allowed(client: HttpClient) -> None:
    for method, path in (("PUT", "workflows/dapr/i/pause"), ("DELETE", "workflows/dapr/i"), ("GET", "shutdown")):
        answer = await client.send(method, path)
        assert (answer.status, answer.content["errorCode"]) == (405, "ERR_METHOD_NOT_ALLOWED"), path


async def test_metadata_that_is_set_is_shown_under_extended_and_can_be_empty(node: Node, client: HttpClient) -> None:
    assert await client.set_metadata("cliPID", b"123") == Answer(204, None)
    assert await client.set_metadata("appCommand", "python ü.py".encode()) == Answer(204, None)
    assert await client.set_metadata("cliPID", b"") == Answer(204, None)
    shown = (await client.send("GET", "metadata")).content["extended"]
    assert shown == {"appNamespace": "default", "cliPID": "", "appCommand": "python ü.py"}


async def test_metadata_is_bounded_and_what_the_sidecar_says_of_itself_stays(client: HttpClient) -> None:
    wrong = [("appNamespace", b"x"), ("a\nb", b"x"), ("k" * 257, b"x"), ("key", b"x" * 16_385), ("key", b"\xff")]
    for key, value in wrong:
        answer = await client.set_metadata(key, value)
        assert (answer.status, answer.content["errorCode"]) == (400, "ERR_MALFORMED_REQUEST"), key
    for number in range(64):
        assert (await client.set_metadata(f"key{number}", b"x")).status == 204
    assert (await client.set_metadata("one more", b"x")).status == 429
    assert (await client.set_metadata("key0", b"y")).status == 204


async def test_a_shutdown_is_answered_and_ends_the_sidecar(node: Node, client: HttpClient) -> None:
    assert await client.send("POST", "shutdown") == Answer(204, None)
    async with asyncio.timeout(5):
        await asyncio.shield(node.serving)


def test_the_page_of_documentation_has_every_request() -> None:
    page = (Path(__file__).parents[3] / "docs" / "client-api.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([A-Z]+) (/v1\.0/[^`]+)`", page, re.MULTILINE))
    routes = ClientRoutes(Handlers(), 0).routes()
    assert told == {(route.method, route.path) for route in routes if route.path.startswith("/v1.0/")}


async def test_both_apis_are_one_engine(node: Node, client: HttpClient) -> None:
    await client.start("flow", b'"in"', instanceID="i-1")
    assert (await get(node, "i-1")).state.input.value == '"in"'
    await node.begin("i-2")
    assert (await client.get("i-2")).content["properties"]["dapr.workflow.input"] == '"in"'


async def test_calls_are_counted_as_those_of_sdks(node: Node, client: HttpClient) -> None:
    await client.start("flow", instanceID="i-1")
    await client.get("i-1")
    await client.terminate("i-1")
    await client.purge("nobody")
    shown = (await ask(node.ports.http, "/metrics")).body.decode()
    for operation in ("create_workflow", "get_workflow", "add_event", "purge_workflow"):
        found = re.search(rf"^dapr_runtime_workflow_operation_count{{.*{operation}.*success.*}} (\S+)$", shown, re.M)
        assert found, operation
        assert float(found[1]) == 1.0
