"""What a run gives when all is done: counts, digests, a picture, links to the results."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.engine.stage import Stage
from emslice.errors import StorageError
from emslice.geometry.boxes import Roi, clip, n_voxels, within
from emslice.ledger.database import Ledger
from emslice.ledger.files import switch_link, sync_folder
from emslice.ops.affinity import quantise_array
from emslice.ops.intensity import to_uint8
from emslice.service.normalising import summary_of
from emslice.service.plan import Plan
from emslice.service.record import RunRecord
from emslice.service.reporting import Reporter
from emslice.service.stages import Stages
from emslice.stages.layout import Frame
from emslice.viewer.panels import affinity_colours, grey, label_colours, save_panels
from emslice.volumes import Volume, open_volume
from emslice.volumes.digest import digest


def take_down(plan: Plan, stage: Stage) -> None:
    """Hide results that are about to be mended in place, until they are whole again."""
    for name in ("segmentation.zarr", "affinities.zarr"):
        link = plan.folder / name
        if link.is_symlink() and link.resolve().parent.name == stage.fingerprint:
            link.unlink()
            sync_folder(plan.folder)


def publish(
    plan: Plan, reporter: Reporter, record: RunRecord, ledger: Ledger, stages: Stages
) -> None:
    """Counts, digests and picture; then the results take their place."""
    record.counts = _counts(ledger, stages)
    if stages.measure is not None and plan.measurement is not None:
        measured = (facts for _, facts in ledger.facts_of(stages.measure.fingerprint))
        record.measured = {"measured": summary_of(plan.measurement, measured)}
    segmentation = open_volume(stages.relabel.path)
    start = time.perf_counter()
    with reporter.stage("digest", n_voxels(plan.roi)) as advance:
        record.digests["segmentation"] = digest(segmentation, workers=plan.workers)
        if stages.keep is not None:
            kept = open_volume(stages.keep.path)
            record.digests["affinities"] = digest(kept, workers=plan.workers)
        advance(n_voxels(plan.roi))
    record.stages["digest"] = {"seconds": round(time.perf_counter() - start, 3)}
    preview(plan, segmentation, stages.fragments.frame)
    if stages.keep is not None:
        switch_link(plan.folder / "affinities.zarr", stages.keep.path.absolute())
    switch_link(plan.folder / "segmentation.zarr", Path(segmentation.url))


def _counts(ledger: Ledger, stages: Stages) -> dict[str, int]:
    """What a run made, from the facts of its tasks."""
    made = _totals(ledger, stages.fragments, "fragments", "masked")
    grid, holes = stages.fragments.frame.grid, stages.fragments.holes.blocks
    counts = {
        "fragments": made["fragments"],
        **_totals(ledger, stages.agglomerate, "merges"),
        **_totals(ledger, stages.cut, "segments"),
        "masked_voxels": made["masked"] + sum(n_voxels(grid.block(index)) for index in holes),
    }
    if stages.dust is not None:
        gone = _totals(ledger, stages.dust, "joined", "dropped")
        counts["segments"] -= sum(gone.values())
        counts |= {f"dust_{name}": number for name, number in gone.items()}
    return counts


def _totals(ledger: Ledger, stage: Stage, *names: str) -> Counter[str]:
    """Sums of facts over all tasks of a stage."""
    totals = Counter(dict.fromkeys(names, 0))
    for _, facts in ledger.facts_of(stage.fingerprint):
        totals.update({name: facts.get(name, 0) for name in names})
    return totals


def preview(plan: Plan, segmentation: Volume, frame: Frame) -> None:
    """The middle section as a picture."""
    begin, shape = list(plan.roi.begin), list(plan.roi.shape)
    begin[0], shape[0] = begin[0] + shape[0] // 2, 1
    section = Roi(begin, shape)
    labels = segmentation.read(section)[0]
    values = _read_what_is_there(plan.source, section, frame)
    if plan.raw is not None:
        pixels = to_uint8(values, plan.config.raw.window)[0]
        first = (f"raw, section {begin[0]}", grey(pixels))
        second = ("segmentation over raw", label_colours(labels, pixels))
    else:
        codes = quantise_array(values)[:, 0]
        first = (
            f"affinity (z, y, x = red, green, blue), section {begin[0]}",
            affinity_colours(codes),
        )
        second = ("segmentation", label_colours(labels))
    save_panels(plan.folder / "preview.png", [first, second])


def _read_what_is_there(volume: Volume, section: Roi, frame: Frame) -> NDArray[Any]:
    """Voxels of a section; 0 in blocks that cannot be read, which is why they are holes."""
    channels = () if volume.channels is None else (volume.channels,)
    values = np.zeros((*channels, *(int(n) for n in section.shape)), volume.dtype)
    for index in frame.grid.meeting(section):
        part = clip(frame.grid.block(index), section)
        with suppress(StorageError):
            values[(..., *within(part, section))] = volume.read(part)
    return values
