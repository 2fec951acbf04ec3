import pickle
from pathlib import Path

import numpy as np
import pytest
from contracts.volume import DOMAIN, OFFSET, RESOLUTION_NM, SHAPE, WHOLE, VolumeContract

from emslice.errors import StorageError, VolumeError
from emslice.volumes import ArrayVolume, create_volume, open_volume

PLACE = {"resolution_nm": RESOLUTION_NM, "offset": OFFSET, "domain_shape": DOMAIN}
NOTE = {"note": "kept"}


class TestArrayVolume(VolumeContract):
    def make(self, tmp_path, dtype, channels=None):
        shape = SHAPE if channels is None else (channels, *SHAPE)
        return ArrayVolume(np.zeros(shape, dtype), **PLACE, attributes=NOTE)

    def test_shares_its_array(self):
        array = np.zeros((1, 2, 3), np.uint8)
        volume = ArrayVolume(array)
        volume.write(volume.roi, np.ones((1, 2, 3), np.uint8))
        assert array.all()

    def test_refuses_a_section(self):
        with pytest.raises(VolumeError, match=r"got \(4, 5\)"):
            ArrayVolume(np.zeros((4, 5)))


class TestForeignByteOrder(VolumeContract):
    """NumPy arrays from HDF5, TIFF or another machine."""

    def make(self, tmp_path, dtype, channels=None):
        shape = SHAPE if channels is None else (channels, *SHAPE)
        foreign = np.zeros(shape, np.dtype(dtype).newbyteorder(">"))
        return ArrayVolume(foreign, **PLACE, attributes=NOTE)

    def test_reads_native_numbers(self):
        volume = ArrayVolume(np.arange(6, dtype=">u2").reshape(1, 2, 3))
        assert volume.read(volume.roi).dtype.isnative
        assert volume.read(volume.roi).tolist() == [[[0, 1, 2], [3, 4, 5]]]


class StoredContract(VolumeContract):
    format = "zarr3"
    shard_shape = None

    def make(self, tmp_path, dtype, channels=None):
        return create_volume(
            tmp_path / "volume",
            shape=SHAPE,
            dtype=dtype,
            channels=channels,
            **PLACE,
            attributes=NOTE,
            chunk_shape=(2, 4, 5),
            shard_shape=self.shard_shape,
            format=self.format,
        )

    def test_opens_as_it_was_created(self, volume):
        again = open_volume(volume.url)
        for fact in ("url", "dtype", "channels", "roi", "domain", "resolution_nm", "attributes"):
            assert getattr(again, fact) == getattr(volume, fact)
        assert tuple(again.chunk_shape) == (2, 4, 5)

    def test_refuses_to_write_unless_opened_for_it(self, volume):
        with pytest.raises(VolumeError, match="writable=True"):
            open_volume(volume.url).write(WHOLE, np.zeros(SHAPE, np.uint8))

    def test_ships_facts_and_no_handle(self, volume):
        before = len(pickle.dumps(volume))
        volume.read(WHOLE)
        assert len(pickle.dumps(volume)) == before

    def test_stores_no_chunk_of_zeros(self, volume):
        before = volume_files(volume)
        volume.write(WHOLE, np.zeros(SHAPE, np.uint8))
        assert volume_files(volume) == before

    def test_a_damaged_chunk_is_an_error_and_not_zeros(self, volume):
        before = volume_files(volume)
        volume.write(WHOLE, np.ones(SHAPE, np.uint8))
        chunks = set(volume_files(volume)) - set(before)
        assert chunks
        for chunk in chunks:
            chunk.write_bytes(b"damaged" * 20)
        with pytest.raises(StorageError, match="reading 2:7,3:12,4:18 failed"):
            open_volume(volume.url).read(WHOLE)


def volume_files(volume):
    return sorted(path for path in Path(volume.url).rglob("*") if path.is_file())


class TestZarr3(StoredContract):
    pass


class TestShardedZarr3(StoredContract):
    shard_shape = (4, 8, 5)

    def test_states_its_shards(self, volume):
        assert tuple(open_volume(volume.url).shard_shape) == (4, 8, 5)


class TestZarr2(StoredContract):
    format = "zarr2"


class TestN5(StoredContract):
    format = "n5"
