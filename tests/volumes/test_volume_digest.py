"""`digest` against its definition, read from the docstring and written one cell at a time."""

from hashlib import sha256
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emslice.volumes.digest
from emslice.errors import GeometryError
from emslice.geometry.boxes import Roi
from emslice.volumes import ArrayVolume, create_volume
from emslice.volumes.digest import digest, digest_array

SHAPE = (67, 70, 131)
VOXELS = np.random.default_rng(2).integers(0, 2**64 - 1, SHAPE, dtype=np.uint64)


def slow_digest(array):
    name = "|u1" if array.dtype == np.uint8 else array.dtype.newbyteorder("<").str
    text = "emslice digest 1\n" + name + "\n" + ",".join(map(str, array.shape)) + "\n"
    total = sha256(text.encode())
    channels = array if array.ndim == 4 else [array]
    for z, y, x in product(*(range(0, n, 64) for n in array.shape[-3:])):
        for channel in channels:
            cell = channel[z : z + 64, y : y + 64, x : x + 64]
            total.update(sha256(cell.astype(cell.dtype.newbyteorder("<")).tobytes()).digest())
    return total.hexdigest()


@pytest.mark.parametrize(
    ("format", "chunk", "shard"),
    [
        ("zarr3", (16, 64, 64), None),
        ("zarr3", (7, 16, 30), (14, 32, 120)),
        ("zarr2", (67, 30, 131), None),
        ("n5", (33, 70, 64), None),
    ],
)
def test_is_the_same_whatever_the_format_and_chunks(tmp_path, format, chunk, shard):
    volume = create_volume(
        tmp_path / "a", shape=SHAPE, dtype="u8", chunk_shape=chunk, shard_shape=shard, format=format
    )
    volume.write(volume.roi, VOXELS)
    assert digest(volume) == digest_array(VOXELS) == slow_digest(VOXELS)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (70, 68, 140)]),
    channels=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from(["|u1", "<u2", ">u4", "<f4", "|b1"]),
    seed=st.integers(0, 99),
)
def test_is_what_the_definition_says(shape, channels, dtype, seed):
    full = shape if channels is None else (channels, *shape)
    array = np.random.default_rng(seed).integers(0, 200, full).astype(dtype)
    assert digest_array(array) == slow_digest(array)


@pytest.mark.parametrize("read_bytes", [1, 1 << 20, 1 << 30])
@pytest.mark.parametrize("workers", [1, 3])
def test_does_not_depend_on_how_it_is_read(monkeypatch, read_bytes, workers):
    monkeypatch.setattr(emslice.volumes.digest, "READ_BYTES", read_bytes)
    assert digest(ArrayVolume(VOXELS), workers=workers) == slow_digest(VOXELS)


def test_of_a_roi_is_that_of_the_voxels_read_there():
    volume = ArrayVolume(VOXELS, offset=(5, 6, 7))
    roi = Roi((6, 7, 9), (65, 66, 100))
    assert digest(volume, roi) == slow_digest(volume.read(roi))


def test_never_changes_between_versions():
    array = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
    assert digest_array(array) == "44a18cec0599e92d5ac6c54bfbba903b297e2e5b29d609e8bb07e148eb62c263"


def test_tells_a_single_voxel():
    changed = VOXELS.copy()
    changed[66, 69, 130] ^= 1
    assert digest_array(changed) != digest_array(VOXELS)


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((3, 4, 5), np.int8),
        np.zeros((3, 4, 5), np.uint16),
        np.zeros((1, 3, 4, 5), np.uint8),
        np.zeros((3, 5, 4), np.uint8),
        np.zeros((5, 4, 3), np.uint8),
    ],
)
def test_tells_dtype_and_shape(other):
    assert digest_array(other) != digest_array(np.zeros((3, 4, 5), np.uint8))


def test_tells_a_transposed_array():
    square = VOXELS[:, :70, :70]
    assert digest_array(square) != digest_array(square.transpose(0, 2, 1))


def test_byte_and_memory_order_do_not_count():
    expected = digest_array(VOXELS)
    assert digest_array(VOXELS.astype(">u8")) == digest_array(np.asfortranarray(VOXELS)) == expected


def test_progress_ends_with_all_reads_done(monkeypatch):
    monkeypatch.setattr(emslice.volumes.digest, "READ_BYTES", 1)
    seen = []
    digest(ArrayVolume(VOXELS), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k + 1, 12) for k in range(12)]


@pytest.mark.parametrize("roi", [Roi((0, 0, 0), (68, 1, 1)), Roi((0, 0, 0), (0, 1, 1))])
def test_refuses_a_roi_without_voxels_of_the_volume(roi):
    with pytest.raises(GeometryError, match="choose voxels within 0:67,0:70,0:131"):
        digest(ArrayVolume(VOXELS), roi)
