"""What Dapr's tools do to a `daprd`, written from what they send and look for: `run`, `list`, `stop` and the `workflow`
verbs of the CLI (1.18), the Dev Dashboard, and containers of tests.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core.model import Status
from sidecar.schema import taskhub_pb2 as pb
from tests.blackbox.harness import HOST, Process, _environment, until
from tests.ports import free_port

DAPRD = [sys.executable, "-m", "sidecar.daprd.main"]
READY = "Internal gRPC server is running"
_START_SECONDS = 60.0  # as long as the CLI waits
_STOP_SECONDS = 20.0


class Daprd(Process):
    """One daprd, started as the CLI starts it, in a folder and for a user with a home of his own."""

    def __init__(self, app: str, home: Path) -> None:
        super().__init__(f"daprd {app}", home / f"daprd-{app}.log")
        self.app = app
        self.home = home
        self.folder = home
        self.port, self.http_port, self.metrics_port, self.peer_port = (free_port() for _ in range(4))
        self.options: list[str] = []
        self.prefix: list[str] = []  # a program that runs it
        self.environment: dict[str, str] = {}

    def arguments(self) -> list[str]:
        """The flags that `dapr run` gives when nothing is asked for."""
        (self.home / "components").mkdir(exist_ok=True)
        ports = {"dapr-http-port": self.http_port, "dapr-grpc-port": self.port, "profile-port": -1}
        ports |= {"metrics-port": self.metrics_port, "dapr-internal-grpc-port": self.peer_port}
        return [
            *("--config", str(self.home / ".dapr" / "config.yaml"), "--app-protocol", "http"),
            *("--app-max-concurrency", "-1", "--placement-host-address", "localhost:50005"),
            *("--components-path", str(self.home / "components"), "--max-body-size", "4Mi"),
            *("--read-buffer-size", "4Ki", "--scheduler-host-address", "localhost:50006"),
            *("--app-id", self.app, "--app-port", "0"),
            *(part for name, port in ports.items() for part in (f"--{name}", str(port))),
            *("--log-level", "info", *self.options),
        ]

    def launch(self, arguments: list[str] | None = None) -> Self:
        """Start it and wait for nothing."""
        command = [*self.prefix, *DAPRD, *(self.arguments() if arguments is None else arguments)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                env=_environment(HOME=str(self.home), **self.environment),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                text=True,
            )
        return self

    def start(self) -> Self:
        """Start it, and wait as the CLI does: until both ports take a connection."""
        self.launch()
        for port in (self.http_port, self.port):
            until(lambda port=port: self._takes(port), _START_SECONDS, f"{self.name} takes connections")
        return self

    def ready(self) -> Self:
        """Wait until it says that it is ready."""
        until(lambda: self._lives() and READY in self.log.read_text(), _START_SECONDS, f"{self.name} is ready")
        until(lambda: self.http("GET", "/v1.0/healthz")[0] == 204, _START_SECONDS, f"{self.name} is healthy")
        return self

    def _lives(self) -> bool:
        if not self.running:
            pytest.fail(f"{self.name} has ended\n{self.log_tail()}")
        return True

    def _takes(self, port: int) -> bool:
        with suppress(OSError), socket.create_connection((HOST, port), 5):
            return self._lives()
        return not self._lives()

    def http(self, method: str, path: str, body: bytes = b"", port: int = 0) -> tuple[int, bytes]:
        """Status and body of an answer."""
        with closing(http.client.HTTPConnection(HOST, port or self.http_port, timeout=30)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def metadata(self) -> dict[str, Any]:
        status, body = self.http("GET", "/v1.0/metadata")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found

    def code(self) -> int:
        """How it ended."""
        assert self._process is not None
        code = self._process.wait(_STOP_SECONDS)
        self._reap()
        return code

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Listed(NamedTuple):
    """A row of `dapr list`."""

    app: str
    http_port: int
    grpc_port: int
    pid: int
    cli_pid: int
    command: str
    run_file: str


def put(port: int, key: str, value: str) -> None:
    """Tell a sidecar something, as `dapr run` does: a raw body, which may be empty, without a content type."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=30)) as connection:
        connection.putrequest("PUT", f"/v1.0/metadata/{key}", skip_accept_encoding=True)
        connection.putheader("Content-Length", str(len(value.encode())))
        connection.endheaders(value.encode())
        assert connection.getresponse().status == 204


def listed() -> list[Listed]:
    """Return what `dapr list` finds: by the name of processes, their flags and what their sidecars say."""
    return [row for entry in Path("/proc").iterdir() if entry.name.isdigit() for row in _row(int(entry.name))]


def _row(pid: int) -> list[Listed]:
    try:
        name = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")[0]
        # The tools split the command line at blanks, and take what follows a flag and is none for its value.
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
    except OSError:
        return []
    if name.lower() != "daprd":
        return []
    # A command line of another form is that of some other test.
    flags = {word: after for word, after in zip(words, [*words[1:], ""], strict=True) if not after.startswith("--")}
    if not {"--app-id", "--dapr-http-port", "--dapr-grpc-port"} <= flags.keys():
        return []
    http_port, grpc_port = int(flags["--dapr-http-port"]), int(flags["--dapr-grpc-port"])
    connection = http.client.HTTPConnection(HOST, http_port, timeout=30)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/v1.0/metadata")
        says = json.loads(connection.getresponse().read()).get("extended", {})
        cli = int(says.get("cliPID") or 0)
        command, file = says.get("appCommand", ""), says.get("runTemplatePath", "")
        return [Listed(flags["--app-id"], http_port, grpc_port, pid, cli, command, file)]
    return []


class Workflows:
    """`dapr workflow`: each verb as the calls of the library that it uses. Texts are encoded as JSON, as there."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"localhost:{port}", [("grpc.use_local_subchannel_pool", 1)])

    def _call(self, name: str, request: Message) -> bytes:
        method: Callable[..., bytes] = self._channel.unary_unary(f"/TaskHubSidecarService/{name}")
        return method(request.SerializeToString(), timeout=30)

    def listing(self) -> Mapping[str, str]:
        """Return the status of each, by ID."""
        ids: list[str] = []
        page = pb.ListAllResponse.FromString(self._call("ListInstanceIDs", pb.ListAllRequest()))
        ids += page.instance_ids
        while page.HasField("continuation_token"):
            request = pb.ListAllRequest(continuation_token=page.continuation_token)
            page = pb.ListAllResponse.FromString(self._call("ListInstanceIDs", request))
            ids += page.instance_ids
        return {one: self.status(one) for one in ids}

    def status(self, instance: str) -> str:
        return Status(self.state(instance).status).name

    def state(self, instance: str) -> pb.InstanceState:
        request = pb.GetInstanceRequest(instance_id=instance, get_inputs_and_outputs=True)
        answer = pb.GetInstanceResponse.FromString(self._call("GetInstance", request))
        assert answer.exists
        return answer.state

    def history(self, instance: str) -> list[pb.HistoryEvent]:
        answer = self._call("GetInstanceHistory", pb.GetInstanceHistoryRequest(instance_id=instance))
        return list(pb.GetInstanceHistoryResponse.FromString(answer).events)

    def run(self, name: str, instance: str, text: str | None = None, at: datetime | None = None) -> str:
        request = pb.CreateInstanceRequest(name=name, instance_id=instance, input=_json(text))
        if at is not None:
            request.scheduled_start.FromDatetime(at)
        return pb.CreateInstanceResponse.FromString(self._call("StartInstance", request)).instance_id

    def suspend(self, instance: str, reason: str = "") -> None:
        self._call("SuspendInstance", pb.ReasonRequest(instance_id=instance, reason=StringValue(value=reason)))

    def resume(self, instance: str, reason: str = "") -> None:
        self._call("ResumeInstance", pb.ReasonRequest(instance_id=instance, reason=StringValue(value=reason)))

    def raise_event(self, instance: str, event: str, text: str | None = None) -> None:
        self._call("RaiseEvent", pb.RaiseEventRequest(instance_id=instance, name=event, input=_json(text)))

    def terminate(self, instance: str, output: str | None = None) -> None:
        request = pb.TerminateRequest(instance_id=instance, recursive=True, output=_json(output))
        self._call("TerminateInstance", request)

    def purge(self, instance: str, *, force: bool = False) -> int:
        request = pb.PurgeInstancesRequest(instance_id=instance, force=force)
        answer = pb.PurgeInstancesResponse.FromString(self._call("PurgeInstances", request))
        return answer.deleted_instance_count

    def rerun(self, instance: str, event: int, new: str, text: str | None = None) -> str:
        request = pb.RerunRequest(source_instance_id=instance, event_id=event, new_instance_id=new)
        if text is not None:
            request.overwrite_input = True
            request.input.CopyFrom(_json(text) or StringValue())
        return pb.RerunResponse.FromString(self._call("RerunWorkflowFromEvent", request)).new_instance_id


def _json(text: str | None) -> StringValue | None:
    return None if text is None else StringValue(value=json.dumps(text))
