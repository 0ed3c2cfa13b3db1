"""The command as a person or a supervisor meets it: ready when it says so, on the ports that it says."""

import json
import re
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.blackbox.harness import HOST, App, Sidecar, cpu_seconds, until
from tests.blackbox.wire import Caller, decode, encode
from tests.ports import free_port

SERVING = 1


def health(address: str) -> int:
    """What the gRPC health service says for the whole server."""
    with grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    return decode(answer)[1][0]


def has_ipv6() -> bool:
    with closing(socket.socket(socket.AF_INET6)) as six:
        try:
            six.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_ready_means_serving(own_sidecar: Sidecar) -> None:
    own_sidecar.start()
    assert cpu_seconds(own_sidecar) < 3  # the aim is 1; how long that takes is a matter of what else runs here
    assert health(f"{HOST}:{own_sidecar.port}") == SERVING
    assert own_sidecar.http("/v1.0/healthz") == (204, b"")
    metadata = own_sidecar.metadata()
    assert metadata["id"] == "orders"
    assert metadata["workflows"]["connectedWorkers"] == 0


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_listens_on_both_families(own_sidecar: Sidecar) -> None:
    own_sidecar.start()
    assert health(f"[::1]:{own_sidecar.port}") == SERVING


def test_it_listens_where_it_is_told(own_sidecar: Sidecar) -> None:
    elsewhere = "127.0.0.2"
    own_sidecar.options = ["--listen-host", elsewhere]
    own_sidecar.launch()
    until(lambda: own_sidecar.logged("ready"), what="ready")
    assert health(f"{elsewhere}:{own_sidecar.port}") == SERVING
    for port in (own_sidecar.port, own_sidecar.http_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), timeout=5)


def test_to_let_anybody_in_is_said_at_each_start(own_sidecar: Sidecar) -> None:
    own_sidecar.options = ["--insecure-listen"]
    for _ in range(2):
        own_sidecar.start()
        own_sidecar.stop()
    warnings = [json.loads(line) for line in own_sidecar.log.read_text().splitlines() if "--insecure-listen" in line]
    assert [line["level"] for line in warnings] == ["warning"] * 2


def test_several_ports(own_sidecar: Sidecar) -> None:
    second = free_port()
    own_sidecar.options = ["--grpc-port", str(second)]
    own_sidecar.start()
    for port in (own_sidecar.port, second):
        with Caller(port) as caller:
            assert caller.status("Hello", b"") == ("OK", "")


def test_port_0_is_any_and_the_log_says_which(own_sidecar: Sidecar) -> None:
    own_sidecar.port = own_sidecar.http_port = own_sidecar.peer_port = 0
    own_sidecar.launch()
    line = until(lambda: re.search(r'^.*"ready".*$', own_sidecar.log_tail(), re.MULTILINE), what="ready")
    ready = json.loads(line[0])
    [port] = ready["grpc_ports"]
    assert health(f"{HOST}:{port}") == SERVING
    own_sidecar.http_port = ready["http_port"]
    assert own_sidecar.http("/v1.0/healthz")[0] == 204


def test_a_task_hub_header_is_accepted(own_sidecar: Sidecar) -> None:
    own_sidecar.start()
    with grpc.insecure_channel(f"{HOST}:{own_sidecar.port}") as channel:
        get = channel.unary_unary("/TaskHubSidecarService/GetInstance")
        headers = (("taskhub", "mine"), ("dapr-api-token", "secret"), ("x-user-agent", "test"))
        assert decode(get(encode({1: "nobody"}), metadata=headers, timeout=5)).get(1, [0]) == [0]


def test_two_sidecars_share_a_directory_for_different_apps(own_sidecar: Sidecar) -> None:
    own_sidecar.start()
    other = Sidecar("ml", own_sidecar.data.parent)
    try:
        other.start()
        names = {path.name for path in own_sidecar.data.iterdir()}
        assert {"default.orders.db", "default.ml.db"} <= names
        other.stop()
    finally:
        other.kill9()


def test_it_serves_where_only_what_all_platforms_have_is_there(
    own_sidecar: Sidecar, start_app: Callable[..., App]
) -> None:
    own_sidecar.environment = {"PYTHONPATH": str(Path(__file__).parent / "elsewhere")}
    own_sidecar.start()
    app = start_app("microsoft", own_sidecar)
    assert app.run("hello", "you") == "Hello, you!"
    own_sidecar.restart()
    app.reconnected()
    assert app.run("hello", "you") == "Hello, you!"
    own_sidecar.stop(signal.SIGINT)
    assert "Error" not in own_sidecar.log.read_text()  # what hides has worked
