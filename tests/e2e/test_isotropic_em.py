"""Isotropic FIB-SEM with dense truth: fragments in 3D are worth their halo."""

import h5py
import numpy as np
import pytest

import emslice
from emslice.ops.fragments import make_fragments

THRESHOLDS = (0.7, 0.5, 0.3, 0.2)


@pytest.fixture(scope="module")
def fib_sem(data_dir):
    """Codes from the boundary probability of 50 x 100 x 200 voxels of 10 nm, and the truth."""
    path = data_dir / "gala_train.h5"
    if not path.exists():
        pytest.skip(f"no {path}")
    with h5py.File(path) as file:
        boundary, truth = file["boundary_prob"][:], file["labels"][:]
    codes = np.empty((3, *boundary.shape), np.uint8)
    for k in range(3):
        before = np.concatenate([boundary.take([0], k), boundary], k).take(
            range(boundary.shape[k]), k
        )
        affinity = 1 - np.maximum(boundary, before)
        # 15 % of the voxels have a probability of exactly 1: boundary, but not masked.
        codes[k] = np.clip(affinity * 256, 1, 255)
    return codes, truth


@pytest.fixture(scope="module")
def scores(fib_sem):
    """Scores by dimensions and threshold."""
    codes, truth = fib_sem
    return {
        (dimensions, threshold): emslice.evaluate(
            emslice.segment_affinities(
                codes, threshold, dimensions=dimensions, lowest_threshold=0.2
            ),
            truth,
        )
        for dimensions in (2, 3)
        for threshold in THRESHOLDS
    }


def test_three_dimensions_are_better_than_two_at_every_threshold(scores):
    assert len(scores) == 2 * len(THRESHOLDS)
    for threshold in THRESHOLDS:
        flat, deep = scores[2, threshold], scores[3, threshold]
        assert deep.voi <= 0.8 * flat.voi
        assert deep.voi_merge <= flat.voi_merge


def test_three_dimensions_segment_it_well(fib_sem, scores):
    one = emslice.evaluate(np.ones_like(fib_sem[1]), fib_sem[1])
    assert scores[3, 0.3].voi <= 0.45 <= one.voi / 9
    assert scores[3, 0.3].arand <= 0.06


def test_three_dimensions_make_a_fraction_of_the_fragments(fib_sem):
    flat, deep = (make_fragments(fib_sem[0], dimensions=d, radius=32).n_roots for d in (2, 3))
    assert deep <= flat / 5
