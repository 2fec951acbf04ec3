"""Rows come back as they were, whole and in batches; damage is named."""

import numpy as np
import pytest
from reference.row_store import assert_equal

from emslice.errors import StorageError
from emslice.ledger.rows import iter_rows, load_rows, save_rows, stored_size
from emslice.ops.row_tables import empty_rows, join_rows, sizes_of, take_rows


def test_rows_come_back_whole_and_in_batches(tmp_path, table):
    rows, _ = table
    path = tmp_path / "rest.parquet"
    assert save_rows(path, [take_rows(rows, np.arange(4)), take_rows(rows, np.arange(4, 11))]) == 11
    assert_equal(load_rows(path), rows)
    batches = list(iter_rows(path, 3))
    assert max(len(batch) for batch in batches) == 3
    assert_equal(join_rows(batches), rows)
    assert [p.name for p in tmp_path.iterdir()] == ["rest.parquet"]


def test_no_rows_come_back(tmp_path):
    assert save_rows(tmp_path / "rest.parquet", iter([empty_rows()])) == 0
    assert_equal(load_rows(tmp_path / "rest.parquet"), empty_rows())


def test_the_size_is_known_without_reading_rows(tmp_path, table):
    rows, _ = table
    save_rows(tmp_path / "rest.parquet", [rows])
    stated, exact = stored_size(tmp_path / "rest.parquet"), sizes_of(rows).sum()
    assert exact <= stated <= exact + 60 * len(rows)  # a row without a run may count as one


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and then nothing"])
def test_a_missing_or_damaged_table_is_named(tmp_path, content):
    path = tmp_path / "rest.parquet"
    if content is not None:
        path.write_bytes(content)
    for read in (load_rows, stored_size):
        with pytest.raises(StorageError, match=r"rest\.parquet"):
            read(path)
