"""Files and links are old or new, never half; merge tables come back as they were."""

import numpy as np
import pytest

from emslice.errors import StorageError
from emslice.ledger.files import switch_link, write_aside, write_atomic
from emslice.ledger.merges import load_merges, save_merges
from emslice.ops.merge_tree import MergeTree


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "run.yaml"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rest.parquet"
    write_atomic(path, b"old")

    def fail():
        with write_aside(path) as partial:
            partial.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_switched_and_moves_with_its_folder(tmp_path):
    run = tmp_path / "run"
    for name in ("a", "b"):
        (run / "stages" / name).mkdir(parents=True)
        (run / "stages" / name / "which").write_text(name)
        switch_link(run / "result", run / "stages" / name)
    run.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "result" / "which").read_text() == "b"


def test_merges_come_back_as_they_were(tmp_path):
    tree = MergeTree(
        np.array([5, 2**63 + 9], np.uint64),
        np.array([1, 5], np.uint64),
        np.array([2**23, 77], np.int32),
        70,
    )
    save_merges(tmp_path / "m.parquet", tree)
    back = load_merges(tmp_path / "m.parquet")
    for name in ("child", "parent", "score"):
        np.testing.assert_array_equal(getattr(back, name), getattr(tree, name))
    assert back.lowest == 70


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "m.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(StorageError, match=r"m\.parquet"):
        load_merges(tmp_path / "m.parquet")
