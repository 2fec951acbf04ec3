"""`import_volume`: every kind of source, every refusal, and a kill in the middle."""

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

import emslice.volumes.importing
import emslice.volumes.sources
from emslice.errors import ConfigError, StorageError, VolumeError
from emslice.geometry.boxes import Roi
from emslice.volumes import create_volume, open_volume
from emslice.volumes.importing import import_volume
from emslice.volumes.partial import ARRAY, LOCK

VOXELS = np.random.default_rng(3).integers(0, 256, (11, 17, 23), dtype=np.uint8)


def write_hdf5(path, attributes=None, root=None, **datasets):
    with h5py.File(path, "w") as file:
        file.attrs.update(root or {})
        for name, array in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=array).attrs.update(attributes or {})
    return str(path)


def write_sections(folder, voxels, suffix):
    """Sections without leading zeros, so that names sort wrongly as text."""
    folder.mkdir(exist_ok=True)
    for z, section in enumerate(voxels):
        if suffix == ".png":
            Image.fromarray(section).save(folder / f"slice{z}.png")
        else:
            tifffile.imwrite(folder / f"slice{z}{suffix}", section)
    return str(folder)


def write_tiff(path, voxels, **options):
    tifffile.imwrite(path, voxels, **options)
    return str(path)


def write_pages(path, voxels):
    with tifffile.TiffWriter(path) as file:
        for section in voxels:
            file.write(section, contiguous=False, metadata=None, photometric="minisblack")
    return str(path)


def write_npy(path, voxels):
    np.save(path, voxels)
    return str(path)


def read_all(volume):
    return volume.read(volume.roi)


SOURCES = {
    "hdf5": lambda tmp: write_hdf5(tmp / "a.h5", em__raw=VOXELS) + ":em/raw",
    "hdf5 with a slash": lambda tmp: write_hdf5(tmp / "a.HDF5", raw=VOXELS) + ":/raw",
    "hdf5 alone": lambda tmp: write_hdf5(tmp / "a.h5", raw=VOXELS, ids=np.arange(9)),
    "npy": lambda tmp: write_npy(tmp / "a.npy", VOXELS),
    "fortran npy": lambda tmp: write_npy(tmp / "a.npy", np.asfortranarray(VOXELS)),
    "tiff": lambda tmp: write_tiff(tmp / "a.tif", VOXELS, photometric="minisblack"),
    "imagej": lambda tmp: write_tiff(tmp / "a.tif", VOXELS, imagej=True),
    "zlib tiff": lambda tmp: write_tiff(
        tmp / "a.TIFF", VOXELS, compression="zlib", photometric="minisblack"
    ),
    "lzw tiff": lambda tmp: write_tiff(
        tmp / "a.tif", VOXELS, compression="lzw", photometric="minisblack"
    ),
    "big-endian tiff": lambda tmp: write_tiff(
        tmp / "a.tif", VOXELS.astype("u2"), byteorder=">", photometric="minisblack"
    ),
    "one page a section": lambda tmp: write_pages(tmp / "a.tif", VOXELS),
    "png folder": lambda tmp: write_sections(tmp / "s", VOXELS, ".png"),
    "tiff folder": lambda tmp: write_sections(tmp / "s", VOXELS, ".tiff"),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_every_kind_of_source_gives_its_voxels(tmp_path, make):
    source = make(tmp_path)
    volume = import_volume(source, tmp_path / "out.zarr", chunk_shape=(4, 8, 8))
    np.testing.assert_array_equal(read_all(volume), VOXELS)
    assert (tmp_path / "out.zarr" / "zarr.json").exists()
    assert volume.attributes == {"imported_from": source}
    assert not (tmp_path / "out.zarr.partial").exists()


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_memory_bounds_change_nothing(tmp_path, monkeypatch, make):
    monkeypatch.setattr(emslice.volumes.importing, "SLAB_BYTES", 1)
    volume = import_volume(make(tmp_path), tmp_path / "out.zarr", chunk_shape=(4, 8, 8))
    np.testing.assert_array_equal(read_all(volume), VOXELS)


@pytest.mark.parametrize(
    ("given", "stored"),
    [(bool, np.uint8), (">u2", np.uint16), (">f4", np.float32), (np.uint64, np.uint64)],
)
def test_dtypes_are_made_storable(tmp_path, given, stored):
    source = write_npy(tmp_path / "a.npy", (VOXELS % 2).astype(given))
    volume = import_volume(source, tmp_path / "out.zarr")
    assert volume.dtype == stored
    np.testing.assert_array_equal(read_all(volume), VOXELS % 2)


@pytest.mark.parametrize("dtype", [np.uint16, np.bool_])
def test_png_sections_may_have_16_bits_or_one(tmp_path, dtype):
    voxels = (VOXELS * 257.0).astype(dtype)
    volume = import_volume(write_sections(tmp_path / "s", voxels, ".png"), tmp_path / "out.zarr")
    np.testing.assert_array_equal(read_all(volume), voxels)


def test_affinities_keep_their_channels(tmp_path):
    affinities = np.random.default_rng(0).random((3, 5, 7, 11), dtype=np.float32)
    source = write_hdf5(tmp_path / "a.h5", affinities=affinities)
    volume = import_volume(source, tmp_path / "out.zarr", chunk_shape=(2, 4, 4))
    assert volume.channels == 3
    np.testing.assert_array_equal(read_all(volume), affinities)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_may_have_leading_channels(tmp_path, compression):
    channels = np.stack([VOXELS, 255 - VOXELS])
    options = {"photometric": "minisblack", "compression": compression}
    source = write_tiff(tmp_path / "a.tif", channels, metadata={"axes": "CZYX"}, **options)
    volume = import_volume(source, tmp_path / "out.zarr", chunk_shape=(4, 8, 8))
    np.testing.assert_array_equal(read_all(volume), channels)


def test_a_copied_volume_keeps_its_place(tmp_path):
    source = create_volume(
        tmp_path / "a.n5", shape=VOXELS.shape, dtype="u1", offset=(1, 2, 3), format="n5",
        domain_shape=(20, 30, 40), resolution_nm=(40, 4, 8), attributes={"note": 1},
    )  # fmt: skip
    source.write(source.roi, VOXELS)
    volume = import_volume(source.url, tmp_path / "out.zarr")
    np.testing.assert_array_equal(read_all(volume), VOXELS)
    for fact in ("roi", "domain", "resolution_nm"):
        assert getattr(volume, fact) == getattr(source, fact)
    assert volume.attributes["note"] == 1


@pytest.mark.parametrize(
    ("attributes", "root", "given", "expected"),
    [
        ({"resolution": [40, 4, 8]}, {"resolution_zyx_nm": [1, 1, 1]}, None, (40, 4, 8)),
        ({}, {"resolution_zyx_nm": [40, 4, 8]}, None, (40, 4, 8)),
        ({"voxel_size": [40, 4, 8]}, {}, None, (40, 4, 8)),
        ({"element_size_um": [0.04, 0.006, 0.008]}, {}, None, (40, 6, 8)),
        ({"resolution": [40, 4, 8]}, {}, (30, 6, 6), (30, 6, 6)),
        ({}, {}, None, None),
    ],
)
def test_resolution_comes_from_the_caller_or_the_file(tmp_path, attributes, root, given, expected):
    source = write_hdf5(tmp_path / "a.h5", attributes, root, raw=VOXELS)
    assert import_volume(source, tmp_path / "out.zarr", given).resolution_nm == expected


def test_progress_counts_bytes(tmp_path):
    seen = []
    source = write_npy(tmp_path / "a.npy", VOXELS.astype("u2"))
    import_volume(source, tmp_path / "o", None, (4, 8, 8), lambda *args: seen.append(args))
    layer = 4 * 17 * 23 * 2
    assert seen == [(done, VOXELS.size * 2) for done in (layer, 2 * layer, VOXELS.size * 2)]


BAD_ARRAYS = {
    "a.npy has two axes": (np.zeros((3, 4)), r"shape is \(3, 4\)"),
    "five axes": (np.zeros((1, 1, 2, 3, 4)), r"shape is \(1, 1, 2, 3, 4\)"),
    "nothing in it": (np.zeros((3, 0, 4)), r"shape is \(3, 0, 4\)"),
    "channels last": (np.zeros((9, 8, 7, 3)), "has channels last"),
    "complex": (np.zeros((2, 3, 4), np.complex64), "holds complex64"),
    "text": (np.full((2, 3, 4), "a"), "holds <U1"),
    "objects": (np.full((2, 3, 4), None), "cannot be read as .npy"),
}


@pytest.mark.parametrize(("array", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_an_array_that_is_no_volume_is_refused(tmp_path, array, message):
    source = write_npy(tmp_path / "a.npy", array)
    with pytest.raises(ConfigError, match=message):
        import_volume(source, tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a.h5:nope", r"no dataset 'nope'; the file has: em/raw \(11, 17, 23\), labels \(11, 17"),
        ("a.h5", r"which dataset\? Give a.h5:DATASET; the file has: em/raw \(11, 17, 23\), labe"),
        ("gone.h5:raw", "no such file or folder"),
        ("gone.tif", "no such file or folder"),
        ("a.mrc", r"cannot import .mrc; supported are .h5, .hdf5, .hdf, .tif, .tiff, .npy, a fo"),
        ("bad.h5", "cannot be read as HDF5"),
        ("bad.tif", "cannot be read as TIFF"),
        ("rgb.tif", r"its axes are YXS, shape \(17, 23, 3\); a stack is grey"),
        ("s3://bucket/a.h5", "s3:// is not supported"),
        ("empty", "holds no zarr or N5 array"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    write_hdf5("a.h5", em__raw=VOXELS, labels=VOXELS)
    for name in ("a.mrc", "bad.h5", "bad.tif"):
        Path(name).write_text("nothing of the kind")
    tifffile.imwrite("rgb.tif", np.zeros((17, 23, 3), np.uint8), photometric="rgb")
    Path("empty").mkdir()
    with pytest.raises(ConfigError, match=message):
        import_volume(source, "out.zarr")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (np.zeros((17, 24), np.uint8), r"slice10.tif is \(17, 24\) uint8"),
        (np.zeros((17, 23), np.uint16), r"slice10.tif is \(17, 23\) uint16"),
        (np.zeros((17, 23, 3), np.uint8), r"shape is \(17, 23, 3\); a section is one grey"),
    ],
)
def test_the_first_section_that_differs_is_named(tmp_path, odd, message):
    folder = write_sections(tmp_path / "s", VOXELS, ".tif")
    tifffile.imwrite(tmp_path / "s" / "slice10.tif", odd)
    with pytest.raises(VolumeError, match=message):
        import_volume(folder, tmp_path / "out.zarr")


def test_colour_png_sections_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "z0.png")
    with pytest.raises(VolumeError, match="mode is RGB; convert it to greyscale"):
        import_volume(tmp_path, tmp_path / "out.zarr")


def test_pages_that_differ_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for width in (4, 5):
            file.write(np.zeros((3, width), np.uint8), photometric="minisblack")
    with pytest.raises(VolumeError, match="its pages differ"):
        import_volume(tmp_path / "a.tif", tmp_path / "out.zarr")


def test_other_files_among_the_sections_are_ignored(tmp_path):
    folder = write_sections(tmp_path / "s", VOXELS, ".png")
    for name in ("notes.txt", "._slice0.png"):
        (tmp_path / "s" / name).write_text("not an image")
    np.testing.assert_array_equal(read_all(import_volume(folder, tmp_path / "o")), VOXELS)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_bands_of_rows_decode_each_section_once(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(emslice.volumes.importing, "SLAB_BYTES", 1)
    decoded, decode = [], emslice.volumes.sources._read_image
    monkeypatch.setattr(
        emslice.volumes.sources, "_read_image", lambda path: decoded.append(path) or decode(path)
    )
    source = write_sections(tmp_path / "s", VOXELS, suffix)
    volume = import_volume(source, tmp_path / "o", chunk_shape=(4, 8, 8))
    np.testing.assert_array_equal(read_all(volume), VOXELS)
    assert len(decoded) == len(VOXELS) + 1  # the first is tried before anything is written


def test_a_read_of_rows_keeps_one_section_at_a_time(tmp_path):
    sections = np.ones((12, 700, 900), np.uint8)
    source = write_sections(tmp_path / "s", sections, ".tif")
    with emslice.volumes.sources.open_source(source) as opened:
        tracemalloc.start()
        opened.read(slice(0, 12), slice(3, 5))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * sections[0].nbytes


def test_what_cannot_be_decoded_is_refused_before_anything_is_written(tmp_path):
    source = write_tiff(tmp_path / "a.tif", VOXELS, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(source) as file:
        begin, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with open(source, "r+b") as file:
        file.seek(begin)
        file.write(bytes(size))
    with pytest.raises(VolumeError, match="its first section cannot be decoded"):
        import_volume(source, tmp_path / "out.zarr")
    assert not list(tmp_path.glob("out*"))


def test_an_existing_destination_is_refused(tmp_path):
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(VolumeError, match=r"out.zarr: exists already; choose another DST"):
        import_volume(write_npy(tmp_path / "a.npy", VOXELS), tmp_path / "out.zarr")


def test_a_section_that_breaks_off_stops_the_import_without_a_trace(tmp_path):
    folder = write_sections(tmp_path / "s", VOXELS, ".png")
    broken = tmp_path / "s" / "slice9.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(StorageError, match=r"sections 8:11 cannot be read"):
        import_volume(folder, tmp_path / "out.zarr", chunk_shape=(4, 8, 8))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("nm", [(40, 4), (40, 4, -8), (40, 4, float("nan"))])
def test_a_resolution_that_is_none_is_refused_by_the_option_and_dst(tmp_path, nm):
    source = write_npy(tmp_path / "a.npy", VOXELS)
    with pytest.raises(ConfigError, match=r"out.zarr: --resolution: expected three") as caught:
        import_volume(source, tmp_path / "out.zarr", nm)
    assert "partial" not in str(caught.value)
    assert not list(tmp_path.glob("out*"))


def test_an_import_that_fails_in_a_write_leaves_nothing(tmp_path):
    """In a process of its own, whose files must not grow: chunks of noise do not fit, others do."""
    voxels = np.ones((64, 40, 40), np.uint8)
    voxels[:4, :4, :4] = np.random.default_rng(0).integers(0, 256, (4, 4, 4))
    source, target = write_npy(tmp_path / "a.npy", voxels), tmp_path / "out.zarr"
    code = (
        "import resource, sys; from emslice.volumes.importing import import_volume;"
        "import emslice.volumes.creating as c; make = c.tensors.create_tensor\n"
        "def then_full(*args):\n"
        "    make(*args); resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "c.tensors.create_tensor = then_full\n"
        "import_volume(sys.argv[1], sys.argv[2], chunk_shape=(64, 4, 4))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, target], timeout=60, capture_output=True, text=True
    )
    assert "StorageError" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_an_import_that_cannot_make_its_array_leaves_nothing(tmp_path, monkeypatch):
    def fail(path, driver, metadata):
        Path(path, "half").mkdir(parents=True)
        raise StorageError("full")

    monkeypatch.setattr("emslice.volumes.tensors.create_tensor", fail)
    with pytest.raises(StorageError, match="full"):
        import_volume(write_npy(tmp_path / "a.npy", VOXELS), tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("names", [["thesis.txt"], [ARRAY], [LOCK, "thesis.txt"]])
def test_a_folder_of_that_name_that_is_not_ours_is_refused_and_kept(tmp_path, names):
    folder = tmp_path / "out.zarr.partial"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("years of work")
    with pytest.raises(VolumeError, match=r"out.zarr: .*out.zarr.partial is in the way"):
        import_volume(write_npy(tmp_path / "a.npy", VOXELS), tmp_path / "out.zarr")
    assert sorted(os.listdir(folder)) == sorted(names)


def test_a_second_import_to_the_same_destination_is_refused_while_the_first_runs(tmp_path):
    source, target = write_npy(tmp_path / "a.npy", VOXELS), tmp_path / "out.zarr"
    refusals = []

    def again(done, total):
        with pytest.raises(VolumeError, match="another import to it is running") as caught:
            import_volume(source, target)
        refusals.append(caught)

    volume = import_volume(source, target, chunk_shape=(4, 8, 8), progress=again)
    assert len(refusals) == 3
    np.testing.assert_array_equal(read_all(volume), VOXELS)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "out.zarr"]


def test_a_destination_that_appears_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out.zarr"

    def intrude(done, total):
        target.mkdir(exist_ok=True)
        (target / "thesis.txt").write_text("years of work")

    with pytest.raises(StorageError, match="cannot take its name"):
        import_volume(write_npy(tmp_path / "a.npy", VOXELS), target, progress=intrude)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "out.zarr"]
    assert os.listdir(target) == ["thesis.txt"]


KILLED = """
import os, signal, sys
from emslice.volumes.importing import import_volume
die = lambda done, total: os.kill(os.getpid(), signal.SIGKILL)
import_volume(sys.argv[1], sys.argv[2], chunk_shape=(4, 8, 8), progress=die)
"""


def test_a_killed_import_leaves_nothing_and_the_next_succeeds(tmp_path):
    source, target = write_npy(tmp_path / "a.npy", VOXELS), tmp_path / "out.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, source, target], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert (tmp_path / "out.zarr.partial").exists()
    np.testing.assert_array_equal(read_all(import_volume(source, target)), VOXELS)
    assert not (tmp_path / "out.zarr.partial").exists()


def test_ac4_is_imported_with_its_resolution(tmp_path, data_dir):
    source = data_dir / "ac4_crop.h5"
    volume = import_volume(f"{source}:raw", tmp_path / "ac4.zarr")
    assert open_volume(volume.url).resolution_nm == (30, 6, 6)
    with h5py.File(source) as file:
        expected = file["raw"][:10]
    np.testing.assert_array_equal(volume.read(Roi((0, 0, 0), (10, 512, 512))), expected)
