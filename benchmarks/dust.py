"""What becomes of small segments on real EM: scores by size, by key, with and without dropping.

    python -m benchmarks.dust [--linkage mean] [--threshold 0.5] [--sections 40] [--codes CODES.npy]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop and the student cad_AC34, whose codes of
these sections may be given as a file. ``--first`` is where they begin.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import emslice
from emslice.ops.contacts import Contacts, contacts_of
from emslice.ops.dust import DustRule, Sizes, add_up, segment_rows, settle
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.stages.agglomerate import Oversegmentation, clear_dust, grow, oversegment

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
MIN_SIZES = (10, 30, 100, 300, 1000)
NONE = np.zeros(0, np.uint64)


def with_key(rows: Contacts, key: str) -> Contacts:
    """Rows whose sum is another key."""
    if key == "contacts":
        return replace(rows, total=rows.contacts)
    if key == "mean":  # to 2^-32 of a code; in the library it would be compared exactly
        return replace(rows, total=(rows.total << 32) // np.maximum(rows.contacts, 1))
    return rows


def own_key(parts: Oversegmentation, lut: Lut, rows: Contacts) -> Contacts:
    """Rows whose sum is the median of the largest codes of their base pairs: quantile_max."""
    base = contacts_of(parts.graph, parts.fragments.ids)
    pairs = np.sort(lut.apply(base.pairs), axis=1)
    apart = pairs[:, 0] != pairs[:, 1]
    pairs, highest = pairs[apart], base.highest[apart]
    order = np.lexsort((highest, pairs[:, 1], pairs[:, 0]))
    first = np.flatnonzero(np.r_[True, (np.diff(pairs[order], axis=0) != 0).any(axis=1)])
    assert np.array_equal(pairs[order][first], rows.pairs)
    number = np.diff(np.r_[first, len(order)])
    return replace(rows, total=highest[order][first + number // 2].astype(np.int64))


def same_neuron(
    segments: NDArray[np.uint64], truth: NDArray[Any], targets: Lut, sizes: Sizes
) -> list[tuple[int, int, int, float]]:
    """(from, below, number, share that joins its own neuron) of small segments, by size.

    A segment's neuron is the true label that most of its voxels with a truth have.
    """
    scored = truth > 0
    pairs, number = np.unique(
        np.stack([segments[scored], truth[scored].astype(np.uint64)]), axis=1, return_counts=True
    )
    order = np.lexsort((number, pairs[0]))
    last = np.flatnonzero(np.r_[np.diff(pairs[0, order]) != 0, True])
    of = dict(zip(*pairs[:, order[last]].tolist(), strict=True))
    pairs_of_ids = zip(targets.fragments.tolist(), targets.segments.tolist(), strict=True)
    joins = {small: large for small, large in pairs_of_ids if large and small in of}
    voxels = dict(zip(sizes.names.tolist(), sizes.voxels.tolist(), strict=True))
    found = []
    for low, high in zip((1, *MIN_SIZES[:-1]), MIN_SIZES, strict=True):
        right = [of[s] == of.get(t) for s, t in joins.items() if low <= voxels[s] < high]
        found.append((low, high, len(right), float(np.mean(right)) if right else 0.0))
    return found


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--linkage", default="quantile_max")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--sections", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--codes")
    given = parser.parse_args()
    box = slice(given.first, given.first + given.sections)
    with h5py.File(DATA / "ac4_crop.h5") as file:
        raw, truth = file["raw"][box], file["labels"][box]
    if given.codes:
        codes = np.load(given.codes)
    else:
        codes = emslice.predict_affinities(
            raw, DATA / "checkpoints" / "cad_AC34.ckpt", precision="float32"
        )
    method = Linkage(given.linkage)
    parts = oversegment(codes, histograms=method.needs_histograms)
    lut = grow(parts, method, min(0.3, given.threshold)).cut(given.threshold)
    measure(parts, lut, truth, own=given.linkage == "quantile_max")
    begin = time.perf_counter()
    clear_dust(parts, lut, DustRule(100))
    print(f"{time.perf_counter() - begin:.3f} s")


def measure(parts: Oversegmentation, lut: Lut, truth: NDArray[Any], own: bool) -> None:
    """Print scores by size and key, and how often a segment joins its own neuron."""
    ids, voxels = parts.fragments.ids, parts.fragments.voxels
    segments = lut.apply(ids)[parts.fragments.labels]
    rows, sizes = segment_rows(contacts_of(parts.graph, ids), lut), add_up(lut.apply(ids), voxels)
    show("none", 0, "", segments, segments, truth, len(sizes.names))
    keys = {key: with_key(rows, key) for key in ("sum", "mean", "contacts")}
    if own:
        keys["linkage"] = own_key(parts, lut, rows)
    for min_size in MIN_SIZES:
        for key, table in keys.items():
            for alone in ("drop", "keep"):
                found = settle(table, sizes, NONE, DustRule(min_size, alone))
                left = len(sizes.names) - len(found.targets.fragments)
                after = found.targets.apply(segments)
                show(key, min_size, alone, after, segments, truth, left)
    found = settle(rows, sizes, NONE, DustRule(MIN_SIZES[-1]))
    for low, high, number, share in same_neuron(segments, truth, found.targets, sizes):
        print(f"{low:5d} to {high:5d} voxels: {number:6,d} join, {share:.3f} to their own neuron")


def show(
    key: str,
    min_size: int,
    alone: str,
    after: NDArray[np.uint64],
    before: NDArray[np.uint64],
    truth: NDArray[Any],
    left: int,
) -> None:
    """Print a row."""
    scores, changed = emslice.evaluate(after, truth), (after != before).mean()
    print(
        f"| {min_size} | {key} | {alone} | {left:,} | {changed:.3%} | {scores.voi_split:.4f} "
        f"| {scores.voi_merge:.4f} | {scores.voi:.4f} | {scores.arand:.4f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
