"""The README says what is so: the table of settings is complete, code parses, links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

from sidecar.config import options

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.field)
def test_every_setting_has_a_row_with_its_three_names(option: options.Option) -> None:
    flag = "(none)" if option.secret else f"`{option.flag}`"
    assert f"| {flag} | `{option.variable}` | `{option.field}` |" in README


def test_no_row_is_about_a_setting_that_does_not_exist() -> None:
    flags = {option.flag for option in options.OPTIONS if not option.secret}
    assert set(re.findall(r"^\| `(--[\w-]+)`", README, re.MULTILINE)) == flags


def test_examples_in_python_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (ROOT / link).exists(), f"{page.name} links to {link}"
