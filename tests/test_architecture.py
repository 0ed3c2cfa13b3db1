"""The rules of the code, read from it: what comes from outside where, where clocks and names may occur, what is long.

Which folder may import which is one contract in pyproject.toml, which `lint-imports` checks.
"""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sidecar"
LONGEST_FUNCTION, LONGEST_MODULE, MOST_METHODS = 40, 350, 20

# Package from outside -> the only modules that may import it.
ONLY_IN = {
    "aiohttp": ["app", "edge.*"],
    "aiosqlite": [],
    "cronsim": ["core.schedule.times"],
    "cryptography": ["cli.dev_ca", "edge.security.certificates"],
    "grpc": ["app", "edge.grpc_aio.*"],
    "grpc_health": ["app", "edge.*"],
    "ctypes": ["system"],
    "fcntl": [],
    "opentelemetry": ["telemetry.exporting"],
    "prometheus_client": ["telemetry.meters"],
    "random": ["actors.clock"],
    "resource": ["system"],
    "secrets": ["actors.clock"],
    "signal": ["launch.*", "system"],
    "sqlite3": ["store.sqlite.*"],
    "time": ["actors.clock"],
    "typer": ["cli.*"],
    "uuid": ["actors.clock"],
    "uvloop": ["system"],
}

# What the core may use from outside: it is as pure.
PURE = {"cronsim", "google"}
# What it may use of the standard library: nothing that waits, asks a clock, or leaves the process.
IMPURE = {"asyncio", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random"}
IMPURE |= {
    "secrets",
    "select",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "sys",
    "threading",
    "time",
    "uuid",
}

# Calls that read a clock or make an id, wherever their module was imported.
CLOCK_CALLS = {"datetime.now", "datetime.today", "datetime.utcnow", "date.today", "loop.time", "os.urandom"}

DIALECTS = re.compile(r"dapr|microsoft", re.IGNORECASE)
NAMES_DIALECTS = ["edge.*", "config.*", "cli.*", "daprd.*", "telemetry.*"]
ACTOR_TYPE_PREFIX = "dapr.internal"


def name_of(path: Path) -> str:
    """A module's name without the package: `edge.taskhub`; a package has that of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {
    name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "schema" not in path.relative_to(PACKAGE).parts[:1]
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
FOLDERS = [name for name, path in MODULES.items() if path.name == "__init__.py" and path.parent != PACKAGE]
every_module = pytest.mark.parametrize("module", MODULES)
every_folder = pytest.mark.parametrize("folder", FOLDERS)


def matches(name: str, patterns: list[str]) -> bool:
    """`edge.*` is the package too, not only what is in it."""
    return any(fnmatchcase(name, one) or name == one.removesuffix(".*") for one in patterns)


def imports(module: str) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it the import stands."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                # `from sidecar import engine` means the module, `from sidecar.engine import Engine` as well
                yield full if not full.startswith("sidecar.") or is_module(full) else str(node.module)


def is_module(full: str) -> bool:
    path = ROOT / Path(*full.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of_ours(module: str) -> set[str]:
    ours = {full.removeprefix("sidecar.") for full in imports(module) if full.startswith("sidecar.")}
    return {name for name in ours if name.split(".")[0] != "schema"}


def calls(module: str) -> Iterator[tuple[str, int]]:
    """Each call in a module, as it is written, with its line."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


# --- imports -----------------------------------------------------------------------------------------


@every_module
def test_a_package_from_outside_is_imported_only_where_it_belongs(module: str) -> None:
    for full in imports(module):
        package = full.split(".")[0]
        assert matches(module, ONLY_IN.get(package, ["*"])), f"{module} may not import {full}"


@every_module
def test_only_app_wires_in_a_store(module: str) -> None:
    stores = [f"{name}.*" for name in FOLDERS if name.startswith("store.")]
    if module != "app" and not matches(module, ["cli.store", *stores]):
        assert not [name for name in imports_of_ours(module) if matches(name, stores)]


def test_the_core_uses_the_pure_standard_library_and_does_not_wait() -> None:
    for module in (name for name in MODULES if matches(name, ["core.*"])):
        packages = {full.split(".")[0] for full in imports(module)} - {"sidecar", *PURE}
        assert packages <= sys.stdlib_module_names, f"{module}: {packages - sys.stdlib_module_names}"
        assert not packages & IMPURE, f"{module}: {packages & IMPURE}"
        waits = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
        assert not waits, f"{module} waits in line {waits[0].lineno}"


def test_there_are_no_import_cycles() -> None:
    try:
        list(TopologicalSorter({module: imports_of_ours(module) for module in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# --- where things may occur --------------------------------------------------------------------------


@every_module
def test_clocks_and_ids_are_handed_in(module: str) -> None:
    if module == "actors.clock":
        return
    for call, line in calls(module):
        ends = ".".join(call.split(".")[-2:])
        assert ends not in CLOCK_CALLS, f"{module}:{line} calls {call}: take it from the clock"


@every_module
def test_writes_have_one_door(module: str) -> None:
    if module == "actors.engine":
        return
    for call, line in calls(module):
        asks_the_engine = re.search(r"\bengine\.commit$", call)
        assert asks_the_engine or not call.endswith(".commit"), f"{module}:{line} calls {call}"


@every_module
def test_dialects_are_named_only_at_the_edges(module: str) -> None:
    if matches(module, NAMES_DIALECTS):
        return
    for number, line in enumerate(MODULES[module].read_text(encoding="utf-8").splitlines(), start=1):
        rest = line.replace(ACTOR_TYPE_PREFIX, "") if module == "core.model" else line
        assert not DIALECTS.search(rest), f"{module}:{number} names a dialect: {line.strip()}"


@every_module
def test_module_level_state_is_constants_and_the_logger(module: str) -> None:
    made_once = re.compile(r"(structlog\.(get|wrap)_logger|logging\.getLogger|typer\.Typer)\(")
    for node in TREES[module].body:
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        if node.value is not None and made_once.match(ast.unparse(node.value)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
        constants = [name for name in names if re.fullmatch(r"_?[A-Z]\w*|__\w+__", name)]
        attributes = any(isinstance(target, ast.Attribute) for target in targets)
        assert attributes or names == constants, f"{module}:{node.lineno} has a variable: {names}"


# --- size --------------------------------------------------------------------------------------------


@every_module
def test_functions_and_modules_are_short(module: str) -> None:
    length = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert length <= LONGEST_MODULE, f"{module} has {length} lines"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{module}:{node.lineno} {node.name} has {length} lines"


@every_module
def test_a_module_says_what_it_is_for(module: str) -> None:
    if TREES[module].body:
        assert ast.get_docstring(TREES[module]), f"{module} has no docstring"


@every_module
def test_classes_have_few_methods(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= MOST_METHODS, f"{module}:{node.lineno} {node.name} has {len(methods)} methods"


@every_folder
def test_a_folder_says_in_two_sentences_what_it_owns_and_what_it_must_not_know(folder: str) -> None:
    said = (ast.get_docstring(TREES[folder]) or "").split("\n\n")
    assert len(said) == 2, f"{folder}: two sentences, with a blank line between them"
    owns, must_not_know = (sentence.replace("\n", " ") for sentence in said)
    assert must_not_know.startswith("It must not know ")
    assert re.fullmatch(r"[^.]*(\.\w[^.]*)*\.", owns), owns
    assert re.fullmatch(r"[^.]*(\.\w[^.]*)*\.", must_not_know), must_not_know


@every_folder
def test_the_map_has_every_folder(folder: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"| `{folder.replace('.', '/')}/` |" in page, f"docs/architecture.md has no row for {folder}"


# --- the repository speaks of the product alone ------------------------------------------------------


def repository_files() -> Iterator[Path]:
    skipped = {".git", ".venv", ".venvs", "build", "dist", "node_modules", "sidecar-data", "__pycache__"}
    for path in ROOT.rglob("*"):
        parts = set(path.relative_to(ROOT).parts)
        caches = any(part.endswith("_cache") or part == ".hypothesis" for part in parts)
        if path.is_file() and not parts & skipped and not caches:
            yield path


def test_no_file_has_a_path_of_the_machine_it_was_written_on() -> None:
    # Folders of a person or a build, but for those that anyone can see to be made up.
    folders = re.compile(rb"(?<![\w.:/-])/(?:home|root|Users|work|workspace|builds)/(?!someone\b)[\w.-]+")
    for path in repository_files():
        content = path.read_bytes()
        found = folders.search(content)
        assert not found, f"{path.relative_to(ROOT)}: {found.group()!r}"
        assert f"{ROOT}/".encode() not in content, path.relative_to(ROOT)
