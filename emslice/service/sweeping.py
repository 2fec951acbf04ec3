"""Scores of a run at many thresholds, from its merges and one pass over fragments and truth.

A cut at T joins the fragments whose merges score T or more. So one contingency table of fragments
and truth is made, block by block, and its rows are joined as the threshold comes down: each merge
is applied once, whatever the number of thresholds. Dust stays in: what is small, and what it
joins, would have to be asked anew at each threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.config.schema import AgglomerationConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, clip, n_voxels, parse_roi, show
from emslice.geometry.octree import Node
from emslice.ledger.files import write_atomic, write_table
from emslice.metrics import Contingency, MergingSegments, SweepRow, best_row, count_overlaps
from emslice.ops.linkage import integer_threshold
from emslice.ops.merge_tree import MergeTree, join_trees
from emslice.service.evaluate import check_covers, open_labels
from emslice.service.held import HeldRun, hold_run
from emslice.service.reporting import Reporter
from emslice.service.stages import Stages
from emslice.viewer.curves import draw_scores
from emslice.volumes import Volume, open_volume

N_THRESHOLDS = 50

PENDING_ROWS = 2**20
"""Rows of the tables of blocks that wait to be added up, at least."""


@dataclass(frozen=True)
class Sweep:
    """What was found, and where it is."""

    folder: Path
    truth: str
    roi: str
    threshold: float
    """Of the run."""

    rows: tuple[SweepRow, ...]
    """Thresholds ascend."""

    @property
    def best(self) -> SweepRow:
        """The row of the least VOI; of equal ones, that of the highest threshold."""
        return best_row(self.rows)

    @property
    def table(self) -> Path:
        """The rows as CSV."""
        return self.folder / "sweep.csv"

    @property
    def picture(self) -> Path:
        """Scores against the threshold."""
        return self.folder / "sweep.png"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "run": str(self.folder),
            "truth": self.truth,
            "roi": self.roi,
            "threshold": self.threshold,
            "best": asdict(self.best),
            "rows": [asdict(row) for row in self.rows],
            "table": str(self.table),
            "picture": str(self.picture),
        }


def sweep(
    folder: str | Path, truth_url: str, reporter: Reporter, roi: str | None = None, ignore: int = 0
) -> Sweep:
    """Scores at 50 thresholds; ``sweep.csv`` and ``sweep.png`` are written into the run.

    Parameters
    ----------
    roi
        By default the box that both the run and the truth cover.
    ignore
        True label whose voxels are not scored.

    Raises
    ------
    ConfigError
        As `hold_run`, or a truth that cannot score this run.
    """
    with hold_run(folder) as run:
        truth = open_labels(truth_url, "TRUTH")
        box = _box(run, truth, roi)
        with reporter.stage("overlaps", n_voxels(box)) as advance:
            pieces = _overlaps(run.stages, truth, box, ignore)
            table = _added_up((piece, advance(n))[0] for piece, n in pieces)
        chosen = run.plan.config.agglomeration.threshold
        thresholds = thresholds_from(run.plan.config.agglomeration.lowest, chosen)
        found = Sweep(
            run.plan.folder, truth.url, show(box), chosen, _rows(run, box, table, thresholds)
        )
        write_table(found.table, [asdict(row) for row in found.rows])
        write_atomic(found.picture, _picture(found))
        return found


def _box(run: HeldRun, truth: Volume, roi: str | None) -> Roi:
    fragments = open_volume(run.stages.fragments.path)
    if roi is not None:
        box = parse_roi(roi, run.plan.domain)
        check_covers(fragments, box, "RUN")
        check_covers(truth, box, "TRUTH")
        return box
    box = clip(fragments.roi, truth.roi)
    if n_voxels(box) == 0:
        raise ConfigError(
            f"TRUTH {truth.url} covers {show(truth.roi)} and RUN {run.plan.folder} covers "
            f"{show(fragments.roi)}: no voxel in common. ROIs are counted in voxels of the whole "
            f"volume; was the truth imported without its place?"
        )
    return box


def thresholds_from(lowest: float, chosen: float, n: int = N_THRESHOLDS) -> list[float]:
    """``n`` even steps from the lowest threshold to 1, of four decimals, ascending.

    Those next to a run's own threshold and to the default one are exactly those.

    >>> thresholds_from(0.3, 0.47, 8)
    [0.3, 0.4, 0.47, 0.6, 0.7, 0.8, 0.9, 1.0]
    """
    steps = [max(lowest, round(float(t), 4)) for t in np.linspace(lowest, 1, n)]
    default = AgglomerationConfig().threshold
    for wanted in (default, chosen):  # the run's own last: it stays, should both be at one step
        if wanted >= lowest:
            steps[int(np.argmin(np.abs(np.array(steps) - wanted)))] = wanted
    return sorted(set(steps))


def _overlaps(
    stages: Stages, truth: Volume, box: Roi, ignore: int
) -> Iterable[tuple[Contingency, int]]:
    """Table of whole fragments and truth of each block, and voxels."""
    fragments, grid = open_volume(stages.fragments.path), stages.fragments.frame.grid
    for index in grid.meeting(box):
        part = clip(grid.block(index), box)
        labels = fragments.read(part)
        if index in stages.fragments.holes.blocks:
            labels[:] = 0
        table = count_overlaps(labels, truth.read(part), ignore)
        roots = stages.stitch.table(Node(0, index)).apply(table.segment)
        yield table.renamed(roots), n_voxels(part)


def _added_up(tables: Iterable[Contingency]) -> Contingency:
    """Sum of many tables: each row is sorted as often as the logarithm of their number."""
    total: Contingency | None = None
    waiting: list[Contingency] = []
    for table in tables:
        waiting.append(table)
        rows = sum(len(piece.count) for piece in waiting)
        if total is None or rows > max(PENDING_ROWS, len(total.count)):
            total, waiting = Contingency.joined([*([total] if total else []), *waiting]), []
    return Contingency.joined([*([total] if total else []), *waiting])


def _rows(
    run: HeldRun, box: Roi, table: Contingency, thresholds: list[float]
) -> tuple[SweepRow, ...]:
    least = np.array([integer_threshold(threshold) for threshold in thresholds])
    tree, n_merges = _merges(run.stages, box, np.unique(table.segment), least)
    fragments = sum(
        facts.get("fragments", 0)
        for _, facts in run.ledger.facts_of(run.stages.fragments.fingerprint)
    )
    segments = MergingSegments(table, np.concatenate([tree.child, tree.parent]))
    order = np.argsort(tree.score)
    place = [*np.searchsorted(tree.score[order], least), len(order)]
    rows = []
    for i in reversed(range(len(thresholds))):
        step = order[place[i] : place[i + 1]]
        segments.merge(tree.child[step], tree.parent[step])
        scores = segments.scores().as_dict()
        rows.append(SweepRow(thresholds[i], **scores, segments=fragments - int(n_merges[i])))
    return tuple(reversed(rows))


def _merges(
    stages: Stages, box: Roi, ids: NDArray[np.uint64], least: NDArray[np.int64]
) -> tuple[MergeTree, NDArray[np.int64]]:
    """Merges that fragments in a box take part in, and how many of the run reach each score.

    A cluster that a block has a part of merges in that block or in a node above it: those are
    gone through upwards, and what a fragment has become by then is looked for in the next.
    """
    tree, trees = stages.agglomerate.frame.octree, []
    n_merges = np.zeros(len(least), np.int64)
    for level in range(tree.root.level + 1):
        for node in tree.nodes(level):
            merges = stages.agglomerate.merges(node)
            n_merges += len(merges.score) - np.searchsorted(np.sort(merges.score), least)
            if n_voxels(clip(tree.box(node), box)):
                trees.append(merges.of(ids))
                ids = np.union1d(ids, trees[-1].parent)
    return join_trees(trees), n_merges


def _picture(found: Sweep) -> bytes:
    default = AgglomerationConfig().threshold
    best, marks = found.best, {}
    marks[f"best, {best.threshold:g}"] = best.threshold
    if found.threshold == default:
        marks[f"default, {default:g}"] = default
    else:
        marks[f"this run, {found.threshold:g}"] = found.threshold
        if default >= found.rows[0].threshold:
            marks[f"default, {default:g}"] = default
    columns = {
        name: np.array([getattr(row, name) for row in found.rows])
        for name in ("threshold", "voi_split", "voi_merge", "voi", "arand")
    }
    title = f"{found.folder.name} against {Path(found.truth).name}, {found.roi}"
    return draw_scores(columns, marks, title)
