"""The main job: a plan is carried out, and the run folder tells what was done.

Results are written under ``stages/<name>/<fingerprint>/`` and flushed; ``segmentation.zarr`` is
switched to them when all is there; ``run.yaml`` is written last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emslice.errors import EmsliceError, StorageError
from emslice.geometry.boxes import Roi, cut, n_voxels, show
from emslice.geometry.lattice import TileLattice
from emslice.geometry.neighborhood import NEAREST
from emslice.ledger.files import switch_link
from emslice.ledger.merges import save_merges
from emslice.models.predictor import Predictor
from emslice.ops.affinity import quantise_array
from emslice.ops.intensity import to_uint8
from emslice.ops.linkage import Linkage
from emslice.ops.lut import Lut
from emslice.service.plan import Plan
from emslice.service.record import RunRecord
from emslice.stages.agglomerate import Oversegmentation, grow, oversegment
from emslice.stages.predict import predict
from emslice.viewer.panels import affinity_colours, grey, label_colours, save_panels
from emslice.volumes import Volume, create_volume
from emslice.volumes.digest import digest

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Who is told how far a run has come."""

    def stage(self, name: str, voxels: int) -> AbstractContextManager[Advance]:
        """Enter a stage; yields what to call with voxels done."""


def segment(plan: Plan, reporter: Reporter) -> RunRecord:
    """Carry out a plan.

    Raises
    ------
    EmsliceError
        The run failed; ``run.yaml`` says why.
    """
    record = RunRecord(plan)
    # Stored affinities may hold NaN: read and checked before the run folder exists.
    codes = _read_affinities(plan, reporter, record) if plan.affinities is not None else None
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        record.save()
        if codes is None:
            codes = _predict(plan, reporter, record)
        parts, lut = _merge(plan, reporter, record, codes)
        segmentation = _relabel(plan, reporter, record, parts, lut)
        _preview(plan, codes, segmentation)
        with reporter.stage("digest", n_voxels(plan.roi)) as advance:
            record.digests["segmentation"] = digest(segmentation, workers=plan.workers)
            advance(n_voxels(plan.roi))
        switch_link(plan.folder / "segmentation.zarr", Path(segmentation.url))
    except BaseException as error:  # also Ctrl-C: the record says how the run ended
        record.fail(error)
        if isinstance(error, OSError | MemoryError) and not isinstance(error, EmsliceError):
            raise StorageError(f"RUN {plan.folder}: {error or 'out of memory'}") from error
        raise
    record.finish()
    return record


def _read_affinities(plan: Plan, reporter: Reporter, record: RunRecord) -> NDArray[np.uint8]:
    volume = plan.affinities
    assert volume is not None
    with _timed(plan, reporter, record, "read") as advance:
        codes = np.empty((3, *(int(n) for n in plan.roi.shape)), np.uint8)
        for slab in cut(plan.roi, axis=0, step=max(1, int(volume.chunk_shape[0]))):
            begin = int(slab.begin[0] - plan.roi.begin[0])
            part = volume.read(slab)
            codes[:, begin : begin + part.shape[1]] = quantise_array(
                part, f"affinities {volume.url} [{show(slab)}]"
            )
            advance(n_voxels(slab))
    return codes


def _predict(plan: Plan, reporter: Reporter, record: RunRecord) -> NDArray[np.uint8]:
    raw, profile, checkpoint = plan.raw, plan.profile, plan.checkpoint
    assert raw is not None
    assert profile is not None
    assert checkpoint is not None
    lattice = TileLattice((raw.domain.shape[1], raw.domain.shape[2]), profile.tile)
    predictor = Predictor(checkpoint.network, lattice, profile)
    window = plan.config.raw.window
    with _timed(plan, reporter, record, "predict") as advance:
        affinities = predict(raw, predictor, plan.roi, window, plan.workers, advance)
    if plan.config.affinities == "keep":
        stored = _create(plan, "predict", "affinities.zarr", "uint8", channels=3)
        _write(stored, plan.roi, lambda slab: affinities.read(slab))
        record.digests["affinities"] = digest(stored, workers=plan.workers)
        switch_link(plan.folder / "affinities.zarr", Path(stored.url))
    codes: NDArray[np.uint8] = affinities.array
    return codes


def _merge(
    plan: Plan, reporter: Reporter, record: RunRecord, codes: NDArray[np.uint8]
) -> tuple[Oversegmentation, Lut]:
    method = plan.config.agglomeration
    with _timed(plan, reporter, record, "fragments") as advance:
        radius = plan.config.fragments.radius
        parts = oversegment(codes, plan.roi, plan.domain, radius, plan.workers)
        advance(n_voxels(plan.roi))
    ids, labels = parts.fragments.ids, parts.fragments.labels
    stored = _create(plan, "fragments", "fragments.zarr", "uint64")
    _write(stored, plan.roi, lambda slab: ids[labels[_rows(slab, plan.roi)]])
    with _timed(plan, reporter, record, "agglomerate") as advance:
        tree = grow(parts, Linkage(method.linkage, method.quantile), method.lowest)
        folder = plan.stage_folder("agglomerate")
        folder.mkdir(parents=True)
        save_merges(folder / "merges.parquet", tree)
        lut = tree.cut(method.threshold)
        advance(n_voxels(plan.roi))
    n_fragments = len(ids) - 1
    record.counts = {
        "fragments": n_fragments,
        "edges": len(parts.graph),
        "merges": len(tree.child),
        "segments": n_fragments - len(lut.fragments),
    }
    return parts, lut


def _relabel(
    plan: Plan, reporter: Reporter, record: RunRecord, parts: Oversegmentation, lut: Lut
) -> Volume:
    segments, labels = lut.apply(parts.fragments.ids), parts.fragments.labels
    with _timed(plan, reporter, record, "relabel") as advance:
        stored = _create(plan, "relabel", "segmentation.zarr", "uint64")
        _write(stored, plan.roi, lambda slab: segments[labels[_rows(slab, plan.roi)]], advance)
    return stored


def _preview(plan: Plan, codes: NDArray[np.uint8], segmentation: Volume) -> None:
    """The middle section as a picture."""
    middle = int(plan.roi.shape[0]) // 2
    begin, shape = list(plan.roi.begin), list(plan.roi.shape)
    begin[0], shape[0] = begin[0] + middle, 1
    section = Roi(begin, shape)
    labels = segmentation.read(section)[0]
    panels = [
        ("affinity (z, y, x = red, green, blue)", affinity_colours(codes[:, middle])),
        ("segmentation", label_colours(labels)),
    ]
    if plan.raw is not None:
        pixels = to_uint8(plan.raw.read(section), plan.config.raw.window)[0]
        panels.insert(0, (f"raw, section {begin[0]}", grey(pixels)))
        panels[-1] = ("segmentation over raw", label_colours(labels, pixels))
    save_panels(plan.folder / "preview.png", panels)


def _rows(slab: Roi, roi: Roi) -> slice:
    begin = int(slab.begin[0] - roi.begin[0])
    return slice(begin, begin + int(slab.shape[0]))


def _create(plan: Plan, stage: str, name: str, dtype: str, channels: int | None = None) -> Volume:
    """Output of a stage: the ROI's shape, placed in the domain."""
    attributes: dict[str, Any] = {"fingerprint": plan.fingerprints[stage]}
    if channels is not None:
        attributes |= {"offsets": [list(offset) for offset in NEAREST], "scale": 256}
    folder = plan.stage_folder(stage)
    folder.mkdir(parents=True)
    return create_volume(
        folder / name,
        shape=plan.roi.shape,
        dtype=dtype,
        channels=channels,
        resolution_nm=plan.source.resolution_nm,
        offset=plan.roi.begin,
        domain_shape=plan.domain.shape,
        attributes=attributes,
    )


def _write(
    volume: Volume,
    roi: Roi,
    make: Callable[[Roi], NDArray[Any]],
    advance: Advance = lambda voxels: None,
) -> None:
    """Fill a volume layer of chunks by layer of chunks, which bounds the memory."""
    step = max(1, int(volume.chunk_shape[0]))
    for begin in range(0, int(roi.shape[0]), step):
        low = int(roi.begin[0]) + begin
        depth = min(step, int(roi.shape[0]) - begin)
        slab = Roi((low, *roi.begin[1:]), (depth, *roi.shape[1:]))
        volume.write(slab, make(slab))
        advance(n_voxels(slab))


@contextmanager
def _timed(plan: Plan, reporter: Reporter, record: RunRecord, name: str) -> Iterator[Advance]:
    """Report a stage and note its time."""
    voxels, start = n_voxels(plan.roi), time.perf_counter()
    with reporter.stage(name, voxels) as advance:
        yield advance
    seconds = time.perf_counter() - start
    record.stages[name] = {
        "fingerprint": plan.fingerprints.get(name),
        "seconds": round(seconds, 3),
        "voxels_per_s": round(voxels / seconds) if seconds else None,
    }
