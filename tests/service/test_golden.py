"""Results are pinned: whoever changes one raises the stage's VERSION and these digests."""

import numpy as np
import pytest

import emslice
from emslice.stages import agglomerate, predict
from emslice.volumes.digest import digest_array


def affinities():
    """Smooth codes from integer arithmetic only: the same on every machine."""
    codes = np.random.default_rng(11).integers(0, 256, (3, 6, 64, 80))
    for _ in range(3):
        for axis in (2, 3):
            codes = (np.roll(codes, 1, axis) + codes + np.roll(codes, -1, axis)) // 3
    return np.clip((codes - 96) * 4, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("linkage", "quantile", "expected"),
    [
        ("quantile_max", 50, "3f896e53ebbf8ccd14d0a4fe03b14277c571fad339cf66df568505fbeb868791"),
        ("quantile_max", 20, "5d210a4515b13e00f7bcc12a7e4683cc582438b9add2a3a1d76c4d3c0ce6e5bd"),
        ("mean", 50, "a7a4e8352d3c12c2d7d406bff725ad2e7eede525765adbfa6594b700ee250af8"),
        ("quantile", 50, "8312a8393a377718a4d1f46a9e39b23d56f8f049bbc5d5660f97c392f47e8e96"),
        ("quantile", 20, "a41dad3f2e0018d67cac36514e699b04c112cef647038d5c851d9d386d9151f2"),
    ],
)
def test_the_segmentation_of_given_affinities_is_pinned(linkage, quantile, expected):
    segments = emslice.segment_affinities(affinities(), 0.5, linkage, quantile=quantile)
    assert (agglomerate.VERSION, predict.VERSION) == (1, 2)
    assert digest_array(segments) == expected
