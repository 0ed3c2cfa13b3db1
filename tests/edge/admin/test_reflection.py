"""gRPC reflection: a tool learns from the server alone what it may call, and only on loopback."""

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from sidecar.config.parsers import Secret
from sidecar.edge.admin import reflection
from sidecar.edge.methods import CLIENT_API, TASKHUB
from sidecar.edge.peer import link
from sidecar.edge.transport.ports import Closed, Refused, StatusCode
from sidecar.schema import reflection_pb2 as pb
from tests.edge import test_corpus
from tests.fuzz import mutate
from tests.inprocess.sidecars import Node, Start

every_version = pytest.mark.parametrize("method", reflection.METHODS)


async def ask(node: Node, method: str, *requests: Message | bytes) -> list[pb.ServerReflectionResponse]:
    """The answers to requests in one stream."""
    call = node.channel.duplex(method, node.metadata)
    answers = []
    for request in requests:
        with suppress(Closed):  # it is refused before anything of it is read: the next line says why
            await call.send(request if isinstance(request, bytes) else request.SerializeToString())
        answer = await call.receive()
        assert answer is not None
        answers.append(pb.ServerReflectionResponse.FromString(answer))
    await call.done_sending()
    assert await call.receive() is None
    return answers


async def services(node: Node, method: str) -> list[str]:
    (answer,) = await ask(node, method, pb.ServerReflectionRequest(list_services=""))
    return [service.name for service in answer.list_services_response.service]


async def pool_of(node: Node, method: str) -> descriptor_pool.DescriptorPool:
    """All that the server tells of its services, with nothing of ours beside it."""
    wanted = [pb.ServerReflectionRequest(file_containing_symbol=name) for name in await services(node, method)]
    files = {}
    for answer in await ask(node, method, *wanted):
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
    pool = descriptor_pool.DescriptorPool()
    while files:
        ready = next(file for file in files.values() if not files.keys() & set(file.dependency))
        pool.Add(files.pop(ready.name))
    return pool


def served(node: Node) -> Iterator[tuple[str, bool, bool]]:
    """Path of each method of the app port, and whether its requests and its answers are streams."""
    handlers = node.sidecar._app_handlers()
    yield from ((path, False, False) for path in handlers.unary)
    yield from ((path, False, True) for path in handlers.stream)
    yield from ((path, True, True) for path in reflection.METHODS[:1])


def method_of(pool: descriptor_pool.DescriptorPool, path: str) -> MethodDescriptor:
    service, name = path[1:].split("/")
    return pool.FindServiceByName(service).methods_by_name[name]


@every_version
async def test_every_method_that_is_served_is_told(node: Node, method: str) -> None:
    pool = await pool_of(node, method)
    for path, asks, answers in served(node):
        found = method_of(pool, path)
        assert (found.client_streaming, found.server_streaming) == (asks, answers), path


async def test_what_is_told_and_not_served_there_is_not(node: Node) -> None:
    pool = await pool_of(node, reflection.METHODS[0])
    paths = {path for path, _, _ in served(node)} | {f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")}
    for service in await services(node, reflection.METHODS[0]):
        told = {f"/{service}/{name}" for name in pool.FindServiceByName(service).methods_by_name}
        assert told - paths - {"/grpc.health.v1.Health/List"} == set()


async def test_a_method_is_told_with_the_request_that_its_handler_reads(node: Node) -> None:
    pool = await pool_of(node, reflection.METHODS[0])
    for name, kind in test_corpus.messages().items():
        assert method_of(pool, TASKHUB + name).input_type.full_name == kind.DESCRIPTOR.full_name
    started = method_of(pool, f"{CLIENT_API}StartWorkflowBeta1")
    assert started.output_type.fields_by_name["instance_id"].json_name == "instanceID"


@every_version
async def test_what_there_is_not_is_said_in_the_stream_which_goes_on(node: Node, method: str) -> None:
    wrong = [
        pb.ServerReflectionRequest(file_containing_symbol="no.such.Thing"),
        pb.ServerReflectionRequest(file_by_filename="../../etc/passwd"),
        pb.ServerReflectionRequest(all_extension_numbers_of_type="x" * 10_000),
        pb.ServerReflectionRequest(file_containing_extension=pb.ExtensionRequest(containing_type="a")),
        pb.ServerReflectionRequest(),
    ]
    *missing, empty, found = await ask(node, method, *wrong, pb.ServerReflectionRequest(list_services="x"))
    assert [one.error_response.error_code for one in missing] == [StatusCode.NOT_FOUND] * 4
    assert empty.error_response.error_code == StatusCode.INVALID_ARGUMENT
    assert found.HasField("list_services_response")


async def test_a_file_is_found_by_its_name_and_comes_with_what_it_stands_on(node: Node) -> None:
    wanted = pb.ServerReflectionRequest(file_by_filename="sidecar/schema/admin_service.proto")
    (answer,) = await ask(node, reflection.METHODS[0], wanted)
    names = [
        descriptor_pb2.FileDescriptorProto.FromString(data).name
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert names[0] == "sidecar/schema/admin_service.proto"
    assert {"sidecar/schema/admin.proto", "google/protobuf/timestamp.proto"} <= set(names)


async def test_hostile_requests_are_the_callers_mistake(node: Node) -> None:
    rng = random.Random(1)
    seeds = [pb.ServerReflectionRequest(file_containing_symbol=text).SerializeToString() for text in ("", ".", "a.b")]
    for _ in range(300):
        with suppress(Refused):
            await ask(node, reflection.METHODS[0], mutate.message(rng.choice(seeds), rng, seeds))
    for body, status in ((b"\xff", StatusCode.INVALID_ARGUMENT), (b"x" * 20_000, StatusCode.RESOURCE_EXHAUSTED)):
        with pytest.raises(Refused) as refused:
            await ask(node, reflection.METHODS[0], body)
        assert refused.value.status is status


@every_version
async def test_it_asks_for_the_token_too(start: Start, method: str) -> None:
    node = await start("orders", api_token=Secret("right"))
    with pytest.raises(Refused) as refused:
        await services(node, method)
    assert refused.value.status is StatusCode.UNAUTHENTICATED
    node.metadata = (("dapr-api-token", "right"),)
    assert "TaskHubSidecarService" in await services(node, method)


@every_version
async def test_off_loopback_and_at_the_peer_port_there_is_none(start: Start, method: str) -> None:
    node = await start("orders", listen_host="0.0.0.0", insecure_listen=True)  # noqa: S104
    with pytest.raises(Refused) as refused:
        await services(node, method)
    assert refused.value.status is StatusCode.UNIMPLEMENTED
    assert link.METHOD.split("/")[1] not in await services(await start("ml"), method)
