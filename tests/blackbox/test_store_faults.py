"""The store of a real sidecar on real disks that fail: faults 1, 4 to 11 of the store.

After each fault: what was acknowledged is there (ACK), each call is answered once (ONE), everything ends (LIVE), and
callers saw true codes (CODE); the file is whole (DB); and then further workflows finish.
"""

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from sidecar.schema import taskhub_pb2 as pb
from tests.blackbox.base_load import BaseLoad
from tests.blackbox.harness import HOST, Sidecar, until
from tests.conftest import Injected

pytestmark = pytest.mark.hard

CALLS_THAT_WRITE = "pwrite64,fdatasync,fsync"


@pytest.fixture
def running(own_sidecar: Sidecar) -> Iterator[tuple[Sidecar, BaseLoad]]:
    with BaseLoad(own_sidecar.start().port) as load:
        yield own_sidecar, load


@contextlib.contextmanager
def failing(sidecar: Sidecar, fault: str, log: Path) -> Iterator[None]:
    """Let system calls of a running sidecar fail, until the end of the block."""
    calls = fault.partition(":")[0]
    tool = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={fault}"]
    process = subprocess.Popen([*tool, "-p", str(sidecar.pid)], stderr=subprocess.DEVNULL)
    until(lambda: _traced(sidecar.pid), 5, "the sidecar is traced")
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _traced(pid: int) -> bool:
    """Whether all threads are traced."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)


def injections(log: Path) -> int:
    """How often a tool has let a call fail."""
    return log.read_text().count("(INJECTED)") if log.exists() else 0


def whole(sidecar: Sidecar) -> None:
    """The file of a sidecar that is not running is whole."""
    with contextlib.closing(sqlite3.connect(database(sidecar))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def database(sidecar: Sidecar) -> Path:
    return sidecar.data / f"default.{sidecar.app}.db"


def healthy(sidecar: Sidecar) -> tuple[bool, str]:
    """What both health checks say, and why."""
    status, body = sidecar.http("/v1.0/healthz")
    with grpc.insecure_channel(f"{HOST}:{sidecar.port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = health_pb2.HealthCheckResponse.FromString(check(b"", timeout=5))
    return status == 204 and answer.status == health_pb2.HealthCheckResponse.SERVING, body.decode()


def is_well(sidecar: Sidecar) -> bool:
    return healthy(sidecar)[0]


@contextlib.contextmanager
def starting(load: BaseLoad, pause: float = 0.03) -> Iterator[None]:
    """Start workflows in the background, one after the other."""
    ending = threading.Event()

    def run() -> None:
        while not ending.wait(pause):
            load.start()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


# --- 1, 4: death around a commit -------------------------------------------------------------------------------------


@pytest.mark.fault(1, "What was acknowledged is there after a death at any write or sync, and all goes on by itself")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_at_the_nth_write_or_sync_loses_nothing(own_sidecar: Sidecar, injected: Injected) -> None:
    """One data directory for all deaths. It is made before: `tests/store` has deaths while a store is made."""
    own_sidecar.start().stop()
    deaths = 0
    end = time.monotonic() + 45
    with BaseLoad(own_sidecar.port) as load:
        for number in _steps():
            if time.monotonic() > end:
                break
            fault = f"inject={CALLS_THAT_WRITE}:signal=SIGKILL:when={number}"
            own_sidecar.prefix = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", fault]
            own_sidecar.launch()
            with starting(load):
                until(lambda: not own_sidecar.running, 30, f"dies at call {number}")
            own_sidecar.kill9()
            deaths += 1
        own_sidecar.prefix = []
        own_sidecar.start()
        count = load.all_is_right(60)
        load.and_then(10)
    own_sidecar.stop()
    whole(own_sidecar)
    injected(deaths, f"deaths at a write or sync, {count} workflows accepted")
    assert deaths >= 10
    assert count >= 10


def _steps() -> Iterator[int]:
    """Every number for a while, then larger and larger steps: the first ones are of the start, before any work."""
    number = 1
    while True:
        yield number
        number += 1 + number // 6


# --- 6: a sync that fails --------------------------------------------------------------------------------------------


@pytest.mark.fault(
    6, "Nothing of a commit whose sync fails is acknowledged; health says why, and it serves again without a restart"
)
@pytest.mark.parametrize("often", ["3", "1+"], ids=["once", "for a while"])
def test_a_sync_that_fails_loses_nothing_and_the_process_serves_again(
    running: tuple[Sidecar, BaseLoad], tmp_path: Path, injected: Injected, often: str
) -> None:
    """Fault 6: nothing of the failed batch is acknowledged, health says why; no restart is needed."""
    sidecar, load = running
    pid = sidecar.pid
    log = tmp_path / "strace.log"
    with starting(load):
        time.sleep(0.5)
        with failing(sidecar, f"fdatasync,fsync:error=EIO:when={often}", log):
            until(lambda: injections(log), 20, "a sync fails")
            if often == "1+":
                until(lambda: not is_well(sidecar), 10, "it says that it does not serve")
                reason = healthy(sidecar)[1]
                assert "disk I/O error" in reason
                time.sleep(3)
                assert not is_well(sidecar)
        until(lambda: is_well(sidecar), 10, "it serves again")
    count = load.all_is_right()
    load.and_then(10)
    injected(injections(log), f"failed syncs, {count} workflows accepted")
    assert sidecar.pid == pid
    said = [len(sidecar.logged(line)) for line in ("the store cannot be written to", "the store is written to again")]
    assert said[0] >= said[1]
    assert 1 <= said[1] <= 3, "a line at each change, not at each attempt"
    sidecar.stop()
    whole(sidecar)


@pytest.mark.fault(34, "Reads and writes that fail for some seconds lose nothing")
def test_errors_of_reads_and_writes_lose_nothing(
    running: tuple[Sidecar, BaseLoad], tmp_path: Path, injected: Injected
) -> None:
    """Fault 34: some reads and writes of the file fail, for some seconds."""
    sidecar, load = running
    log = tmp_path / "strace.log"
    with starting(load), failing(sidecar, "pwrite64,pread64:error=EIO:when=30+40", log):
        time.sleep(6)
    until(lambda: is_well(sidecar), 10, "it serves again")
    count = load.all_is_right()
    load.and_then(10)
    injected(injections(log), f"failed reads and writes, {count} workflows accepted")
    assert injections(log) >= 3
    sidecar.stop()
    whole(sidecar)


# --- 5: a full disk --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB, seen by all."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave nothing free on a disk; returns the file that does it."""
    pad = disk / "pad"
    with pad.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return pad


@pytest.mark.fault(5, "A full disk is read from and purged; starts are refused; it serves again when there is space")
def test_a_disk_that_fills_up_is_served_from_until_there_is_space_again(
    own_sidecar: Sidecar, small_disk: Path, injected: Injected
) -> None:
    """Fault 5: health is bad, reads and removing are served, starts are refused; no restart is needed."""
    own_sidecar.data = small_disk / "data"
    own_sidecar.start()
    pid = own_sidecar.pid
    with BaseLoad(own_sidecar.port) as load:
        ended = [f"w-{number}" for number in range(1, 6) if load.start(size=100_000) == "OK"]
        load.all_is_right()
        pad = fill(small_disk)
        until(lambda: load.start(size=100_000) == "RESOURCE_EXHAUSTED", 30, "starts are refused")
        assert not is_well(own_sidecar)
        assert "free space" in healthy(own_sidecar)[1]
        until(lambda: load.status(ended[0]) is not None, 10, "reads are served")
        purge = pb.PurgeInstancesRequest(instance_id=ended[0])
        until(lambda: load.call("PurgeInstances", purge)[0] == "OK", 15, "removing is served")
        del load.accepted[ended[0]]
        assert load.status(ended[0]) is None
        tried = [load.start(size=1_000) for _ in range(20)]
        assert set(tried) <= {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}
        assert not is_well(own_sidecar)
        pad.unlink()
        until(lambda: is_well(own_sidecar), 15, "it serves again")
        count = load.all_is_right(60)
        load.and_then(10)
    injected(load.seen["RESOURCE_EXHAUSTED"], f"calls refused on a full disk, {count} workflows accepted")
    assert own_sidecar.pid == pid
    own_sidecar.stop()
    whole(own_sidecar)


@pytest.mark.fault(5, "Writes that find no space lose nothing")
@pytest.mark.parametrize("calls", ["pwrite64", "ftruncate,fallocate"])
def test_a_disk_that_is_full_for_a_while_loses_nothing(
    running: tuple[Sidecar, BaseLoad], tmp_path: Path, injected: Injected, calls: str
) -> None:
    """Fault 5, in the middle of a load and of its checkpoints: each write finds no space."""
    sidecar, load = running
    log = tmp_path / "strace.log"
    with starting(load):
        time.sleep(1)
        with failing(sidecar, f"{calls}:error=ENOSPC:when=1+", log):
            time.sleep(4)
        until(lambda: is_well(sidecar), 15, "it serves again")
    count = load.all_is_right()
    load.and_then(10)
    injected(injections(log), f"writes that found no space, {count} workflows accepted")
    assert injections(log) >= (3 if calls == "pwrite64" else 0)
    sidecar.stop()
    whole(sidecar)


@pytest.mark.fault(5, "A start on a full disk is refused by name, or serves what is there")
def test_a_disk_that_is_full_at_the_start_is_refused_by_name_or_waited_for(
    own_sidecar: Sidecar, small_disk: Path
) -> None:
    """Fault 5: a store cannot be made without space; one that is there is served from."""
    own_sidecar.data = small_disk / "data"
    pad = fill(small_disk)
    refused = own_sidecar.run_command()
    assert refused.returncode == 2
    assert str(own_sidecar.data) in refused.stderr
    assert "No space left" in refused.stderr or "full" in refused.stderr
    pad.unlink()
    own_sidecar.start()
    with BaseLoad(own_sidecar.port) as load:
        load.and_then(5)
        own_sidecar.kill9()
        (own_sidecar.data / f"{database(own_sidecar).name}.reserve").unlink()
        pad = fill(small_disk)
        own_sidecar.launch()
        until(lambda: load.status("w-1") is not None, 15, "reads are served")
        assert not is_well(own_sidecar)
        pad.unlink()
        until(lambda: is_well(own_sidecar), 15, "it serves again")
        load.and_then(5)


@pytest.mark.fault(38, "SIGTERM on a full disk ends it in time with exit code 0, and nothing is lost")
def test_it_ends_in_order_on_a_full_disk(own_sidecar: Sidecar, small_disk: Path, injected: Injected) -> None:
    own_sidecar.data = small_disk / "data"
    own_sidecar.start()
    with BaseLoad(own_sidecar.port) as load:
        with starting(load):
            time.sleep(1)
            pad = fill(small_disk)
            until(lambda: load.start(size=100_000) == "RESOURCE_EXHAUSTED", 30, "starts are refused")
            own_sidecar.stop()
        pad.unlink()
        own_sidecar.start()
        load.all_is_right(60)
        load.and_then(10)
    injected(1, "SIGTERM on a full disk")


# --- 7: read-only ----------------------------------------------------------------------------------------------------


@pytest.mark.fault(7, "Callers get UNAVAILABLE with the reason; it serves again once the disk may be written to")
def test_a_disk_that_becomes_read_only_is_waited_for(
    running: tuple[Sidecar, BaseLoad], tmp_path: Path, injected: Injected
) -> None:
    """Fault 7: callers get UNAVAILABLE with the reason, and it serves again once the disk may be written to.

    What is open cannot be made read-only, so its writes are made to fail, and the directory is covered for who looks.
    """
    sidecar, load = running
    load.and_then(5)
    log, data = tmp_path / "strace.log", str(sidecar.data)
    subprocess.run(["mount", "--bind", data, data], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", data], check=True)
        with failing(sidecar, "pwrite64:error=EROFS:when=1+", log):
            until(lambda: load.start() == "UNAVAILABLE", 15)
        time.sleep(2)
        assert not is_well(sidecar)
        assert "mounted for writing" in healthy(sidecar)[1]
        assert load.call("StartInstance", pb.CreateInstanceRequest(name="base"))[0] == "UNAVAILABLE"
    finally:
        subprocess.run(["umount", data], check=True)
    until(lambda: is_well(sidecar), 15, "it serves again")
    count = load.all_is_right()
    load.and_then(10)
    injected(injections(log), f"refused writes, {count} workflows accepted")
    assert injections(log) >= 1
    sidecar.stop()


@pytest.mark.fault(7, "A start on it is refused, with the reason")
def test_a_data_directory_that_cannot_be_written_to_is_refused_at_the_start(own_sidecar: Sidecar) -> None:
    """Fault 7: no loop of crashes without a message."""
    own_sidecar.start().stop()
    data = str(own_sidecar.data)
    subprocess.run(["mount", "--bind", data, data], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", data], check=True)
        refused = own_sidecar.run_command()
    finally:
        subprocess.run(["umount", data], check=True)
    assert refused.returncode == 2
    assert data in refused.stderr
    assert "Read-only" in refused.stderr


# --- 8: a lock that another program holds ----------------------------------------------------------------------------


@pytest.mark.fault(8, "Turns wait and go on; health answers meanwhile")
def test_a_database_that_another_program_has_locked_is_waited_for(
    running: tuple[Sidecar, BaseLoad], injected: Injected
) -> None:
    """Fault 8: turns wait and go on, none runs twice at once; health and calls that read nothing answer meanwhile."""
    sidecar, load = running
    load.and_then(2)
    slowest = 0.0
    with contextlib.closing(sqlite3.connect(database(sidecar), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with starting(load, 0.5):
            end = time.monotonic() + 30
            while time.monotonic() < end:
                began = time.monotonic()
                assert is_well(sidecar), "the file is sound, and somebody else's lock will go"
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.2)
        other.execute("ROLLBACK")
    count = load.all_is_right()
    load.and_then(10)
    injected(30, f"seconds locked, {count} workflows accepted; health took {slowest * 1000:.0f} ms at most")
    assert slowest < 1.0
    sidecar.stop()
    whole(sidecar)


# --- 9: a damaged file -----------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(own_sidecar: Sidecar) -> Sidecar:
    """A sidecar that has run some workflows, and was stopped."""
    with BaseLoad(own_sidecar.start().port) as load:
        load.and_then(20)
    own_sidecar.stop()
    return own_sidecar


def header(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"\0" * 100)


def leaf(file: Path) -> None:
    with file.open("r+b") as opened:
        for page in range(4, file.stat().st_size // 4096, 7):
            opened.seek(page * 4096)
            opened.write(os.urandom(4096))


def foreign(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE cakes (name TEXT)")
        connection.commit()


@pytest.mark.fault(9, "It is refused, with the file, the check and the restore command, and left as it is")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (header, ["not a database", "sidecar store check", "sidecar store restore"]),
        (leaf, ["sidecar store check", "sidecar store restore"]),
        (lambda file: os.truncate(file, file.stat().st_size // 2), ["sidecar store check", "sidecar store restore"]),
        (foreign, ["database of another program"]),
    ],
    ids=["header", "leaf", "truncated", "foreign"],
)
def test_a_damaged_file_is_refused_with_what_to_do_and_left_as_it_is(
    stopped: Sidecar, damage: Callable[[Path], None], words: list[str]
) -> None:
    """Fault 9: the file, the check and the restore command are named."""
    file = database(stopped)
    damage(file)
    before = file.read_bytes()
    refused = stopped.run_command()
    assert refused.returncode == 2
    assert [word for word in [str(file), *words] if word not in refused.stderr] == [], refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert file.read_bytes() == before


@pytest.mark.fault(9, "A log that lost its end loses only what was in it")
def test_a_log_that_lost_its_end_loses_only_what_was_in_it(own_sidecar: Sidecar, injected: Injected) -> None:
    """Fault 9: a truncated write-ahead log is a shorter past: the file opens, and is whole."""
    with BaseLoad(own_sidecar.start().port) as load:
        load.and_then(10)
        own_sidecar.kill9()
        log = own_sidecar.data / f"{database(own_sidecar).name}-wal"
        size = log.stat().st_size
        os.truncate(log, size - 4096 * 3 - 100)
        own_sidecar.start()
        load.accepted.clear()
        load.and_then(10)
    injected(1, "log cut off")
    own_sidecar.stop()
    whole(own_sidecar)


# --- 10: two sidecars on one directory -------------------------------------------------------------------------------


@pytest.mark.fault(10, "The second one is refused, and the first does not notice")
def test_a_second_sidecar_on_one_data_directory_is_refused(
    running: tuple[Sidecar, BaseLoad], tmp_path: Path, injected: Injected
) -> None:
    """Fault 10: it ends with a message, and the first one does not notice."""
    sidecar, load = running
    second = Sidecar("orders", tmp_path)
    second.data = sidecar.data
    with starting(load):
        for _ in range(3):
            refused = second.run_command()
            assert refused.returncode == 2
            assert f"another sidecar of app 'orders' has {database(sidecar)} open" in refused.stderr
    load.all_is_right()
    load.and_then(5)
    injected(3, "starts of a second sidecar")


# --- 11: a wall clock that jumps -------------------------------------------------------------------------------------


def wall_clock_of(sidecar: Sidecar, clock: Path) -> Path:
    """The file by which the wall clock of a sidecar, not started, can be moved."""
    clock.write_text("+0")
    sidecar.environment = {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return clock


@pytest.mark.fault(11, "No timer is lost, and none fires before the wall clock shows its time")
@pytest.mark.parametrize("jump", ["+1h", "-1h", "+30d", "-1d"])
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "at a restart"])
def test_no_timer_is_lost_or_early_when_the_wall_clock_jumps(
    own_sidecar: Sidecar, tmp_path: Path, injected: Injected, jump: str, restarts: bool
) -> None:
    """Fault 11: a timer fires once the wall clock of the sidecar shows its time, not before and soon after."""
    clock = wall_clock_of(own_sidecar, tmp_path / "clock")
    with BaseLoad(own_sidecar.start().port) as load:
        load.and_then(3)
        due = time.time() + 1_800
        load.sleep_until("sleeper", due)
        load.sleep_until("soon", time.time() + 3)
        if restarts:
            own_sidecar.kill9()
        clock.write_text(jump)
        if restarts:
            own_sidecar.start()
        ahead = jump[0] == "+"
        if ahead:
            until(lambda: load.ended("sleeper"), 10, "the timer fires, since its time is past")
            until(lambda: load.ended("soon"), 5)
        else:
            time.sleep(5)
            assert not load.ended("sleeper")
            assert not load.ended("soon"), "the wall clock does not show its time"
            clock.write_text("+0")
            until(lambda: load.ended("soon"), 10, "the timer fires once its time has come again")
            assert not load.ended("sleeper")
        load.all_is_right()
        load.and_then(5)
    injected(1, f"jump of {jump}{' over a restart' if restarts else ''}")
    own_sidecar.stop()
