"""Train the small student of ``emslice demo`` from scratch, on synthetic sections only.

    python workflows/train_demo_student.py                                # the shipped file, CPU
    python workflows/train_demo_student.py --steps 3 --volumes 1 --no-score --out t.ckpt   # 20 s

One step: crops of adjacent sections -> two embeddings -> three cosines
               -> weighted squared error to the affinities of the truth
The step with the least validation loss is kept. The seed of the demo is never trained on. The
same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from emslice.demo.synthetic import synthetic_em
from emslice.models.checkpoint import load_checkpoint, save_checkpoint
from emslice.models.student import Student
from emslice.ops.affinity import pair_affinity

RESOLUTION_NM = (30.0, 6.0, 6.0)
TEST_SEEDS, VALIDATION_SEED, FIRST_TRAINING_SEED = (0, 2, 3), 1, 100  # 0 is the demo's
PEAK_RATE = 4e-3
THREADS = 2
OUT = Path(__file__).parents[1] / "emslice/demo/student.ckpt"

Sample = tuple[Tensor, Tensor]  # raw in [0, 1] and labels, both (B, 2, Y, X)
Volume = tuple[NDArray[np.float32], NDArray[np.int64]]  # the same, (Z, Y, X)


@dataclass(frozen=True)
class Plan:
    """What, besides the code and the network's size, decides the weights."""

    steps: int
    seed: int
    volumes: int
    batch: int = 8
    crop: int = 128
    check_every: int = 50

    @property
    def training_seeds(self) -> list[int]:
        """Of the synthetic volumes."""
        return list(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + self.volumes))


def pair_cosines(before: Tensor, here: Tensor) -> Tensor:
    """Cosines of each pair of sections along z, y, x, not clamped, shape (B, 3, Y - 1, X - 1).

    The first row and column are left out: they have no neighbour.
    """
    last, unit = F.normalize(before, dim=1), F.normalize(here, dim=1)
    inner = unit[:, :, 1:, 1:]
    others = (last[:, :, 1:, 1:], unit[:, :, :-1, 1:], unit[:, :, 1:, :-1])
    return torch.stack([(inner * other).sum(1) for other in others], 1)


def target_affinity(labels: Tensor) -> Tensor:
    """1 where both labels are equal and not 0, shape (B, 3, Y - 1, X - 1)."""
    here = labels[:, 1]
    inner = here[:, 1:, 1:]
    others = (labels[:, 0, 1:, 1:], here[:, :-1, 1:], here[:, 1:, :-1])
    return torch.stack([(inner == other) & (inner > 0) for other in others], 1).float()


def affinity_loss(cosine: Tensor, target: Tensor) -> Tensor:
    """Weighted squared error, classes balanced within each channel (reference, section 6.1).

    The affinity is the cosine clamped to [0, 1]. A pair that belongs apart has no error once its
    cosine is negative. A pair that belongs together has the error of the cosine itself: clamped,
    it would have no gradient below 0, just where it is most wrong.
    """
    positive = target.mean((0, 2, 3), keepdim=True).clamp(0.05, 0.99)
    together = ((1 - positive) / positive).clamp(min=1)
    apart = (positive / (1 - positive)).clamp(min=1)
    error = target * together * (1 - cosine) ** 2 + (1 - target) * apart * cosine.clamp(min=0) ** 2
    return error.mean((0, 2, 3)).sum()


def widen_border(labels: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Labels with 0 wherever the 3x3 neighbourhood in the section holds two ids."""
    ids = labels.astype(np.int64)
    size = (1, 3, 3)
    most = ndimage.maximum_filter(ids, size)
    least = ndimage.minimum_filter(np.where(ids == 0, most, ids), size)
    return np.where(most == least, ids, 0)


def draw_batch(rng: Generator, volumes: list[Volume], n: int, crop: int) -> Sample:
    """Augmented crops of adjacent sections, in either order."""
    raws, labels = [], []
    for _ in range(n):
        raw, ids = volumes[rng.integers(len(volumes))]
        z, y, x = (
            rng.integers(0, s - c + 1) for s, c in zip(raw.shape, (2, crop, crop), strict=True)
        )
        box = (slice(z, z + 2), slice(y, y + crop), slice(x, x + crop))
        flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
        axes = (0, 2, 1) if rng.random() < 0.5 else (0, 1, 2)
        raws.append(change_contrast(rng, np.flip(raw[box], flips).transpose(axes)))
        labels.append(np.flip(ids[box], flips).transpose(axes))
    return torch.from_numpy(np.stack(raws)), torch.from_numpy(np.stack(labels))


def change_contrast(rng: Generator, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Contrast, brightness, gamma and noise, drawn for each section of the pair."""
    shape = (2, 1, 1)
    gain = rng.uniform(0.8, 1.2, shape)
    changed = np.clip(0.5 + (raw - 0.5) * gain + rng.uniform(-0.1, 0.1, shape), 0, 1)
    changed = changed ** rng.uniform(0.75, 1.33, shape)
    noise = rng.uniform(0, 0.04, shape) * rng.standard_normal(raw.shape)
    return np.clip(changed + noise, 0, 1).astype(np.float32)


def adjacent_pairs(raw: NDArray[np.uint8], labels: NDArray[np.int64]) -> Iterator[Sample]:
    """Every pair of whole sections, one at a time."""
    for z in range(1, len(raw)):
        pair = torch.from_numpy(raw[None, z - 1 : z + 1] / np.float32(255))
        yield pair, torch.from_numpy(labels[None, z - 1 : z + 1])


@torch.inference_mode()
def validation_loss(network: Student, pairs: list[Sample]) -> float:
    """Mean loss of the network in evaluation mode."""
    network.eval()
    losses = [
        affinity_loss(pair_cosines(*network(raw)), target_affinity(ids)) for raw, ids in pairs
    ]
    network.train()
    return float(torch.stack(losses).mean())


@torch.inference_mode()
def predict_affinity(network: Student, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Affinities of whole sections, shape (3, Z, Y, X); section 0 is paired with itself."""
    sections = torch.from_numpy(raw / np.float32(255))
    affinity = []
    for z in range(len(raw)):
        pair = sections[[max(0, z - 1), z]][None]
        before, here = network(pair)
        affinity.append(pair_affinity(before[0], here[0]))
    return torch.stack(affinity, 1).numpy()


def raw_affinity(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The baseline without a network: the darker of two voxels, shape (3, Z, Y, X)."""
    bright = raw / np.float32(255)
    affinity = np.repeat(bright[None], 3, 0)
    affinity[0, 1:] = np.minimum(bright[1:], bright[:-1])
    affinity[1, :, 1:] = np.minimum(bright[:, 1:], bright[:, :-1])
    affinity[2, :, :, 1:] = np.minimum(bright[:, :, 1:], bright[:, :, :-1])
    return affinity


def affinity_scores(
    affinity: NDArray[np.float32], labels: NDArray[np.int64], thresholds: tuple[float, ...]
) -> dict[str, Any]:
    """Per channel (z, y, x): cross entropy in nats, and F1 of *apart* at the best threshold."""
    scores: dict[str, list[float]] = {"bce": [], "f1_apart": []}
    for k, axis in enumerate((0, 1, 2)):
        later, earlier = np.delete(labels, 0, axis), np.delete(labels, -1, axis)
        together = (later == earlier) & (later > 0)
        p = np.clip(np.delete(affinity[k], 0, axis), 0.001, 0.999)
        cross_entropy = -np.where(together, np.log(p), np.log(1 - p)).mean()
        cuts = [p < threshold for threshold in thresholds]
        f1 = max(2 * (cut & ~together).sum() / (cut.sum() + (~together).sum()) for cut in cuts)
        scores["bce"].append(round(float(cross_entropy), 4))
        scores["f1_apart"].append(round(float(f1), 4))
    return scores


def segment_scores(
    affinity: NDArray[np.float32], truth: NDArray[np.uint64], thresholds: tuple[float, ...]
) -> list[dict[str, float]]:
    """VOI (bits) and ARAND of waterz's own watershed and agglomeration; truth 0 is ignored.

    Thresholds are emslice's: merge while the score is at least this.
    """
    import waterz
    from skimage.metrics import adapted_rand_error, variation_of_information

    scoring = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 50, ScoreValue, 256, true>>"
    distances = sorted(round(1 - t, 6) for t in thresholds)
    found = []
    runs = waterz.agglomerate(affinity, distances, scoring_function=scoring, discretize_queue=256)
    for distance, segments in zip(distances, runs, strict=True):
        split, merge = variation_of_information(truth, segments, ignore_labels=(0,))
        arand = adapted_rand_error(truth, segments, ignore_labels=(0,))[0]
        values = {"threshold": 1 - distance, "voi_split": split, "voi_merge": merge, "arand": arand}
        found.append({key: round(float(value), 4) for key, value in values.items()})
    return found


def score_seed(path: Path, seed: int) -> dict[str, Any]:
    """Scores of a written checkpoint, and of the baseline, on one synthetic volume.

    The network is scored at the threshold 0.5; the baseline at the best of nine, chosen on the
    truth itself, so that it is not a straw man.
    """
    raw, truth = synthetic_em(resolution_nm=RESOLUTION_NM, seed=seed)
    labels = truth.astype(np.int64)
    affinity, baseline = predict_affinity(load_checkpoint(path).network, raw), raw_affinity(raw)
    nine = tuple(n / 10 for n in range(1, 10))
    scores = {"affinity": affinity_scores(affinity, labels, (0.5,))}
    scores["baseline_affinity"] = affinity_scores(baseline, labels, nine)
    scores["segments"] = segment_scores(affinity, truth, (0.5,))[0]
    tried = segment_scores(baseline, truth, nine)
    scores["baseline_segments"] = min(tried, key=lambda s: s["voi_split"] + s["voi_merge"])
    return {"seed": seed, **scores}


def make_data(seeds: list[int]) -> tuple[list[Volume], list[Sample]]:
    """Training volumes, and the pairs of sections that choose the step."""
    training = []
    for seed in seeds:
        raw, truth = synthetic_em((32, 256, 256), RESOLUTION_NM, seed)
        training.append((raw / np.float32(255), widen_border(truth)))
    raw, truth = synthetic_em((16, 256, 256), RESOLUTION_NM, VALIDATION_SEED)
    return training, list(adjacent_pairs(raw, widen_border(truth)))


def choose_weights(
    network: Student, optimiser: torch.optim.Optimizer, plan: Plan
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of the step with the least validation loss, and the loss curve."""
    rng = np.random.default_rng(plan.seed)
    training, held_out = make_data(plan.training_seeds)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, plan.steps, pct_start=0.15)
    least, kept, weights = float("inf"), 0, network.state_dict()
    curve: list[list[float]] = []
    losses: list[float] = []
    began = time.monotonic()
    for step in range(1, plan.steps + 1):
        sections, labels = draw_batch(rng, training, plan.batch, plan.crop)
        loss = affinity_loss(pair_cosines(*network(sections)), target_affinity(labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % plan.check_every and step < plan.steps:
            continue
        error = validation_loss(network, held_out)
        curve.append([step, round(float(np.mean(losses)), 4), round(error, 4)])
        losses.clear()
        click.echo(f"{curve[-1]} {time.monotonic() - began:.0f} s")
        if error < least:
            least, kept, weights = error, step, copy.deepcopy(network.state_dict())
    return weights, {"kept_step": kept, "curve": curve}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Checkpoint to write.")
@click.option("--steps", default=1200, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of weights, crops and augmentation.")
@click.option("--features", default=8, show_default=True, help="And length of the embedding.")
@click.option("--volumes", default=16, show_default=True, help="Synthetic volumes to train on.")
@click.option("--score/--no-score", default=True, help="Score the file; needs emslice[compare].")
def main(out: Path, steps: int, seed: int, features: int, volumes: int, score: bool) -> None:
    """Train the demo's student and write it with what is known about it."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    plan = Plan(steps, seed, volumes)
    network = Student(features, features)
    weights, found = choose_weights(network, torch.optim.Adam(network.parameters()), plan)
    network.load_state_dict(weights)
    facts = {
        "command": f"python workflows/train_demo_student.py --steps {steps} --seed {seed} "
        f"--features {features} --volumes {volumes}",
        "data": "synthetic volumes only: emslice.demo.synthetic_em, no real tissue",
        "training_seeds": plan.training_seeds,
        "validation_seed": VALIDATION_SEED,
        **asdict(plan),
        **found,
    }
    # Scores are those of the file, whose floats are rounded: it is written, read and scored.
    save_checkpoint(out, network, RESOLUTION_NM, facts, torch.float16)
    if score:
        _, held_out = make_data([])
        rounded = validation_loss(load_checkpoint(out).network, held_out)
        facts["validation_loss_of_file"] = round(rounded, 4)
        facts["scores"] = [score_seed(out, test_seed) for test_seed in TEST_SEEDS]
        click.echo(json.dumps(facts["scores"], indent=1))
        save_checkpoint(out, network, RESOLUTION_NM, facts, torch.float16)


if __name__ == "__main__":
    main()
