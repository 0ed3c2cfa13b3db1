"""The README says what is so: the table of settings is complete, code parses, links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

from sidecar import app
from sidecar.cli import workflow
from sidecar.cli.exits import Exit
from sidecar.cli.main import main
from sidecar.config import options, settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.field)
def test_every_setting_has_a_row_with_its_three_names(option: options.Option) -> None:
    flag = "(none)" if option.secret else f"`{option.flag}`"
    assert f"| {flag} | `{option.variable}` | `{option.field}` |" in README


def test_no_row_is_about_a_setting_that_does_not_exist() -> None:
    flags = {option.flag for option in options.OPTIONS if not option.secret}
    assert set(re.findall(r"^\| `(--[\w-]+)`", README, re.MULTILINE)) == flags


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


async def test_the_sample_file_starts_a_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the certificates that its comment says how to make."""
    (sample,) = re.findall(r"```yaml\n# sidecar.yaml\n(.*?)```", README, re.DOTALL)
    (command,) = re.findall(r"# from `sidecar (dev-ca .*?)`", sample)
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 0
    write("sidecar.yaml", sample)
    here = {"data_dir": "data", "grpc_port": ["0"], "http_port": "0", "peer_port": "0", "peer_host": "127.0.0.1"}
    sidecar = await app.create(settings.load({"config": "sidecar.yaml", **here}, {}))
    await sidecar.start()
    await sidecar.stop()


def test_examples_in_python_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (ROOT / link).exists(), f"{page.name} links to {link}"


def test_the_table_of_commands_has_all_that_look_and_steer() -> None:
    (part,) = re.findall(r"## Look, and steer\n(.*?)\n## ", README, re.DOTALL)
    table = " ".join(line.split("|")[1] for line in part.splitlines() if line.startswith("| `"))
    names = {str(command.name) for command in workflow.app.registered_commands} | {
        "peers",
        "workers",
        "doctor",
        "version",
    }
    assert {word for word in re.findall(r"[a-z][a-z-]+", table) if word in names} == names


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d) \|", README, re.MULTILINE)] == [int(code) for code in Exit]
