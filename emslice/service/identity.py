"""What each stage of a run is called by: a hash of all that its result depends on."""

from __future__ import annotations

from typing import Any

from emslice.config.schema import SegmentConfig
from emslice.geometry.boxes import Roi
from emslice.ledger.fingerprint import fingerprint, volume_identity
from emslice.ops.linkage import Linkage
from emslice.service.methods import fragments_facts, needs_histograms, waterz_facts
from emslice.service.prediction import Prediction, prediction_prints
from emslice.stages import agglomerate
from emslice.volumes import Volume

RELABEL_VERSION = 1

DUST_VERSION = 1


def fingerprints(
    config: SegmentConfig,
    roi: Roi,
    block: tuple[int, int, int],
    identity: list[str],
    prediction: Prediction | None = None,
    mask: Volume | None = None,
) -> dict[str, str]:
    """Fingerprint of each stage, each with those before it.

    Blocks change no result, but they are what the tasks of a stage are. ``identity`` is that of
    the input, and of the checkpoint if there is one.
    """
    box = [[int(n) for n in roi.begin], [int(n) for n in roi.shape]]
    prints, upstream = dict[str, str](), list(identity)
    if prediction is not None:
        prints = prediction_prints(prediction, config, box, identity)
        upstream = [prints["affinities"]]
    facts = {**fragments_facts(config.fragments), "roi": box, "block": list(block)}
    if mask is not None:  # after prediction, whose results do not depend on it
        facts["mask"] = volume_identity(mask.url)
    for name, version, own in _stages(config, facts):
        prints[name] = fingerprint(name, version, own, *upstream)
        upstream = [prints[name]]
    return prints


def _stages(config: SegmentConfig, facts: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """Name, version and facts of each stage from fragments on."""
    method = config.agglomeration
    if needs_histograms(Linkage(method.linkage), method.method):
        facts = facts | {"histograms": True}  # others must not pay for them: 1 byte a voxel
    merging: dict[str, Any] = {"linkage": method.linkage, "lowest": method.lowest, "tables": 2}
    if method.linkage != "mean":
        merging["quantile"] = method.quantile
    dust = config.dust.model_dump()
    return [
        ("fragments", agglomerate.VERSION, facts),
        ("stitch", agglomerate.VERSION, {}),
        ("agglomerate", agglomerate.VERSION, merging | waterz_facts(method)),
        ("cut", RELABEL_VERSION, {"threshold": method.threshold}),
        *([("dust", DUST_VERSION, dust)] if config.dust.min_size > 0 else []),
        ("relabel", RELABEL_VERSION, {}),
    ]
