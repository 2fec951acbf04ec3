"""Merge trees as Parquet tables, which any data-frame library reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emslice.errors import StorageError
from emslice.ledger.files import write_atomic
from emslice.ops.linkage import SCALE
from emslice.ops.merge_tree import MergeTree


def save_merges(path: Path, tree: MergeTree) -> None:
    """Write columns child, parent (uint64) and score (int32, a fraction of 2^24), atomically."""
    facts = {"score_scale": SCALE, "lowest_score": tree.lowest}
    table = pa.table({"child": tree.child, "parent": tree.parent, "score": tree.score})
    table = table.replace_schema_metadata({"emslice": json.dumps(facts)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def load_merges(path: Path) -> MergeTree:
    """Tree that `save_merges` wrote.

    Raises
    ------
    StorageError
        Missing or damaged file.
    """
    try:
        table = pq.read_table(path)
        lowest = json.loads(table.schema.metadata[b"emslice"])["lowest_score"]
        child, parent, score = (
            np.ascontiguousarray(table[name].to_numpy()) for name in ("child", "parent", "score")
        )
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise StorageError(f"{path}: not a readable table of merges: {error}") from error
    return MergeTree(child, parent, score, lowest)
