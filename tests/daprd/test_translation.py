"""Flags, configuration and variables of a `daprd` as settings, and which of them counts."""

from pathlib import Path

import pytest

from sidecar.config.settings import ConfigError, Settings
from sidecar.daprd import flags, translation
from sidecar.daprd.configuration import Wish

HOME = Path("/home/someone/.workflow-sidecar")
MIB = 2**20
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound


def settings(*arguments: str, configured: dict[str, object] | None = None, **environ: str) -> Settings:
    given = flags.parse(["--app-id", "orders", *arguments])
    weaker = translation.of_machine(environ, HOME)
    weaker |= {name: Wish(raw, "config.yaml") for name, raw in (configured or {}).items()}
    found = translation.settings(translation.of_flags(given), weaker, environ, HOME)
    return translation.with_message_size(given, found)


@pytest.mark.parametrize(
    ("size", "received"), [("", 4 * MIB), ("2Mi", 4 * MIB), ("4Mi", 4 * MIB), ("10Mi", 10 * MIB), ("100Mi", 100 * MIB)]
)
def test_who_asks_for_larger_messages_means_those_that_workers_receive_too(size: str, received: int) -> None:
    assert settings(*(["--max-body-size", size] if size else [])).worker_receive_bytes == received


def test_a_daprd_has_one_port_for_sdks_and_its_data_in_a_fixed_place() -> None:
    found = settings()
    assert (found.app_id, found.namespace) == ("orders", "default")
    assert (found.grpc_port, found.http_port, found.peer_port) == ((50001,), 3500, 0)
    assert (found.listen_host, found.peer_host) == ("localhost", "127.0.0.1")
    assert found.data_dir == HOME / "data"
    assert found.peer_file == HOME / "peers.default.yaml"
    assert (found.log_format, found.log_level) == ("console", "info")


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--dapr-http-port", "3601"], "http_port", 3601),
        (["--dapr-http-port", "-1"], "http_port", 3500),
        (["--dapr-http-port", ""], "http_port", 3500),
        (["--dapr-grpc-port", "3602"], "grpc_port", (3602,)),
        (["--dapr-internal-grpc-port", "3603"], "peer_port", 3603),
        (["--dapr-listen-addresses", "[::1],127.0.0.1"], "listen_host", "localhost"),
        (["--dapr-listen-addresses", "127.0.0.1"], "listen_host", "localhost"),
        (["--log-level", "warn"], "log_level", "warning"),
        (["--log-level", "DEBUG"], "log_level", "debug"),
        (["--log-level", "fatal"], "log_level", "error"),
        (["--log-level", "panic"], "log_level", "error"),
        (["--log-as-json"], "log_format", "json"),
        (["--dapr-graceful-shutdown-seconds", "9"], "drain_timeout", 9.0),
        (["--dapr-graceful-shutdown-seconds", "0"], "drain_timeout", 0.001),
    ],
)
def test_a_flag_becomes_a_setting(arguments: list[str], field: str, value: object) -> None:
    assert getattr(settings(*arguments), field) == value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], 64 * MIB),
        (["--max-body-size", "4Mi"], 64 * MIB),
        (["--max-body-size", "100Mi"], 100 * MIB),
        (["--max-body-size", "200M"], 200_000_000),
        (["--max-body-size", "1Gi"], 1024 * MIB),
        (["--max-body-size", "100000000"], 100_000_000),
        (["--max-body-size", "-1"], 2**31 - 1),
        (["--max-body-size", "4Gi"], 2**31 - 1),
        (["--dapr-http-max-request-size", "4"], 64 * MIB),
        (["--dapr-http-max-request-size", "80"], 80 * MIB),
        (["--dapr-http-max-request-size", "-1"], 2**31 - 1),
    ],
)
def test_a_size_of_messages_raises_the_limit_and_never_lowers_it(arguments: list[str], expected: int) -> None:
    assert settings(*arguments).max_message_bytes == expected
    assert settings(*arguments, SIDECAR_MAX_MESSAGE_BYTES="1GiB").max_message_bytes == max(expected, 1024 * MIB)


def test_all_addresses_are_listened_on_only_where_that_is_accepted() -> None:
    everywhere = ["--dapr-listen-addresses", f"127.0.0.1,{EVERYWHERE}"]
    with pytest.raises(ConfigError, match="not loopback"):
        settings(*everywhere)
    assert settings(*everywhere, SIDECAR_INSECURE_LISTEN="true").listen_host == EVERYWHERE
    assert settings(SIDECAR_LISTEN_HOST=EVERYWHERE, DAPR_API_TOKEN="t").listen_host == EVERYWHERE


def test_of_several_addresses_that_are_not_loopback_none_is_left_out_in_silence() -> None:
    with pytest.raises(ConfigError, match=r"--dapr-listen-addresses: 127.0.0.1, 10.0.0.5: one address"):
        settings("--dapr-listen-addresses", "127.0.0.1,10.0.0.5")


def test_a_flag_beats_a_variable_and_that_beats_the_configuration() -> None:
    configured: dict[str, object] = {"retention": {"any": 60.0}, "trace_zipkin": "http://zipkin:9411"}
    found = settings(configured=configured)
    assert dict(found.retention) == {"any": 60.0}
    assert found.trace_zipkin == "http://zipkin:9411"
    found = settings("--dapr-http-port", "1", configured=configured, SIDECAR_RETENTION="any=2m", SIDECAR_HTTP_PORT="2")
    assert dict(found.retention) == {"any": 120.0}
    assert found.http_port == 1


def test_the_sidecar_s_own_variables_move_data_and_peers() -> None:
    found = settings(SIDECAR_DATA_DIR="/data", SIDECAR_PEER_FILE="/peers.yaml", SIDECAR_GRPC_PORT="1,2")
    assert (found.data_dir, found.peer_file, found.grpc_port) == (Path("/data"), Path("/peers.yaml"), (1, 2))


def test_each_namespace_has_its_own_list_of_peers() -> None:
    found = settings(NAMESPACE="shop")
    assert (found.namespace, found.peer_file) == ("shop", HOME / "peers.shop.yaml")
    with pytest.raises(ConfigError, match="NAMESPACE: 'a b' is not allowed"):
        settings(NAMESPACE="a b")


def test_what_is_wrong_in_the_configuration_is_named_by_its_place() -> None:
    with pytest.raises(ConfigError, match=r"config.yaml: 'x' is no URL"):
        settings(configured={"trace_zipkin": "x"})


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        ([], None),
        (["--metrics-port", "-1"], None),
        (["--metrics-port", "9090"], 9090),
        (["--metrics-port", "9090", "--enable-metrics=false"], None),
    ],
)
def test_metrics_have_a_port_of_their_own_where_one_is_named(arguments: list[str], port: int | None) -> None:
    assert translation.metrics_port(flags.parse(arguments)) == port
