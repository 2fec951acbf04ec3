"""What every volume must do, whatever holds its voxels.

A test class inherits `VolumeContract` and says in `make` how a volume comes to be.
"""

import pickle

import numpy as np
import pytest

from emslice.errors import GeometryError, VolumeError
from emslice.geometry.boxes import Roi

SHAPE = (5, 9, 14)
OFFSET = (2, 3, 4)
DOMAIN = (10, 20, 40)
RESOLUTION_NM = (40.0, 4.0, 8.0)
WHOLE = Roi(OFFSET, SHAPE)
PART = Roi((3, 6, 5), (2, 5, 11))
PART_SLICES = (..., slice(1, 3), slice(3, 8), slice(1, 12))


def voxels_of(dtype, channels=None):
    """Random voxels over the whole range of a dtype, some of them 0."""
    random = np.random.default_rng(7)
    shape = SHAPE if channels is None else (channels, *SHAPE)
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(shape).astype(dtype)
    top = np.iinfo(dtype).max
    return random.integers(0, top, shape, dtype=dtype, endpoint=True) * (random.random(shape) < 0.9)


class VolumeContract:
    """Inherit, and make volumes of SHAPE at OFFSET in DOMAIN with RESOLUTION_NM and attributes."""

    def make(self, tmp_path, dtype, channels=None):
        """Writable volume of zeros with attributes {"note": "kept"}."""
        raise NotImplementedError

    @pytest.fixture
    def volume(self, tmp_path):
        return self.make(tmp_path, np.uint8)

    @pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", "float32"])
    @pytest.mark.parametrize("channels", [None, 1, 3])
    def test_reads_what_was_written(self, tmp_path, dtype, channels):
        volume = self.make(tmp_path, dtype, channels)
        voxels = voxels_of(dtype, channels)
        volume.write(WHOLE, voxels)
        np.testing.assert_array_equal(volume.read(WHOLE), voxels)
        np.testing.assert_array_equal(volume.read(PART), voxels[PART_SLICES])
        assert volume.read(PART).dtype == volume.dtype == np.dtype(dtype)

    def test_ids_above_half_the_range_survive(self, tmp_path):
        volume = self.make(tmp_path, np.uint64)
        ids = np.arange(np.prod(SHAPE), dtype=np.uint64).reshape(SHAPE) + np.uint64(2**63 + 1)
        volume.write(WHOLE, ids)
        assert (volume.read(WHOLE) == ids).all()

    def test_a_part_can_be_written_alone(self, volume):
        voxels = np.zeros(SHAPE, np.uint8)
        voxels[PART_SLICES] = 7
        volume.write(PART, voxels[PART_SLICES])
        np.testing.assert_array_equal(volume.read(WHOLE), voxels)

    def test_never_written_voxels_are_zero(self, volume):
        assert not volume.read(WHOLE).any()

    def test_zeros_can_replace_something(self, volume):
        volume.write(WHOLE, voxels_of(np.uint8))
        volume.write(WHOLE, np.zeros(SHAPE, np.uint8))
        assert not volume.read(WHOLE).any()

    def test_a_read_is_a_contiguous_copy(self, tmp_path):
        volume = self.make(tmp_path, np.uint8, 3)
        read = volume.read(PART)
        assert read.flags.c_contiguous
        read[:] = 1
        assert not volume.read(PART).any()

    def test_an_array_in_fortran_order_is_written_as_it_reads(self, volume):
        voxels = voxels_of(np.uint8)
        volume.write(WHOLE, np.asfortranarray(voxels))
        np.testing.assert_array_equal(volume.read(WHOLE), voxels)

    @pytest.mark.parametrize("channels", [None, 3])
    def test_states_its_facts(self, tmp_path, channels):
        volume = self.make(tmp_path, np.uint8, channels)
        assert (volume.roi, volume.domain) == (WHOLE, Roi((0, 0, 0), DOMAIN))
        assert volume.resolution_nm == RESOLUTION_NM
        assert volume.channels == channels
        assert volume.attributes == {"note": "kept"}
        assert len(volume.chunk_shape) == len(volume.shard_shape) == 3

    @pytest.mark.parametrize("begin", [(1, 3, 4), (2, 3, 5), (6, 3, 4)])
    def test_refuses_to_leave_what_is_stored(self, volume, begin):
        outside = Roi(begin, SHAPE)
        with pytest.raises(GeometryError, match="not inside 2:7,3:12,4:18"):
            volume.read(outside)
        with pytest.raises(GeometryError, match="not inside 2:7,3:12,4:18"):
            volume.write(outside, voxels_of(np.uint8))

    def test_refuses_an_array_of_another_shape(self, volume):
        with pytest.raises(GeometryError, match=r"takes shape \(5, 9, 14\), got \(14, 9, 5\)"):
            volume.write(WHOLE, voxels_of(np.uint8).T)

    def test_refuses_an_array_of_another_dtype(self, volume):
        with pytest.raises(VolumeError, match="stores uint8, got int64"):
            volume.write(WHOLE, np.zeros(SHAPE, np.int64))

    def test_pickles_after_use(self, volume):
        volume.write(WHOLE, voxels_of(np.uint8))
        there = pickle.loads(pickle.dumps(volume))
        np.testing.assert_array_equal(there.read(PART), voxels_of(np.uint8)[PART_SLICES])
        assert (there.url, there.roi, there.domain) == (volume.url, volume.roi, volume.domain)
