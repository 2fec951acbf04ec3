"""Which failures become holes, and which records no longer stand because holes came or went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emslice.engine.stage import Stage
from emslice.geometry.boxes import show
from emslice.ledger.database import Ledger
from emslice.service.stages import Stages
from emslice.stages.holes import INPUTS, Holes
from emslice.stages.layout import index_of


def makes_hole(stages: Stages, stage: Stage, key: str) -> bool:
    """Whether a failed task can be left out: a tile, or what is done of one block alone.

    Without a node of the octree or a part of the output there is no segmentation.
    """
    if stage is stages.agglomerate:
        return key.startswith("0/")
    return stage is stages.predict or stage is stages.fragments


def holes_of(stages: Stages, ledger: Ledger) -> Holes:
    """Boxes of all tasks in quarantine that can be left out."""
    tiles, blocks = [], []
    if stages.predict is not None:
        box = stages.predict.tiles.box
        tiles = [(key, box(key)) for key in ledger.reasons(stages.predict.fingerprint)]
    keys = list(ledger.reasons(stages.fragments.fingerprint))
    reasons = ledger.reasons(stages.agglomerate.fingerprint)
    keys += [key[2:] for key in reasons if makes_hole(stages, stages.agglomerate, key)]
    grid = stages.fragments.frame.grid
    blocks = [(index_of(key), grid.block(index_of(key))) for key in keys]
    return Holes.of(tiles, blocks)


def list_holes(stages: Stages, ledger: Ledger) -> list[dict[str, Any]]:
    """Stage, task, box and reason of every hole, for the record."""
    found = []
    for stage in stages.in_order():
        for key, reason in ledger.reasons(stage.fingerprint).items():
            if not makes_hole(stages, stage, key):
                continue
            if stage is stages.predict and stages.predict is not None:
                box = stages.predict.tiles.box(key)
            else:
                box = stages.fragments.frame.grid.block(index_of(key.removeprefix("0/")))
            last = reason.strip().splitlines()[-1]
            found.append({"stage": stage.name, "key": key, "roi": show(box), "reason": last})
    return found


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
