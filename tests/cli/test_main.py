import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import sidecar
from sidecar.cli import health as health_check
from sidecar.cli import main
from sidecar.config import options
from sidecar.config.settings import Settings, StartError
from sidecar.edge.http.surface import HttpSurface
from sidecar.edge.security.api_tokens import ApiTokens
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Settings], int]], None]:
    """Puts a function in the place of the sidecar itself."""

    def install(run: Callable[[Settings], int]) -> None:
        stand_in = ModuleType("sidecar.app")
        stand_in.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sidecar.app", stand_in)
        monkeypatch.setattr(sidecar, "app", stand_in, raising=False)

    return install


Install = Callable[[Callable[[Settings], int]], None]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


# run


def test_run_hands_the_settings_to_the_sidecar_and_returns_its_exit_code(
    runs: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Settings] = []
    runs(lambda settings: seen.append(settings) or 7)  # type: ignore[func-returns-value]
    (tmp_path / "s.yaml").write_text("namespace: shop\nhttp_port: 1\n")
    monkeypatch.setenv("SIDECAR_HTTP_PORT", "3")
    arguments = ["run", "--app-id", "orders", "--config", str(tmp_path / "s.yaml"), "--insecure-peers"]
    arguments += ["--grpc-port", "0", "--grpc-port", "5", "--peer", "ml=a:1", "--peer", "ship=b:2,c:3"]
    assert main.main(arguments) == 7
    [settings] = seen
    assert (settings.app_id, settings.namespace, settings.http_port) == ("orders", "shop", 3)
    assert (settings.grpc_port, settings.insecure_peers) == ((0, 5), True)
    assert dict(settings.peers) == {"ml": ("a:1",), "ship": ("b:2", "c:3")}


def test_a_flag_can_take_a_switch_back(runs: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []
    runs(lambda settings: seen.append(settings) or 0)  # type: ignore[func-returns-value]
    monkeypatch.setenv("SIDECAR_INSECURE_PEERS", "true")
    assert main.main(["run", "--app-id", "orders", "--no-insecure-peers"]) == 0
    assert seen[0].insecure_peers is False


def test_a_start_that_fails_ends_with_one_line_and_exit_code_2(
    runs: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_settings: Settings) -> int:
        raise StartError("port 3500 is taken")

    runs(run)
    assert main.main(["run", "--app-id", "orders"]) == 2
    assert capsys.readouterr() == ("", "sidecar: port 3500 is taken\n")


def test_a_wrong_setting_ends_with_one_line_and_exit_code_2() -> None:
    ended = process("run", "--app-id", "or/ders")
    assert (ended.returncode, ended.stdout) == (2, "")
    allowed = "letters (a-z, A-Z), digits, '-' and '_', 1 to 256 characters"
    assert ended.stderr == f"sidecar: --app-id: 'or/ders' is not allowed: use only {allowed}\n"


def test_a_missing_app_id_ends_with_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run"]) == 2
    expected = "sidecar: no app ID: give --app-id, SIDECAR_APP_ID, or app_id in the config file\n"
    assert capsys.readouterr() == ("", expected)


def test_an_unknown_flag_ends_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--app-idd", "orders"]) == 2
    written = capsys.readouterr().err
    assert "No such option: --app-idd" in written
    assert "--app-id" in written
    assert "Traceback" not in written


def test_an_error_of_our_own_keeps_its_traceback(runs: Install) -> None:
    def run(_settings: Settings) -> int:
        raise RuntimeError("a bug")

    runs(run)
    with pytest.raises(RuntimeError, match="a bug"):
        main.main(["run", "--app-id", "orders"])


# Help and version


def test_the_command_alone_prints_its_help() -> None:
    ended = process()
    written = ended.stdout + ended.stderr
    for word in ("run", "health", "config", "--version"):
        assert re.search(rf"^  {word} ", written, re.MULTILINE)


def test_the_help_of_run_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--help"]) == 0
    written = " ".join(capsys.readouterr().out.split())
    for option in options.OPTIONS:
        assert (f"{option.flag} " in written) != option.secret
        assert (option.help in written) != option.secret
    assert "[default: 50001,4001]" in written
    assert "SIDECAR_APP_ID" in written


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


# config


def test_config_prints_each_value_with_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text("peer_port = 1\n")
    monkeypatch.setenv("SIDECAR_HTTP_PORT", "3")
    arguments = ["config", "--app-id", "orders", "--config", str(tmp_path / "s.toml"), "--peer", "ml=[::1]:5"]
    assert main.main(arguments) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["app_id", "orders", "--app-id"] in rows
    assert ["http_port", "3", "SIDECAR_HTTP_PORT"] in rows
    assert ["peer_port", "1", f"{tmp_path}/s.toml:", "peer_port"] in rows
    assert ["peers", "ml=[::1]:5", "--peer"] in rows
    assert ["drain_timeout", "5s", "default"] in rows


def test_config_prints_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", "--app-id", "orders", "--peer", "ml=127.0.0.1:1", "--output", "json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert set(written) == set(Settings.__dataclass_fields__)
    assert written["app_id"] == {"value": "orders", "source": "--app-id"}
    assert written["peers"] == {"value": {"ml": ["127.0.0.1:1"]}, "source": "--peer"}
    assert written["data_dir"] == {"value": "sidecar-data", "source": "default"}
    assert written["activity_timeout"] == {"value": None, "source": "default"}


@pytest.mark.parametrize("form", ["short", "wide", "json", "yaml"])
def test_config_does_not_print_the_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("SIDECAR_API_TOKEN", "canary")
    assert main.main(["config", "--app-id", "orders", "--output", form]) == 0
    written = capsys.readouterr().out
    assert "canary" not in written
    assert "(hidden)" in written
    assert "SIDECAR_API_TOKEN" in written


def test_a_token_is_not_taken_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--app-id", "orders", "--api-token", "canary"]) == 2
    assert "canary" not in capsys.readouterr().err


def test_config_refuses_what_run_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", "--app-id", "orders", "--http-port", "x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sidecar: --http-port: 'x' is not a port")


# health


class Shown:
    def __init__(self, ready: bool) -> None:
        self._ready = ready

    def ready(self) -> bool:
        return self._ready

    def trouble(self) -> str:
        return ""

    def metadata(self) -> dict[str, object]:
        return {}


async def health(view: Shown, *arguments: str) -> int:
    surface = HttpSurface(view, ApiTokens(None, None))
    port = await surface.start("127.0.0.1", 0)
    try:
        return await asyncio.to_thread(main.main, ["health", "--http-port", str(port), *arguments])
    finally:
        await surface.stop()


async def test_health_of_a_ready_sidecar_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert await health(Shown(ready=True)) == 0
    assert capsys.readouterr() == ("sidecar: ready\n", "")


async def test_health_of_a_sidecar_that_is_not_ready_is_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await health(Shown(ready=False)) == 1
    expected = "sidecar: not ready: the sidecar is not ready: it is starting or stopping\n"
    assert capsys.readouterr() == ("", expected)


def test_health_of_nothing_is_exit_code_1() -> None:
    port = free_port()
    ended = process("health", "--http-port", str(port))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"sidecar: no answer on 127.0.0.1:{port}: Connection refused\n"


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A port on which one caller gets these bytes and no more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "not ready: HTTP status 200"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]", "not ready: HTTP status 500"),
        (b'HTTP/1.1 500 No\r\nContent-Length: 17\r\n\r\n{"message":"a\\n"}', "not ready: a"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer on 127.0.0.1:PORT: SSH-2.0-OpenSSH"),
        (b"", "no answer on 127.0.0.1:PORT: it closed the connection without an answer"),
    ],
)
def test_health_of_something_else_is_exit_code_1_and_one_line(
    reply: bytes, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(reply) as port:
        assert main.main(["health", "--http-port", str(port)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.rstrip() == f"sidecar: {expected.replace('PORT', str(port))}"


def test_health_of_a_sidecar_that_hangs_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health_check, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert main.main(["health", "--http-port", str(silent.getsockname()[1])]) == 1
    assert "timed out" in capsys.readouterr().err


def test_health_takes_the_port_from_the_same_sources_as_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text("http_port: 1\n")
    assert main.main(["health", "--config", str(tmp_path / "s.yaml")]) == 1
    assert "127.0.0.1:1:" in capsys.readouterr().err
    monkeypatch.setenv("SIDECAR_HTTP_PORT", "2")
    assert main.main(["health", "--config", str(tmp_path / "s.yaml")]) == 1
    assert "127.0.0.1:2:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("port", "expected"),
    [("x", "--http-port: 'x' is not a port"), ("0", "the HTTP port is 0, any free one: name the real one")],
)
def test_health_without_a_usable_port_is_exit_code_1(
    port: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["health", "--http-port", port]) == 1
    assert capsys.readouterr().err.startswith(f"sidecar: {expected}")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("127.0.0.1", 3500)),
        ({"SIDECAR_HTTP_PORT": "7", "SIDECAR_LISTEN_HOST": "localhost"}, ("127.0.0.1", 7)),
        ({"SIDECAR_LISTEN_HOST": "[::1]"}, ("::1", 3500)),
        ({"SIDECAR_LISTEN_HOST": "::"}, ("127.0.0.1", 3500)),
        ({"SIDECAR_CONFIG": "s.yaml"}, None),
        ({"SIDECAR_HTTP_PORT": "0"}, None),
        ({"SIDECAR_HTTP_PORT": "tcp://10.0.0.1:80"}, None),
    ],
)
def test_health_knows_its_address_from_the_environment_or_leaves_it_to_the_settings(
    variables: dict[str, str], expected: tuple[str, int] | None
) -> None:
    assert health_check.of_environment(variables) == expected


async def test_a_health_check_loads_next_to_nothing() -> None:
    surface = HttpSurface(Shown(ready=True), ApiTokens(None, None))
    port = await surface.start("127.0.0.1", 0)
    code = (
        "import atexit, sys; from sidecar.__main__ import main; sys.argv = ['sidecar', 'health'];"
        "atexit.register(lambda: print(*sys.modules)); main()"
    )
    environ = os.environ | {"SIDECAR_HTTP_PORT": str(port)}
    try:
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
        )
    finally:
        await surface.stop()
    ready, modules = ended.stdout.splitlines()
    assert ready == "sidecar: ready"
    ours = {name for name in modules.split() if name.startswith("sidecar.")}
    assert ours == {
        "sidecar.__main__",
        "sidecar.cli",
        "sidecar.cli.health",
        "sidecar.config",
        "sidecar.config.own_address",
    }
    assert set(modules.split()).isdisjoint({"typer", "http.client", "json", "re", "typing", "asyncio", "ipaddress"})


# Start-up


def test_the_command_line_loads_nothing_that_only_a_server_or_a_table_needs() -> None:
    code = (
        "import sys; from sidecar.cli import main as cli; cli.main(['run', '--app-id', 'a/b']);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert "typer" in loaded
    assert loaded.isdisjoint({"rich", "aiohttp", "grpc", "structlog", "yaml", "asyncio"})
