import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import parsers
from sidecar.config import settings as config
from sidecar.config.parsers import Route, Secret
from sidecar.config.settings import ConfigError, Settings

APP = {"app_id": "orders"}
ANYWHERE = {**APP, "insecure_peers": True}  # peers may be on other machines
EVERYWHERE = "0.0.0.0"  # noqa: S104 - only read as text


def refusal(flags: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(flags or {}, environ or {})
    text = str(caught.value)
    assert "\n" not in text
    return text


def written(directory: Path, name: str, text: str) -> dict[str, object]:
    path = directory / name
    path.write_text(text)
    return {"config": str(path)}


# Precedence


def test_without_any_source_the_defaults_stand() -> None:
    settings = config.load(APP, {})
    assert settings == Settings(app_id="orders", log_format=settings.log_format)
    assert settings.grpc_port == (50001, 4001)
    assert (settings.http_port, settings.peer_port, settings.peer_host) == (3500, 50002, "127.0.0.1")
    assert settings.max_message_bytes == 67108864
    assert settings.data_dir == Path("./sidecar-data")


@pytest.mark.parametrize(("terminal", "expected"), [(True, "console"), (False, "json")])
def test_the_log_is_for_people_on_a_terminal_only(
    terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert config.load(APP, {}).log_format == expected


def test_a_flag_beats_a_variable() -> None:
    assert config.load({**APP, "http_port": "1001"}, {"SIDECAR_HTTP_PORT": "1002"}).http_port == 1001


def test_a_flag_beats_the_file(tmp_path: Path) -> None:
    flags = {**APP, "http_port": "1001", **written(tmp_path, "s.yaml", "http_port: 1003")}
    assert config.load(flags, {}).http_port == 1001


def test_a_variable_beats_the_file(tmp_path: Path) -> None:
    flags = {**APP, **written(tmp_path, "s.yaml", "http_port: 1003")}
    assert config.load(flags, {"SIDECAR_HTTP_PORT": "1002"}).http_port == 1002


def test_the_file_beats_the_default(tmp_path: Path) -> None:
    assert config.load({**APP, **written(tmp_path, "s.yaml", "http_port: 1003")}, {}).http_port == 1003


def test_the_config_flag_beats_the_config_variable(tmp_path: Path) -> None:
    written(tmp_path, "variable.yaml", "http_port: 1002")
    flags = {**APP, **written(tmp_path, "flag.yaml", "http_port: 1001")}
    assert config.load(flags, {"SIDECAR_CONFIG": str(tmp_path / "variable.yaml")}).http_port == 1001


def test_the_config_variable_names_a_file(tmp_path: Path) -> None:
    written(tmp_path, "s.toml", 'app_id = "orders"\nhttp_port = 1004')
    settings = config.load({}, {"SIDECAR_CONFIG": str(tmp_path / "s.toml")})
    assert (settings.app_id, settings.http_port) == ("orders", 1004)


def test_a_stronger_source_replaces_the_whole_list(tmp_path: Path) -> None:
    text = "grpc_port: [1, 2]\npeers: {ml: 127.0.0.1:1}"
    flags = {**ANYWHERE, "grpc_port": ["3"], "peers": ["ship=h:2"], **written(tmp_path, "s.yaml", text)}
    settings = config.load(flags, {})
    assert settings.grpc_port == (3,)
    assert dict(settings.peers) == {"ship": ("h:2",)}


def test_a_bad_value_that_is_overridden_does_no_harm() -> None:
    assert config.load({**APP, "http_port": "1"}, {"SIDECAR_HTTP_PORT": "x"}).http_port == 1


def test_flags_that_were_not_given_count_as_absent() -> None:
    flags = {"app_id": None, "grpc_port": [], "insecure_peers": None, "config": None}
    settings = config.load(flags, {"SIDECAR_APP_ID": "ml", "SIDECAR_GRPC_PORT": "7"})
    assert (settings.app_id, settings.grpc_port) == ("ml", (7,))


def test_an_empty_variable_and_an_empty_key_count_as_absent(tmp_path: Path) -> None:
    flags = {**APP, **written(tmp_path, "s.yaml", "peers:\nhttp_port: 9")}
    settings = config.load(flags, {"SIDECAR_HTTP_PORT": ""})
    assert (dict(settings.peers), settings.http_port) == ({}, 9)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert config.load({**APP, **written(tmp_path, "s.yaml", "# nothing yet\n")}, {}).http_port == 3500


def test_each_value_knows_its_source(tmp_path: Path) -> None:
    flags = {**APP, **written(tmp_path, "s.yaml", "peer_port: 9")}
    sources = config.resolve(flags, {"SIDECAR_HTTP_PORT": "8", "SIDECAR_PEER": "ml=localhost:1"}).sources
    assert sources["app_id"] == "--app-id"
    assert sources["http_port"] == "SIDECAR_HTTP_PORT"
    assert sources["peers"] == "SIDECAR_PEER"
    assert sources["peer_port"] == f"{tmp_path / 's.yaml'}: peer_port"
    assert sources["namespace"] == "default"
    assert set(sources) == set(Settings.__dataclass_fields__)


def test_every_setting_can_be_given_in_every_source(tmp_path: Path) -> None:
    texts = {
        "app_id": "orders",
        "namespace": "shop",
        "grpc_port": "1,2",
        "http_port": "3",
        "listen_host": "127.0.0.1",
        "insecure_listen": "false",
        "api_token": "s3cret",
        "api_token_file": "/run/secrets/token",
        "app_cert": "/tls/app.crt",
        "app_key": "/tls/app.key",
        "peer_port": "4",
        "peer_host": EVERYWHERE,
        "peer_cert": "/tls/a.crt",
        "peer_key": "/tls/a.key",
        "peer_ca": "/tls/ca.crt",
        "trust_domain": "shop.example",
        "insecure_peers": "false",
        "data_dir": "/var/lib/s",
        "peers": "ml=127.0.0.1:5,[::1]:6,ship=h:7",
        "peer_pattern": "{app}-sidecar:50002",
        "peer_file": "/etc/peers.yaml",
        "policy": "/etc/policy.yaml",
        "routes": "activity:gpu-*=ml,workflow:ship*=logistics",
        "log_format": "console",
        "log_level": "debug",
        "workflow_log_level": "off",
        "trace_otlp": "http://collector:4318/v1/traces",
        "trace_zipkin": "https://zipkin/api/v2/spans",
        "reuse": "never",
        "max_message_bytes": "1MiB",
        "worker_receive_bytes": "8MiB",
        "memory_limit": "1GiB",
        "max_connections": "100",
        "max_calls": "200",
        "max_workers": "30",
        "turn_timeout": "2m",
        "activity_timeout": "30",
        "entity_timeout": "40",
        "max_deliveries": "3",
        "drain_timeout": "500ms",
        "unknown_app": "fail",
        "cascade_suspend": "true",
        "task_hubs": "blue,green",
        "allow_hub_deletion": "yes",
        "retention": "completed=7d,any=1h",
        "limits": "workflows=9,activity:gpu-*=1",
    }
    expected = Settings(
        app_id="orders",
        namespace="shop",
        grpc_port=(1, 2),
        http_port=3,
        listen_host="127.0.0.1",
        insecure_listen=False,
        api_token=Secret("s3cret"),
        api_token_file=Path("/run/secrets/token"),
        app_cert=Path("/tls/app.crt"),
        app_key=Path("/tls/app.key"),
        peer_port=4,
        peer_host=EVERYWHERE,
        peer_cert=Path("/tls/a.crt"),
        peer_key=Path("/tls/a.key"),
        peer_ca=Path("/tls/ca.crt"),
        trust_domain="shop.example",
        insecure_peers=False,
        data_dir=Path("/var/lib/s"),
        peers={"ml": ("127.0.0.1:5", "[::1]:6"), "ship": ("h:7",)},
        peer_pattern="{app}-sidecar:50002",
        peer_file=Path("/etc/peers.yaml"),
        policy=Path("/etc/policy.yaml"),
        routes=(Route("activity", "gpu-*", "ml"), Route("workflow", "ship*", "logistics")),
        log_format="console",
        log_level="debug",
        workflow_log_level="off",
        trace_otlp="http://collector:4318/v1/traces",
        trace_zipkin="https://zipkin/api/v2/spans",
        reuse="never",
        max_message_bytes=2**20,
        worker_receive_bytes=2**23,
        memory_limit=2**30,
        max_connections=100,
        max_calls=200,
        max_workers=30,
        turn_timeout=120.0,
        activity_timeout=30.0,
        entity_timeout=40.0,
        max_deliveries=3,
        drain_timeout=0.5,
        unknown_app="fail",
        cascade_suspend=True,
        task_hubs=("blue", "green"),
        allow_hub_deletion=True,
        retention={"completed": 604800.0, "any": 3600.0},
        limits={"workflow:*": 9, "activity:gpu-*": 1},
    )
    assert set(texts) == set(Settings.__dataclass_fields__)
    variables = {config.BY_FIELD[name].variable: text for name, text in texts.items()}
    file = written(tmp_path, "s.yaml", "".join(f'{name}: "{text}"\n' for name, text in texts.items()))
    assert config.load(texts, {}) == expected
    assert config.load({}, variables) == expected
    assert config.load(file, {}) == expected


@pytest.mark.parametrize("good", ["{app}:1", "{app}.{namespace}.svc:50002", "[::1]:1", ""])
def test_a_pattern_of_addresses(good: str) -> None:
    if "{app}" in good or not good:
        assert config.load({**ANYWHERE, "peer_pattern": good or "none"}, {}).peer_pattern == good
    else:
        assert "not a pattern of addresses" in refusal({**APP, "peer_pattern": good})


@pytest.mark.parametrize("bad", ["{app}", "sidecar:1", "{app}:x", "{name}:1", "{app}-{other}:1"])
def test_a_pattern_that_gives_no_address_is_refused(bad: str) -> None:
    assert "not a pattern of addresses: write such as {app}-sidecar:50002" in refusal({**APP, "peer_pattern": bad})


def test_routes_are_a_list_in_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, "s.yaml", "routes: [{activity: 'gpu-*', app: ml}, {workflow: ship, app: logistics}]")
    routes = config.load({**APP, **file}, {}).routes
    assert routes == (Route("activity", "gpu-*", "ml"), Route("workflow", "ship", "logistics"))
    assert config.shown(routes) == "activity:gpu-*=ml,workflow:ship=logistics"


@pytest.mark.parametrize(
    "wrong",
    [
        *("gpu=ml", "activity:=ml", "activity:gpu", "entity:x=ml", 7),
        *({"activity": "x"}, {"activity": 1, "app": "ml"}, {"activity": "x", "workflow": "y", "app": "ml"}),
        {"activity": "x", "app": "ml", "namespace": "n"},
    ],
)
def test_a_wrong_route_is_refused_and_shown_how(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"is not a route: write \{activity: NAME"):
        config.load({**APP, "routes": [wrong]}, {})


def test_a_route_to_an_app_that_cannot_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="no app"):
        config.load({**APP, "routes": ["activity:x=no app"]}, {})


def test_settings_cannot_be_changed() -> None:
    settings = config.load({**ANYWHERE, "peers": ["ml=h:1"]}, {})
    with pytest.raises(AttributeError):
        settings.http_port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.peers["ml"] = ()  # type: ignore[index]


# App IDs


def test_a_missing_app_id_says_how_to_give_it() -> None:
    assert refusal() == "no app ID: give --app-id, SIDECAR_APP_ID, or app_id in the config file"


@pytest.mark.parametrize("bad", ["or ders", "a/b", "a.b", "a:b", "bücher", "", "x" * 257, "a\nb"])
def test_a_forbidden_app_id_is_named_with_the_characters_that_are_allowed(bad: str) -> None:
    text = refusal({"app_id": bad})
    assert text.startswith(f"--app-id: {parsers.quoted(bad)} is not allowed")
    assert text.endswith("use only letters (a-z, A-Z), digits, '-' and '_', 1 to 256 characters")


def test_the_longest_app_id_is_accepted_and_shorter_ones_where_a_certificate_names_them() -> None:
    """Dapr's runtime takes an ID of any length."""
    longest = "a-B_" * 64
    assert config.load({"app_id": longest}, {}).app_id == longest
    files = {"peer_cert": "a.crt", "peer_key": "a.key", "peer_ca": "ca.crt"}
    assert config.load({"app_id": "x" * 63, **files}, {}).app_id == "x" * 63
    for long in ({"app_id": "x" * 64}, {"app_id": "x", "namespace": "n" * 64}):
        assert refusal({**long, **files}).endswith("is too long: a peer certificate names at most 63 characters of it")


def test_a_namespace_obeys_the_same_rule() -> None:
    assert refusal(APP, {"SIDECAR_NAMESPACE": "a.b"}).startswith("SIDECAR_NAMESPACE: 'a.b' is not allowed")


def test_an_app_id_that_yaml_reads_as_something_else_must_be_quoted(tmp_path: Path) -> None:
    text = refusal(written(tmp_path, "s.yaml", "app_id: no"))
    assert text == f"{tmp_path / 's.yaml'}: app_id: False is not text: put it in quotes"


# Ports and hosts


@pytest.mark.parametrize("bad", ["65536", "-1", "http", "", "1.5", "\u0661", "99999999999999"])
def test_a_bad_port_is_refused_by_each_port_option(bad: str) -> None:
    for name in ("grpc_port", "http_port", "peer_port"):
        flag = config.BY_FIELD[name].flag
        hint = "give a number from 0 to 65535, 0 for any free one"
        assert refusal({**APP, name: bad}) == f"{flag}: {bad!r} is not a port: {hint}"


def test_the_source_of_a_bad_value_is_named(tmp_path: Path) -> None:
    assert refusal({**APP, "grpc_port": ["x"]}).startswith("--grpc-port: 'x' is not")
    assert refusal(APP, {"SIDECAR_GRPC_PORT": "1,x"}).startswith("SIDECAR_GRPC_PORT: 'x' is not")
    file = written(tmp_path, "sidecar.yaml", "grpc_port: [1, true]")
    assert refusal({**APP, **file}).startswith(f"{tmp_path}/sidecar.yaml: grpc_port: True is not")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(["1", "2"], (1, 2)), ("1, 2", (1, 2)), (["1,2", "3"], (1, 2, 3)), (7, (7,)), ([0, 0], (0, 0))],
)
def test_grpc_ports_come_as_a_list_or_with_commas(raw: object, expected: tuple[int, ...]) -> None:
    assert config.load({**APP, "grpc_port": raw}, {}).grpc_port == expected


def test_an_empty_list_of_grpc_ports_in_the_file_is_refused(tmp_path: Path) -> None:
    text = refusal({**APP, **written(tmp_path, "s.yaml", "grpc_port: []")})
    assert text.endswith("grpc_port: the list is empty: name at least one port, 0 for any free one")


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        ({"http_port": "4001"}, "grpc_port (default)", "http_port (--http-port)"),
        ({"peer_port": "3500"}, "http_port (default)", "peer_port (--peer-port)"),
        ({"grpc_port": "7,7"}, "grpc_port (--grpc-port)", "grpc_port (--grpc-port)"),
    ],
)
def test_two_listeners_cannot_have_one_port(given: dict[str, object], first: str, second: str) -> None:
    assert f"is given twice, by {first} and {second}" in refusal({**APP, **given})


def test_any_number_of_listeners_may_ask_for_a_free_port() -> None:
    flags = {**APP, "grpc_port": ["0", "0"], "http_port": "0", "peer_port": "0"}
    assert config.load(flags, {}).grpc_port == (0, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_a_loopback_address_of_the_app_ports_needs_no_permission(host: str) -> None:
    assert config.load({**APP, "listen_host": host}, {}).listen_host == host.strip("[]")


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.0.0.1", "orders.internal"])
def test_the_app_ports_leave_loopback_only_with_permission(host: str) -> None:
    reason = refusal({**APP, "listen_host": host})
    assert reason.startswith("--listen-host: ")
    assert "--api-token-file" in reason
    assert "--insecure-listen" in reason
    assert config.load({**APP, "listen_host": host}, {"SIDECAR_API_TOKEN": "s3cret"}).listen_host == host
    assert config.load({**APP, "listen_host": host, "api_token_file": "/t"}, {}).listen_host == host
    assert config.load({**APP, "listen_host": host, "app_cert": "/c", "app_key": "/k"}, {}).listen_host == host
    assert config.load({**APP, "listen_host": host, "insecure_listen": True}, {}).listen_host == host


@pytest.mark.parametrize(("given", "missing"), [("app_cert", "--app-key"), ("app_key", "--app-cert")])
def test_a_certificate_and_its_key_belong_together(given: str, missing: str) -> None:
    assert refusal({**APP, given: "/tls/file"}).endswith(f"give {missing}")


def test_the_variable_of_dapr_for_the_token_is_taken_too() -> None:
    resolved = config.resolve(APP, {"DAPR_API_TOKEN": "theirs"})
    assert resolved.settings.api_token == Secret("theirs")
    assert resolved.sources["api_token"] == "DAPR_API_TOKEN"
    environ = {"SIDECAR_API_TOKEN": "ours", "DAPR_API_TOKEN": "theirs"}
    assert config.load(APP, environ).api_token == Secret("ours")


def test_a_token_is_in_no_text() -> None:
    settings = config.load(APP, {"SIDECAR_API_TOKEN": "canary"})
    assert "canary" not in f"{settings} {settings!r} {config.shown(settings.api_token)}"


@pytest.mark.parametrize("bad", ["ca nary", "canary\x00", "canäry", "canary" * 1000])
def test_a_token_that_fits_into_no_header_is_refused_without_showing_it(bad: str) -> None:
    reason = refusal(APP, {"SIDECAR_API_TOKEN": bad})
    assert reason.startswith("SIDECAR_API_TOKEN: a token is 1 to")
    assert bad not in reason


@pytest.mark.parametrize("bad", ["0", "-1", "x", "", "1.5", "1" * 10])
def test_a_count_is_a_number_from_1(bad: str) -> None:
    assert "is not a number from 1" in refusal({**APP, "max_calls": bad or " "})


@pytest.mark.parametrize(
    ("host", "asked"),
    [("localhost", "127.0.0.1"), (EVERYWHERE, "127.0.0.1"), ("::", "127.0.0.1"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_health_check_asks_where_the_app_ports_are(host: str, asked: str) -> None:
    assert config.http_address({"listen_host": host, "http_port": "7"}, {}) == (asked, 7)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1", "[::1]"])
def test_a_loopback_peer_host_needs_no_permission(host: str) -> None:
    assert config.load({**APP, "peer_host": host}, {}).peer_host == host.strip("[]")


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.0.0.7", "orders-sidecar"])
def test_another_peer_host_is_refused_until_plaintext_is_accepted(host: str) -> None:
    text = refusal(APP, {"SIDECAR_PEER_HOST": host})
    assert text.startswith(f"SIDECAR_PEER_HOST: {host!r} is not loopback")
    assert "give --peer-cert, --peer-key and --peer-ca" in text
    assert config.load({**APP, "peer_host": host, "insecure_peers": True}, {}).peer_host == host


AWAY = {
    "peers": ({"ml": ["127.0.0.1:1", "10.0.0.7:50002"]}, "ml=10.0.0.7:50002"),
    "peer_pattern": ("{app}-sidecar:50002", "{app}-sidecar:50002"),
}


@pytest.mark.parametrize("name", AWAY)
def test_an_address_to_dial_obeys_the_same_rule_as_one_to_listen_on(name: str) -> None:
    raw, shown = AWAY[name]
    assert refusal({**APP, name: raw}).startswith(f"--{name.rstrip('s').replace('_', '-')}: {shown!r} is not loopback")
    for accepted in ({"insecure_peers": True}, TLS):
        config.load({**APP, name: raw, **accepted}, {})


@pytest.mark.parametrize("address", ["localhost:1", "127.8.9.10:1", "[::1]:1"])
def test_a_peer_on_loopback_needs_no_permission(address: str, tmp_path: Path) -> None:
    assert config.load({**APP, "peers": {"ml": address}}, {}).peers == {"ml": (address,)}
    (tmp_path / "peers.yaml").write_text(f"ml: '{address}'")
    assert config.read_peers(tmp_path / "peers.yaml", stay_here=True) == {"ml": (address,)}


TLS = {"peer_cert": "a.crt", "peer_key": "a.key", "peer_ca": "ca.crt"}


def test_another_peer_host_is_accepted_with_certificates() -> None:
    assert config.load({**APP, **TLS, "peer_host": EVERYWHERE}, {}).peer_ca == Path("ca.crt")


def test_a_certificate_needs_its_key_and_the_ca() -> None:
    text = refusal({**APP, "peer_cert": "a.crt", "peer_ca": "ca.crt"})
    assert text == "--peer-cert: a peer certificate needs its key and the CA too: give --peer-key"


def test_certificates_and_plaintext_peers_exclude_each_other() -> None:
    assert refusal({**APP, **TLS, "insecure_peers": True}).startswith("--insecure-peers: peers are either certified")


def test_a_trust_domain_that_cannot_exist_is_refused() -> None:
    assert "not a trust domain" in refusal({**APP, "trust_domain": "Shop/x"})


@pytest.mark.parametrize("host", ["", "127.0.0.1:5", "http://x", "300.1.1.1", "a b", "[::1"])
def test_a_peer_host_that_cannot_exist_is_refused(host: str) -> None:
    assert refusal({**APP, "peer_host": host}).startswith(f"--peer-host: {host!r} is not a host")


# Peers


@pytest.mark.parametrize(
    "raw",
    [
        ["ml=127.0.0.1:50012,[::1]:50013", "ship=ship-sidecar:50002"],
        ["ml=127.0.0.1:50012", "ship=ship-sidecar:50002", "ml=[::1]:50013"],
        "ml=127.0.0.1:50012, [::1]:50013, ship=ship-sidecar:50002",
        {"ml": ["127.0.0.1:50012", "[::1]:50013"], "ship": "ship-sidecar:50002"},
        {"ml": "127.0.0.1:50012,[::1]:50013", "ship": ["ship-sidecar:50002"]},
    ],
)
def test_peers_have_one_meaning_in_all_their_forms(raw: object) -> None:
    expected = {"ml": ("127.0.0.1:50012", "[::1]:50013"), "ship": ("ship-sidecar:50002",)}
    assert dict(config.load({**ANYWHERE, "peers": raw}, {}).peers) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s.yaml", "peers:\n  ml: 127.0.0.1:50012\n  ship: [a:1, '[::1]:2']\n"),
        ("t.yaml", "peers: ['ml=127.0.0.1:50012', 'ship=a:1,[::1]:2']\n"),
        ("s.toml", '[peers]\nml = "127.0.0.1:50012"\nship = ["a:1", "[::1]:2"]\n'),
    ],
)
def test_peers_come_from_a_file(tmp_path: Path, text: str, expected: str) -> None:
    peers = config.load({**ANYWHERE, **written(tmp_path, text, expected)}, {}).peers
    assert dict(peers) == {"ml": ("127.0.0.1:50012",), "ship": ("a:1", "[::1]:2")}


def test_an_address_given_twice_counts_once() -> None:
    assert config.load({**ANYWHERE, "peers": "ml=a:1,a:1,b:2"}, {}).peers["ml"] == ("a:1", "b:2")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "a:",
        ":5",
        "a:0",
        "a:65536",
        "::1:5",
        "[::1]",
        "[a]:5",
        "[1.2.3.4]:5",
        "a:b",
        "a b:5",
        "1.2.3:5",
    ],
)
def test_a_bad_peer_address_is_named_with_an_example(address: str) -> None:
    text = refusal({**APP, "peers": [f"ml={address}"]})
    assert text.startswith(f"--peer: ml: {address!r} is not an address: write host:port, such as 127.0.0.1:50012")


def test_a_peer_without_an_app_is_refused() -> None:
    text = refusal(APP, {"SIDECAR_PEER": "127.0.0.1:50012"})
    assert text.startswith("SIDECAR_PEER: '127.0.0.1:50012' names no app: write app=host:port")


def test_a_peer_without_an_address_is_refused(tmp_path: Path) -> None:
    assert "is not an address" in refusal({**APP, "peers": ["ml="]})
    assert "is not an address" in refusal({**APP, **written(tmp_path, "s.yaml", "peers: {ml: []}")})


def test_a_peer_with_a_forbidden_app_id_is_refused() -> None:
    assert refusal({**APP, "peers": ["m l=a:1"]}).startswith("--peer: 'm l' is not allowed: use only letters")


def test_two_peers_that_differ_only_in_case_are_refused() -> None:
    text = refusal({**APP, "peers": ["ml=a:1", "ML=a:2"]})
    assert text == "--peer: 'ml' and 'ML' differ only in case: keep one of them"


def test_the_own_app_may_stand_in_a_list_that_all_sidecars_share() -> None:
    assert dict(config.load({**ANYWHERE, "peers": ["orders=a:1", "ml=b:2"]}, {}).peers) == {"ml": ("b:2",)}


def test_a_peer_that_differs_from_the_own_app_only_in_case_is_refused() -> None:
    text = refusal({**APP, "peers": ["Orders=a:1"]})
    assert text == "--peer: 'Orders' and this sidecar's app ID 'orders' differ only in case"


# Limits


def test_limits_of_a_file_may_be_grouped_by_kind(tmp_path: Path) -> None:
    text = "limits:\n  workflows: 100\n  activity:\n    gpu-*: 1\n    mail: 2\n"
    settings = config.load({**APP, **written(tmp_path, "s.yaml", text)}, {})
    assert dict(settings.limits) == {"workflow:*": 100, "activity:gpu-*": 1, "activity:mail": 2}
    assert config.shown(settings.limits) == "workflow:*=100,activity:gpu-*=1,activity:mail=2"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("5", "'5' names no limit"),
        ("threads=5", "'threads' cannot be limited"),
        ("activity=5", "'activity' cannot be limited"),
        ("activity:=5", "'activity:' cannot be limited"),
        ("activities=0", "activities: '0' is not a number from 1"),
        ("activities=many", "activities: 'many' is not a number from 1"),
        ("workflow:a=1.5", "workflow:a: '1.5' is not a number from 1"),
        ({"activities": True}, "activities: True is not a number from 1"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(raw: object, says: str) -> None:
    assert refusal({**APP, "limits": raw}).startswith(f"--limit: {says}")


# Words, sizes, durations


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("log_format", "console, json"),
        ("log_level", "debug, info, warning, error"),
        ("reuse", "terminal, never"),
        ("unknown_app", "wait, fail"),
    ],
)
def test_a_word_that_is_not_offered_is_refused_with_those_that_are(name: str, allowed: str) -> None:
    option = config.BY_FIELD[name]
    assert refusal(APP, {option.variable: "maybe"}) == f"{option.variable}: 'maybe' is not one of {allowed}"


def test_the_case_of_a_word_does_not_matter() -> None:
    assert config.load({**APP, "log_level": "WARNING"}, {}).log_level == "warning"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("64MiB", 67108864), ("1 MB", 1000000), ("65536", 65536), (70000, 70000), ("1gib", 2**30)],
)
def test_a_size_may_have_a_unit(raw: object, expected: int) -> None:
    assert config.load({**APP, "max_message_bytes": raw}, {}).max_message_bytes == expected


@pytest.mark.parametrize("bad", ["64 apples", "65535", "2GiB", "-1", "", "MiB", True])
def test_a_bad_size_is_refused(bad: object) -> None:
    hint = "give bytes or such as 64MiB, from 64KiB to under 2GiB"
    text = refusal({**APP, "max_message_bytes": bad})
    assert text == f"--max-message-bytes: {bad!r} is not a message size: {hint}"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("120", 120.0), (1.5, 1.5), ("500ms", 0.5), ("90s", 90.0), ("2m", 120.0), ("1h", 3600.0), ("2d", 172800.0)],
)
def test_a_duration_is_seconds_or_has_a_unit(raw: object, expected: float) -> None:
    assert config.load({**APP, "drain_timeout": raw}, {}).drain_timeout == expected


@pytest.mark.parametrize("bad", ["0", "-1", "soon", "nan", "inf", float("inf"), "9" * 400, "8785h", "367d", ""])
@pytest.mark.parametrize("name", ["turn_timeout", "activity_timeout", "entity_timeout", "drain_timeout"])
def test_a_bad_duration_is_refused(name: str, bad: object) -> None:
    flag = config.BY_FIELD[name].flag
    assert refusal({**APP, name: bad}).startswith(f"{flag}: {repr(bad)[:80]}")


@pytest.mark.parametrize("name", ["activity_timeout", "entity_timeout"])
def test_activities_and_operations_of_entities_may_take_for_ever(tmp_path: Path, name: str) -> None:
    assert getattr(config.load(APP, {}), name) is None
    flags = {**APP, **written(tmp_path, "s.yaml", f"{name}: 30")}
    assert getattr(config.load(flags, {}), name) == 30.0
    assert getattr(config.load(flags, {f"SIDECAR_{name.upper()}": "none"}), name) is None


@pytest.mark.parametrize(("raw", "expected"), [("1", 1), (25, 25), ("none", None)])
def test_deliveries_are_a_count_or_any_number(raw: object, expected: int | None) -> None:
    assert config.load({**APP, "max_deliveries": raw}, {}).max_deliveries == expected


@pytest.mark.parametrize("bad", ["0", 0, "-1", "1.5", True, "many", "9" * 400])
def test_a_bad_count_is_refused(bad: object) -> None:
    text = refusal({**APP, "max_deliveries": bad})
    assert text.startswith("--max-deliveries: ")
    assert text.endswith("is not a count: give a whole number from 1, or none")


@pytest.mark.parametrize(("raw", "expected"), [("yes", True), ("0", False), (True, True), ("OFF", False)])
def test_a_switch_has_the_usual_words(raw: object, expected: bool) -> None:
    assert config.load({**APP, "insecure_peers": raw}, {}).insecure_peers is expected


def test_a_switch_refuses_other_words() -> None:
    text = refusal(APP, {"SIDECAR_INSECURE_PEERS": "perhaps"})
    assert text == "SIDECAR_INSECURE_PEERS: 'perhaps' is neither true nor false"


@pytest.mark.parametrize("bad", ["", "a\0b", "a\nb", 5])
def test_a_data_dir_that_is_no_name_is_refused(bad: Any) -> None:
    assert refusal({**APP, "data_dir": bad}) == f"--data-dir: {bad!r} is not the name of a file or directory"


def test_a_tilde_in_the_data_dir_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert config.load({**APP, "data_dir": "~/s"}, {}).data_dir == Path("/home/someone/s")


def test_a_long_bad_value_is_cut_in_the_error() -> None:
    assert len(refusal({"app_id": "/" * 10_000})) < 250


# Retention and task hubs


def test_retention_is_a_list_of_times_by_status(tmp_path: Path) -> None:
    file = written(tmp_path, "s.yaml", "retention: {completed: 7d, failed: 30d, any: 3600}")
    expected = {"completed": 604800.0, "failed": 2592000.0, "any": 3600.0}
    assert config.load({**APP, **file}, {}).retention == expected
    assert config.load({**APP, "retention": ["completed=7d,failed=30d", "any=3600"]}, {}).retention == expected
    assert config.load(APP, {}).retention == {}
    assert config.shown(expected) == "completed=604800s,failed=2592000s,any=3600s"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("running=1d", "'running' is not an end of a workflow: use completed, failed, terminated, canceled, any"),
        ("7d", "'7d' is not of the form status=time, such as completed=7d"),
        ("any=soon", "any: 'soon' is not a duration"),
        ("any=0", "any: '0' is not a duration"),
        ("any=1d,any=2d", "any is given twice: keep one of them"),
    ],
)
def test_a_bad_retention_is_refused(bad: str, reason: str) -> None:
    assert refusal({**APP, "retention": [bad]}).startswith(f"--retention: {reason}")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("ignore", "ignore"), (["separate"], "separate"), ("a, b.c,a", ("a", "b.c")), (["a,b", "c"], ("a", "b", "c"))],
)
def test_task_hubs_are_a_word_or_names(raw: object, expected: object) -> None:
    assert config.load({**APP, "task_hubs": raw}, {}).task_hubs == expected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("a b", "'a b' is not the name of a task hub"),
        (["separate,a"], "separate stands alone"),
        ("x" * 65, f"{'x' * 65!r} is not the name"),
    ],
)
def test_bad_task_hubs_are_refused(bad: object, reason: str) -> None:
    assert refusal({**APP, "task_hubs": bad}).startswith(f"--task-hubs: {reason}")


# Unknown names


@pytest.mark.parametrize(
    ("key", "meant"),
    [("grpc_prot", "grpc_port"), ("grpc-port", "grpc_port"), ("App_Id", "app_id"), ("peer", "peers")],
)
def test_an_unknown_key_in_the_file_is_refused_with_what_was_meant(tmp_path: Path, key: str, meant: str) -> None:
    text = refusal({**APP, **written(tmp_path, "s.yaml", f"{key}: 1")})
    assert text == f"{tmp_path / 's.yaml'}: {key!r} is not a setting: did you mean {meant}?"


def test_an_unknown_key_unlike_any_other_points_at_the_list(tmp_path: Path) -> None:
    text = refusal({**APP, **written(tmp_path, "s.yaml", "7: 1")})
    assert text == f"{tmp_path / 's.yaml'}: 7 is not a setting: `sidecar run --help` lists them all"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SIDECAR_GRCP_PORT", "SIDECAR_GRPC_PORT"),
        ("SIDECAR_PEERS", "SIDECAR_PEER"),
        ("SIDECAR_CONFG", "SIDECAR_CONFIG"),
        ("SIDECAR_app_id", "SIDECAR_APP_ID"),
    ],
)
def test_an_unknown_sidecar_variable_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    assert refusal(APP, {name: "1"}) == f"{name!r} is not a variable of the sidecar: did you mean {meant}?"


def test_other_variables_are_nobodys_business() -> None:
    config.load(APP, {"PATH": "/bin", "MY_SIDECAR_PORT": "1", "SIDECARS": "2"})


@pytest.mark.parametrize(
    "name",
    [
        "SIDECAR_SERVICE_HOST",
        "SIDECAR_SERVICE_PORT_HTTP",
        "SIDECAR_ML_SERVICE_PORT",
        "SIDECAR_PORT_80_TCP_ADDR",
        "SIDECAR_ORDERS_PORT_80_TCP",
    ],
)
def test_what_kubernetes_sets_for_a_service_named_sidecar_is_passed_over(name: str) -> None:
    config.load(APP, {name: "10.0.0.1"})


@pytest.mark.parametrize("name", ["", "ORDERS_", "ORDERS_ML_", "HTTP_", "GRPC_", "PEER_", "API_TOKEN_"])
@pytest.mark.parametrize("value", ["tcp://10.96.0.7:50001", "udp://[fd00::7]:53", "sctp://10.96.0.7:7"])
def test_the_port_of_such_a_service_is_passed_over_also_where_a_setting_is_called_so(name: str, value: str) -> None:
    assert config.load(APP, {f"SIDECAR_{name}PORT": value}) == config.load(APP, {})


def test_a_port_that_is_no_service_is_a_mistake() -> None:
    assert refusal(APP, {"SIDECAR_PORT": "80"}).startswith("'SIDECAR_PORT' is not a variable of the sidecar")
    assert refusal(APP, {"SIDECAR_HTTP_PORT": "tcp"}).startswith("SIDECAR_HTTP_PORT: 'tcp' is not a port")


def test_an_unknown_flag_name_is_refused() -> None:
    assert refusal({**APP, "http_prot": "1"}) == "'http_prot' is not a setting: did you mean http_port?"


# The file itself


def test_a_file_that_is_not_there_is_named_with_who_asked_for_it(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    problem = f"cannot read {path}: no such file or directory"
    assert refusal({**APP, "config": str(path)}) == f"--config: {problem}"
    assert refusal(APP, {"SIDECAR_CONFIG": str(path)}) == f"SIDECAR_CONFIG: {problem}"


def test_a_directory_is_no_config_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").mkdir()
    assert refusal({**APP, "config": str(tmp_path / "s.yaml")}).endswith("s.yaml: is a directory")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    text = refusal({**APP, **written(tmp_path, "s.json", "{}")})
    assert text.endswith("s.json: the name of a config file ends in .yaml, .yml or .toml")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "s.yaml",
            "app_id: a\nhttp_port: [1",
            "not valid YAML: expected ',' or ']', but got '<stream end>' (at line 2)",
        ),
        (
            "s.yaml",
            "a: 1\n\tb: 2",
            "not valid YAML: found character '\\t' that cannot start any token (at line 2)",
        ),
        ("s.yaml", "http_port: \x01", "not valid YAML: unacceptable character #x0001"),
        ("s.yaml", "http_port: !!python/name:os.system", "not valid YAML: could not determine a constructor"),
        (
            "s.yaml",
            "http_port: 1\nhttp_port: 2",
            "not valid YAML: the key 'http_port' is given twice (at line 2)",
        ),
        ("s.yaml", "peers:\n  ml: a:1\n  ml: a:2", "not valid YAML: the key 'ml' is given twice (at line 3)"),
        ("s.yaml", "- http_port", "not a list of settings: write one `key: value` a line"),
        ("s.yaml", "just text", "not a list of settings: write one `key: value` a line"),
        ("s.toml", "http_port = ", "not valid TOML: Invalid value (at end of document)"),
        (
            "s.toml",
            "http_port = 1\nhttp_port = 2\n",
            "not valid TOML: a key is given twice (at line 2, column 14)",
        ),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, name: str, text: str, reason: str) -> None:
    assert refusal({**APP, **written(tmp_path, name, text)}).startswith(f"{tmp_path / name}: {reason}")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes(b"app_id: \xff")
    text = refusal({"config": str(tmp_path / "s.yaml")})
    assert text == f"{tmp_path / 's.yaml'}: not UTF-8 text (byte 8)"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbfapp_id: orders")
    assert config.load({"config": str(tmp_path / "s.yaml")}, {}).app_id == "orders"


# The port for a health check


def test_the_health_port_needs_no_app_id() -> None:
    assert config.http_address({}, {}) == ("127.0.0.1", 3500)
    assert config.http_address({}, {"SIDECAR_HTTP_PORT": "7"})[1] == 7
    assert config.http_address({"http_port": "8"}, {"SIDECAR_HTTP_PORT": "7"})[1] == 8
    with pytest.raises(ConfigError, match="--http-port: 'x' is not a port"):
        config.http_address({"http_port": "x"}, {})


@pytest.mark.parametrize(
    "bad", ["collector:4318", "ftp://host/x", "http://", "http:///v1/traces", "http://[::1/", "http://a\nb"]
)
def test_where_traces_go_is_a_url(bad: str) -> None:
    assert refusal({**APP, "trace_otlp": bad}).startswith("--trace-otlp: ")


def test_a_url_has_no_password_which_would_be_shown() -> None:
    said = refusal({**APP, "trace_zipkin": "https://me:canary@zipkin/api/v2/spans"})
    assert said.startswith("--trace-zipkin: ")
    assert "canary" not in said
