"""The ladder over rows in a dictionary."""

from typing import NamedTuple

import numpy as np
from reference.row_store import MemoryStore

from emslice.ops.ladder import climb_down
from emslice.ops.merge_tree import MergeTree
from emslice.ops.open_graph import OpenGraph
from emslice.ops.row_tables import join_rows, sizes_of


class Found(NamedTuple):
    merges: MergeTree
    rest: OpenGraph
    open_names: np.ndarray


def climb(graphs, touching, lowest, linkage, budget):
    """Steps that it took, and what `decide` gives."""
    steps, size = [], sum(int(sizes_of(graph).sum()) for graph in graphs)
    store = MemoryStore(linkage)
    climbed = climb_down(store, graphs, touching, lowest, linkage, budget, size, steps.append)
    rest = join_rows(list(climbed.rest))
    assert not any(key.startswith(("inside", "sorted")) for key in store.buckets)
    return steps, Found(climbed.merges, rest, climbed.open_names)
