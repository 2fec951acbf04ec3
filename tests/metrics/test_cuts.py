"""Scores at many thresholds are those of segmenting and evaluating at each of them."""

from dataclasses import asdict

import numpy as np
import pytest

from emslice.errors import ConfigError
from emslice.metrics import SweepRow, ThresholdScores, score_cuts
from emslice.ops.cuts import cut_affinities
from emslice.ops.dust import DustRule
from emslice.ops.linkage import Linkage
from emslice.service.arrays import evaluate, segment_affinities
from emslice.stages.scoring import score_affinities

SHAPE = (4, 23, 37)
AT = (0.3, 0.45, 0.5, 0.6, 0.8)


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(3)
    found = rng.integers(60, 256, (3, *SHAPE)).astype(np.uint8)
    found[:, 1:3, 5:9, 5:20] = 0
    return found


@pytest.fixture(scope="module")
def truth(codes):
    labels = segment_affinities(codes, 0.6, min_size=0) * np.uint64(0x9E3779B97F4A7C15)
    return (labels >> np.uint64(60)).astype(np.uint16)


@pytest.mark.parametrize("linkage", ["quantile_max", "mean", "quantile"])
@pytest.mark.parametrize("min_size", [0, 30])
def test_every_row_is_a_segmentation_scored(codes, truth, linkage, min_size):
    found = score_affinities(codes, truth, AT, min_size=min_size, linkage=Linkage(linkage))
    assert [row.threshold for row in found.rows] == list(AT)
    for row in found.rows:
        labels = segment_affinities(codes, row.threshold, linkage, min_size=min_size)
        expected = evaluate(labels, truth).as_dict()
        assert {name: asdict(row)[name] for name in expected} == pytest.approx(expected)
        assert row.segments == len(np.unique(labels[labels > 0]))
    assert len({row.voi for row in found.rows}) >= 2


def test_the_default_is_scored_though_nobody_asked_for_it(codes, truth):
    found = score_affinities(codes, truth, [0.7, 0.3], default=0.55)
    assert [row.threshold for row in found.rows] == [0.3, 0.55, 0.7]
    assert found.default.threshold == 0.55


def test_the_best_row_has_the_least_voi_and_the_highest_threshold_of_those():
    rows = [SweepRow(t, 0, voi, voi, 0, 9) for t, voi in [(0.2, 2), (0.4, 1), (0.6, 1), (0.8, 3)]]
    assert ThresholdScores(tuple(rows), 0.2).best.threshold == 0.6


def test_a_cut_is_the_segmentation_there(codes):
    cuts = cut_affinities(codes, [0.45, 0.6], dust=DustRule(30))
    assert list(cuts.segments) == [0.45, 0.6]
    expected = segment_affinities(codes, 0.6, min_size=30)
    np.testing.assert_array_equal(cuts.at(0.6), expected)


def test_no_threshold_and_one_that_was_not_cut_are_refused(codes, truth):
    with pytest.raises(ConfigError, match="none given"):
        cut_affinities(codes, [])
    cuts = cut_affinities(codes, [0.4, 0.6])
    with pytest.raises(ConfigError, match=r"0\.5 is not among .*0\.4, 0\.6"):
        score_cuts(cuts.labels, cuts.segments, truth)
