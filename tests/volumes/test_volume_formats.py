"""Arrays laid down by others, and by hand: what `open_volume` makes of them."""

import json
import struct

import numpy as np
import pytest
import zarr

from emslice.geometry.boxes import Roi
from emslice.volumes import create_volume, local_path, open_volume

VOXELS = np.random.default_rng(1).integers(0, 2**64 - 1, (5, 7, 11), dtype=np.uint64)
ZARR_FORMATS = [("zarr2", None), ("zarr3", None), ("zarr3", (4, 4, 8))]


def put(folder, **files):
    """Write JSON metadata files, ``zarr_json`` meaning zarr.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        name = {"zarr_json": "zarr.json", "attributes": "attributes.json"}.get(name, f".{name}")
        (folder / name).write_text(json.dumps(content))


def zarr3_array(folder, attributes=None, **options):
    array = zarr.create_array(folder, shape=(5, 7, 11), chunks=(2, 4, 8), dtype="u8", **options)
    array[:] = VOXELS
    array.attrs.update(attributes or {})
    return folder


def n5_array(folder, voxels, block, **attributes):
    """N5 as its specification says: big-endian blocks with a header, x fastest, key x/y/z."""
    lengths, sizes = voxels.shape[::-1], block[::-1]
    meta = {"dimensions": lengths, "blockSize": sizes, "dataType": voxels.dtype.name}
    put(folder, attributes={**meta, "compression": {"type": "raw"}, **attributes})
    for index in np.ndindex(*(-(-n // b) for n, b in zip(voxels.shape, block, strict=True))):
        box = tuple(slice(i * b, i * b + b) for i, b in zip(index, block, strict=True))
        cell, path = voxels[box], folder.joinpath(*(str(i) for i in index[::-1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(f">HH{cell.ndim}I", 0, cell.ndim, *cell.shape[::-1])
        path.write_bytes(header + cell.astype(cell.dtype.newbyteorder(">")).tobytes())
    return folder


@pytest.mark.parametrize(("name", "shard"), ZARR_FORMATS)
def test_zarr_python_reads_what_we_write(tmp_path, name, shard):
    volume = create_volume(
        tmp_path / "a", shape=(5, 7, 11), dtype="u8", chunk_shape=(2, 4, 8), shard_shape=shard,
        resolution_nm=(40, 4, 4), format=name,
    )  # fmt: skip
    volume.write(volume.roi, VOXELS)
    array = zarr.open(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(array[:], VOXELS)
    stored = array.metadata.to_dict()
    names = stored.get("dimension_names") or array.attrs["_ARRAY_DIMENSIONS"]
    assert tuple(names) == ("z", "y", "x")
    assert array.attrs["resolution_nm"] == [40, 4, 4]


@pytest.mark.parametrize(("name", "shard"), ZARR_FORMATS)
def test_we_read_what_zarr_python_writes(tmp_path, name, shard):
    zarr3_array(tmp_path / "a", zarr_format=int(name[-1]), shards=shard)
    volume = open_volume(tmp_path / "a")
    np.testing.assert_array_equal(volume.read(volume.roi), VOXELS)
    assert tuple(volume.chunk_shape) == (2, 4, 8)
    assert tuple(volume.shard_shape) == (shard or (2, 4, 8))
    assert (volume.roi, volume.domain) == (Roi((0, 0, 0), (5, 7, 11)),) * 2
    assert volume.resolution_nm is None


def test_zarr2_chunks_may_be_named_with_dots_and_big_endian(tmp_path):
    array = zarr.create_array(
        tmp_path / "a", shape=(5, 7, 11), chunks=(2, 4, 8), dtype=">u2", zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "."},
    )  # fmt: skip
    array[:] = VOXELS.astype("u2")
    volume = open_volume(tmp_path / "a")
    assert (tmp_path / "a" / "0.0.0").exists()
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(volume.read(volume.roi), VOXELS.astype("u2"))


def test_n5_axes_are_turned_to_zyx(tmp_path):
    volume = open_volume(n5_array(tmp_path / "a", VOXELS, (2, 4, 8)))
    np.testing.assert_array_equal(volume.read(volume.roi), VOXELS)
    assert tuple(volume.chunk_shape) == (2, 4, 8)


def test_the_last_n5_dimension_is_the_channel(tmp_path):
    voxels = np.arange(3 * 5 * 7 * 11, dtype=np.uint16).reshape(3, 5, 7, 11)
    volume = open_volume(n5_array(tmp_path / "a", voxels, (1, 2, 4, 8)))
    assert (volume.channels, volume.roi.shape) == (3, (5, 7, 11))
    np.testing.assert_array_equal(volume.read(volume.roi), voxels)


def test_our_n5_lies_on_disk_as_x_y_z(tmp_path):
    volume = create_volume(
        tmp_path / "a", shape=(5, 7, 11), dtype="u1", chunk_shape=(5, 4, 4), format="n5",
        resolution_nm=(40, 8, 4),
    )  # fmt: skip
    volume.write(Roi((0, 0, 8), (1, 1, 1)), np.ones((1, 1, 1), np.uint8))
    meta = json.loads((tmp_path / "a" / "attributes.json").read_text())
    assert meta["dimensions"] == [11, 7, 5]
    assert meta["pixelResolution"] == {"dimensions": [4, 8, 40], "unit": "nm"}
    assert (tmp_path / "a" / "2" / "0" / "0").is_file()


@pytest.mark.parametrize(("format", "name"), [("zarr2", "a.n5"), ("n5", "a.zarr"), ("zarr3", "h")])
def test_the_name_of_the_folder_does_not_matter(tmp_path, format, name):
    create_volume(tmp_path / name, shape=(2, 3, 4), dtype="u1", format=format)
    assert open_volume(tmp_path / name).roi.shape == (2, 3, 4)


def test_a_file_url_is_a_path(tmp_path):
    zarr3_array(tmp_path / "a b")
    assert open_volume(f"file://{tmp_path}/a%20b").url == str(tmp_path / "a b")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"resolution_nm": [40, 4, 8], "voxel_size": [1, 1, 1]}, (40, 4, 8)),
        ({"voxel_size": [40, 4, 8], "offset": [4000, 400, 400]}, (40, 4, 8)),
        ({"resolution": [0.04, 0.004, 0.006], "units": ["um"] * 3}, (40, 4, 6)),
        ({"pixelResolution": {"dimensions": [8, 4, 40], "unit": "nm"}}, (40, 4, 8)),
        ({"pixelResolution": {"dimensions": [0.008, 0.004, 0.04], "unit": "um"}}, (40, 4, 8)),
        ({"resolution": [1, 1, 1], "units": "pixel"}, None),
        ({"resolution": 4}, None),
    ],
)
def test_resolution_is_read_as_others_write_it(tmp_path, attributes, expected):
    volume = open_volume(zarr3_array(tmp_path / "a", attributes))
    assert volume.resolution_nm == expected
    assert volume.roi.begin == (0, 0, 0)


def ome_group(folder, version, unit, scale=(0.04, 0.004, 0.008)):
    steps = [{"type": "scale", "scale": list(scale)}]
    image = {
        "axes": [{"name": name, "type": "space", "unit": unit} for name in "zyx"],
        "datasets": [{"path": "s0", "coordinateTransformations": steps}, {"path": "s1"}],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0, 1.0, 1.0]}],
    }
    if version == 2:
        put(folder, zgroup={"zarr_format": 2}, zattrs={"multiscales": [image]})
    else:
        ome = {"ome": {"version": "0.5", "multiscales": [image]}}
        put(folder, zarr_json={"node_type": "group", "zarr_format": 3, "attributes": ome})
    zarr3_array(folder / "s0", zarr_format=version)
    return folder


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("unit", "factor"), [("micrometer", 1), ("nanometer", 1e-3), (None, 1e-3)])
def test_an_ome_zarr_group_is_its_level_0(tmp_path, version, unit, factor):
    volume = open_volume(ome_group(tmp_path / "a", version, unit))
    np.testing.assert_array_equal(volume.read(volume.roi), VOXELS)
    assert volume.resolution_nm == pytest.approx([80 * factor, 4 * factor, 8 * factor])
    assert volume.url == str(tmp_path / "a")


def test_an_array_beside_its_domain_keeps_its_place(tmp_path):
    place = {"offset": [1, 2, 3], "domain_shape": [9, 9, 99]}
    volume = open_volume(zarr3_array(tmp_path / "a", place))
    assert (volume.roi, volume.domain.shape) == (Roi((1, 2, 3), (5, 7, 11)), (9, 9, 99))


@pytest.mark.parametrize("url", ["../raw.zarr", "./sub/../../raw.zarr", "~/raw.zarr",
                                 "file://{}/sub/../raw.zarr"])  # fmt: skip
def test_a_path_may_go_up_or_home(tmp_path, monkeypatch, url):
    (tmp_path / "sub" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub")
    monkeypatch.setenv("HOME", str(tmp_path))
    url = url.format(tmp_path)
    made = create_volume(url, shape=(5, 7, 11), dtype="u8")
    made.write(made.roi, VOXELS)
    volume = open_volume(url)
    assert volume.url == str(local_path(url)) == str(tmp_path / "raw.zarr")
    np.testing.assert_array_equal(volume.read(volume.roi), VOXELS)


def test_the_home_of_nobody_is_a_folder_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_path("~no_such_user/a") == tmp_path / "~no_such_user" / "a"
