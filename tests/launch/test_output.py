"""Lines of several processes on one terminal."""

import io
from pathlib import Path

from sidecar.launch.output import Console, Lines, both, to_file


class Closed(io.BytesIO):
    """What a pipe is whose reader has gone."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_pieces_become_lines() -> None:
    found: list[bytes] = []
    lines = Lines(found.append)
    for piece in (b"one", b" line\ntwo\r\n\nthr", b"ee"):
        lines.feed(piece)
    assert found == [b"one line", b"two", b""]
    lines.end()
    assert found[3:] == [b"three"]
    lines.feed(b"x" * 70_000)
    assert [len(line) for line in found[4:]] == [70_000]


def test_each_line_has_a_name_of_the_same_width() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    console = Console(out, err, ["orders", "ml"], colours=False)
    console.of_app("orders", error=False)(b"\xff bytes")
    console.of_app("ml", error=True)(b"oh")
    console.of_sidecar("orders")(b"ready")
    console.say("two\nlines")
    assert out.getvalue() == "orders         │ ".encode() + b"\xff bytes\n"
    assert err.getvalue().decode().splitlines() == [
        "ml             │ oh",
        "orders/sidecar │ ready",
        "sidecar        │ two",
        "sidecar        │ lines",
    ]


def test_each_app_has_a_colour_and_its_sidecar_the_same_one_dimmed() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    console = Console(out, err, ["orders", "ml"], colours=True)
    for name in ("orders", "ml"):
        console.of_app(name, error=False)(b"x")
        console.of_sidecar(name)(b"x")
    colours = [line.split("m", 1)[0] for line in out.getvalue().decode().splitlines()]
    assert len(set(colours)) == 2
    assert [line.split("\x1b[2m", 1)[1].split("m", 1)[0] for line in err.getvalue().decode().splitlines()] == colours


def test_when_nobody_reads_any_more_it_is_told_once() -> None:
    gone: list[bool] = []
    console = Console(Closed(), io.BytesIO(), ["orders"], colours=False)
    console.gone = lambda: gone.append(True)
    for _ in range(3):
        console.of_app("orders", error=False)(b"x")
    assert gone == [True]


def test_a_file_gets_the_lines_without_names(tmp_path: Path) -> None:
    found: list[bytes] = []
    emit = both(to_file(tmp_path / "logs" / "a.log"), found.append)
    emit(b"one")
    emit(b"two")
    assert (tmp_path / "logs" / "a.log").read_bytes() == b"one\ntwo\n"
    assert found == [b"one", b"two"]
