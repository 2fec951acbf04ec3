"""The promise: the result in blocks is the result of the whole volume, byte for byte."""

import numpy as np
import pytest
from equivalence.blocks import roi_in, segment_in_blocks, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.ops.dust import DustRule
from emslice.ops.linkage import Linkage

small = st.integers(0, 3)
facts = {
    "dimensions": st.just(2),
    "shape": st.tuples(st.integers(1, 5), st.integers(1, 14), st.integers(1, 17)),
    "block": st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    "offset": st.tuples(small, small, small),
    "margin": st.tuples(small, small, small),
    "levels": st.sampled_from([2, 3, 4, 6, 256]),
    "masked": st.sampled_from([0.0, 0.1, 0.5]),
    "linkage": st.sampled_from(
        [
            Linkage("mean"),
            Linkage("quantile_max"),
            Linkage("quantile_max", 0),
            Linkage("quantile_max", 80),
            Linkage("quantile"),
            Linkage("quantile", 0),
            Linkage("quantile", 80),
        ]
    ),
    "lowest": st.sampled_from([0.0, 0.1, 0.3, 0.5]),
    "threshold": st.sampled_from([0.3, 0.5, 0.7]),
    "min_size": st.sampled_from([0, 2, 3, 5, 8, 20, 60]),
    "alone": st.sampled_from(["drop", "keep"]),
    "radius": st.integers(1, 4),
    "seed": st.integers(0, 2**32 - 1),
}
cases = st.fixed_dictionaries(facts)
volumes = st.fixed_dictionaries(
    {
        **facts,
        "dimensions": st.just(3),
        "shape": st.tuples(st.integers(1, 14), st.integers(1, 10), st.integers(1, 12)),
        "block": st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 9)),
        "inside": st.sampled_from([0.0, 0.8, 0.95]),
    }
)


def random_affinity(case):
    """Codes with heavy ties, smooth enough for fragments of several voxels, partly masked."""
    rng = np.random.default_rng(case["seed"])
    levels = np.linspace(0, 255, case["levels"]).astype(np.uint8)
    codes = levels[rng.integers(0, len(levels), (3, *case["shape"]))]
    codes[:, rng.random(case["shape"]) < case.get("inside", 0)] = 200
    codes[:, rng.random(case["shape"]) < case["masked"]] = 0
    return codes


def check(case):
    affinity = random_affinity(case)
    roi, domain = roi_in(case["shape"], case["offset"], case["margin"])
    threshold = max(case["threshold"], case["lowest"])
    dust = DustRule(case["min_size"], case["alone"])
    method = (
        case["linkage"], threshold, case["lowest"], case["radius"], dust, case["dimensions"],
    )  # fmt: skip
    blocks, merges = segment_in_blocks(affinity, roi, domain, case["block"], *method)
    segments, all_merges = whole(affinity, roi, domain, *method)
    assert merges == all_merges
    np.testing.assert_array_equal(blocks, segments)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases)
def test_any_blocks_give_the_segmentation_and_the_merges_of_the_whole(case):
    check(case)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(volumes)
def test_any_blocks_give_them_with_fragments_in_three_dimensions(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(cases | volumes)
def test_many_more_blocks_do_too(case):
    check(case)
