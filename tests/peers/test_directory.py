"""Where peers are: a map, a file that changes, a pattern; and that links follow it without a restart."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import settings
from sidecar.edge.peer import links as peers_module
from sidecar.peers.directory import Directory
from tests.inprocess.sidecars import Start
from tests.inprocess.world import call, until
from tests.ports import free_port


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "LOOK_SECONDS", 0.05)


def write(file: Path, text: str) -> None:
    """As a deployment does it: the new file takes the place of the old."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def test_the_map_counts_before_the_file_and_the_file_before_the_pattern(tmp_path: Path) -> None:
    file = tmp_path / "peers.yaml"
    write(file, "ml: file:2\nship: file:3\n")
    directory = Directory("default", {"ml": ("map:1",)}, pattern="{app}.x:4", file=file, read=settings.read_peers)
    found = [directory.addresses("default", app) for app in ("ml", "ship", "stock")]
    assert found == [("map:1",), ("file:3",), ("stock.x:4",)]
    assert directory.apps() == {"ml", "ship"}
    assert directory.addresses("elsewhere", "ml") == ()


def test_a_file_that_changes_is_read_again_and_a_wrong_one_leaves_what_was(tmp_path: Path) -> None:
    file = tmp_path / "peers.yaml"
    directory = Directory("default", {}, file=file, read=settings.read_peers)
    assert directory.addresses("default", "ml") == ()
    write(file, "ml: [a:1, b:2]")
    assert directory.addresses("default", "ml") == ("a:1", "b:2")
    for wrong in ("ml: nonsense", "ml: [", "- a"):
        write(file, wrong)
        assert directory.addresses("default", "ml") == ("a:1", "b:2"), wrong
    file.unlink()
    assert directory.addresses("default", "ml") == ("a:1", "b:2")
    write(file, "ml: c:3")
    assert directory.addresses("default", "ml") == ("c:3",)


def test_a_file_that_is_changed_twice_in_one_tick_of_its_clock_is_read_twice(tmp_path: Path) -> None:
    file = tmp_path / "peers.yaml"
    directory = Directory("default", {}, file=file, read=settings.read_peers)
    for address in ("a:1", "b:2"):
        file.write_text(f"ml: {address}")
        os.utime(file, ns=(0, 0))
        assert directory.addresses("default", "ml") == (address,)


async def test_an_app_that_is_written_into_the_file_is_linked_without_a_restart(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    write(file, "")
    orders = await start("orders", peer_file=file)
    ml = await start("ml")
    assert orders.sidecar.peers.connected() == []
    write(file, f'ml = "{ml.peer_address}"')
    await until(lambda: orders.sidecar.peers.connected() == ["ml"])


async def test_an_app_that_moves_is_found_at_its_new_address(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "peers.yaml"
    ml = await start("ml")
    write(file, f"ml: {ml.peer_address}")
    orders = await start("orders", peer_file=file)
    await until(lambda: orders.sidecar.peers.connected() == ["ml"])
    await ml.stop()
    moved = await start("ml", peer_port=free_port())
    write(file, f"ml: {moved.peer_address}")
    await until(lambda: orders.sidecar.peers.connected() == ["ml"])


async def test_the_second_address_of_an_app_is_tried_too(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{free_port()}", ml.peer_address)})
    await until(lambda: orders.sidecar.peers.connected() == ["ml"])


async def test_a_pattern_gives_an_address_to_an_app_that_is_asked_for(start: Start) -> None:
    port = free_port()
    orders = await start("orders", peer_pattern=f"{{app}}.localhost:{port}")
    peers = orders.sidecar.peers
    assert peers.states() == []
    assert peers.link("default", "ml") is None
    await until(lambda: not peers.states())  # nobody waits for it: not dialled for ever
    asked = asyncio.create_task(peers.linked(("default", "ml")))
    await start("ml", peer_port=port)
    async with asyncio.timeout(8.0):
        assert (await asked).peer == ("default", "ml")


async def test_what_is_shown_of_peers(start: Start) -> None:
    ml = await start("ml")
    nobody = f"127.0.0.1:{free_port()}"
    orders = await start("orders", peers={"ml": (ml.peer_address,), "ghost": (nobody,)})
    peers = orders.sidecar.peers
    await until(lambda: peers.connected() == ["ml"])
    await until(lambda: bool(peers.states()[0].error))
    ghost, linked = peers.states()
    assert (ghost.app, ghost.addresses, ghost.connected) == ("ghost", (nobody,), False)
    assert (linked.app, linked.connected, linked.error) == ("ml", True, "")
    assert 0 < ghost.since <= linked.since
    await until(lambda: [state.app for state in ml.sidecar.peers.states()] == ["orders"])


async def test_metadata_show_each_peer_and_what_waits_for_it(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    await until(lambda: orders.sidecar.peers.connected() == ["ml"])
    orders.worker(lambda events: [call(1, "score", app="ghost")] if len(events) == 2 else [])
    await orders.begin("a")

    def shown() -> list[dict[str, Any]]:
        peers: Any = orders.sidecar.metadata()["peers"]
        return list(peers)

    await until(lambda: [one["waiting"] for one in shown()] == [0, 1])
    linked, ghost = shown()
    assert (linked["appId"], linked["state"], linked["waiting"]) == ("ml", "connected", 0)
    assert linked["since"].endswith("Z")
    assert ghost == {
        "appId": "ghost",
        "addresses": [],
        "state": "no address",
        "since": None,
        "waiting": 1,
        "says": [],
        "error": "",
    }


async def test_a_file_with_an_address_off_loopback_ends_the_start_while_peers_prove_nothing(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "peers.yaml"
    write(file, "ml: 10.0.0.7:50002")
    with pytest.raises(settings.ConfigError, match=r"'ml=10\.0\.0\.7:50002' is not loopback: give --peer-cert"):
        await start("orders", peer_file=file)
    orders = await start("orders", peer_file=file, insecure_peers=True)
    assert orders.sidecar.peers.known("default", "ml")


async def test_an_address_off_loopback_that_comes_later_is_not_dialled(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "peers.yaml"
    write(file, "ml: 127.0.0.1:1")
    orders = await start("orders", peer_file=file)
    assert orders.sidecar.peers.known("default", "ml")
    write(file, "ml: 10.0.0.7:50002\nship: 127.0.0.1:2")
    assert {state.app: state.addresses for state in orders.sidecar.peers.states()} == {"ml": ("127.0.0.1:1",)}
    write(file, "ship: 127.0.0.1:2")
    assert orders.sidecar.peers.known("default", "ship")
    assert not orders.sidecar.peers.known("default", "ml")
