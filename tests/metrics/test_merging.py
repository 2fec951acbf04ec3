"""Scores after each step of merges are those of the merged segmentation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.errors import ConfigError
from emslice.metrics import MergingSegments, count_overlaps


def merged(labels, child, parent):
    """Labels after merges in ascending order of children, whose parents are smaller."""
    into = {int(n): int(n) for n in np.unique(labels)}
    for c, p in sorted(zip(child.tolist(), parent.tolist(), strict=True)):
        into[c] = into.get(p, p)
    return np.vectorize(into.__getitem__, otypes=[np.uint64])(labels)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 6))
def test_scores_after_each_step_are_those_of_the_merged_labels(seed, n, steps):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n, (3, 5, 7)).astype(np.uint64) * 10
    truth = rng.integers(0, 4, labels.shape).astype(np.uint8)
    truth[0, 0, 0] = 1
    child = np.arange(20, 10 * n, 10, dtype=np.uint64)  # 0 is masked and joins nobody
    parent = (rng.integers(1, child // 10) * 10).astype(np.uint64)
    # A parent gives up its name no earlier than it is joined: in the same step or a later one.
    step = np.zeros(len(child), int)
    for i in reversed(range(len(child))):
        joins = parent == child[i]
        step[i] = rng.integers(max(step[joins], default=0), steps)
    table = MergingSegments(count_overlaps(labels, truth), np.concatenate([child, parent]))
    for k in range(steps):
        now = step == k
        table.merge(child[now], parent[now])
        labels = merged(labels, child[now], parent[now])
        expected = count_overlaps(labels, truth).scores().as_dict()
        assert table.scores().as_dict() == pytest.approx(expected, abs=1e-12)


def test_merges_reach_through_segments_that_are_not_in_the_table():
    labels = np.array([[[10, 10, 30]]], np.uint64)
    truth = np.array([[[1, 1, 1]]])
    child, parent = np.array([20, 30], np.uint64), np.array([10, 20], np.uint64)
    table = MergingSegments(count_overlaps(labels, truth), np.concatenate([child, parent]))
    assert table.scores().voi_split == pytest.approx(0.9182958)
    table.merge(child[1:], parent[1:])
    assert table.scores().voi_split == pytest.approx(0.9182958)
    table.merge(child[:1], parent[:1])
    assert table.scores().voi_split == 0


def test_nothing_to_score_is_an_error():
    nothing = np.zeros((1, 2, 3), np.uint8)
    table = MergingSegments(count_overlaps(nothing, nothing), np.zeros(0, np.uint64))
    with pytest.raises(ConfigError, match="nothing to score"):
        table.scores()
