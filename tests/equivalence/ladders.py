"""The ladder over rows in a dictionary."""

from typing import NamedTuple

import numpy as np
from reference.row_store import MemoryStore

from emslice.ops.faces import join_sides, touching
from emslice.ops.ladder import climb_down
from emslice.ops.merge_tree import MergeTree
from emslice.ops.open_graph import Decided, OpenGraph
from emslice.ops.row_tables import join_rows, sizes_of
from emslice.stages.blockwise import NodeGraph


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


def joining(budget):
    """``join_graph`` of ``stages/blockwise.py`` with few rows in memory."""

    def join(children, across, box, roi, lowest, linkage):
        sides = join_sides([child.sides for child in children], box)
        graphs = [*(child.decided.rest for child in children), *across]
        _, found = climb(graphs, touching(sides, roi), lowest, linkage, budget)
        return NodeGraph(Decided(found.merges, found.rest, found.open_names), sides)

    return join
