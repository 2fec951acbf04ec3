"""Which failures become holes, and which records no longer stand because holes came or went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from emslice.engine.stage import Stage
from emslice.geometry.boxes import Roi, show
from emslice.geometry.grid import Index
from emslice.ledger.database import Ledger
from emslice.service.stages import Stages
from emslice.stages.holes import INPUTS, Holes
from emslice.stages.layout import index_of


def can_be_left_out(stages: Stages, stage: Stage, keys: Iterable[str]) -> bool:
    """Whether there is a segmentation without these tasks of a stage."""
    return all(_makes_hole(stages, stage, key) for key in keys)


def _makes_hole(stages: Stages, stage: Stage, key: str) -> bool:
    """A tile, or what is done of one block alone; a node of the octree or an output is needed."""
    if stage is stages.agglomerate:
        return key.startswith("0/")
    return stage is stages.predict or stage is stages.fragments


def _failures(stages: Stages, ledger: Ledger) -> Iterator[tuple[Stage, str, Roi, str]]:
    """Stage, task, box and reason of every task in quarantine that can be left out."""
    grid = stages.fragments.frame.grid
    for stage in stages.in_order():
        for key, reason in ledger.reasons(stage.fingerprint).items():
            if not _makes_hole(stages, stage, key):
                continue
            if stages.predict is not None and stage is stages.predict:
                yield stage, key, stages.predict.tiles.box(key), reason
            else:
                yield stage, key, grid.block(_block_of(key)), reason


def _block_of(key: str) -> Index:
    """Block of a task, of which the name may start with its level."""
    return index_of(key.removeprefix("0/"))


def holes_of(stages: Stages, ledger: Ledger) -> Holes:
    """Boxes of all tasks in quarantine that can be left out."""
    tiles, blocks = [], []
    for stage, key, box, _ in _failures(stages, ledger):
        if stage is stages.predict:
            tiles.append((key, box))
        else:
            blocks.append((_block_of(key), box))
    return Holes.of(tiles, blocks)


def list_holes(stages: Stages, ledger: Ledger) -> list[dict[str, Any]]:
    """Stage, task, box and reason of every hole, for the record."""
    return [
        {"stage": stage.name, "key": key, "roi": show(box), "reason": last_line(reason)}
        for stage, key, box, reason in _failures(stages, ledger)
    ]


def last_line(reason: str) -> str:
    """What a traceback ends with."""
    return reason.strip().splitlines()[-1]


def stale_tasks(stages: Stages, stage: Stage, ledger: Ledger) -> list[str]:
    """Tasks whose record says that they read something else than what is there now.

    Their records must be forgotten before anything of them is written again.
    """
    recorded = {key: f.get(INPUTS, "") for key, f in ledger.facts_of(stage.fingerprint)}
    if not recorded:
        return []
    expected = _expected(stages, stage, ledger)
    return [key for key, inputs in expected if recorded.get(key, inputs) != inputs]


def _expected(stages: Stages, stage: Stage, ledger: Ledger) -> Iterator[tuple[str, str]]:
    """What the record of each task must say; nothing where any record stands."""
    if stage is stages.fragments:
        return stages.fragments.expected()
    if stages.keep is not None and stage is stages.keep:
        return stages.keep.expected()
    if stage is stages.agglomerate:
        facts = ledger.facts_of(stages.stitch.fingerprint)
        return stages.agglomerate.expected(stages.stitch.leaf_digests(facts))
    if stage is stages.relabel:
        facts = ledger.facts_of(stages.tables.fingerprint)
        return stages.relabel.expected(stages.tables.leaf_digests(facts))
    return iter(())
