"""The files that a sidecar reads, and that of `sidecar run -f`: settings, access policy, peers, apps."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from sidecar.config import policy_file, run_file
from sidecar.config import settings as config
from sidecar.config.settings import ConfigError
from sidecar.daprd import configuration as dapr_configuration
from sidecar.daprd import policies, translation
from sidecar.daprd.configuration import Wish

YAML = b"""app_id: orders
namespace: default
grpc_port: [50001, 4001]
http_port: 3500
peer_host: 127.0.0.1
peers:
  ml: 10.0.0.7:50002
  logistics: ["10.0.0.8:50002", "[::1]:50003"]
peer_pattern: "{app}-sidecar:50002"
routes: ["activity:gpu-*=ml", "workflow:ship*=logistics"]
insecure_peers: true
data_dir: /var/lib/sidecar
max_message_bytes: 64MiB
turn_timeout: 120
activity_timeout: 1h
retention:
  completed: 7d
  any: 30d
limits: {activities: 50, "activity:gpu-*": 1}
task_hubs: [blue, green]
log_level: info
"""
TOML = b"""app_id = "orders"
grpc_port = [50001, 4001]
http_port = 3500
peer_host = "127.0.0.1"
routes = ["activity:gpu-*=ml"]
max_message_bytes = "64MiB"
turn_timeout = 120.5
task_hubs = "separate"
[peers]
ml = "10.0.0.7:50002"
logistics = ["10.0.0.8:50002"]
[retention]
completed = "7d"
[limits]
activities = 50
"activity:gpu-*" = 1
"""
POLICY = b"""default: deny
allow:
  - {caller: orders, activity: score}
  - {caller: "shop-*", workflow: "ship*", operations: [schedule, get, raise]}
  - caller: a
    workflow: b
    operations: get
"""
PEERS = b"""ml: 10.0.0.7:50002
logistics: [10.0.0.8:50002, "[::1]:50003"]
"""
APPS = b"""version: 1
common:
  env: {LOG: debug}
  sidecar: {retention: {completed: 7d}}
apps:
  - appID: orders
    appDirPath: ./orders
    appPort: 8000
    daprGRPCPort: 50001
    command: [python, app.py, 1]
    env: {A: 1, B: true, C: }
    restart: on-failure
    peers: {ml: 10.0.0.7:50002}
    sidecar: {policy: policy.yaml, grpc_port: [1, 2]}
    appLogDestination: file
  - appDirPath: ml
    command: "go run ."
    logLevel: warn
"""
RESOURCES = b"""apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.redis, metadata: [{name: redisHost, value: "redis:6379"}]}
---
apiVersion: dapr.io/v1alpha1
kind: WorkflowAccessPolicy
metadata: {name: policy, namespace: default}
scopes: [orders]
spec:
  rules:
    - callers: [{appID: shop}]
      workflows: [{name: "ship[^0-9]*", operations: [schedule, get]}]
      activities:
        - name: charge
          requires: [{eventType: activity, status: Completed, name: validate, appID: shop}]
"""
CONFIGURATION = b"""kind: Configuration
spec:
  workflow:
    maxConcurrentWorkflowInvocations: 10
    stateRetentionPolicy: {anyTerminal: 360h, completed: 1m}
  tracing:
    samplingRate: "1"
    zipkin: {endpointAddress: "http://${HOST}:9411/api/v2/spans"}
    otel: {endpointAddress: "collector:4318", protocol: http, isSecure: false}
"""
WORDS = (
    *(
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b"'''",
        b'"""',
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b"!!binary ",
        b"!!set ",
    ),
    *(b"!!timestamp 2001-99-99", b"!!int _", b"0x", b"1_0", b"1:2:3", b".inf", b".nan", b"1e999", b"9" * 5000, b"-1"),
    *(b"null", b"~", b"true", b"no", b"2001-01-01", b"99999-01-01T00:00:00", b"%YAML 9.9", b"---", b"...", b"|", b">"),
    *(
        b"\t",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\\ud800",
        b"\\U00110000",
        b"\\x1b[2J",
        b"#",
        b"=",
        b"[a.b]",
        b"[[a]]",
    ),
    *(b"app_id", b"peers", b"retention", b"limits", b"allow", b"operations", b"schedule", b"completed", b"activity:*"),
    *(
        b"ml=127.0.0.1:1",
        b"host:65536",
        b"[::1",
        b"{app}",
        b"{",
        b"{app.__class__}",
        b"1d",
        b"1e400s",
        b"9" * 30 + b"d",
    ),
)


@cache
def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def _read(data: bytes, name: str, read: Callable[[Path], object]) -> None:
    path = _place() / name
    path.write_bytes(data)
    try:
        read(path)
    except (ConfigError, ValueError) as error:
        if not isinstance(error, ConfigError) and read is not config.read_peers:
            raise
        if "\n" in str(error):
            raise AssertionError("a message of several lines") from error
        if len(str(error)) > 2_000:
            raise AssertionError(f"a message of {len(str(error))} characters") from error


def settings(data: bytes, suffix: str) -> None:
    """A file of settings."""
    _read(data, f"settings{suffix}", lambda path: config.resolve({"config": str(path)}, {}))


def policy(data: bytes) -> None:
    """A file of an access policy."""
    _read(data, "policy.yaml", policy_file.read)


def resources(data: bytes) -> None:
    """A file of Dapr's resources, with an access policy."""
    _read(data, "resources.yaml", lambda path: policies.watched([path], "orders", "default"))


def configuration(data: bytes) -> None:
    """A file of Dapr's configuration, and what comes of it."""
    _read(data, "configuration.yaml", _configured)


def _configured(path: Path) -> object:
    wishes = dapr_configuration.read([str(path)], {"HOST": "zipkin"})
    return translation.settings({"app_id": Wish("orders", "--app-id")}, wishes, {}, path.parent)


def apps(data: bytes) -> None:
    """A file of apps that run together."""
    _read(data, "dapr.yaml", run_file.read)


def peers(data: bytes) -> None:
    """A file of peers."""
    _read(data, "peers.yaml", config.read_peers)
