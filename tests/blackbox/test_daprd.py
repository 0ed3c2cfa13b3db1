"""The `daprd` command, as Dapr's tools start it, find it, steer workflows by it, and end it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import yaml

from tests.blackbox.dapr_tools import DAPRD, READY, Daprd, Listed, Workflows, listed, put
from tests.blackbox.harness import HOST, App, Process, _environment, until
from tests.ports import free_port

pytestmark = pytest.mark.timeout(240)

Start = Callable[..., Daprd]


@pytest.fixture
def daprd(tmp_path: Path) -> Iterator[Start]:
    """Makes daprds of one user, which are gone afterwards."""
    made: list[Daprd] = []

    def make(app: str = "orders") -> Daprd:
        made.append(Daprd(app, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.kill9()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[str, Daprd], App]]:
    """Starts the app of a daprd."""
    started: list[Process] = []

    def start(dialect: str, beside: Daprd) -> App:
        app = App(dialect, beside.port, tmp_path, f"{beside.app}-{len(started)}")
        started.append(app)
        return app.start_process()

    yield start
    for process in started:
        process.kill9()


def peers_of(home: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = yaml.safe_load((home / ".workflow-sidecar" / "peers.default.yaml").read_text())
    return found


def row_of(one: Daprd) -> Listed:
    (row,) = [row for row in listed() if row.http_port == one.http_port]
    return row


def sees(one: Daprd, other: str) -> bool:
    return any(peer["appId"] == other and peer["state"] == "connected" for peer in one.metadata()["peers"])


# --- started, listed, stopped -----------------------------------------------------------------------------------------


def test_the_cli_runs_lists_and_stops_it(daprd: Start, tmp_path: Path) -> None:
    one = daprd().start()
    # The CLI speaks to it as soon as its ports are open.
    told = {"cliPID": str(os.getpid()), "appPID": "7", "appCommand": 'python app.py --x "ü"', "appLogPath": ""}
    for key, value in {**told, "runTemplatePath": "/apps/dapr.yaml"}.items():
        put(one.http_port, key, value)
    assert one.metadata()["extended"].items() >= told.items()
    expected = ("orders", one.http_port, one.port, one.pid, os.getpid(), told["appCommand"], "/apps/dapr.yaml")
    assert row_of(one) == Listed(*expected)
    one.ready()
    assert peers_of(tmp_path) == {"orders": [f"{HOST}:{one.peer_port}"]}
    assert Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text() == ""  # it is ended by SIGKILL, alone
    one.send(signal.SIGTERM)
    assert one.code() == 0
    assert peers_of(tmp_path) == {}
    assert "flags that are not known" not in one.log.read_text()
    assert all("app_id=orders" in line for line in one.log.read_text().splitlines())


def test_what_it_does_not_know_is_named_in_one_line(daprd: Start) -> None:
    one = daprd()
    one.options = ["--brand-new", "secret", "--enable-newer", "--newest=1"]
    one.start().ready()
    (line,) = [line for line in one.log.read_text().splitlines() if "flags that are not known" in line]
    assert all(name in line for name in ("--brand-new", "--enable-newer", "--newest"))
    assert "secret" not in one.log.read_text()


def hearing(name: str) -> list[str]:
    """What a command is run with so that it takes SIGHUP as SIG_DFL or SIG_IGN, whatever these tests were run with."""
    program = f"import os, signal, sys; signal.signal(1, signal.{name}); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program]


def test_it_ends_when_its_terminal_goes_away(daprd: Start) -> None:
    one = daprd()
    one.prefix = hearing("SIG_DFL")
    one.start().ready()
    one.send(signal.SIGHUP)
    assert one.code() == 0


def test_it_stays_where_its_terminal_is_not_to_matter(daprd: Start) -> None:
    one = daprd()
    one.prefix = hearing("SIG_IGN")  # as nohup does
    one.start().ready()
    one.send(signal.SIGHUP)
    until(lambda: "files read again" in one.log.read_text(), what="it has passed over the signal")
    one.send(signal.SIGTERM)
    assert one.code() == 0


def test_metrics_have_the_port_of_the_flag(daprd: Start) -> None:
    one = daprd().start().ready()
    status, body = one.http("GET", "/metrics", port=one.metrics_port)
    assert (status, b"sidecar_" in body) == (200, True)
    assert one.http("POST", "/v1.0/workflows/dapr/x/start", port=one.metrics_port)[0] == 404


def test_metadata_is_set_and_read_with_the_token_alone(daprd: Start) -> None:
    one = daprd()
    one.environment = {"DAPR_API_TOKEN": "secret"}
    one.start().ready()
    assert [one.http(method, path)[0] for method, path in (("GET", "/v1.0/metadata"), ("PUT", "/v1.0/metadata/x"))] == [
        401,
        401,
    ]


# --- the second, the killed, the many ---------------------------------------------------------------------------------


def test_a_second_one_of_the_same_app_is_refused_and_the_first_stays_known(daprd: Start, tmp_path: Path) -> None:
    one = daprd().start().ready()
    known = peers_of(tmp_path)
    refused = subprocess.run(
        [*DAPRD, *Daprd("orders", tmp_path).arguments()],
        env=_environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert "another sidecar of app 'orders' has" in refused.stderr.splitlines()[-1]
    assert peers_of(tmp_path) == known
    assert one.http("GET", "/v1.0/healthz")[0] == 204


def test_a_port_that_is_taken_is_said_and_nobody_is_told_of_it(daprd: Start, tmp_path: Path) -> None:
    one = daprd()
    with socket.create_server((HOST, one.port)):
        one.launch()
        assert one.code() != 0
    last = one.log.read_text().splitlines()[-1]
    assert last.startswith("daprd: ")
    assert str(one.port) in last
    assert one.app not in (tmp_path / ".workflow-sidecar" / "peers.default.yaml").read_text()


def test_a_workflow_goes_on_after_a_kill_from_another_folder(
    daprd: Start, start_worker: Callable[[str, Daprd], App], tmp_path: Path
) -> None:
    one = daprd().start()
    app = start_worker("dapr", one)
    app.start("wait_events", ["go"], id="w")
    until(lambda: app.status("w") == "RUNNING", what="it waits")
    one.kill9()
    one.folder = tmp_path / "elsewhere"
    one.folder.mkdir()
    one.start()
    app.reconnected()
    app.raise_event("w", "go", 1)
    assert app.wait("w").status == "COMPLETED"
    assert list(one.folder.iterdir()) == []


def test_many_that_start_at_once_find_each_other(daprd: Start, tmp_path: Path) -> None:
    names = [f"app-{number}" for number in range(5)]
    started = [daprd(name).launch() for name in names]
    for one in started:
        one.ready()
    assert sorted(peers_of(tmp_path)) == names
    for one in started:
        for other in names:
            assert one.app == other or until(
                lambda one=one, other=other: sees(one, other), 60, f"{one.app} sees {other}"
            )


# --- workflows --------------------------------------------------------------------------------------------------------


def test_a_workflow_runs_over_two_apps_and_waits_for_one_that_was_killed(
    daprd: Start, start_worker: Callable[[str, Daprd], App]
) -> None:
    orders, ml = daprd("orders").start(), daprd("ml").start()
    app = start_worker("dapr", orders)
    worker = start_worker("microsoft", ml)
    assert app.run("remote_call", {"app": "ml", "name": "add_one", "value": 1}) == 2
    worker.kill9()
    ml.kill9()
    waiting = app.start("remote_call", {"app": "ml", "name": "add_one", "value": 2})
    again = daprd("ml").start()  # other ports
    start_worker("microsoft", again)
    assert app.output(waiting, 90) == 3


def test_the_cli_lists_steers_and_shows_workflows(daprd: Start, start_worker: Callable[[str, Daprd], App]) -> None:
    one = daprd().start()
    app, cli = start_worker("dapr", one), Workflows(row_of(one).grpc_port)
    assert cli.run("hello", "a", "you", datetime.now(UTC) + timedelta(hours=1)) == "a"
    app.start("wait_events", ["go"], id="b")
    until(lambda: app.status("b") == "RUNNING", what="it waits")
    assert cli.listing() == {"a": "PENDING", "b": "RUNNING"}
    cli.suspend("b", "later")
    until(lambda: cli.status("b") == "SUSPENDED", what="it is suspended")
    cli.resume("b", "now")
    cli.raise_event("b", "go", "book")
    assert "book" in app.output("b")
    kinds = [event.WhichOneof("kind") for event in cli.history("b")]
    assert "execution_started" in kinds
    assert kinds[-1] == "execution_completed"
    with pytest.raises(grpc.RpcError) as missing:
        cli.history("nobody")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_cli_ends_reruns_and_purges_workflows(daprd: Start, start_worker: Callable[[str, Daprd], App]) -> None:
    one = daprd().start()
    app, cli = start_worker("dapr", one), Workflows(row_of(one).grpc_port)
    app.start("chain", {"start": 1, "steps": 2}, id="a")
    assert app.output("a") == 3
    first = min(event.event_id for event in cli.history("a") if event.WhichOneof("kind") == "task_scheduled")
    assert cli.rerun("a", first, "b") == "b"
    assert app.output("b") == 3
    assert cli.run("hello", "c", "you") == "c"
    assert app.output("c") == "Hello, you!"
    app.start("wait_events", ["go"], id="d")
    with pytest.raises(grpc.RpcError) as refused:
        cli.purge("d")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    cli.terminate("d", "enough")
    until(lambda: cli.status("d") == "TERMINATED", what="it is ended")
    assert cli.state("d").output.value == '"enough"'
    assert [cli.purge(instance) for instance in "abc"] == [1, 1, 1]
    assert cli.purge("d", force=True) == 1
    assert cli.listing() == {}


def test_the_dashboard_ends_and_purges_over_http(daprd: Start) -> None:
    one = daprd().start()
    assert one.http("POST", "/v1.0/workflows/dapr/any/start?instanceID=w")[0] == 202
    assert one.http("POST", "/v1.0-beta1/workflows/dapr/w/terminate")[0] == 202
    assert one.http("POST", "/v1.0-beta1/workflows/dapr/w/purge")[0] == 202
    assert one.http("GET", "/v1.0/workflows/dapr/w")[0] == 404


POLICY = """
apiVersion: dapr.io/v1alpha1
kind: WorkflowAccessPolicy
metadata: {name: ml}
scopes: [ml]
spec:
  rules:
    - callers: [{appID: orders}]
      activities: [{name: add_one}]
"""
STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec:
  type: state.redis
  metadata: [{name: redisHost, value: "redis:6379"}, {name: actorStateStore, value: "true"}]
"""


def test_a_policy_among_the_resources_is_in_force(
    daprd: Start, start_worker: Callable[[str, Daprd], App], tmp_path: Path
) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "all.yaml").write_text(f"{STORE}\n---\n{POLICY}")
    orders, ml = daprd("orders"), daprd("ml")
    for one in (orders, ml):
        one.options = ["--resources-path", str(tmp_path / "resources")]
        one.start()
    app = start_worker("dapr", orders)
    start_worker("microsoft", ml)
    assert app.run("remote_call", {"app": "ml", "name": "add_one", "value": 1}) == 2
    denied = app.wait(app.start("remote_call", {"app": "ml", "name": "double", "value": 1}))
    assert denied.status == "FAILED"
    assert "access denied by workflow access policy" in str(denied.failure)


# --- containers of tests ----------------------------------------------------------------------------------------------


def test_it_starts_as_in_a_container_of_tests(daprd: Start, tmp_path: Path) -> None:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "store.yaml").write_text(STORE)
    one = daprd()
    one.environment = {"SIDECAR_LISTEN_HOST": "0.0.0.0", "SIDECAR_INSECURE_LISTEN": "true"}  # noqa: S104 - a container
    one.launch(
        [
            *("-app-id", "orders", "-dapr-http-port", str(one.http_port), "-dapr-grpc-port", str(one.port)),
            *("-log-level", "info", "-resources-path", str(tmp_path / "components"), "-app-port", "8080"),
            *("-app-channel-address", "host.docker.internal", "-app-protocol", "http"),
            *("-placement-host-address", "placement:50006", "-scheduler-host-address", ""),
        ]
    )
    one.ready()
    assert READY in one.log.read_text()
    with socket.create_connection((HOST, one.port), 30) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert connection.recv(9)


def test_the_script_itself_is_one(tmp_path: Path) -> None:
    """The command that an installation makes, beside the interpreter."""
    script = Path(sys.executable).with_name("daprd")
    asked = subprocess.run([str(script), "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout.count("\n") == 1
    port = free_port()
    assert subprocess.run([str(script), "--dapr-grpc-port", str(port)], timeout=60, check=False).returncode == 2
