"""Those who mean harm, or behave as if: real processes and sockets, and an app that goes on beside them.

Each test ends with further workflows that finish.
"""

import asyncio
import contextlib
import functools
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.blackbox.harness import HOST, App, Sidecar, memory, until
from tests.blackbox.wire import SERVICE, Caller, decode, encode, text
from tests.conftest import Injected

FURTHER = 20
MIB = 1024 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
CANCEL = (8).to_bytes(4, "big")
FLOOD = (("taskhub", "flood"),)
FLOOD_HEADER = (b"taskhub", b"flood")
Start = Callable[..., App]
pytestmark = [pytest.mark.timeout(180), pytest.mark.hard]


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_000 if hard == resource.RLIM_INFINITY else min(hard, 10_000)
    if wanted < 6_000:
        pytest.fail(f"these tests need 6,000 open files, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files(sidecar: Sidecar) -> int:
    return len(list(Path(f"/proc/{sidecar.pid}/fd").iterdir()))


def further(app: App) -> None:
    """The end of each test: workflows that finish after it."""
    started = [app.start("hello", f"number {number}") for number in range(FURTHER)]
    for instance in started:
        app.output(instance)


def connection(port: int, data: bytes = b"") -> socket.socket:
    made = socket.create_connection((HOST, port), timeout=10)
    made.sendall(data)
    made.setblocking(False)
    return made


def closed(one: socket.socket) -> bool:
    """Whether the other side has closed a connection."""
    try:
        while one.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def flood(ports: list[int], count: int, data: bytes = b"") -> list[socket.socket]:
    made = []
    for number in range(count):
        with contextlib.suppress(OSError):
            made.append(connection(ports[number % len(ports)], data))
    return made


async def streams(port: int, count: int, limit: int, during: Callable[[], None]) -> tuple[int, int]:
    """Open streams of a hub of their own; return how many were let in and how many refused as they should be."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"{HOST}:{port}", options) for _ in range(20)]
    calls = [
        channels[number % 20].unary_stream(SERVICE + "GetWorkItems")(b"", metadata=FLOOD) for number in range(count)
    ]

    async def outcome(call: grpc.aio.UnaryStreamCall) -> bool:
        """Whether a stream is not refused as it should be: it gets pings, or nothing."""
        try:
            while True:
                await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or "--max-workers" not in str(error.details())

    waiting = [asyncio.create_task(outcome(call)) for call in calls]
    while sum(task.done() for task in waiting) < count - limit:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await asyncio.to_thread(during)
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    refused = sum(result is False for result in results)
    for channel in channels:
        await channel.close()
    return count - refused, refused


@pytest.mark.fault(26, "Streams above the limit are told so, the workers that were here go on, memory comes back")
def test_2000_streams_at_once(own_sidecar: Sidecar, start_app: Start, injected: Injected) -> None:
    limit = 500
    own_sidecar.options = ["--max-workers", str(limit), "--task-hubs", "separate"]
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    app.run("hello", "before")
    during = functools.partial(app.run, "hello", "meanwhile")
    asyncio.run(streams(own_sidecar.port, 2_000, limit - 1, during))  # what a process keeps once it had it
    before = memory(own_sidecar)
    taken, refused = asyncio.run(streams(own_sidecar.port, 2_000, limit - 1, during))
    assert (taken, refused) == (limit - 1, 2_000 - limit + 1)
    until(lambda: own_sidecar.metadata()["workflows"]["connectedWorkers"] == 1, what="the streams are gone")
    # It goes up and down with the collection of garbage, whatever was before it.
    assert memory(own_sidecar) < before * 1.5
    injected(refused, f"streams refused beside {taken} that were let in")
    further(app)


@pytest.mark.fault(26, "Connections above the limit are closed, who was here goes on, and later there is room again")
def test_2000_connections_at_once(own_sidecar: Sidecar, start_app: Start, injected: Injected) -> None:
    limit = 300
    own_sidecar.options = ["--max-connections", str(limit)]
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    app.run("hello", "before")
    made = flood([own_sidecar.port], 2_000, PREFACE + SETTINGS)
    assert len(made) == 2_000
    until(lambda: sum(closed(one) for one in made) >= 2_000 - limit, what="those above the limit are closed")
    let_in = sum(not closed(one) for one in made)
    assert 0 < let_in <= limit
    app.run("hello", "meanwhile")
    for one in made:
        one.close()
    until(lambda: open_files(own_sidecar) < 100, what="the connections are gone")
    newcomer = start_app("microsoft", own_sidecar, "newcomer")
    injected(len(made) - let_in, f"connections closed beside {let_in} that were let in")
    further(newcomer)


@pytest.mark.parametrize("files", [200, 36])
@pytest.mark.fault(26, "Without file descriptors the store and those who are here live on, and newcomers work later")
def test_few_file_descriptors(own_sidecar: Sidecar, start_app: Start, injected: Injected, files: int) -> None:
    own_sidecar.most_files = files
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    app.run("hello", "before")
    quiet = open_files(own_sidecar)
    ports = [own_sidecar.port, own_sidecar.http_port, own_sidecar.peer_port]
    made, most = [], 0
    for _ in range(5):
        made += flood(ports, 120)
        most = max(most, open_files(own_sidecar))
        app.run("hello", "meanwhile")
        time.sleep(0.5)
    assert most <= files
    if files == 200:
        assert most < 190
    for one in made:
        one.close()
    until(lambda: open_files(own_sidecar) <= quiet + 1, what="the connections are gone")
    newcomer = start_app("microsoft", own_sidecar, "newcomer")
    injected(len(made), f"connections to a process with {files} files, {most} open at most")
    further(newcomer.reconnected())  # what waited to be accepted is dropped first


@pytest.mark.fault(27, "Who says nothing, or says it byte by byte, is dropped; other calls are fast meanwhile")
def test_slow_loris(own_sidecar: Sidecar, start_app: Start, injected: Injected) -> None:
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    said = {
        own_sidecar.port: [b"", PREFACE[:9], PREFACE],
        own_sidecar.http_port: [b"", b"GET /v1.0/healthz HTTP/1.1\r\nX: "],
    }
    slow = [connection(port, data) for port, texts in said.items() for data in texts for _ in range(30)]
    dripping = [one for one in slow if one.getpeername()[1] == own_sidecar.http_port]
    slowest, ended, end = 0.0, 0, time.monotonic() + 30
    while ended < len(slow) and time.monotonic() < end:
        for one in dripping:
            with contextlib.suppress(OSError):
                one.send(b"x")
        begin = time.monotonic()
        app.call("get", id="nobody")
        slowest = max(slowest, time.monotonic() - begin)
        assert own_sidecar.http("/v1.0/healthz")[0] == 204
        ended = sum(closed(one) for one in slow)
        time.sleep(0.5)
    for one in slow:
        one.close()
    assert ended == len(slow)
    assert slowest < 1.0
    injected(len(slow), f"slow connections, slowest call beside them {slowest * 1000:.0f} ms")
    further(app)


@pytest.mark.fault(25, "Metadata and messages that are too large are refused, and memory comes back")
def test_oversize(own_sidecar: Sidecar, start_app: Start, injected: Injected) -> None:
    own_sidecar.options = ["--max-message-bytes", "8MiB"]
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    app.run("hello", "before")
    start = encode({1: "large", 2: "hello", 4: {1: "x" * (9 * MIB)}})

    def refused(request: bytes, metadata: tuple[tuple[str, str], ...]) -> str:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"{HOST}:{own_sidecar.port}", options) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(SERVICE + "StartInstance")(request, metadata=metadata, timeout=20)
            return caught.value.code().name

    for _ in range(3):
        assert refused(start, ()) == "RESOURCE_EXHAUSTED"
    before = memory(own_sidecar)
    codes = [refused(start, ()) for _ in range(20)]
    codes += [refused(b"", (("x-large", "x" * (10 * MIB)),)) for _ in range(20)]
    assert set(codes) == {"RESOURCE_EXHAUSTED"}
    assert memory(own_sidecar) < before * 1.3 + 10 * MIB
    injected(len(codes), "calls too large")
    further(app)


@pytest.mark.fault(25, "Bytes that are no protocol, and frames that break it, end their own connection at most")
def test_garbage(own_sidecar: Sidecar, start_app: Start, injected: Injected) -> None:
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    app.run("hello", "before")
    chance = random.Random(7)
    sent = 0
    for _ in range(300):
        data = chance.randbytes(chance.randrange(1, 2_000))
        if chance.random() < 0.7:  # frames with a sound beginning get further
            kind, flags, stream = chance.randrange(0, 12), chance.randrange(256), chance.randrange(0, 8)
            data = PREFACE + SETTINGS + frame(kind, flags, stream, data)
        for port in (own_sidecar.port, own_sidecar.http_port, own_sidecar.peer_port):
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=5) as one:
                one.sendall(data)
                sent += 1
    app.run("hello", "meanwhile")
    numbers = range(1, 20_000, 2)
    resets = b"".join(headers("Hello", number) + frame(3, 0, number, CANCEL) for number in numbers)
    with contextlib.suppress(OSError), socket.create_connection((HOST, own_sidecar.port), timeout=20) as one:
        one.sendall(PREFACE + SETTINGS + resets)
    assert own_sidecar.running
    injected(sent, "connections with garbage")
    injected(len(numbers), "calls cancelled as they began")
    further(app)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(method: str, stream: int, *more: tuple[bytes, bytes]) -> bytes:
    """The beginning of a call in HTTP/2 frames."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", (SERVICE + method).encode())]
    fields += [(b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more]
    block = b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)
    return frame(1, 4, stream, block)


@pytest.mark.fault(18, "What waits for a worker that does not read is bounded in memory, and another worker gets it")
def test_a_worker_that_does_not_read(own_sidecar: Sidecar, start_app: Start, injected: Injected) -> None:
    own_sidecar.options = ["--task-hubs", "separate"]
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    app.run("hello", "before")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect((HOST, own_sidecar.port))
    deaf.sendall(PREFACE + SETTINGS + headers("GetWorkItems", 1, FLOOD_HEADER) + frame(0, 1, 1, bytes(5)))
    until(lambda: own_sidecar.metadata()["workflows"]["connectedWorkers"] == 2, what="it is a worker")
    before = memory(own_sidecar)

    async def start_all() -> None:
        async with grpc.aio.insecure_channel(f"{HOST}:{own_sidecar.port}") as channel:
            method = channel.unary_unary(SERVICE + "StartInstance")
            for batch in range(100):
                requests = (encode({1: f"s{batch}-{n}", 2: "slow", 4: {1: "x" * 2_000}}) for n in range(100))
                await asyncio.gather(*(method(request, metadata=FLOOD, timeout=30) for request in requests))

    asyncio.run(start_all())
    app.run("hello", "meanwhile")
    assert memory(own_sidecar) - before < 150 * MIB
    deaf.close()
    with grpc.insecure_channel(f"{HOST}:{own_sidecar.port}") as channel:
        stream = channel.unary_stream(SERVICE + "GetWorkItems")(b"", metadata=FLOOD, timeout=30)
        items = [next(stream) for _ in range(100)]
        stream.cancel()
    assert len(items) == 100
    injected(10_000, "workflows for a worker that does not read")
    further(app)


COMPLETE = {1: 1, 6: {1: 1, 2: text("done")}}


def finish(sidecar: Sidecar) -> None:
    """Further workflows, beside large ones that no SDK would like."""
    with Caller(sidecar.port) as caller, caller.work({1: 1}) as worker:
        for number in range(FURTHER):
            caller.call("StartInstance", {1: f"further-{number}", 2: "flow"})
        ended = 0
        while ended < FURTHER:
            turn = worker.item()
            instance = decode(turn[1][0])[1][0].decode()
            caller.call("CompleteOrchestratorTask", {1: instance, 2: COMPLETE, 4: turn[10][0]})
            ended += instance.startswith("further")


def test_memory_that_runs_short(own_sidecar: Sidecar, injected: Injected) -> None:
    """New work is refused before the limit, answers of workers are taken, health is true, and it passes by itself."""
    limit = 160
    own_sidecar.options = ["--memory-limit", f"{limit}MiB"]
    own_sidecar.start()
    large = encode({2: "large", 4: text("x" * MIB)})
    started, most = 0, 0.0
    with Caller(own_sidecar.port) as caller, caller.work({1: 1}) as worker:
        caller.call("StartInstance", {1: "early", 2: "early"})
        turn = worker.item()
        for _ in range(2_000):
            code, details = caller.status("StartInstance", large)
            most = max(most, memory(own_sidecar))
            if code != "OK":
                break
            started += 1
        assert (code, "--memory-limit" in details) == ("RESOURCE_EXHAUSTED", True)
        assert caller.status("RaiseEvent", {1: "early", 2: "go"})[0] == "RESOURCE_EXHAUSTED"
        assert caller.status("CompleteOrchestratorTask", {1: "early", 2: COMPLETE, 4: turn[10][0]}) == ("OK", "")
        assert own_sidecar.http("/v1.0/healthz")[0] == 204
        state = decode(caller.call("GetInstance", {1: "early", 2: 1})[2][0])
        assert state[4] == [1]
        until(lambda: caller.status("StartInstance", large)[0] == "OK", 20, "new work is taken again")
    assert most < limit * MIB
    assert len(own_sidecar.logged("memory is short: new work is refused")) >= 1
    injected(started, f"starts of 1 MiB until one was refused, {most / MIB:.0f} of {limit} MiB at most")
    finish(own_sidecar)
