"""The stages of a plan, in order: what each reads, where it writes, how much memory it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emslice.config.schema import AgglomerationConfig
from emslice.engine.stage import Stage
from emslice.geometry.lattice import Z_RUN
from emslice.ledger.fingerprint import fingerprint
from emslice.ops.dust import DustRule
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.service.handover import scratch_of
from emslice.service.machine import BASE_BYTES, LADDER_BYTES
from emslice.service.methods import needs_histograms
from emslice.service.plan import Plan
from emslice.stages.agglomeration import AgglomerateBlocks, CutBlocks
from emslice.stages.dusting import DustBlocks
from emslice.stages.fragment_methods import halo_of
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.holes import Holes
from emslice.stages.intensity import Intensity, Windowed
from emslice.stages.layout import Frame
from emslice.stages.masking import MaskedAffinities
from emslice.stages.measuring import MeasuredLevels, MeasureIntensity, counts_bytes, part_bytes
from emslice.stages.relabelling import RelabelChunks
from emslice.stages.stitching import StitchBlocks
from emslice.stages.streaming import Handover
from emslice.stages.tiles import (
    KeepAffinities,
    PredictTiles,
    StoredAffinities,
    TiledAffinities,
    TileSet,
)
from emslice.stages.waterz_block import WaterzBlock
from emslice.units import parse_bytes

CHUNK = (16, 256, 256)
"""Chunks of the segmentation, voxels."""

READ_BYTES = 28
"""Of a fragments task, a voxel of its read box (measured: docs/results/blocks.md)."""

HISTOGRAM_BYTES = 16
"""More of a fragments task, a voxel of its block, where the linkage needs histograms."""

GRAPH_BYTES = 12
"""Of an agglomerate task on a block, a voxel of its block (measured: docs/results/blocks.md)."""

WATERZ_BYTES = 700
"""Of an agglomeration by waterz, a voxel: up to 613 were seen, of fragments of 10 voxels."""


@dataclass(frozen=True)
class Stages:
    """All stages of a run; None for those that it does without."""

    measure: MeasureIntensity | None
    """None where raw is not normalised."""

    predict: PredictTiles | None
    keep: KeepAffinities | None
    """Both None where there is nothing to predict."""

    fragments: FragmentBlocks
    stitch: StitchBlocks
    agglomerate: AgglomerateBlocks
    cut: CutBlocks
    dust: DustBlocks | None
    """None where small segments stay."""

    relabel: RelabelChunks
    handover: Handover | None = None
    """Predict and fragments at once, if not all affinities may wait."""

    def in_order(self) -> list[Stage]:
        """Every stage that the run has."""
        all_stages: list[Stage | None] = [
            self.measure, self.predict, self.keep, self.fragments, self.stitch, self.agglomerate,
            self.cut, self.dust, self.relabel,
        ]  # fmt: skip
        return [stage for stage in all_stages if stage is not None]

    def to_run(self) -> list[Stage]:
        """What is given to workers."""
        if self.handover is None:
            return self.in_order()
        order, parts = self.in_order(), self.handover.parts
        first = order.index(parts[0])
        return [*order[:first], self.handover, *order[first + len(parts) :]]

    @property
    def tables(self) -> CutBlocks | DustBlocks:
        """What gives each block its LUT."""
        return self.dust or self.cut


def stages_of(plan: Plan, holes: Holes | None = None) -> Stages:
    """Stages of a plan with some boxes masked; nothing is read or written.

    Stages whose tasks all depend on every hole get a fingerprint of their own for each set of
    holes; the others note in their facts what each task saw.
    """
    holes = holes or Holes()
    frame, config, method = frame_of(plan), plan.config, plan.config.agglomeration
    voxels = 1
    for n, box in zip(frame.block_shape, frame.roi[1], strict=True):
        voxels *= min(n, box)
    measure = _measure(plan, frame)
    predict, keep = _predict(plan, frame, holes, measure)
    affinities: TiledAffinities | StoredAffinities | MaskedAffinities
    if predict is not None:
        affinities = TiledAffinities(predict.tiles, holes.tiles)
    else:
        affinities = StoredAffinities(plan.source.url)
    read_bytes = READ_BYTES
    if plan.mask is not None:
        affinities = MaskedAffinities(affinities, plan.mask.url)
        read_bytes += plan.mask.dtype.itemsize + 1
    prints = dict(plan.fingerprints)
    if holes:
        for name in {"stitch", "cut", "dust"} & prints.keys():
            prints[name] = fingerprint(name, 1, {"holes": holes.boxes}, prints[name])

    def folder(name: str) -> str:
        return str(plan.folder / "stages" / name / prints[name])

    chosen = config.fragments
    halo = halo_of(chosen.method, chosen.cap, chosen.dimensions)
    histograms = needs_histograms(Linkage(method.linkage, method.quantile), method.method)
    fragments = FragmentBlocks(
        frame, affinities, chosen.cap, folder("fragments"), prints["fragments"],
        BASE_BYTES + read_bytes * _read_voxels(frame, halo) + histograms * HISTOGRAM_BYTES * voxels,
        holes, chosen.dimensions, histograms, chosen.method,
    )  # fmt: skip
    stitch = StitchBlocks(folder("stitch"), prints["stitch"], BASE_BYTES, fragments)
    place = folder("agglomerate"), prints["agglomerate"]
    agglomerate = _agglomerate(method, stitch, place, voxels, plan.node_memory)
    cut = CutBlocks(agglomerate, method.threshold, folder("cut"), prints["cut"], BASE_BYTES)
    dust = None
    if "dust" in prints:
        rule = DustRule(config.dust.min_size, config.dust.alone)
        memory = BASE_BYTES + GRAPH_BYTES * voxels
        dust = DustBlocks(folder("dust"), prints["dust"], memory, cut, rule)
    relabel = RelabelChunks(
        dust or cut, folder("relabel"), CHUNK, prints["relabel"], BASE_BYTES + 33 * voxels
    )
    handover = _handover(plan, predict, keep, fragments)
    return Stages(
        measure, predict, keep, fragments, stitch, agglomerate, cut, dust, relabel, handover
    )


def _handover(
    plan: Plan, predict: PredictTiles | None, keep: KeepAffinities | None, fragments: FragmentBlocks
) -> Handover | None:
    if predict is None or keep is not None:
        return None
    memory = parse_bytes(plan.config.handover.memory)
    # A worker holds the network while it makes fragments.
    peak = predict.peak_bytes + fragments.peak_bytes - BASE_BYTES
    handover = Handover(predict, fragments, memory // 2, peak)
    return handover if handover.total_bytes > memory else None


def _agglomerate(
    method: AgglomerationConfig,
    stitch: StitchBlocks,
    place: tuple[str, str],
    voxels: int,
    memory: int,
) -> AgglomerateBlocks:
    """The stage of the method chosen, for blocks of so many voxels."""
    linkage, lowest = Linkage(method.linkage, method.quantile), integer_threshold(method.lowest)
    if method.method == "waterz":
        peak = BASE_BYTES + WATERZ_BYTES * voxels
        return WaterzBlock(stitch, linkage, lowest, *place, peak, memory, method.threshold)
    peak = BASE_BYTES + max(GRAPH_BYTES * voxels, memory + LADDER_BYTES)
    return AgglomerateBlocks(stitch, linkage, lowest, *place, peak, memory)


def frame_of(plan: Plan) -> Frame:
    """Box, domain and blocks of a plan as plain values."""
    return Frame(
        (_triple(plan.roi.begin), _triple(plan.roi.shape)),
        _triple(plan.domain.shape),
        plan.block_shape,
        plan.source.resolution_nm,
    )


def _read_voxels(frame: Frame, halo: tuple[int, int, int]) -> int:
    """Voxels of the largest read box of a block."""
    z, y, x = (
        min(b + 2 * h, n) for b, h, n in zip(frame.block_shape, halo, frame.roi[1], strict=True)
    )
    return z * y * x


def _measure(plan: Plan, frame: Frame) -> MeasureIntensity | None:
    if plan.measurement is None or plan.raw is None:
        return None
    chosen, box = plan.measurement.normalisation, plan.measurement.box
    levels = MeasuredLevels(
        str(plan.stage_folder("intensity")), frame.domain_shape,
        (_triple(box.begin), _triple(box.shape)), chosen.cell, chosen.mode == "clahe",
    )  # fmt: skip
    memory = BASE_BYTES + part_bytes(levels, plan.raw.dtype.itemsize)
    return MeasureIntensity(
        levels, chosen, plan.raw.url, plan.config.raw.window, plan.fingerprints["intensity"], memory
    )


def _predict(
    plan: Plan, frame: Frame, holes: Holes, measure: MeasureIntensity | None
) -> tuple[PredictTiles | None, KeepAffinities | None]:
    if plan.raw is None or plan.prediction is None:
        return None, None
    facts = plan.prediction.network
    place = scratch_of(plan.config, plan.folder) or plan.stage_folder("predict")
    tiles = TileSet(frame, facts.lattice, str(place))
    intensity: Intensity = Windowed(plan.config.raw.window)
    tables = 0
    if measure is not None:
        intensity = measure.normalisation.over(plan.config.raw.window, measure.levels)
        tables = 2 * counts_bytes(measure.levels)
    predict = PredictTiles(
        tiles, plan.raw.url, str(plan.config.checkpoint), plan.prediction.profile.as_dict(),
        intensity, plan.fingerprints["predict"], BASE_BYTES + tables + facts.peak_bytes,
        plan.config.predict.augment,
    )  # fmt: skip
    if plan.config.affinities != "keep":
        return predict, None
    attributes: dict[str, Any] = {
        "fingerprint": plan.fingerprints["predict"],
        "offsets": [list(offset) for offset in facts.neighborhood],
        "scale": 256,
    }
    layer = 3 * Z_RUN * int(plan.roi.shape[1]) * int(plan.roi.shape[2])
    keep = KeepAffinities(
        tiles, str(plan.stage_folder("affinities")), attributes, plan.fingerprints["affinities"],
        BASE_BYTES + 3 * layer, holes,
    )  # fmt: skip
    return predict, keep


def _triple(values: Any) -> tuple[int, int, int]:
    z, y, x = (int(n) for n in values)
    return z, y, x
