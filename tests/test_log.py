import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import structlog

from sidecar import log
from sidecar.cli import dev_ca


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    for handler in installed():
        root.removeHandler(handler)
    root.setLevel(level)
    structlog.reset_defaults()


def installed() -> list[Any]:
    return [handler for handler in logging.getLogger().handlers if handler.get_name() == "sidecar"]


class Lines:
    """The JSON lines that were written so far."""

    def __init__(self, written: io.StringIO) -> None:
        self._written = written

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._written.getvalue().splitlines()]

    def one(self) -> dict[str, Any]:
        [line] = self.all()
        return line


@pytest.fixture
def lines() -> Lines:
    written = io.StringIO()
    log.configure("json", "info")
    [handler] = installed()
    handler.setStream(written)  # what the test run puts into sys.stderr now is closed before the test starts
    return Lines(written)


def logger() -> Any:
    return structlog.get_logger()


def test_json_lines_hold_the_event_its_level_its_fields_and_the_time_in_utc(lines: Lines) -> None:
    logger().warning("peer_lost", app="ml", attempts=3, ok=False, delay=1.5, address=None)
    line = lines.one()
    written = datetime.fromisoformat(line.pop("timestamp"))
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - written) < timedelta(seconds=10)
    assert line == {
        "event": "peer_lost",
        "level": "warning",
        "app": "ml",
        "attempts": 3,
        "ok": False,
        "delay": 1.5,
        "address": None,
    }


def test_the_standard_library_logs_in_the_same_look(lines: Lines) -> None:
    logging.getLogger("some.library").error("lost %s", "it")
    line = lines.one()
    assert (line["event"], line["level"]) == ("lost it", "error")
    assert line["timestamp"].endswith("Z")
    assert set(line) == {"event", "level", "timestamp"}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_lines_under_the_level_are_left_out_for_both_kinds_of_logger(
    level: Any, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logger(), name)("ours")
        getattr(logging.getLogger("library"), name)("theirs")
    captured = capsys.readouterr()
    assert captured.out == ""
    written = [json.loads(line) for line in captured.err.splitlines()]
    assert [line["level"] for line in written if line["event"] == "ours"] == expected
    assert [line["level"] for line in written if line["event"] == "theirs"] == expected


def test_a_second_configure_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "debug")
    log.configure("json", "info")
    logger().debug("left out")
    logger().info("once")
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "once"


def test_bound_context_is_on_every_line(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(app_id="orders"):
        logger().info("inside")
    logger().info("outside")
    inside, outside = lines.all()
    assert inside["app_id"] == "orders"
    assert "app_id" not in outside


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "completionToken",
        "client_secret",
        "PASSWORD",
        "authorization",
        "input",
        "output",
        "payload_head",
    ],
)
def test_values_under_secret_names_never_reach_the_log(key: str, lines: Lines) -> None:
    logger().info("call", **{key: "canary"}, nested={"list": [{key: "canary"}]})
    logging.getLogger("library").info("call")
    ours, _ = lines.all()
    assert "canary" not in json.dumps(ours)
    assert ours[key] == "[redacted]"
    assert ours["nested"] == {"list": [{key: "[redacted]"}]}


def test_secret_names_are_hidden_in_bound_context_too(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(api_token="canary"):
        logging.getLogger("library").info("call")
    assert lines.one()["api_token"] == "[redacted]"


def test_long_texts_are_cut_and_say_how_long_they_were(lines: Lines) -> None:
    logger().info("call", instance="x" * 10_000, short="y" * 256)
    line = lines.one()
    assert line["instance"] == "x" * 256 + "… (10000 characters)"
    assert line["short"] == "y" * 256


def test_long_events_of_libraries_are_cut(lines: Lines) -> None:
    logging.getLogger("library").info("z" * 100_000)
    assert lines.one()["event"] == "z" * 1024 + "… (100000 characters)"


@pytest.mark.parametrize(
    ("mark", "escaped"),
    [
        ("\n", "\\n"),
        ("\r", "\\r"),
        ("\t", "\\t"),
        ("\x1b", "\\x1b"),
        ("\0", "\\x00"),
        ("\x7f", "\\x7f"),
        ("\x9b", "\\x9b"),
        ("\u2028", "\\u2028"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_marks_that_do_not_print_are_escaped(mark: str, escaped: str, lines: Lines) -> None:
    text = f"a{mark}b"
    logger().info(text, value=text, nested={text: [text]})
    line = lines.one()
    expected = f"a{escaped}b"
    assert (line["event"], line["value"], line["nested"]) == (expected, expected, {expected: [expected]})


def test_text_in_other_scripts_stays_as_it_is(lines: Lines) -> None:
    logger().info("call", name="Bücher 注文 🚀")
    assert lines.one()["name"] == "Bücher 注文 🚀"


def test_bytes_are_counted_and_not_shown(lines: Lines) -> None:
    logger().info("call", message=b"canary", nested=[bytearray(b"canary")])
    line = lines.one()
    assert (line["message"], line["nested"]) == ("<6 bytes>", ["<6 bytes>"])


def test_deep_and_recursive_values_end_as_text(lines: Lines) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    logger().info("call", value=loop)
    assert isinstance(lines.one()["value"]["loop"]["loop"]["loop"]["loop"], str)


def test_an_exception_is_logged_with_its_traceback_but_without_local_variables(lines: Lines) -> None:
    def fail() -> None:
        payload = "".join(["can", "ary"])
        raise ValueError(len(payload))

    for target in (logger(), logging.getLogger("library")):
        try:
            fail()
        except ValueError:
            target.exception("failed")
    ours, theirs = lines.all()
    for line in (ours, theirs):
        assert line["exception"].splitlines()[-1] == "    ValueError: 6"
        assert "in fail" in line["exception"]
        assert "canary" not in line["exception"]
        assert "exc_info" not in line


def test_the_text_of_an_exception_is_cut_and_escaped_like_any_other(lines: Lines) -> None:
    try:
        raise ValueError("\x1b[31m" + "x" * 10_000 + "\ny" * 1000)
    except ValueError:
        logger().exception("failed")
    trace = lines.one()["exception"]
    assert "\x1b" not in trace
    assert len(trace) < 60_000
    assert max(len(line) for line in trace.splitlines()) < 300
    assert len(trace.splitlines()) == 200


def console(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_the_console_shows_one_readable_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    logger().info("listening", port=50001)
    logging.getLogger("library").warning("theirs")
    first, second = console(capsys).splitlines()
    assert "[info     ] listening" in first
    assert first.endswith("port=50001")
    assert "[warning  ] theirs" in second
    assert first[:4] == second[:4] == str(datetime.now(UTC).year)


def test_the_console_has_no_colours_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    logger().error("failed", app="ml")
    assert "\x1b" not in console(capsys)


def test_the_console_shows_no_local_variables_of_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    try:
        payload = "".join(["can", "ary"])
        raise ValueError(len(payload))
    except ValueError:
        logger().exception("failed")
    written = console(capsys)
    assert "ValueError: 6" in written
    assert "canary" not in written


def test_no_client_text_can_forge_a_line_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    forged = "\n2026-01-01T00:00:00Z [info     ] all is well"
    logger().info("call", instance=forged, token="canary")
    try:
        raise ValueError(forged)
    except ValueError:
        logger().exception("failed")
    written = console(capsys)
    assert "canary" not in written
    own = [line for line in written.splitlines() if not line.startswith("    ")]
    assert len(own) == 2
    assert not any(line.startswith("2026-01-01") for line in own)


def test_a_process_writes_its_log_to_stderr_even_in_a_poor_locale() -> None:
    code = (
        "import structlog; from sidecar import log; log.configure('console', 'info');"
        "structlog.get_logger().info('started', name='\\u6ce8')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert ended.stdout == b""
    assert b"started" in ended.stderr
    assert b"Traceback" not in ended.stderr


async def test_what_the_database_driver_is_given_is_not_logged_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "debug")
    async with aiosqlite.connect(":memory:") as connection:
        await connection.execute("SELECT ?", ("canary",))
    logger().debug("seen")
    written = console(capsys)
    assert "seen" in written
    assert "canary" not in written


def test_what_any_caller_can_do_to_grpc_fills_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    """It writes a traceback for each header that is no text, and for each client that leaves while it is answered."""
    log.configure("json", "info")
    of_grpc = logging.getLogger("grpc._cython.cygrpc")
    of_grpc.error("Invalid encoding on %s", b"\xff")
    of_grpc.error("ExecuteBatchError raised in core by servicer method [%s]", "/A/B")
    of_grpc.error("Unexpected exception in thread")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "Unexpected exception in thread"
    ]


def test_each_line_names_the_app_also_those_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info", app_id="orders")
    logger().info("peer connected", app="ml")
    logging.getLogger("some.library").error("lost")
    ours, theirs = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (ours["app_id"], ours["app"], theirs["app_id"]) == ("orders", "ml", "orders")


@pytest.mark.parametrize("name", ["aiohttp.access", "asyncio", "filelock", "grpc._cython.cygrpc"])
def test_libraries_say_only_what_is_wrong_whatever_the_level(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "debug")
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger(name), level)("theirs")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == ["warning"]


def test_what_python_writes_by_itself_is_logged() -> None:
    code = (
        "import threading, warnings\nfrom sidecar import log\nlog.configure('json', 'info', app_id='orders')\n"
        "log.own_stderr()\nwarnings.warn('old')\n"
        "class Bad:\n    def __del__(self):\n        raise ValueError('late')\n"
        "Bad()\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()\nraise KeyError('lost')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["app_id"] for line in lines] == ["orders"] * 4
    assert "old" in lines[0]["event"]
    assert [line["exception"].splitlines()[-1].strip() for line in lines[1:]] == [
        "ValueError: late",
        "ZeroDivisionError: division by zero",
        "KeyError: 'lost'",
    ]


@pytest.mark.slow
def test_all_that_a_sidecar_writes_is_json_to_the_last_byte(tmp_path: Path) -> None:
    """Also where a peer's address is no sidecar's: gRPC would tell of each failed handshake in its own words."""
    dev_ca.issue(tmp_path, ["orders", "ml"], "default", "sidecar.local", 1)
    with socket.create_server(("127.0.0.1", 0)) as nothing:
        nothing.settimeout(20)
        certificates = [f"--peer-{kind}={tmp_path / name}" for kind, name in
                        (("cert", "orders.crt"), ("key", "orders.key"), ("ca", "ca.crt"))]  # fmt: skip
        command = [sys.executable, "-m", "sidecar", "run", "--app-id=orders", f"--data-dir={tmp_path}"]
        command += ["--http-port=0", "--grpc-port=0", "--peer-port=0", "--log-level=debug", "--log-format=json"]
        command += [*certificates, f"--peer=ml=127.0.0.1:{nothing.getsockname()[1]}"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "GRPC_"))}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
        for _ in range(2):
            with nothing.accept()[0] as dialled:
                dialled.recv(1000)
                dialled.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        written, errors = process.communicate(timeout=20)
    assert (process.returncode, written) == (0, "")
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {line["app_id"] for line in lines} == {"orders"}
    told = [line["event"] for line in lines if line["level"] != "debug"]
    assert (told[0], told[-1]) == ("ready", "stopped")


@pytest.fixture
def _levels_as_before() -> Iterator[None]:
    yield
    for name in log.levels():
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.usefixtures("_levels_as_before")
def test_a_logger_that_was_used_already_gets_another_level(lines: Lines) -> None:
    one, other = structlog.get_logger("sidecar.work.pool"), structlog.get_logger("sidecar.work.turns")
    one.debug("not yet")
    other.debug("not yet")
    log.set_level("sidecar.work.pool", "debug")
    one.debug("seen")
    other.debug("not this one")
    log.set_level("sidecar.work.pool", "error")
    one.warning("no more")
    log.set_level("sidecar.work.pool", "default")
    one.info("as before")
    told = [line for line in lines.all() if line["event"] == "the level of a logger was changed"]
    assert [line["to"] for line in told] == ["debug", "error", "default"]
    assert all(line["of"] == "sidecar.work.pool" for line in told)
    assert [line["event"] for line in lines.all() if line not in told] == ["seen", "as before"]


@pytest.mark.usefixtures("_levels_as_before")
def test_a_level_counts_for_all_that_is_below_a_logger_but_for_what_has_its_own(lines: Lines) -> None:
    log.set_level("sidecar", "error")
    structlog.get_logger("sidecar.work.pool").warning("too low")
    log.set_level("sidecar.work", "off")
    structlog.get_logger("sidecar.work.pool").error("off")
    structlog.get_logger("sidecar.actors.engine").error("wrong")
    logging.getLogger("sidecar.workflows").info("a workflow")
    assert [line["event"] for line in lines.all()] == ["wrong", "a workflow"]
    assert log.levels() == {"sidecar": "error", "sidecar.work": "off", "sidecar.workflows": "info"}


@pytest.mark.parametrize("name", ["", "root", "grpc", "sidecar.", "sidecar.no_such", "sidecarx", "opentelemetry"])
def test_only_own_loggers_can_be_given_a_level(name: str) -> None:
    """At lower levels libraries write payloads."""
    with pytest.raises(ValueError, match="there is no such logger"):
        log.set_level(name, "debug")


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error, off, default"):
        log.set_level("sidecar", "loud")


@pytest.mark.usefixtures("_levels_as_before")
def test_no_level_shows_secrets_or_payloads(lines: Lines) -> None:
    log.set_level("sidecar", "debug")
    structlog.get_logger("sidecar.work.pool").debug("all of it", token="canary", input="canary", body=b"canary")
    assert [line["event"] for line in lines.all()][-1] == "all of it"
    assert "canary" not in json.dumps(lines.all())
