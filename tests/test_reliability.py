"""The list of promises is whole: every fault has a test, and the document names them all."""

import pytest

from tests import reliability

PROMISES = list(reliability.promises())


@pytest.mark.parametrize("fault", reliability.FAULTS)
def test_every_fault_has_a_test(fault: int) -> None:
    assert [one for one in PROMISES if one.fault == fault]


def test_no_test_names_a_fault_that_is_not_listed() -> None:
    assert {one.fault for one in PROMISES} <= set(reliability.FAULTS)


def test_the_document_names_every_test_with_its_promise() -> None:
    rows = reliability.DOCUMENT.read_text().splitlines()
    for one in PROMISES:
        name = one.test.partition("::")[2]
        assert any(f"[{name}]" in row and f"| {one.text} |" in row for row in rows), f"{name}: run make reliability"


def test_the_document_has_no_row_that_did_not_pass() -> None:
    rows = [row for row in reliability.DOCUMENT.read_text().splitlines() if row.startswith("| ")][2:]
    assert rows
    assert all(row.endswith("| passed |") for row in rows)
