"""A fingerprint depends on everything it names, and on nothing else."""

import numpy as np

from emslice.ledger.fingerprint import fingerprint, volume_identity
from emslice.volumes import create_volume


def test_it_changes_with_stage_version_parameters_and_inputs():
    base = fingerprint("predict", 1, {"a": 1}, "x", "y")
    others = [
        fingerprint("fragments", 1, {"a": 1}, "x", "y"),
        fingerprint("predict", 2, {"a": 1}, "x", "y"),
        fingerprint("predict", 1, {"a": 2}, "x", "y"),
        fingerprint("predict", 1, {"a": 1}, "y", "x"),
        fingerprint("predict", 1, {"a": 1}, "x"),
    ]
    assert len({base, *others}) == 6


def test_a_volume_is_known_by_its_place_and_metadata(tmp_path):
    def make(name, depth):
        volume = create_volume(tmp_path / name, shape=(depth, 5, 7), dtype=np.uint8)
        return volume_identity(volume.url)

    first, other = make("a.zarr", 3), make("b.zarr", 3)
    assert first != other
    assert first == volume_identity(str(tmp_path / "." / "a.zarr"))
