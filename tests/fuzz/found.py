"""Inputs that found something, as files: the target, what was wrong, and the input in hex."""

import textwrap
from pathlib import Path

from tests.fuzz.targets import BY_NAME, Target

FINDINGS = Path(__file__).parent / "findings"


def write(path: Path, target: Target, wrong: str, data: bytes) -> None:
    """Keep an input."""
    path.write_text("\n".join([f"target {target.name}", f"wrong {wrong}", *textwrap.wrap(data.hex(), 118)]) + "\n")


def read(path: Path) -> tuple[Target, bytes]:
    """Return the target and the input of a file."""
    first, _, *rest = path.read_text().splitlines()
    return BY_NAME[first.removeprefix("target ")], bytes.fromhex("".join(rest))
