"""What tests of faults share: each says what it shows, and how often the fault really came about."""

from collections.abc import Callable, Iterator

import pytest
import structlog

# A traceback drawn with all its locals takes a second of the event loop.
_plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])

pytest_plugins = ["tests.inprocess.fixtures"]

Injected = Callable[[int, str], None]


@pytest.fixture
def injected(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Injected]:
    """Notes faults that came about: `injected(3, "failed fsyncs")`. A test that has noted none at its end fails."""
    counts: list[int] = []

    def note(count: int, what: str) -> None:
        counts.append(count)
        record_property("injected", f"{count:,} {what}")

    yield note
    failed = getattr(request.node, "failed", False)
    assert sum(counts) or failed, "no fault came about: the test shows nothing"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.failed = report.failed or report.skipped  # type: ignore[attr-defined]
    return report
