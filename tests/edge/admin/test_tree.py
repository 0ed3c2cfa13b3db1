"""What of a tree is left out that its caller could not receive."""

from sidecar.edge.admin.inspection import _MOST_BYTES, _prune
from sidecar.schema import admin_pb2 as pb

ROOM = 10_000


def tree(*children: pb.TreeNode, waits: int = 0, size: int = 100) -> pb.TreeNode:
    return pb.TreeNode(instance_id="x" * size, waits=[pb.Wait(name="w" * 98)] * waits, children=children)


def test_a_tree_that_fits_is_whole() -> None:
    whole = tree(tree(tree(waits=2)), tree())
    before = whole.SerializeToString()
    _prune(whole, ROOM)
    assert whole.SerializeToString() == before


def test_of_a_tree_that_is_too_large_the_rest_is_left_out_and_said_where_it_was() -> None:
    wide = tree(tree(*(tree(size=900) for _ in range(20))), tree(), tree())
    _prune(wide, ROOM)
    below = wide.children[0]
    assert wide.ByteSize() < ROOM + 2_000
    assert 9 <= len(below.children) <= 11
    assert below.error.startswith(f"{20 - len(below.children)} entries of this part are left out")
    assert wide.error.startswith("2 entries")


def test_waits_without_number_leave_the_instance_in_the_answer() -> None:
    busy = tree(waits=100_000)
    _prune(busy, _MOST_BYTES)
    assert busy.instance_id
    assert busy.waits
    assert busy.ByteSize() < 4 * 1024 * 1024
    assert "left out" in busy.error
