"""Training volumes: every format, the same voxels in memory and on storage, clear refusals."""

import h5py
import numpy as np
import pytest
import tifffile
from training.volumes import NOTHING

from emslice.errors import ConfigError, StorageError
from emslice.geometry.boxes import Roi, show
from emslice.training.compact import Compactor
from emslice.training.crops import CropDataset, make_loader
from emslice.training.sources import TrainingVolume, VolumeSpec
from emslice.volumes import create_volume

SHAPE = (6, 17, 23)
RNG = np.random.default_rng(8)
RAW = RNG.integers(0, 256, SHAPE).astype(np.uint8)
LABELS = RNG.choice(np.array([0, 5, 2**33, 2**63 + 1], np.uint64), SHAPE)
MASK = RNG.random(SHAPE) < 0.7


def spec(raw, labels=None, **changes):
    plain = {"mask": None, "sections": None, "roi": None, "weight": 1.0, "window": None}
    return VolumeSpec(str(raw), None if labels is None else str(labels), **plain | changes)


def opened(*given, memory_bytes=2**31, **changes):
    return TrainingVolume.open(spec(*given, **changes), "data.train[0]", memory_bytes)


def hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array)
    return path


def zarr(path, array, **options):
    if array.dtype == bool:
        array = array.astype(np.uint8)
    volume = create_volume(path, shape=array.shape, dtype=array.dtype, **options)
    volume.write(volume.roi, array)
    return path


def partition(labels):
    """Labels renumbered by their first voxel, which is all that a numbering means."""
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return np.where(labels == 0, -1, first[which].reshape(labels.shape))


def check_voxels(volume, box):
    z, y, x = (slice(int(lo), int(hi)) for lo, hi in zip(box.begin, box.end, strict=True))
    raw, labels, usable = volume.read(box)
    assert (raw.dtype, labels.dtype, usable.dtype) == (np.uint8, np.int32, np.bool_)
    np.testing.assert_array_equal(raw, RAW[z, y, x])
    np.testing.assert_array_equal(partition(labels), partition(LABELS[z, y, x]))
    np.testing.assert_array_equal(usable, MASK[z, y, x])
    assert 0 <= labels.min() <= labels.max() <= 3


def test_formats_may_be_mixed(tmp_path):
    tifffile.imwrite(tmp_path / "raw.tif", RAW, photometric="minisblack")
    np.save(tmp_path / "mask.npy", MASK)
    labels = hdf5(tmp_path / "a.h5", labels=LABELS, other=RAW)
    volume = opened(tmp_path / "raw.tif", f"{labels}:labels", mask=str(tmp_path / "mask.npy"))
    assert volume.shape == SHAPE
    assert volume.labelled
    check_voxels(volume, Roi((1, 2, 3), (4, 11, 13)))


@pytest.mark.parametrize("memory_bytes", [2**31, 0], ids=["in memory", "crop by crop"])
def test_volumes_are_read_the_same_in_memory_and_crop_by_crop(tmp_path, memory_bytes):
    raw, labels = zarr(tmp_path / "raw", RAW), zarr(tmp_path / "labels", LABELS)
    mask = zarr(tmp_path / "mask", MASK)
    volume = opened(raw, labels, mask=str(mask), memory_bytes=memory_bytes)
    assert volume.fits == (memory_bytes > 0)
    for box in (Roi((0, 0, 0), SHAPE), Roi((1, 2, 3), (4, 11, 13))):
        check_voxels(volume, box)


def test_slabs_change_no_label(tmp_path, monkeypatch):
    monkeypatch.setattr("emslice.training.arrays.SLAB_BYTES", 1)
    file = hdf5(tmp_path / "a.h5", raw=RAW, labels=LABELS, mask=MASK)
    volume = opened(f"{file}:raw", f"{file}:labels", mask=f"{file}:mask", sections=(2, 5))
    check_voxels(volume, Roi((2, 0, 0), (3, 17, 23)))


def test_sections_and_rois_are_counted_in_voxels_of_the_volume(tmp_path):
    raw = zarr(tmp_path / "raw", RAW, offset=(10, 4, 4), domain_shape=(40, 40, 40))
    assert show(opened(raw, sections=(11, 14)).roi) == "11:14,4:21,4:27"
    volume = opened(raw, roi="12:,5:9,:20")
    assert show(volume.roi) == "12:16,5:9,4:20"
    np.testing.assert_array_equal(volume.read(volume.roi).raw, RAW[2:, 1:5, :16])


def test_what_a_reader_does_to_its_voxels_does_not_stay(tmp_path):
    volume = TrainingVolume.from_arrays(RAW.copy(), LABELS)
    box = Roi((0, 0, 0), SHAPE)
    for array in volume.read(box):
        array[...] = 0
    np.testing.assert_array_equal(volume.read(box).raw, RAW)


def test_the_window_makes_uint16_raw_visible(tmp_path):
    np.save(tmp_path / "raw.npy", 256 * RAW.astype(np.uint16))
    volume = opened(tmp_path / "raw.npy", window=(0, 255 * 256))
    np.testing.assert_array_equal(volume.read(volume.roi).raw, RAW)


def test_negative_labels_are_background():
    signed = np.where(LABELS == 5, -7, LABELS.astype(np.int64) % 100)
    labels = TrainingVolume.from_arrays(RAW, signed).read(Roi((0, 0, 0), SHAPE)).labels
    assert ((labels == 0) == (signed <= 0)).all()


def test_ids_keep_their_numbers_from_array_to_array():
    whole, parts = Compactor()(LABELS), Compactor()
    np.testing.assert_array_equal(
        partition(np.concatenate([parts(section[None]) for section in LABELS])), partition(whole)
    )


def test_the_resolution_is_that_of_raw(tmp_path):
    raw = zarr(tmp_path / "raw", RAW, resolution_nm=(40, 4, 5))
    assert opened(raw).resolution_nm == (40, 4, 5)
    assert TrainingVolume.from_arrays(RAW).resolution_nm is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw": "gone.h5"}, r"data.train\[0\].raw: .*gone.h5: no such file"),
        ({"raw": "a.h5:none"}, r"data.train\[0\].raw: .*no dataset 'none'; the file has: .*raw"),
        ({"labels": "gone.zarr"}, r"data.train\[0\].labels: .*gone.zarr"),
        ({"labels": "a.h5:short"}, r"\.labels: .*0:5,0:17,0:23.*0:6,0:17,0:23"),
        ({"labels": "a.h5:floats"}, r"\.labels: .*float32; expected integers"),
        ({"raw": "a.h5:floats"}, r"\.raw: .*float32; expected uint8"),
        ({"raw": "a.h5:deep"}, r"data.train\[0\].window: .*uint16"),
        ({"raw": "a.h5:channels"}, r"\.raw: .*shape \(2, 6, 17, 23\)"),
        ({"mask": "a.h5:floats"}, r"\.mask: .*float32; expected integers or booleans"),
        ({"mask": "fine.zarr"}, r"\.mask: .*voxels of 30 x 4 x 4 nm, raw .* of 40 x 4 x 4 nm"),
        ({"sections": (2, 7)}, r"\.sections: \[2, 7\).*\[0, 6\)"),
        ({"sections": (3, 3)}, r"\.sections: \[3, 3\)"),
        ({"roi": "0:2,0:5,0:24"}, r"\.roi: 0:2,0:5,0:24 leaves the volume"),
        ({"roi": "0:2,0:5,0:5", "sections": (0, 2)}, "give one"),
        ({"weight": -1.0}, r"\.weight: -1"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    hdf5(
        "a.h5", raw=RAW, labels=LABELS, short=LABELS[1:], floats=RAW.astype(np.float32),
        deep=RAW.astype(np.uint16), channels=np.stack([RAW, RAW]),
    )  # fmt: skip
    zarr(tmp_path / "fine.zarr", MASK, resolution_nm=(30, 4, 4))
    zarr(tmp_path / "raw.zarr", RAW, resolution_nm=(40, 4, 4))
    given = {"raw": "raw.zarr" if "mask" in change else "a.h5:raw", "labels": None} | change
    with pytest.raises(ConfigError, match=message):
        opened(given.pop("raw"), given.pop("labels"), **given)


def test_a_large_file_is_refused_with_the_command_that_imports_it(tmp_path):
    file = hdf5(tmp_path / "a.h5", raw=RAW)
    with pytest.raises(ConfigError, match=r"data.train\[0\].raw: .*emslice import .*a.h5:raw"):
        opened(f"{file}:raw", memory_bytes=100)


def test_a_damaged_section_is_named_when_the_volume_is_read(tmp_path):
    for z, section in enumerate(RAW):
        tifffile.imwrite(tmp_path / f"slice{z}.tif", section, compression="zlib")
    whole = (tmp_path / "slice4.tif").read_bytes()
    (tmp_path / "slice4.tif").write_bytes(whole.replace(b"x\x9c", b"\0\0"))
    volume = opened(tmp_path)
    with pytest.raises(StorageError, match="sections 0 to 5 cannot be read"):
        volume.load()


def test_opening_reads_nothing_into_memory(tmp_path):
    volume = opened(f"{hdf5(tmp_path / 'a.h5', raw=RAW)}:raw")
    assert not volume._memory
    volume.load()
    assert volume._memory["raw"].shape == SHAPE


@pytest.mark.parametrize("memory_bytes", [2**31, 0], ids=["forked", "not forked"])
def test_workers_make_the_same_batches_of_stored_volumes(tmp_path, memory_bytes):
    """tensorstore, used before, ends a forked process that uses it; memory is always shared."""
    stored = opened(zarr(tmp_path / "raw", RAW), memory_bytes=memory_bytes)
    dataset = CropDataset([stored, TrainingVolume.from_arrays(RAW, LABELS)], (2, 7, 9), None, 4)
    alone, spread = (make_loader(dataset, 3, 0, 3, workers=n) for n in (0, 1))
    for one, other in zip(alone, spread, strict=True):
        for name, stacked in one.items():
            np.testing.assert_array_equal(stacked.numpy(), other[name].numpy())
    assert dataset.volumes[1]._memory["raw"].is_shared() == (memory_bytes == 0)


def test_the_published_volume_gives_crops(data_dir):
    """AC4: sections of training only, most voxels in a neuron."""
    file = data_dir / "ac4_crop.h5"
    volume = opened(f"{file}:raw", f"{file}:labels", sections=(0, 70))
    assert volume.shape == (70, 512, 512)
    assert volume.resolution_nm == (30, 6, 6)
    sample = CropDataset([volume], (2, 256, 256), NOTHING, 1)[0]
    assert sample["valid"].all()
    assert 0.7 < float((sample["labels"] > 0).float().mean()) < 1
    assert 0.2 < float(sample["raw"].mean()) < 0.9
