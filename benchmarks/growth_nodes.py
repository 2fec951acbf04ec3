"""Cubes taken as one node with every face open: what cannot be decided, and goes up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.ops.contacts import contacts_of
from emslice.ops.fragments import Fragments
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.open_graph import base_graph, decide
from emslice.stages.agglomerate import oversegment

Codes = NDArray[np.uint8]


def measure_node(codes: Codes, lowest: Sequence[float], linkage: Linkage) -> dict[str, Any]:
    """Fragments and rows of a cube, and what of them waits at each lowest threshold."""
    parts = oversegment(codes, workers=2, histograms=linkage.needs_histograms)
    graph = base_graph(contacts_of(parts.graph, parts.fragments.ids), linkage)
    touching = on_faces(parts.fragments)
    left = {}
    for threshold in lowest:
        decided = decide(graph, touching, integer_threshold(threshold), linkage)
        left[threshold] = {
            "open_nodes": len(decided.open_names),
            "open_rows": len(decided.rest),
            "bytes": sum(column.nbytes for column in astuple(decided.rest)),
        }
    return {
        "shape": codes.shape[1:], "voxels": codes[0].size, "fragments": parts.fragments.n_roots,
        "rows": len(graph), "touching": len(touching), "lowest": left,
    }  # fmt: skip


def on_faces(fragments: Fragments) -> NDArray[np.uint64]:
    """Ids of the fragments on the six faces."""
    labels = fragments.labels
    planes = [np.take(labels, place, axis).ravel() for axis in range(3) for place in (0, -1)]
    numbers = np.unique(np.concatenate(planes))
    return fragments.ids[numbers[numbers > 0]]


def mirrored(codes: Codes) -> Codes:
    """Twice the side along each axis, the second half the mirror image of the first.

    A code links a voxel to its lower neighbour, so that of the mirrored axis moves on by a voxel;
    where the halves meet a voxel touches itself: 255.
    """
    for axis in range(3):
        image = np.flip(codes, axis + 1).copy()
        along = np.moveaxis(image[axis], axis, 0)
        along[1:] = along[:-1].copy()
        along[0] = 255
        codes = np.concatenate([codes, image], axis + 1)
    return codes


def growing(codes: Codes, sides: Sequence[int]) -> Iterator[Codes]:
    """Boxes at the origin whose shape is that of the codes over 2^side."""
    for side in sides:
        z, y, x = (n >> side for n in codes.shape[1:])
        yield np.ascontiguousarray(codes[:, :z, :y, :x])


def exponent(rows: Sequence[dict[str, Any]], lowest: float, name: str) -> list[float]:
    """Slope of log(open) over log(fragments) from each size to the next."""
    sizes = np.log([row["fragments"] for row in rows])
    left = np.log([row["lowest"][lowest][name] for row in rows])
    return [float(s) for s in np.diff(left) / np.diff(sizes)]
