"""The list of the sidecars of a machine: who is in it, whoever comes, goes or dies at the same moment."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock

from sidecar.config import settings
from sidecar.config.settings import StartError
from sidecar.daprd.neighbours import Neighbours

HOLDS_THE_LOCK = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "peers.yaml"


@pytest.fixture
def listening() -> Iterator[list[str]]:
    """Addresses at which somebody listens."""
    with ExitStack() as open_ones:
        made = [open_ones.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(24)]
        yield [f"127.0.0.1:{one.getsockname()[1]}" for one in made]


def peers(file: Path) -> dict[str, tuple[str, ...]]:
    return dict(settings.read_peers(file, stay_here=True))


@pytest.fixture
def dead() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_an_entry_is_made_and_taken_back(file: Path, listening: list[str]) -> None:
    orders, ml = Neighbours(file, "orders"), Neighbours(file, "ml")
    orders.enter(listening[0])
    ml.enter(listening[1])
    assert peers(file) == {"orders": (listening[0],), "ml": (listening[1],)}
    orders.leave(listening[0])
    assert peers(file) == {"ml": (listening[1],)}


def test_an_entry_that_another_has_made_stays(file: Path, listening: list[str]) -> None:
    Neighbours(file, "orders").enter(listening[0])
    Neighbours(file, "orders").enter(listening[1])
    Neighbours(file, "orders").leave(listening[0])
    assert peers(file) == {"orders": (listening[1],)}


def test_nobody_is_lost_where_many_come_at_once(file: Path, listening: list[str]) -> None:
    with ThreadPoolExecutor(len(listening)) as pool:
        list(pool.map(lambda at: Neighbours(file, f"app-{at[0]}").enter(at[1]), enumerate(listening)))
    assert peers(file) == {f"app-{number}": (address,) for number, address in enumerate(listening)}


def test_whoever_reads_meanwhile_reads_a_whole_list(file: Path, listening: list[str]) -> None:
    Neighbours(file, "first").enter(listening[0])
    with ThreadPoolExecutor(4) as pool:
        coming = [
            pool.submit(Neighbours(file, f"app-{number}").enter, address)
            for number, address in enumerate(listening[1:], 1)
        ]
        while not all(one.done() for one in coming):
            assert peers(file)["first"] == (listening[0],)
    assert len(peers(file)) == len(listening)


def test_who_has_died_with_the_lock_holds_up_nobody(file: Path, listening: list[str]) -> None:
    file.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDS_THE_LOCK, f"{file}.lock"], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with ThreadPoolExecutor(1) as pool:
            entering = pool.submit(Neighbours(file, "orders").enter, listening[0])
            holder.send_signal(signal.SIGKILL)
            entering.result(60)
    assert peers(file) == {"orders": (listening[0],)}


def test_a_lock_that_somebody_keeps_is_said(file: Path, listening: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.daprd.neighbours._LOCK_SECONDS", 0.1)
    file.parent.mkdir()
    with FileLock(f"{file}.lock"), pytest.raises(StartError, match=r"peers.yaml: another process has had the lock"):
        Neighbours(file, "orders").enter(listening[0])


def test_what_somebody_has_left_half_written_is_not_read(file: Path, listening: list[str]) -> None:
    file.parent.mkdir()
    Path(f"{file}.new").write_text('# Where\n{"or')
    Neighbours(file, "orders").enter(listening[0])
    assert peers(file) == {"orders": (listening[0],)}


def test_the_next_who_comes_removes_entries_of_the_dead(file: Path, listening: list[str], dead: str) -> None:
    moved = listening[2]
    Neighbours(file, "killed").enter(dead)
    Neighbours(file, "moved").enter(moved)
    Neighbours(file, "orders").enter(listening[0])
    assert peers(file) == {"moved": (moved,), "orders": (listening[0],)}
    Neighbours(file, "ml").enter(moved)  # a port is free again, and another app has it
    assert peers(file) == {"orders": (listening[0],), "ml": (moved,)}


def test_an_entry_for_another_machine_is_not_asked_about(file: Path, listening: list[str]) -> None:
    file.parent.mkdir()
    file.write_text("far: [192.0.2.1:50002]\n")
    Neighbours(file, "orders").enter(listening[0])
    assert dict(settings.read_peers(file)) == {"far": ("192.0.2.1:50002",), "orders": (listening[0],)}
    with pytest.raises(ValueError, match="is not loopback"):
        peers(file)


def test_names_that_differ_only_in_case_are_refused_while_both_live(
    file: Path, listening: list[str], dead: str
) -> None:
    Neighbours(file, "orders").enter(listening[0])
    with pytest.raises(StartError, match="'orders' and this app's ID 'Orders' differ only in case"):
        Neighbours(file, "Orders").enter(listening[1])
    Neighbours(file, "orders").enter(dead)
    Neighbours(file, "Orders").enter(listening[1])
    assert peers(file) == {"Orders": (listening[1],)}


@pytest.mark.parametrize("name", ["on", "null", "7", "-"])
def test_any_app_id_is_read_back(file: Path, listening: list[str], name: str) -> None:
    Neighbours(file, name).enter(listening[0])
    assert peers(file) == {name: (listening[0],)}


def test_a_list_that_is_wrong_is_left_alone(file: Path, listening: list[str]) -> None:
    file.parent.mkdir()
    file.write_text("orders: [")
    with pytest.raises(StartError, match="correct the file, or remove it"):
        Neighbours(file, "orders").enter(listening[0])
    assert file.read_text() == "orders: ["


def test_a_folder_that_cannot_be_had_is_said(tmp_path: Path, listening: list[str]) -> None:
    (tmp_path / "home").write_text("no folder")
    with pytest.raises(StartError, match=r"cannot write .*peers\.yaml"):
        Neighbours(tmp_path / "home" / "peers.yaml", "orders").enter(listening[0])


def test_the_list_is_for_its_user_alone(file: Path, listening: list[str]) -> None:
    Neighbours(file, "orders").enter(listening[0])
    modes = {one.stat().st_mode & 0o777 for one in file.parent.iterdir()}
    assert modes == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700
