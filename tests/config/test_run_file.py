"""The file of several apps: Dapr's own as it is, and what is ours in it."""

import re
from pathlib import Path

import pytest

from sidecar.config import run_file
from sidecar.config.run_file import Destination, Restart, RunFile
from sidecar.config.settings import ConfigError

DAPRS = """
version: 1
common:
  resourcesPath: ./components
  appLogDestination: console
  env:
    DEBUG: true
    SHARED: common
apps:
  - appID: orders
    appDirPath: ./apps/orders/
    appPort: 8000
    appProtocol: http
    daprHTTPPort: 3501
    daprGRPCPort: 50011
    daprInternalGRPCPort: 50012
    metricsPort: 9091
    logLevel: warn
    env:
      SHARED: own
      COUNT: 3
      EMPTY:
    command: ["python3", "app.py", 7]
    appLogDestination: fileAndConsole
    daprdLogDestination: file
  - appDirPath: apps/ml
    daprGRPCPort: -1
    command: go run .
  - appID: outside
"""
OURS = """
common: {restart: on-failure, sidecar: {retention: {completed: 7d}}}
apps:
  - appID: orders
    command: [python, app.py]
    peers: {ml: 127.0.0.1:50012}
    sidecar: {policy: rules.yaml, grpc_port: [50001, 4001], data_dir: /data}
  - appID: shipping
    restart: no
"""


def read(folder: Path, text: str, name: str = "dapr.yaml") -> RunFile:
    (folder / name).write_text(text)
    return run_file.read(folder / name)


def test_a_file_of_dapr_is_read_as_it_is(tmp_path: Path) -> None:
    (orders, ml, outside), unused = read(tmp_path, DAPRS)
    assert orders.app_id == "orders"
    assert orders.directory == tmp_path / "apps" / "orders"
    assert orders.command == ("python3", "app.py", "7")
    assert orders.app_port == 8000
    assert orders.env == {"DEBUG": "true", "SHARED": "own", "COUNT": "3", "EMPTY": ""}
    assert orders.settings == {"http_port": 3501, "grpc_port": 50011, "peer_port": 50012, "log_level": "warning"}
    assert (orders.app_log, orders.sidecar_log) == (Destination.BOTH, Destination.FILE)
    assert orders.restart is Restart.NO
    assert (ml.app_id, ml.command, ml.settings, ml.app_port) == ("ml", ("go", "run", "."), {}, None)
    assert ml.env == {"DEBUG": "true", "SHARED": "common"}
    assert (outside.command, outside.directory) == ((), tmp_path)
    assert unused == ("resourcesPath", "appProtocol", "metricsPort")


def test_a_file_of_ours_has_more(tmp_path: Path) -> None:
    orders, shipping = read(tmp_path, OURS).apps
    assert (orders.restart, shipping.restart) == (Restart.ON_FAILURE, Restart.NO)
    assert orders.settings == {
        "peers": {"ml": "127.0.0.1:50012"},
        "retention": {"completed": "7d"},
        "policy": str(tmp_path / "rules.yaml"),
        "grpc_port": [50001, 4001],
        "data_dir": "/data",
    }
    assert shipping.settings == {"retention": {"completed": "7d"}}


def test_of_a_folder_it_is_the_file_that_dapr_reads(tmp_path: Path) -> None:
    read(tmp_path, OURS)
    assert [app.app_id for app in run_file.read(tmp_path).apps] == ["orders", "shipping"]


def test_toml_will_do_too(tmp_path: Path) -> None:
    text = '[[apps]]\nappID = "orders"\ncommand = ["python", "app.py"]\n'
    assert read(tmp_path, text, "apps.toml").apps[0].command == ("python", "app.py")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app: []", "'app' is not known: did you mean apps?"),
        ("version: 2\napps: [{appID: a}]", "version: 2 is not known here: it is 1"),
        ("apps: {}", "apps: write a list of apps"),
        ("apps: [orders]", "apps: write a list of apps"),
        ("common: 1\napps: [{appID: a}]", "common: write the keys of an app"),
        ("apps: [{appID: a/b}]", "app 'a/b': 'a/b' is not allowed"),
        ("apps: [{appID: a}, {appID: A}]", "'A' is there twice (case does not count)"),
        ("apps: [{appID: a, comand: x}]", "'comand' is not known: did you mean command?"),
        ("apps: [{appID: a, command: {x: y}}]", "app 'a': command: {'x': 'y'} is not a command"),
        ("apps: [{appID: a, appDirPath: 3}]", "app 1: appDirPath: 3 is not a path"),
        ("apps: [{appID: a, appPort: x}]", "app 'a': 'x' is not a port"),
        ("apps: [{appID: a, env: [X]}]", "app 'a': env: write name: value"),
        ("apps: [{appID: a, restart: never}]", "app 'a': restart: 'never' is none of no, on-failure, always"),
        ("apps: [{appID: a, sidecar: {app_id: b}}]", "app 'a': 'app_id' is not known"),
        ("apps: [{appID: a, sidecar: {retension: {}}}]", "'retension' is not known: did you mean retention?"),
        ("apps: [{appID: a, sidecar: 1}]", "app 'a': sidecar: write settings"),
        ("apps: [{appID: a, command: 'x \"'}]", "app 'a': No closing quotation"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as refused:
        read(tmp_path, text)
    assert "\n" not in str(refused.value)
    assert str(tmp_path / "dapr.yaml") in str(refused.value)
