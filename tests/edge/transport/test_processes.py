"""Who is at the other end of a connection, and whether that process lives. The processes are real."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Set

import pytest

from sidecar.edge.transport import processes

_CLIENT = "import socket, sys, time; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); time.sleep(60)"


def alive(remote: processes.Remote) -> bool | None:
    [found] = processes.living([remote])
    return found


def found_at(peer: str) -> processes.Remote | None:
    return processes.find([peer]).get(peer)


@pytest.fixture(params=["127.0.0.1", "::1"])
def client(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that is connected, and its address as grpc writes it."""
    host = str(request.param)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen()
        process = subprocess.Popen([sys.executable, "-c", _CLIENT, host, str(listening.getsockname()[1])])
        connection, address = listening.accept()
        with connection:
            yield process, f"ipv6:[{address[0]}]:{address[1]}" if ":" in host else f"ipv4:{address[0]}:{address[1]}"
        process.kill()
        process.wait()


def test_a_process_that_was_killed_is_seen_to_be_dead(client: tuple[subprocess.Popen[bytes], str]) -> None:
    process, peer = client
    found = found_at(peer)
    assert found is not None
    assert (found.pid, alive(found)) == (process.pid, True)
    process.kill()
    time.sleep(0.2)
    assert alive(found) is False, "a zombie is dead, before anybody has waited for it"
    process.wait()
    assert (alive(found), found_at(peer)) == (False, None)


def test_a_process_that_stands_still_lives(client: tuple[subprocess.Popen[bytes], str]) -> None:
    process, peer = client
    found = found_at(peer)
    os.kill(process.pid, signal.SIGSTOP)
    assert found is not None
    assert alive(found)


def test_one_whose_process_cannot_be_seen_lives_while_its_socket_is_held(
    client: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, peer = client
    found = found_at(peer)
    assert found is not None
    unseen = processes.Remote(found.address, found.inode)
    assert alive(unseen) is True
    process.kill()
    process.wait()
    assert alive(unseen) is None, "a connection that was closed tells nothing of its process"


@pytest.mark.parametrize("peer", ["ipv4:192.0.2.1:1", "unix:/tmp/x", "", "app ml", "ipv4:x:1", "ipv4:127.0.0.1:1"])
def test_one_that_is_elsewhere_is_nobody(peer: str) -> None:
    assert found_at(peer) is None


async def test_those_that_are_asked_for_together_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[list[str]] = []
    real = processes.find

    def find(peers: Iterable[str]) -> dict[str, processes.Remote]:
        looked.append(list(peers))
        return real(peers)

    monkeypatch.setattr(processes, "find", find)
    finder = processes.Finder()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        clients = [socket.create_connection(listening.getsockname()) for _ in range(50)]
        peers = [f"ipv4:127.0.0.1:{client.getsockname()[1]}" for client in clients]
        found = await asyncio.gather(*map(finder.find, peers))
        for client in clients:
            client.close()
    assert {one.pid for one in found if one is not None} == {os.getpid()}
    assert len(looked) <= 2


async def test_one_that_goes_while_it_looks_for_all_leaves_the_others_an_answer() -> None:
    finder = processes.Finder()
    first, second = (asyncio.create_task(finder.find(f"ipv4:127.0.0.1:{port}")) for port in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None


def test_the_table_of_sockets_is_read_once_for_all_whose_process_cannot_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, reads = processes._inodes, 0

    def counted(addresses: Set[str]) -> dict[str, str]:
        nonlocal reads
        reads += 1
        return real(addresses)

    monkeypatch.setattr(processes, "_inodes", counted)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients = [socket.create_connection(listening.getsockname()) for _ in range(20)]
        found = processes.find([f"ipv4:127.0.0.1:{client.getsockname()[1]}" for client in clients])
        unseen = [processes.Remote(one.address, one.inode) for one in found.values()]
        reads = 0
        assert processes.living(unseen) == [True] * 20
        assert reads == 1
        for client in clients:
            client.close()
    end = time.monotonic() + 10
    while processes.living(unseen) != [None] * 20 and time.monotonic() < end:
        time.sleep(0.05)  # the kernel may show one for a moment longer
    assert processes.living(unseen) == [None] * 20
    seen = [processes.Remote(one.address, one.inode, one.pid, one.started) for one in found.values()]
    reads = 0
    assert processes.living(seen) == [True] * 20
    assert reads == 0, "whose process is seen needs no table"
