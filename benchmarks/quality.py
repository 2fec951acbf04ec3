"""VOI and ARAND of every linkage and method, at the default and at the best threshold.

The best threshold is chosen on the truth that is scored: a bound, not a result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import emslice
from benchmarks import multicut
from benchmarks.pipelines import THRESHOLD, as_floats
from emslice.errors import ConfigError
from emslice.ops.agglomerate import agglomerate
from emslice.ops.fragments import Fragments
from emslice.ops.linkage import LINKAGES, Linkage, integer_threshold
from emslice.ops.merge_tree import merge_tree
from emslice.ops.region_graph import extract_edges
from emslice.ops.waterz_method import merge_by_waterz
from emslice.stages.fragment_methods import ALONE, INVARIANT, check_method, fragments_by

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(16))


def measure(codes: NDArray[np.uint8], truth: NDArray[Any]) -> dict[str, Any]:
    """Rows of the table of quality."""
    fragments: dict[str, Fragments] = {}
    left_out: dict[str, str] = {}
    for method in (INVARIANT, *ALONE):
        try:
            check_method(method)
            fragments[method] = fragments_by(method, codes)
        except ConfigError as error:
            left_out[method] = str(error)
    rows = []
    for method, made in fragments.items():
        for name in LINKAGES:
            rows.append(_row(method, name, "exact", _exact(codes, made, name, truth)))
        if method != "mutex":
            for name in LINKAGES:
                rows.append(_row(method, name, "waterz", _waterz(codes, made, name, truth)))
    labels = {name: made.labels for name, made in fragments.items() if name != "mutex"}
    return {
        "rows": rows,
        "multicut": multicut.measure(codes, truth, labels),
        "left_out": left_out,
    }


def _row(fragments: str, linkage: str, method: str, sweep: dict[float, Any]) -> dict[str, Any]:
    best = min(sweep, key=lambda threshold: float(sweep[threshold].voi))
    return {
        "fragments": fragments, "linkage": linkage, "method": method,
        "default": sweep[THRESHOLD].as_dict(),
        "best": {"threshold": best, **sweep[best].as_dict()},
    }  # fmt: skip


def _exact(
    codes: NDArray[np.uint8], made: Fragments, name: str, truth: NDArray[Any]
) -> dict[float, Any]:
    """Scores by threshold; one agglomeration."""
    wanted = {"histograms": True} if name == "quantile" else {}
    graph = extract_edges(codes, made.labels, **wanted)
    lowest = integer_threshold(THRESHOLDS[0])
    tree = merge_tree(agglomerate(graph, made.ids, lowest, Linkage(name)), made.ids, lowest)
    return {
        threshold: emslice.evaluate(tree.cut(threshold).apply(made.ids)[made.labels], truth)
        for threshold in THRESHOLDS
    }


def _waterz(
    codes: NDArray[np.uint8], made: Fragments, name: str, truth: NDArray[Any]
) -> dict[float, Any]:
    """Scores by threshold; one agglomeration for each."""
    affinity = as_floats(codes)
    return {
        threshold: emslice.evaluate(
            merge_by_waterz(affinity, made.labels, threshold, Linkage(name)), truth
        )
        for threshold in THRESHOLDS[2:14:2]
    }


def spread_of_numbering(
    codes: NDArray[np.uint8], labels: NDArray[np.int32], truth: NDArray[Any], times: int = 5
) -> list[float]:
    """VOI of waterz on the same fragments, numbered at random: what its order of ties is worth."""
    affinity, scores = as_floats(codes), []
    for seed in range(times):
        order = np.random.default_rng(seed).permutation(int(labels.max())).astype(np.int32) + 1
        numbers = np.concatenate([np.zeros(1, np.int32), order])[labels]
        merged = merge_by_waterz(affinity, numbers, THRESHOLD, Linkage())
        scores.append(emslice.evaluate(merged, truth).voi)
    return scores
