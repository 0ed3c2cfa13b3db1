"""Inputs that once did harm: each does none any more."""

from pathlib import Path

import pytest

from tests.fuzz import found
from tests.fuzz.run import finding

FILES = sorted(found.FINDINGS.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_input_that_did_harm_does_none_any_more(path: Path) -> None:
    target, data = found.read(path)
    assert finding(target, data) is None
