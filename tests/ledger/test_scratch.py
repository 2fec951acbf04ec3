"""Rows come back from buckets as they were; files go when nothing in them is wanted."""

import numpy as np
import pytest
from reference.row_store import assert_equal
from reference.strategies import graph_of

from emslice.errors import StorageError
from emslice.ledger import scratch
from emslice.ledger.scratch import ScratchStore
from emslice.ops.contacts import contacts_of
from emslice.ops.linkage import Linkage
from emslice.ops.open_graph import base_graph
from emslice.ops.row_tables import empty_rows, join_rows, row_keys, take_rows


def test_rows_and_keys_come_back_in_the_order_in_which_they_came(tmp_path, table):
    rows, linkage = table
    store = ScratchStore(tmp_path / "scratch", linkage)
    store.append(rows, ["a", "b", "c"], [0, 3, 10])
    store.append(take_rows(rows, np.arange(4)), ["b"], [0])
    expected = take_rows(rows, np.r_[3:10, 0:4])
    assert_equal(store.load("b"), expected)
    assert_equal(join_rows(list(store.pieces("b"))), expected)
    assert [len(piece) for piece in store.pieces("b")] == [7, 4]
    for found, key in zip(store.keys("b"), row_keys(expected, linkage), strict=True):
        np.testing.assert_array_equal(found, key)
        assert found.dtype == key.dtype


def test_a_bucket_that_nobody_filled_is_empty(tmp_path, table):
    _, linkage = table
    store = ScratchStore(tmp_path, linkage)
    store.append(empty_rows(), ["a"], [0])
    assert_equal(store.load("a"), empty_rows())
    assert not list(store.pieces("a"))
    assert len(store.keys("a").score) == 0
    store.drop("a")
    assert not list(tmp_path.iterdir())


def test_files_go_when_all_in_them_is_dropped(tmp_path, table, monkeypatch):
    monkeypatch.setattr(scratch, "SEGMENT_BYTES", 1)
    rows, linkage = table
    store = ScratchStore(tmp_path, linkage)
    store.append(rows, ["a", "b"], [0, 6])
    store.append(rows, ["a"], [0])
    store.drop("a")
    assert {path.name for path in tmp_path.iterdir()} == {"000000.rows", "000000.runs"}
    assert_equal(store.load("b"), take_rows(rows, np.arange(6, 11)))
    store.append(rows, ["a"], [0])
    assert_equal(store.load("a"), rows)
    store.drop("b")
    assert {path.name for path in tmp_path.iterdir()} == {"000002.rows", "000002.runs"}


@pytest.mark.parametrize("kind", ["rows", "runs"])
def test_a_damaged_file_is_named(tmp_path, kind):
    rows = [(1, 2, {7: 1}), (2, 3, {9: 1})]
    linkage = Linkage()
    store = ScratchStore(tmp_path, linkage)
    graph = base_graph(contacts_of(graph_of(rows), np.arange(4, dtype=np.uint64)), linkage)
    store.append(graph, ["a"], [0])
    path = tmp_path / f"000000.{kind}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=rf"000000\.{kind}"):
        store.load("a")
    path.unlink()
    with pytest.raises(StorageError, match=rf"000000\.{kind}"):
        store.load("a")
