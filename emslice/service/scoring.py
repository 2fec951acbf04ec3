"""One network on one labelled volume: predicted, agglomerated once, scored at every threshold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emslice.config.schema import SegmentConfig
from emslice.errors import StorageError
from emslice.geometry.boxes import n_voxels, within
from emslice.models.predictor import make_predictor
from emslice.ops.blank import blank_voxels
from emslice.ops.cuts import Cuts, cut_parts
from emslice.ops.darker import darker_affinity
from emslice.ops.dust import DustRule
from emslice.ops.intensity import to_uint8
from emslice.ops.linkage import Linkage
from emslice.service.labelled import Labelled, grown
from emslice.service.machine import n_cores
from emslice.service.prediction import plan_prediction
from emslice.stages.agglomerate import grow, oversegment
from emslice.stages.intensity import CountedLevels, Normalisation
from emslice.stages.predict import predict
from emslice.volumes import Volume

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Segmented:
    """A volume cut at many thresholds, and how long that took."""

    cuts: Cuts
    seconds: float
    """From affinities to the segmentation at the default threshold; other cuts not counted."""


def predict_labelled(
    labelled: Labelled,
    config: SegmentConfig,
    raw: Volume,
    advance: Advance = lambda voxels: None,
    sha256: str | None = None,
) -> NDArray[np.uint8]:
    """Affinity codes of the box of a labelled volume, shape (3, Z, Y, X).

    Without a checkpoint they are raw itself: the darker of two voxels, after the window only.

    Raises
    ------
    StorageError
        The file of the checkpoint is not the one of ``sha256`` any more.
    """
    roi, window = labelled.roi, config.raw.window
    if config.checkpoint is None:
        seen = grown(roi, raw.domain)
        values = raw.read(seen)
        codes = darker_affinity(to_uint8(values, window))
        codes[:, blank_voxels(values)] = 0
        advance(n_voxels(roi))
        return np.ascontiguousarray(codes[(slice(None), *within(roi, seen))])
    planned = plan_prediction(config, raw, roi)
    if sha256 not in (None, planned.checkpoint.sha256):  # training may go on beside us
        raise StorageError(
            f"checkpoint {config.checkpoint}: has changed since this began. Copy it, and score "
            f"the copy."
        )
    chosen = planned.measurement.normalisation if planned.measurement else Normalisation("none")
    intensity = chosen.over(window, CountedLevels(raw, window, chosen.cell))
    predictor = make_predictor(
        planned.checkpoint.network, planned.network.lattice, planned.profile,
        config.predict.augment,
    )  # fmt: skip
    workers = config.workers or n_cores()
    found: NDArray[np.uint8] = predict(raw, predictor, roi, intensity, workers, advance).array
    return found


def segment_at_all(
    codes: NDArray[np.uint8], config: SegmentConfig, thresholds: Iterable[float]
) -> Segmented:
    """Segmentations of affinities at the threshold of the configuration and at others."""
    method, start = config.agglomeration, time.perf_counter()
    linkage, chosen = Linkage(method.linkage, method.quantile), method.threshold
    dust = DustRule(config.dust.min_size, config.dust.alone)
    parts = oversegment(
        codes,
        radius=config.fragments.cap,
        workers=config.workers or n_cores(),
        dimensions=config.fragments.dimensions,
        histograms=linkage.needs_histograms,
        method=config.fragments.method,
    )
    tree = grow(parts, linkage, method.lowest)
    cut_parts(parts, tree, [chosen], dust).at(chosen)
    seconds = time.perf_counter() - start
    return Segmented(cut_parts(parts, tree, {*thresholds, chosen}, dust), seconds)


def warm_up(config: SegmentConfig) -> None:
    """Compile what segments, on a few voxels: it shall not count as the first volume's time."""
    codes = np.random.default_rng(0).integers(1, 256, (3, 2, 40, 40)).astype(np.uint8)
    segment_at_all(codes, config, [])
