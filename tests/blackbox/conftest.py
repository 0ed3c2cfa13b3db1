"""Fixtures of the end-to-end tests. Where a test allows it, a module shares one sidecar and app a dialect."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox import harness
from tests.blackbox.harness import DIALECTS, App, Deployment, Process, Sidecar

_HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.blackbox)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for process in harness.living:
            report.sections.append((f"output of {process.name}", process.log_tail()))
    return report


@pytest.fixture(scope="module", params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def sidecar(dialect: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """One sidecar for all tests of a module with one dialect."""
    process = Sidecar("orders", tmp_path_factory.mktemp(f"sidecar-{dialect}"))
    try:
        yield process.start()
    finally:
        process.kill9()


@pytest.fixture(scope="module")
def app(dialect: str, sidecar: Sidecar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app beside `sidecar`, with its worker connected."""
    process = App(dialect, sidecar.port, tmp_path_factory.mktemp(dialect))
    try:
        yield process.start_process()
    finally:
        process.kill9()


@pytest.fixture
def own_sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar for one test alone, not yet started."""
    process = Sidecar("orders", tmp_path)
    yield process
    process.kill9()


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Starts apps that end with the test: `start_app(dialect, sidecar, label, connect=True, **options of App)`."""
    started: list[Process] = []
    numbers = itertools.count(1)

    def start(dialect: str, beside: Sidecar, label: str = "", *, connect: bool = True, **options: Any) -> App:
        process = App(dialect, beside.port, tmp_path, label or f"{dialect}-{next(numbers)}", **options)
        started.append(process)
        return process.start_process(connect=connect)

    yield start
    for process in started:
        process.kill9()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Writes to the terminal, whatever is captured."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")

    def write(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"\n{text}")

    return write


# Apps of a module that has a fixture `deployment`


@pytest.fixture
def orders(deployment: Deployment) -> App:
    return deployment.apps["orders"]


@pytest.fixture
def ml(deployment: Deployment) -> App:
    return deployment.apps["ml"]


@pytest.fixture
def logistics(deployment: Deployment) -> App:
    return deployment.apps["logistics"]
