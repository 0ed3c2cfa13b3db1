"""The page about `daprd` says what is so."""

from pathlib import Path

import pytest

from sidecar.daprd import configuration, flags, main

PAGE = (Path(__file__).parents[2] / "docs" / "daprd.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("flag", sorted(flags.USED | {"version", "build-info", "help", "log-as-json"}))
def test_every_flag_that_means_something_has_a_row(flag: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `--")]
    assert any(f"`--{flag}`" in row for row in rows)


@pytest.mark.parametrize("key", [*configuration._ENDS, "maxConcurrentWorkflowInvocations"])
def test_every_key_of_the_configuration_is_named(key: str) -> None:
    assert key in PAGE


def test_the_version_is_that_of_the_page() -> None:
    assert f"served, {main.VERSION};" in PAGE
