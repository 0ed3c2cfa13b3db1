"""What is to be started: ports, peers, flags and variables."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.config import settings as config
from sidecar.config.options import BY_FIELD
from sidecar.config.run_file import RunApp
from sidecar.config.settings import ConfigError, Settings, StartError
from sidecar.launch import plan
from sidecar.launch.plan import Unit, Wishes

# A value for each setting that has a flag, as a file has it.
VALUES = {
    "app_id": "orders",
    "namespace": "shop",
    "grpc_port": [50011, 4011],
    "http_port": 3511,
    "listen_host": "::1",
    "insecure_listen": True,
    "api_token_file": "token",
    "app_cert": "app.crt",
    "app_key": "app.key",
    "peer_port": 50012,
    "peer_host": "127.0.0.2",
    "peer_cert": "peer.crt",
    "peer_key": "peer.key",
    "peer_ca": "ca.crt",
    "trust_domain": "example.org",
    "insecure_peers": False,
    "data_dir": "some data",
    "peers": {"ml": ["127.0.0.1:1", "[::1]:2"], "shipping": "127.0.0.1:3"},
    "peer_pattern": "{app}-sidecar:50002",
    "peer_file": "peers.yaml",
    "routes": [{"activity": "gpu-*", "app": "ml"}, "workflow:ship*=shipping"],
    "policy": "policy.yaml",
    "log_format": "json",
    "log_level": "debug",
    "workflow_log_level": "off",
    "reuse": "never",
    "max_message_bytes": "32MiB",
    "worker_receive_bytes": "8MiB",
    "memory_limit": "512MiB",
    "max_connections": 10,
    "max_calls": 11,
    "max_workers": 12,
    "turn_timeout": "90s",
    "activity_timeout": 2.5,
    "entity_timeout": "1h",
    "max_deliveries": "none",
    "drain_timeout": 1,
    "unknown_app": "fail",
    "cascade_suspend": True,
    "task_hubs": ["blue", "green"],
    "allow_hub_deletion": True,
    "retention": {"completed": "7d", "any": "90d"},
    "limits": {"activities": 50, "activity": {"gpu-*": 1}},
    "trace_otlp": "http://127.0.0.1:4318",
    "trace_zipkin": "http://127.0.0.1:9411/api/v2/spans",
}


def units(
    *apps: RunApp,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, object] | None = None,
    taken: tuple[int, ...] = (),
) -> list[Unit]:
    wishes = Wishes(
        flags=flags or {},
        environ=environ or {},
        defaults=defaults or {},
        is_free=lambda host, port: port not in taken,
        token=lambda settings: "" if settings.api_token is None else settings.api_token.value,
    )
    return plan.units(apps, wishes)


def app(name: str, **settings: object) -> RunApp:
    return RunApp(app_id=name, directory=Path("apps"), command=("run", name), settings=settings)


def ports(unit: Unit) -> tuple[tuple[int, ...], int, int]:
    return unit.settings.grpc_port, unit.settings.http_port, unit.settings.peer_port


def read_by_the_sidecar(unit: Unit, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that its command line and environment give the other process."""
    rest, flags = list(unit.sidecar.arguments[unit.sidecar.arguments.index("run") + 1 :]), {}
    by_flag = {option.flag: name for name, option in BY_FIELD.items()}
    while rest:
        flag = rest.pop(0)
        name = by_flag.get(flag) or by_flag[flag.replace("--no-", "--")]
        flags[name] = rest.pop(0) if BY_FIELD[name].metavar else not flag.startswith("--no-")
    return config.load(flags, unit.sidecar.environment)


def test_there_is_a_value_for_each_setting_that_has_a_flag() -> None:
    assert set(VALUES) == {name for name, option in BY_FIELD.items() if not option.secret}


def test_the_sidecar_reads_from_its_flags_what_was_meant_for_it() -> None:
    [unit] = units(RunApp(app_id="orders", directory=Path(), settings=VALUES), environ={"SIDECAR_API_TOKEN": "secret"})
    assert read_by_the_sidecar(unit) == unit.settings
    changed = {name for name in VALUES if getattr(unit.settings, name) != getattr(config.DEFAULTS, name)}
    assert set(VALUES) - changed <= {"insecure_peers", "log_format"}  # all others are seen to arrive


def test_a_secret_is_in_no_command_line() -> None:
    [unit] = units(app("orders", api_token="secret"))
    assert not any("secret" in part for part in unit.sidecar.arguments)
    assert read_by_the_sidecar(unit) == unit.settings
    assert unit.app is not None
    assert unit.app.environment["DAPR_API_TOKEN"] == "secret"


def test_the_first_app_gets_the_usual_ports_and_each_other_one_ten_higher() -> None:
    first, second, third = units(app("a"), app("b"), app("c"), defaults={"grpc_port": (50001,)}, taken=(3510,))
    assert ports(first) == ((50001,), 3500, 50002)
    assert ports(second) == ((50011,), 3520, 50012)
    assert ports(third) == ((50021,), 3530, 50022)


def test_one_app_has_both_ports_that_sdks_look_at() -> None:
    [unit] = units(app("a"), taken=(4001,))
    assert ports(unit) == ((50001, 4011), 3500, 50002)


def test_a_port_that_was_named_is_left_as_it_is_and_nobody_elses() -> None:
    first, second = units(app("a"), app("b", grpc_port=50001, http_port=0), defaults={"grpc_port": (50001,)})
    assert ports(second) == ((50001,), 3510, 50012)
    assert ports(first) == ((50011,), 3500, 50002)


def test_a_port_that_was_named_and_is_taken_is_refused() -> None:
    with pytest.raises(StartError, match=r"^b: port 3501 \(--http-port\) is taken"):
        units(app("a"), app("b", http_port=3501), taken=(3501,))
    with pytest.raises(ConfigError, match=r"^b: port 3501 \(--grpc-port\) is that of a too"):
        units(app("a", http_port=3501), app("b", grpc_port=3501))


def test_no_free_port_is_said() -> None:
    with pytest.raises(StartError, match=r"^a: there is no free port of 50001, 50011"):
        units(app("a"), taken=tuple(range(50001, 65536, 10)))


def test_apps_are_peers_of_each_other_and_of_those_that_are_named() -> None:
    first, second = units(app("a"), app("b", peers={"a": "127.0.0.1:9", "c": "127.0.0.1:8"}))
    assert first.settings.peers == {"b": ("127.0.0.1:50012",)}
    assert second.settings.peers == {"a": ("127.0.0.1:9",), "c": ("127.0.0.1:8",)}
    assert read_by_the_sidecar(second) == second.settings


def test_apps_of_different_namespaces_are_no_peers() -> None:
    first, second = units(app("a"), app("b", namespace="other"))
    assert (first.settings.peers, second.settings.peers) == ({}, {})


def test_a_flag_beats_the_file_and_the_file_the_environment() -> None:
    environ = {"SIDECAR_LOG_LEVEL": "debug", "SIDECAR_REUSE": "never", "SIDECAR_HTTP_PORT": "3600"}
    [unit] = units(app("a", log_level="error", reuse="terminal"), flags={"log_level": "warning"}, environ=environ)
    assert (unit.settings.log_level, unit.settings.reuse, unit.settings.http_port) == ("warning", "terminal", 3600)
    assert read_by_the_sidecar(unit) == unit.settings


def test_what_is_wrong_names_the_app() -> None:
    with pytest.raises(ConfigError, match=r"^b: --retention: "):
        units(app("a"), app("b", retention={"completed": "soon"}))


def test_an_app_runs_where_it_is_told_with_its_own_variables_last() -> None:
    wanted = RunApp(app_id="a", directory=Path("apps"), command=("run",), env={"APP_ID": "mine"}, app_port=8080)
    [unit] = units(wanted, environ={"HOME": "/h", "DAPR_HTTP_PORT": "1", "PYTHONUNBUFFERED": ""})
    assert unit.app is not None
    assert (unit.app.arguments, unit.app.directory) == (("run",), Path("apps"))
    found = unit.app.environment
    assert (found["HOME"], found["APP_ID"], found["APP_PORT"]) == ("/h", "mine", "8080")
    assert (found["DAPR_HTTP_PORT"], found["PYTHONUNBUFFERED"]) == ("3500", "")
    assert "APP_ID" not in unit.sidecar.environment


def test_without_a_command_there_is_a_sidecar_alone() -> None:
    [unit] = units(RunApp(app_id="a", directory=Path()))
    assert unit.app is None
