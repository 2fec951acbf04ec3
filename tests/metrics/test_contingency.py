"""Scores are those of scikit-image, and tables of pieces add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from emslice.errors import ConfigError
from emslice.metrics import count_overlaps

shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 9))


def labellings(shape, seed, n=5):
    rng = np.random.default_rng(seed)
    segmentation = rng.integers(0, n, shape).astype(np.uint64)
    truth = rng.integers(0, n, shape).astype(np.uint32)
    truth.flat[0] = 1  # something to score
    return segmentation, truth


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shapes, st.integers(0, 10**6))
def test_scores_are_those_of_scikit_image(shape, seed):
    segmentation, truth = labellings(shape, seed)
    scores = count_overlaps(segmentation, truth).scores()
    split, merge = variation_of_information(truth, segmentation, ignore_labels=(0,))
    assert scores.voi_split == pytest.approx(split, abs=1e-9)
    assert scores.voi_merge == pytest.approx(merge, abs=1e-9)
    assert scores.voi == pytest.approx(split + merge, abs=1e-9)
    with np.errstate(invalid="ignore"):  # scikit-image divides by the number of pairs, also 0
        arand, _, _ = adapted_rand_error(
            truth.astype(int), segmentation.astype(int), ignore_labels=(0,)
        )
    if np.isfinite(arand):
        assert scores.arand == pytest.approx(arand, abs=1e-9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(shapes, st.integers(0, 10**6), st.data())
def test_tables_of_pieces_add_up_to_the_table_of_the_whole(shape, seed, data):
    segmentation, truth = labellings(shape, seed)
    cut = data.draw(st.integers(0, shape[0]))
    parts = count_overlaps(segmentation[:cut], truth[:cut]) + count_overlaps(
        segmentation[cut:], truth[cut:]
    )
    whole = count_overlaps(segmentation, truth)
    for name in ("segment", "truth", "count"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_a_perfect_segmentation_scores_zero_whatever_its_ids():
    truth = np.arange(60, dtype=np.uint64).reshape(3, 4, 5) // 7
    scores = count_overlaps(truth * 2**40 + 5, truth).scores()
    assert scores.as_dict() == {"voi_split": 0, "voi_merge": 0, "voi": 0, "arand": 0}


def test_cutting_a_neuron_in_half_costs_one_bit_of_split():
    truth = np.ones((2, 3, 4), np.uint8)
    segmentation = np.repeat([[[7]], [[9]]], 3, axis=1).repeat(4, axis=2)
    scores = count_overlaps(segmentation, truth).scores()
    assert scores.voi_split == pytest.approx(1)
    assert scores.voi_merge == 0


def test_joining_two_neurons_costs_one_bit_of_merge():
    truth = np.repeat([[[7]], [[9]]], 3, axis=1).repeat(4, axis=2)
    scores = count_overlaps(np.ones((2, 3, 4), np.uint8), truth).scores()
    assert scores.voi_merge == pytest.approx(1)
    assert scores.voi_split == 0


def test_big_ids_and_big_counts_stay_exact():
    from emslice.metrics import Contingency

    ids = np.array([1, 2], np.uint64)
    count = np.array([2**33, 2**33], np.int64)  # squares leave 64 bits
    scores = Contingency(ids, ids, count).scores()
    assert scores.arand == 0
    assert Contingency(np.array([1, 1], np.uint64), ids, count).scores().arand > 0.3


def test_truth_without_labels_is_an_error():
    nothing = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(ConfigError, match="nothing to score"):
        count_overlaps(nothing, nothing).scores()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((1, 2, 3), 0.9), "holds float64; labels are integers"),
        (np.full((1, 2, 3), 2.0, np.float32), "holds float32"),
        (np.full((1, 2, 3), 1j), "holds complex128"),
        (np.full((1, 2, 3), -1), "holds the label -1; labels are 0 or more"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_are_no_labels_is_refused_and_not_cast(labels, message, first):
    good = np.ones((1, 2, 3), np.uint8)
    pair = (labels, good) if first else (good, labels)
    with pytest.raises(ConfigError, match=f"{'segmentation' if first else 'truth'}: {message}"):
        count_overlaps(*pair)


def test_booleans_are_labels():
    mask = np.array([[[True, False, True]]])
    assert count_overlaps(mask, mask).scores().voi == 0


def test_shapes_that_differ_are_an_error():
    with pytest.raises(ConfigError, match=r"\(2, 3, 4\).*\(2, 4, 3\)"):
        count_overlaps(np.ones((2, 3, 4), int), np.ones((2, 4, 3), int))
