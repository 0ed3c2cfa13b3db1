"""Who is whose parent in a trace, from contexts and from what is stored of an instance."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core import traces
from sidecar.core.model import ActorId, CallId, Instance, Parent
from sidecar.schema import taskhub_pb2 as pb
from tests.store import builders

TRACE, ABOVE, FRESH = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "1" * 16 + "2" * 16
PARENT = Parent(ActorId("default", "orders", "workflow", "default", "p"), CallId("e", 1, 1))


def instance(trace_parent: str = "", **more: Any) -> Instance:
    """An instance in its first execution."""
    trace = pb.TraceContext(trace_parent=trace_parent).SerializeToString() if trace_parent else b""
    return builders.instance(1, **{"trace": trace, "origin": "x", "execution": "x"} | more)


@pytest.mark.parametrize(
    ("given", "trace", "above", "flags"),
    [
        (f"00-{TRACE}-{ABOVE}-00", TRACE, ABOVE, "00"),
        (f"01-{TRACE}-{ABOVE}-01-more", TRACE, ABOVE, "01"),
        (TRACE, TRACE, "", "01"),
        ("", FRESH, "", "01"),
        ("00-1-2-01", FRESH, "", "01"),
        (f"00-{'0' * 32}-{ABOVE}-01", FRESH, "", "01"),
        (f"00-{TRACE.upper()}-{ABOVE}-01", FRESH, "", "01"),
    ],
)
def test_an_attempt_is_below_what_its_context_names(given: str, trace: str, above: str, flags: str) -> None:
    assert traces.of_attempt(given, FRESH) == (trace, FRESH[16:], above, flags)


def test_a_clients_start_is_between_the_client_and_the_execution() -> None:
    here = instance(f"00-{TRACE}-{ABOVE}-01")
    start, execution = traces.of_start(here), traces.of_execution(here)
    assert (start.trace, start.parent) == (TRACE, ABOVE)
    assert (execution.trace, execution.parent) == (TRACE, start.id)
    assert len({start.id, execution.id, ABOVE}) == 3


def test_a_child_is_right_below_the_execution_that_called_it() -> None:
    above = traces.of_execution(instance(f"00-{TRACE}-{ABOVE}-01"))
    below = traces.of_execution(instance(above.context().trace_parent, parent=PARENT, id="c"))
    assert (below.trace, below.parent) == (TRACE, above.id)


def test_without_a_context_a_start_is_a_root_and_each_execution_has_a_trace_of_its_own() -> None:
    first = instance()
    assert traces.of_start(first).parent == ""
    assert traces.of_execution(first).trace == traces.of_start(first).trace
    runs = [first, replace(first, execution="second"), replace(first, execution="third")]
    assert len({traces.of_execution(run).trace for run in runs}) == 3
    assert [traces.of_execution(run).parent for run in runs[1:]] == ["", ""]


def test_what_follows_on_an_execution_is_a_root() -> None:
    root = traces.new_root("f" * 32, "a", "second", "01")
    run = traces.of_execution(instance(root.context().trace_parent, execution="second"))
    assert run == root
    assert run.parent == ""


def test_ids_are_the_same_whenever_they_are_asked_for_and_differ_between_executions() -> None:
    runs = [instance(f"00-{TRACE}-{ABOVE}-01", execution=f"e{number}") for number in range(100)]
    spans = [traces.of_execution(run).id for run in runs]
    assert spans == [traces.of_execution(run).id for run in runs]
    assert all(one != other for one, other in itertools.pairwise(sorted(spans)))
