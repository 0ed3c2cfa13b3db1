from pathlib import Path

import pytest

from sidecar.work.memory import Memory, limit_of_system

MIB = 2**20


def group(root: Path, path: str, name: str, text: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def found(root: Path, own: str) -> int | None:
    file = root / "own"
    file.write_text(own)
    return limit_of_system(root, file)


def test_the_smallest_limit_of_the_groups_around_counts(tmp_path: Path) -> None:
    group(tmp_path, "a", "memory.max", f"{300 * MIB}\n")
    group(tmp_path, "a/b", "memory.max", "max\n")
    assert found(tmp_path, "0::/a/b\n") == 300 * MIB
    group(tmp_path, "a/b", "memory.max", f"{200 * MIB}\n")
    assert found(tmp_path, "0::/a/b\n") == 200 * MIB


def test_in_a_container_the_root_is_the_own_group(tmp_path: Path) -> None:
    group(tmp_path, "", "memory.max", f"{256 * MIB}\n")
    assert found(tmp_path, "0::/docker/0123\n") == 256 * MIB


def test_the_first_version_of_groups_is_known_too(tmp_path: Path) -> None:
    group(tmp_path, "memory/a", "memory.limit_in_bytes", f"{128 * MIB}\n")
    group(tmp_path, "memory", "memory.limit_in_bytes", "9223372036854771712\n")
    assert found(tmp_path, "5:cpu:/x\n4:memory:/a\n") == 128 * MIB


@pytest.mark.parametrize("own", ["", "nonsense\n", "0::/\n", "4:memory:/\n"])
def test_without_a_limit_there_is_none(tmp_path: Path, own: str) -> None:
    group(tmp_path, "memory", "memory.limit_in_bytes", "9223372036854771712\n")
    assert found(tmp_path, own) is None


def test_memory_is_short_from_the_high_mark_until_below_the_low_one() -> None:
    used, relieved = [0], []
    watched = Memory(1000, lambda: relieved.append(used[0]), lambda: used[0])
    for now, short in ((850, False), (851, True), (820, True), (800, True), (799, False), (840, False), (900, True)):
        used[0] = now
        watched.look()
        assert watched.short is short, now
    assert relieved == [851, 820, 800, 900]


def test_without_a_limit_memory_is_never_short() -> None:
    watched = Memory(None, lambda: pytest.fail("nothing to do"), lambda: 2**60)
    watched.look()
    assert not watched.short
