"""Checkpoints against the volumes of a test set: planned as a whole, done pair by pair.

A pair is a checkpoint on a volume. Its record is written after its picture, and a pair that has a
record with the same fingerprint is never done again: the command can be repeated after a stop, and
with more checkpoints or volumes.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emslice.config.evaluate import LabelledVolumes, load_test_set
from emslice.config.schema import SegmentConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, clip, n_voxels, show, within
from emslice.ledger.files import write_aside
from emslice.ledger.fingerprint import fingerprint
from emslice.metrics import ThresholdScores, score_cuts
from emslice.models.checkpoint import Checkpoint, load_checkpoint
from emslice.models.cost import macs_per_voxel
from emslice.models.networks import count_parameters
from emslice.models.student import Student
from emslice.ops.intensity import to_uint8
from emslice.ops.linkage import Linkage
from emslice.service.identity import fingerprints
from emslice.service.labelled import Labelled, check_labelled
from emslice.service.machine import check_writable
from emslice.service.methods import check_methods
from emslice.service.prediction import plan_prediction
from emslice.service.reporting import Reporter
from emslice.service.scores import Evaluation, PairScores, load_pair, save_pair, write_results
from emslice.service.scoring import predict_labelled, segment_at_all, warm_up
from emslice.service.sweeping import thresholds_from
from emslice.viewer.panels import affinity_colours, grey, label_colours, save_panels
from emslice.volumes import Volume, local_path

BASELINE = "raw"
"""Name of the checkpoint that is none: raw itself as affinities."""

VERSION = 1
"""Raised when the same fingerprints would give other scores."""

PICTURE_BYTES = 4 * 2**20


class Loaded(NamedTuple):
    """A checkpoint and where it lies."""

    path: Path
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Pair:
    """A checkpoint on a volume, checked; nothing of it is in memory."""

    checkpoint: str
    """Name in tables."""

    sha256: str
    parameters: int
    mac_per_voxel: float
    labelled: Labelled
    config: SegmentConfig
    """With the checkpoint, or without one for the baseline."""

    thresholds: tuple[float, ...]
    ignore: int
    fingerprint: str

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.labelled.name}_{self.checkpoint}_{self.fingerprint[:8]}"

    def record(self, out: Path) -> Path:
        """Where its record is."""
        return out / "pairs" / f"{self.stem}.json"

    def picture(self, out: Path) -> Path:
        """Where its section is drawn."""
        return out / "sections" / f"{self.stem}.png"


@dataclass(frozen=True)
class EvaluationPlan:
    """All pairs, volume by volume, and where their scores go."""

    out: Path
    pairs: tuple[Pair, ...]


def plan_evaluation(
    file: str | Path,
    checkpoints: tuple[str, ...],
    out: str | Path,
    assignments: tuple[str, ...] = (),
    root: str | None = None,
) -> EvaluationPlan:
    """Everything checked: test set, volumes, checkpoints, each on each, and the folder.

    Raises
    ------
    ConfigError
        Anything that would stop a pair. Nothing was written.
    """
    wanted = load_test_set(file, assignments, root)
    if not checkpoints:
        raise ConfigError("checkpoint: none to score. Add --checkpoint FILE, or --checkpoint raw.")
    folder = Path(out)
    _check_out(folder)
    loaded = _load_all(checkpoints)
    volumes = [check_labelled(volume, wanted.ignore) for volume in wanted.volumes]
    pairs = [
        _plan_pair(wanted, labelled, name, checkpoint)
        for labelled in volumes
        for name, checkpoint in loaded.items()
    ]
    check_writable(folder, PICTURE_BYTES * len(pairs), "--out")
    return EvaluationPlan(folder, tuple(pairs))


def _check_out(folder: Path) -> None:
    hidden = folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())
    if not folder.exists() or hidden:  # such as the probe of a call that was killed
        return
    if not (folder / "pairs").is_dir():
        raise ConfigError(
            f"--out {folder}: exists and is no folder of scores. Choose a new one, or that of an "
            f"earlier evaluation, whose finished pairs are kept."
        )


def _load_all(paths: tuple[str, ...]) -> dict[str, Loaded | None]:
    """Checkpoints by name, None for the baseline; those of one file name get their folder's."""
    stems = Counter(Path(path).stem for path in paths)
    loaded: dict[str, Loaded | None] = {}
    for text in paths:
        path = local_path(text)
        unique = text == BASELINE or (stems[path.stem] == 1 and path.stem != BASELINE)
        name = Path(text).stem if unique else f"{path.parent.name}-{path.stem}"
        if name in loaded:
            raise ConfigError(f"--checkpoint {text}: {name} is given twice. Drop or rename one.")
        loaded[name] = None if text == BASELINE else Loaded(path, load_checkpoint(path))
    return loaded


def _plan_pair(
    wanted: LabelledVolumes,
    labelled: Labelled,
    name: str,
    loaded: Loaded | None,
) -> Pair:
    config = labelled.volume.segment
    _check_methods(labelled.name, config)
    raw_id, truth_id = labelled.identity
    block = tuple(int(n) for n in labelled.roi.shape)
    assert len(block) == 3
    if loaded is None:
        window = config.raw.window
        identity = [fingerprint("darker", VERSION, {"window": window}, raw_id)]
        prediction, parameters, macs, sha256 = None, 0, 0.0, BASELINE
    else:
        config = _for_network(config, loaded)
        try:
            prediction = plan_prediction(config, labelled.outline, labelled.roi)
        except ConfigError as error:
            raise type(error)(f"{name} on volumes.{labelled.name}: {error}") from error
        checkpoint = loaded.checkpoint
        identity = [raw_id, checkpoint.sha256]
        parameters, sha256 = count_parameters(checkpoint.network), checkpoint.sha256
        macs = macs_per_voxel(checkpoint.network, prediction.network.lattice, labelled.roi)
    prints = fingerprints(config, labelled.roi, block, identity, prediction)
    thresholds = _thresholds(wanted, config, labelled.name)
    facts = {"thresholds": thresholds, "ignore": wanted.ignore}
    own = fingerprint("evaluate", VERSION, facts, prints["relabel"], truth_id)
    return Pair(
        name, sha256, parameters, macs, labelled, config, thresholds, wanted.ignore, own
    )  # fmt: skip


def _for_network(config: SegmentConfig, loaded: Loaded) -> SegmentConfig:
    """Parameters with the checkpoint; a student's without those of windows, which it has not."""
    predict = config.predict
    if isinstance(loaded.checkpoint.network, Student):
        predict = predict.model_copy(update={"crop": None, "stride": None})
    return config.model_copy(update={"checkpoint": str(loaded.path), "predict": predict})


def _check_methods(name: str, config: SegmentConfig) -> None:
    method, fragments = config.agglomeration, config.fragments
    if method.method != "exact":
        raise ConfigError(
            f"volumes.{name}: agglomeration.method: {method.method} knows no merge but those at "
            f"one threshold, and a test set is scored at many. Set it to exact."
        )
    linkage = Linkage(method.linkage, method.quantile)
    check_methods(fragments.method, fragments.dimensions, method.method, linkage)


def _thresholds(wanted: LabelledVolumes, config: SegmentConfig, name: str) -> tuple[float, ...]:
    lowest, chosen = config.agglomeration.lowest, config.agglomeration.threshold
    if isinstance(wanted.thresholds, int):
        return tuple(thresholds_from(lowest, chosen, wanted.thresholds))
    if any(threshold < lowest for threshold in wanted.thresholds):
        raise ConfigError(
            f"thresholds: {min(wanted.thresholds):g} is below the lowest threshold kept for "
            f"volumes.{name}, {lowest:g}. Lower agglomeration.lowest_threshold."
        )
    return tuple(sorted({*wanted.thresholds, chosen}))


def evaluate_pairs(plan: EvaluationPlan, reporter: Reporter) -> Evaluation:
    """Do the pairs that have no record, and write table and pictures of all."""
    for folder in ("pairs", "sections"):
        (plan.out / folder).mkdir(parents=True, exist_ok=True)
    rows, done, warm = [], 0, False
    for pair in plan.pairs:
        found = load_pair(pair.record(plan.out), pair.fingerprint)
        if found is None or not pair.picture(plan.out).is_file():
            if not warm:
                warm_up(pair.config)
                warm = True
            found = _do_pair(pair, plan.out, reporter)
            done += 1
        rows.append(found)
    return write_results(plan.out, rows, done)


def _do_pair(pair: Pair, out: Path, reporter: Reporter) -> PairScores:
    labelled, config = pair.labelled, pair.config
    voxels, raw = n_voxels(labelled.roi), labelled.raw()
    what = f"{pair.checkpoint} on {labelled.name}"
    start = time.perf_counter()
    with reporter.stage(f"{what}: predict", voxels) as advance:
        codes = predict_labelled(labelled, config, raw, advance, pair.sha256)
    predict_s = time.perf_counter() - start
    with reporter.stage(f"{what}: segment and score", voxels) as advance:
        segmented = segment_at_all(codes, config, pair.thresholds)
        cuts, truth, chosen = segmented.cuts, labelled.truth(), config.agglomeration.threshold
        scores = score_cuts(cuts.labels, cuts.segments, truth, chosen, pair.ignore)
        advance(voxels)
    _draw(pair, out, raw, codes, cuts.segments[chosen][_middle(cuts.labels)], truth, scores)
    found = PairScores(
        pair.fingerprint, pair.checkpoint, pair.sha256, labelled.name, show(labelled.roi), voxels,
        pair.parameters, pair.mac_per_voxel, round(predict_s, 3), round(segmented.seconds, 3),
        scores,
    )  # fmt: skip
    save_pair(pair.record(out), found)
    return found


def _middle(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[len(array) // 2]


def _draw(
    pair: Pair,
    out: Path,
    raw: Volume,
    codes: NDArray[np.uint8],
    segments: NDArray[np.uint64],
    truth: NDArray[np.integer],
    scores: ThresholdScores,
) -> None:
    """The middle section: what the table's numbers look like."""
    roi, best = pair.labelled.roi, scores.default
    z = int(roi.begin[0]) + int(roi.shape[0]) // 2
    section = clip(Roi((z, *roi.begin[1:]), (1, *roi.shape[1:])), roi)
    shown = to_uint8(raw.read(section), pair.config.raw.window)[0]
    panels = [
        (f"raw, section {z}", grey(shown)),
        (
            f"affinity of {pair.checkpoint}",
            affinity_colours(codes[:, within(section, roi)[0]][:, 0]),
        ),
        (f"segmentation at {best.threshold:g}: VOI {best.voi:.3f}", label_colours(segments, shown)),
        ("truth", label_colours(_middle(truth).astype(np.uint64), shown)),
    ]
    with write_aside(pair.picture(out)) as path:
        save_panels(path, panels)
