"""`sidecar peers`, `workers`, `version` and `doctor`: against a live sidecar, and without one."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.actors.clock import Clock
from sidecar.cli import dev_ca
from sidecar.cli.operate import doctor
from sidecar.config import settings as config
from sidecar.schema import taskhub_pb2 as pb
from tests.cli.live import Command, Ended
from tests.inprocess.sidecars import Node, Start, work_items
from tests.inprocess.world import until
from tests.ports import free_port

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
VIEWS = [["peers"], ["workers"], ["version"]]


def of(node: Node) -> list[str]:
    """The settings of a node, as far as a doctor asks for them."""
    settings = node.sidecar.settings
    peers = [f"--peer={app}={address}" for app, addresses in settings.peers.items() for address in addresses]
    return [
        "--app-id",
        settings.app_id,
        "--data-dir",
        str(settings.data_dir),
        "--http-port",
        str(node.ports.http),
        *peers,
    ]


def findings(ended: Ended) -> dict[str, list[str]]:
    """The texts of findings that are no "ok" or "note", by level."""
    found: dict[str, list[str]] = {}
    for row in ended.data:
        if row["level"] not in ("ok", "note"):
            assert row["advice"], row
            found.setdefault(row["level"], []).append(row["text"])
    return found


async def test_every_view_fits_its_terminal_and_a_pipe_has_no_colour(shop: Node, run: Command) -> None:
    for view in [*VIEWS, ["doctor", *of(shop)]]:
        for width in (40, 200):
            ended = await run(*view, width=width)
            assert (ended.code, ended.err) == (0, ""), view
            assert max(len(ESCAPE.sub("", line)) for line in ended.out.splitlines()) <= width, (view, width)
        assert "\x1b" not in (await run(*view)).out, view


async def test_peers_are_shown_with_what_waits_for_them_and_why(shop: Node, run: Command) -> None:
    expected = {"gone": ("connecting", 1), "ml": ("connected", 0)}
    found: dict[str, tuple[str, int]] = {}
    async with asyncio.timeout(20):
        while found != expected:
            rows = (await run("peers", "-o", "json")).data
            found = {row["appId"]: (row["state"], row["waiting"]) for row in rows}
    lines = (await run("peers")).out.splitlines()
    assert lines[0].split() == ["APP", "ID", "STATE", "SINCE", "WAITING", "ADDRESSES", "ERROR"]
    assert "127.0.0.1:1: connection refused: nothing listens there" in lines[1]


async def test_no_peer_and_no_worker_are_said_with_what_to_do(start: Start, run: Command) -> None:
    run.node = await start("alone")
    assert "--peer, --peer-file and --peer-pattern name them" in (await run("peers")).err
    await run.node.begin("w", "flow")
    ended = await run("workers")
    assert "no worker is connected to the sidecar of app 'alone' at 127.0.0.1:" in ended.err
    assert ended.out.startswith("1 item of workflow 'flow' waiting: no worker is connected")


async def test_workers_are_shown_with_what_each_takes_and_has(start: Start, run: Command) -> None:
    run.node = node = await start("orders")
    names = pb.WorkItemFilters(
        orchestrations=[pb.WorkItemFilter(name="flow")], activities=[pb.WorkItemFilter(name="charge")]
    )
    await work_items(node.channel, pb.GetWorkItemsRequest(filters=names).SerializeToString())
    await until(lambda: node.sidecar.dispatch.pool.workers)
    await node.begin("w", "flow")
    await until(lambda: node.sidecar.dispatch.pool.workers[0].turns)
    [row] = (await run("workers", "-o", "json")).data["workers"]
    assert (row["workflows"], row["activities"], row["entities"]) == (["flow"], ["charge"], [])
    assert row["has"] == {"workflows": 1, "activities": 0, "entities": 0}
    line = (await run("workers")).out.splitlines()[1]
    assert re.split(r" {2,}", line)[1:] == ["default", "1 workflows", "flow", "charge", "none"]


async def test_version_says_what_runs_and_that_nothing_does(start: Start, run: Command) -> None:
    run.node = await start("orders")
    assert (await run("version", "-o", "json")).data["sidecar"] == config.version()
    assert "sidecar: not running" in (await run("version", "--grpc-port", "1", at=False)).out


# doctor


async def test_a_sidecar_that_is_well_has_nothing_to_be_mended(start: Start, run: Command) -> None:
    run.node = node = await start("orders")
    node.worker()
    await until(lambda: node.sidecar.dispatch.pool.workers)
    ended = await run("doctor", *of(node), "-o", "json")
    assert (ended.code, findings(ended)) == (0, {})
    areas = {row["area"] for row in ended.data}
    assert areas >= {"version", "configuration", "certificates", "disk", "sidecar", "clock", "ports", "workers"}


async def test_what_the_sidecar_knows_of_peers_workers_and_files_is_found(
    start: Start, run: Command, tmp_path: Path
) -> None:
    peers = tmp_path / "peers.yaml"
    peers.write_text("gone: 127.0.0.1:1\n")
    run.node = node = await start("orders", peer_file=peers)
    await node.begin("w", "flow")
    peers.write_text("gone: [")
    node.sidecar.read_files()
    await asyncio.sleep(0.3)
    ended = await run("doctor", *of(node), "-o", "json")
    warnings = " ".join(findings(ended)["warning"])
    assert ended.code == 0
    assert "peers.yaml is wrong, and what it said before counts" in warnings
    assert "app 'gone': connecting" in warnings
    assert "0 workers connected" in warnings
    assert "1 item of workflow 'flow' waiting: no worker is connected" in warnings


async def test_the_sidecar_of_another_app_on_the_port_is_an_error(start: Start, run: Command) -> None:
    run.node = await start("ml")
    ended = await run("doctor", "--app-id", "orders", "--http-port", str(run.node.ports.http), "-o", "json")
    assert ended.code == 1
    assert "answers the sidecar of app 'ml' in namespace 'default'" in findings(ended)["error"][0]


async def test_without_a_sidecar_its_ports_and_peers_are_looked_at(start: Start, run: Command, tmp_path: Path) -> None:
    ml = await start("ml")
    taken = ml.ports.http
    arguments = ["--app-id", "orders", "--data-dir", str(tmp_path), "--grpc-port", str(free_port())]
    arguments += ["--http-port", str(taken), "--peer-port", str(free_port())]
    arguments += ["--peer", f"ml={ml.peer_address}", "--peer", "gone=127.0.0.1:1"]
    ended = await run("doctor", *arguments, "-o", "json")
    found = findings(ended)
    assert ended.code == 1
    assert "no sidecar answers at 127.0.0.1" in found["error"][0]
    assert found["error"][1] == f"cannot listen on 127.0.0.1:{taken}: Address already in use"
    assert found["warning"] == ["app 'gone' at 127.0.0.1:1: connection refused"]


async def test_a_wrong_setting_is_an_error_with_its_source(run: Command) -> None:
    ended = await run("doctor", "--app-id", "orders", "--http-port", "x", "-o", "json")
    [error] = findings(ended)["error"]
    assert (ended.code, error.startswith("--http-port: 'x' is not a port")) == (1, True)


async def test_a_token_file_counts_alone_and_the_data_stay_data(
    start: Start, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("canary\n")
    run.node = node = await start("orders", api_token_file=tokens)
    monkeypatch.setenv("SIDECAR_API_TOKEN", "another")
    monkeypatch.setenv("SIDECAR_API_TOKEN_FILE", str(tokens))
    for view in (["peers"], ["doctor", *of(node)]):
        assert isinstance((await run(*view, "-o", "json")).data, list), view
    tokens.unlink()
    ended = await run("doctor", *of(node), "-o", "json")
    assert (ended.code, findings(ended)["error"]) == (1, [f"cannot read {tokens}: no such file or directory"])


@pytest.mark.parametrize(
    ("setting", "text", "level"),
    [
        ("policy", None, "error"),
        ("policy", "default: perhaps", "error"),
        ("policy", "default: deny", ""),
        ("peer_file", None, "warning"),
        ("peer_file", "ml: [", "error"),
        ("peer_file", "ml: 10.0.0.7:1", "error"),
        ("peer_file", "ml: 127.0.0.1:1", ""),
    ],
)
def test_files_of_policy_and_peers_are_looked_at(tmp_path: Path, setting: str, text: str | None, level: str) -> None:
    file = tmp_path / "file.yaml"
    if text is not None:
        file.write_text(text)
    found = list(doctor.files(config.load({"app_id": "orders", setting: str(file)}, {})))
    assert [one.level.value for one in found if one.advice] == [level] * bool(level)


def test_certificates_are_looked_at_before_they_end(tmp_path: Path) -> None:
    dev_ca.issue(tmp_path, ["orders"], "default", "sidecar.local", 30)
    names = {"peer_cert": "orders.crt", "peer_key": "orders.key", "peer_ca": "ca.crt"}
    settings = config.load({"app_id": "orders"} | {name: str(tmp_path / file) for name, file in names.items()}, {})

    def at(days: float) -> dict[str, str]:
        now = datetime.now(UTC) + timedelta(days=days)
        found = doctor.proofs(settings, round(now.timestamp() * 1e6))
        return {one.text.split()[0]: one.level.value for one in found}

    assert at(0) == {"--peer-cert": "ok", "--peer-ca": "ok"}
    assert at(20) == {"--peer-cert": "warning", "--peer-ca": "ok"}
    assert at(31) == {"--peer-cert": "error", "--peer-ca": "ok"}
    (tmp_path / "orders.key").write_text("nonsense")
    assert next(doctor.proofs(settings, Clock().now())).level.value == "error"


def test_a_clock_that_was_set_back_and_a_full_disk_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"app_id": "orders", "data_dir": str(tmp_path)}, {})
    (tmp_path / "default.orders.db").touch()
    now = Clock().now()
    assert [one.level.value for one in doctor.disk(settings, now)] == ["ok", "ok"]
    assert [one.level.value for one in doctor.disk(settings, now - 3_600_000_000)] == ["ok", "ok", "warning"]
    monkeypatch.setattr(doctor, "_VERY_FEW_BYTES", 1 << 60)
    assert [one.level.value for one in doctor.disk(settings, now)] == ["error", "ok"]
    monkeypatch.setattr(doctor, "_VERY_FEW_BYTES", 0)
    monkeypatch.setattr(doctor, "_FEW_BYTES", 1 << 60)
    assert [one.level.value for one in doctor.disk(settings, now)] == ["warning", "ok"]


@pytest.mark.parametrize(("apart", "level"), [(0, "ok"), (1.9, "ok"), (-30, "warning"), (61, "error")])
def test_clocks_that_are_apart_are_found(apart: float, level: str) -> None:
    now = Clock().now()
    [found] = doctor.clock(now + round(apart * 1e6), now)
    assert (found.level.value, bool(found.advice)) == (level, level != "ok")
