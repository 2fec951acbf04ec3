"""Results are pinned: whoever changes one raises the stage's VERSION and these digests."""

import numpy as np
import pytest

import emslice
from emslice.config.schema import AgglomerationConfig, FragmentsConfig, SegmentConfig
from emslice.geometry.boxes import Roi
from emslice.ledger.fingerprint import fingerprint
from emslice.service.identity import DUST_VERSION, fingerprints
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
    ("linkage", "quantile", "min_size", "expected"),
    [
        ("quantile_max", 50, 0, "3f896e53ebbf8ccd14d0a4fe03b14277c571fad339cf66df568505fbeb868791"),
        ("quantile_max", 20, 0, "5d210a4515b13e00f7bcc12a7e4683cc582438b9add2a3a1d76c4d3c0ce6e5bd"),
        ("mean", 50, 0, "a7a4e8352d3c12c2d7d406bff725ad2e7eede525765adbfa6594b700ee250af8"),
        ("quantile", 50, 0, "8312a8393a377718a4d1f46a9e39b23d56f8f049bbc5d5660f97c392f47e8e96"),
        ("quantile", 20, 0, "a41dad3f2e0018d67cac36514e699b04c112cef647038d5c851d9d386d9151f2"),
        (
            "quantile_max",
            50,
            30,
            "58bbf1f425767f6f0a47dffe0777adaf0b8081e3f0c882c692a2b67ce5f3b293",
        ),
        ("mean", 50, 30, "0220b0c328bd28c9c893a6cb317e80f74ce33af334aae59d2b0d5c4fce140002"),
    ],
)
def test_the_segmentation_of_given_affinities_is_pinned(linkage, quantile, min_size, expected):
    segments = emslice.segment_affinities(
        affinities(), 0.5, linkage, quantile=quantile, min_size=min_size
    )
    assert (agglomerate.VERSION, predict.VERSION, DUST_VERSION) == (1, 2, 1)
    assert digest_array(segments) == expected


@pytest.mark.parametrize(
    ("linkage", "expected"),
    [
        ("quantile_max", "bea173b1617ca6d88416845d185da325622a1a68ae956df262f987212e7be587"),
        ("mean", "b863fb91c6a278fe9aacb3e6a254a8af36250753bb6a0987d4cc56cb18e06c5f"),
    ],
)
def test_so_is_that_with_fragments_in_three_dimensions(linkage, expected):
    segments = emslice.segment_affinities(affinities(), 0.5, linkage, dimensions=3, min_size=0)
    assert agglomerate.VERSION == 1
    assert digest_array(segments) == expected


def test_keys_that_were_not_there_before_are_in_a_fingerprint_only_if_they_are_used():
    """A run begun by an earlier version is gone on with, not begun anew."""
    box = Roi((0, 2, 0), (4, 9, 8))
    config = SegmentConfig()
    prints = fingerprints(config, box, (4, 8, 8), ["input"])
    facts = {"radius": 64, "roi": [[0, 2, 0], [4, 9, 8]], "block": [4, 8, 8]}
    assert prints["fragments"] == fingerprint("fragments", agglomerate.VERSION, facts, "input")
    deep = config.model_copy(update={"fragments": FragmentsConfig(dimensions=3, radius=64)})
    other = fingerprints(deep, box, (4, 8, 8), ["input"])
    assert other["fragments"] != prints["fragments"]
    for linkage, method, equal in (
        ("quantile", "exact", False), ("quantile", "waterz", True), ("mean", "exact", True),
    ):  # fmt: skip
        changed = {"linkage": linkage, "method": method}
        chosen = config.model_copy(update={"agglomeration": AgglomerationConfig(**changed)})
        again = fingerprints(chosen, box, (4, 8, 8), ["input"])
        assert (again["fragments"] == prints["fragments"]) == equal
        assert again["agglomerate"] != prints["agglomerate"]
