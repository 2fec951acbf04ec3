"""Every refusal of `open_volume` and `create_volume`, and what it tells the user."""

import json
import resource
import shlex
from contextlib import contextmanager

import numpy as np
import pytest
import zarr

import emslice.volumes.formats
from emslice.errors import AlignmentError, ConfigError, GeometryError, StorageError, VolumeError
from emslice.volumes import create_volume, open_volume
from emslice.volumes.attributes import OWN


def make(path, **changes):
    return create_volume(path, **{"shape": (5, 7, 11), "dtype": "u1", **changes})


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_refusal_is_a_configuration_error():
    assert issubclass(VolumeError, ConfigError)
    assert VolumeError.exit_code == 2


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(VolumeError, match=r"/gone.zarr: no such volume; check the path"):
        open_volume(tmp_path / "gone.zarr")


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.tif", "a.TIFF", "a.npy", "a.png"])
def test_a_file_is_told_to_be_imported(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(VolumeError, match=rf"`emslice import {tmp_path}/{name} {tmp_path}/a.zarr`"):
        open_volume(tmp_path / name)


def test_the_command_to_import_survives_a_space_in_the_path(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / "a.h5").touch()
    with pytest.raises(VolumeError) as caught:
        open_volume(f"{folder}/a.h5:raw")
    command = str(caught.value).split("`")[1]
    assert shlex.split(command) == ["emslice", "import", f"{folder}/a.h5:raw", f"{folder}/a.zarr"]


def test_a_dataset_in_a_file_is_told_to_be_imported(tmp_path):
    (tmp_path / "a.h5").touch()
    with pytest.raises(VolumeError, match=rf"emslice import {tmp_path}/a.h5:em/raw {tmp_path}/a.z"):
        open_volume(f"{tmp_path}/a.h5:em/raw")


def test_a_folder_of_images_is_told_to_be_imported(tmp_path):
    (tmp_path / "z0.tif").touch()
    with pytest.raises(VolumeError, match=rf"holds images; .*`emslice import {tmp_path} "):
        open_volume(tmp_path)


def test_another_file_is_not_a_volume(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(VolumeError, match="is a file; a volume is a folder"):
        open_volume(tmp_path / "notes.txt")


@pytest.mark.parametrize("url", ["s3://bucket/raw", "gs://b/raw", "https://host/raw", "zarr://x"])
def test_an_unsupported_scheme_is_named(url):
    with pytest.raises(VolumeError, match=rf"{url.split(':')[0]}:// is not supported in this vers"):
        open_volume(url)


@pytest.mark.parametrize(("url", "message"), [("file://host/raw", "host 'host'"), ("", "is empty")])
def test_an_illegible_url_is_refused(url, message):
    with pytest.raises(VolumeError, match=message):
        open_volume(url)


@pytest.mark.parametrize("n_arrays", [1, 12])
def test_a_group_lists_up_to_ten_arrays(tmp_path, n_arrays):
    group = zarr.open_group(tmp_path / "a", mode="w")
    for k in range(n_arrays):
        group.create_array(f"em/raw{k:02}", shape=(2, 3, 4), dtype="u1")
    with pytest.raises(VolumeError, match="is a group, not an array; open one of") as caught:
        open_volume(tmp_path / "a")
    assert str(caught.value).count("em/raw") == min(n_arrays, 10)


def test_an_n5_group_lists_its_arrays(tmp_path):
    write_json(tmp_path / "a" / "attributes.json", {"n5": "2.0.0"})
    make(tmp_path / "a" / "raw", format="n5")
    with pytest.raises(VolumeError, match="a/raw"):
        open_volume(tmp_path / "a")


def test_chunks_are_not_searched_for_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(emslice.volumes.formats, "WALK_FOLDERS", 3)
    raw = make(tmp_path / "raw")
    raw.write(raw.roi, np.ones((5, 7, 11), np.uint8))
    make(tmp_path / "truth")
    with pytest.raises(VolumeError, match=r"/raw, .*/truth\.$"):
        open_volume(tmp_path)


def test_an_empty_folder_holds_no_array(tmp_path):
    with pytest.raises(VolumeError, match="holds no zarr or N5 array"):
        open_volume(tmp_path)


@pytest.mark.parametrize("shape", [(3, 4), (1, 1, 5, 7, 11), (0, 7, 11)])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_only_3d_and_channels_are_taken(tmp_path, shape, zarr_format):
    zarr.create_array(tmp_path / "a", shape=shape, dtype="u1", zarr_format=zarr_format)
    with pytest.raises(VolumeError, match=r"a volume is \(Z, Y, X\), or \(C, Z, Y, X\)"):
        open_volume(tmp_path / "a")


def test_complex_numbers_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(2, 3, 4), dtype="c8", zarr_format=3)
    with pytest.raises(VolumeError, match="holds complex64"):
        open_volume(tmp_path / "a")


@pytest.mark.parametrize("names", [("x", "y", "z"), ("z", "y", "x", "c")])
def test_named_axes_in_another_order_are_refused(tmp_path, names):
    shape = (5, 7, 11, 3)[: len(names)]
    zarr.create_array(tmp_path / "a", shape=shape, dtype="u1", dimension_names=names)
    with pytest.raises(VolumeError, match=f"axes are {','.join(names)}; emslice reads z,y,x"):
        open_volume(tmp_path / "a")


def test_broken_metadata_are_named(tmp_path):
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(VolumeError, match=r"zarr.json: cannot be read as metadata"):
        open_volume(tmp_path)


def test_an_array_that_tensorstore_cannot_open_is_a_volume_error(tmp_path):
    write_json(tmp_path / "attributes.json", {"dimensions": [4, 3, 2], "dataType": "uint8"})
    with pytest.raises(VolumeError, match="cannot be opened as n5"):
        open_volume(tmp_path)


@pytest.mark.parametrize("datasets", [[], [{"path": "gone"}]])
def test_an_ome_group_without_level_0_is_refused(tmp_path, datasets):
    write_json(tmp_path / ".zgroup", {"zarr_format": 2})
    write_json(tmp_path / ".zattrs", {"multiscales": [{"datasets": datasets}]})
    with pytest.raises(VolumeError, match=r"name no dataset|level 0 should be at 'gone'"):
        open_volume(tmp_path)


ODD = [7, -1, "x", "666", True, [], [7], {}, {"a": 1}, [None] * 3, [[1]] * 3, ["a", 1, {}],
       [0, -4, 5], [10**400, 1, 1], [float("inf")] * 3]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("format", ["zarr2", "zarr3", "n5"])
def test_odd_attributes_are_understood_or_refused(tmp_path, value, format):
    make(tmp_path / "a", format=format)
    name = {"zarr2": ".zattrs", "zarr3": "zarr.json", "n5": "attributes.json"}[format]
    whole = (tmp_path / "a" / name).read_text()
    theirs = ["resolution", "voxel_size", "units", "pixelResolution", "_ARRAY_DIMENSIONS"]
    for key in [*OWN, *theirs]:
        changed = json.loads(whole)
        place = changed["attributes"] if format == "zarr3" else changed
        place.update({"resolution": [40, 4, 8]} if key == "units" else {})
        place[key] = value
        write_json(tmp_path / "a" / name, changed)
        openable = is_openable(tmp_path / "a")
        # What emslice wrote itself is a promise. The rest tensorstore may refuse, with its reason.
        assert not (openable and key in OWN)
        assert openable or key in OWN or format != "zarr2"


def is_openable(path):
    """False if it is refused; any other error is not caught."""
    try:
        open_volume(path)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("key", ["attributes", "dimension_names"])
def test_odd_zarr_metadata_are_understood_or_refused(tmp_path, value, key):
    make(tmp_path / "a")
    meta = json.loads((tmp_path / "a" / "zarr.json").read_text())
    for node in (meta, {"zarr_format": 3, "node_type": "group"}):
        write_json(tmp_path / "a" / "zarr.json", {**node, key: value})
        is_openable(tmp_path / "a")


def ome_group(path, image):
    """OME-Zarr 0.4 group with one array."""
    make(path / "0", format="zarr2")
    write_json(path / ".zgroup", {"zarr_format": 2})
    write_json(path / ".zattrs", {"multiscales": [{"datasets": [{"path": "0"}], **image}]})
    return path


@pytest.mark.parametrize("value", [*ODD, "gone"], ids=range(len(ODD) + 1))
@pytest.mark.parametrize("where", ["scale", "step", "steps", "image", "axes", "unit", "images"])
def test_an_ome_scale_that_is_illegible_is_unknown(tmp_path, value, where):
    step = {"type": "scale", "scale": value} if value != "gone" else {"type": "scale"}
    steps = {"scale": [step], "step": [value], "steps": value}.get(
        where, [{"type": "scale", "scale": [40, 4, 8]}]
    )
    image = {"datasets": [{"path": "0", "coordinateTransformations": steps}]}
    axes = [{"name": name, "unit": value} for name in "zyx"]
    image |= {
        "image": {"coordinateTransformations": [step]}, "axes": {"axes": value},
        "unit": {"axes": axes},
    }.get(where, {})  # fmt: skip
    group = ome_group(tmp_path / "a", image)
    if where == "images":
        write_json(group / ".zattrs", {"multiscales": value})
        assert not is_openable(group)
    else:
        known = {None, (40, 4, 8)} if where == "axes" else {None}
        assert open_volume(group).resolution_nm in known


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"domain_shape": [5, 7, 11], "offset": [0, 0, 1]}, "outside its domain_shape"),
        ({"domain_shape": [5, 7]}, "domain_shape: expected three whole numbers"),
        ({"domain_shape": [9, 9, 99], "offset": [0, -1, 0]}, "offset: expected three whole"),
        ({"resolution_nm": [40, 4]}, "resolution_nm: expected three positive"),
        ({"resolution_nm": 7}, "resolution_nm: expected three positive numbers z,y,x, got 7"),
    ],
)
def test_a_place_outside_the_domain_is_refused(tmp_path, place, message):
    array = zarr.create_array(tmp_path / "a", shape=(5, 7, 11), dtype="u1")
    array.attrs.update(place)
    with pytest.raises(ConfigError, match=message):
        open_volume(tmp_path / "a")


@pytest.mark.parametrize("format", ["zarr2", "zarr3", "n5"])
def test_nothing_is_created_over_something(tmp_path, format):
    make(tmp_path / "a", format=format)
    with pytest.raises(VolumeError, match="exists already; choose another path"):
        make(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"shard_shape": (24, 99, 512)}, AlignmentError, r"\(24, 99, 512\) is not a whole"),
        ({"shard_shape": (8, 8, 8), "format": "zarr2"}, VolumeError, "zarr2 has no shards"),
        ({"shape": (5, 7)}, VolumeError, "shape: expected 3 positive numbers"),
        ({"shape": (5, 0, 7)}, VolumeError, "shape: expected 3 positive numbers"),
        ({"channels": 0}, VolumeError, "channels: expected 1 positive"),
        ({"chunk_shape": (1, 0, 1)}, VolumeError, "chunk_shape: expected 3 positive"),
        ({"dtype": "c8"}, VolumeError, "cannot hold complex64"),
        ({"dtype": bool, "format": "n5"}, VolumeError, "n5 cannot hold bool"),
        ({"format": "hdf5"}, VolumeError, "choose one of zarr3, zarr2, n5"),
        ({"domain_shape": (5, 7, 10)}, VolumeError, "the domain must hold offset"),
        ({"resolution_nm": (40, 4, 0)}, GeometryError, "three positive numbers z,y,x"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        make(tmp_path / "a", **changes)
    assert not (tmp_path / "a").exists()


@contextmanager
def files_of_at_most(n_bytes):
    """As on a disk that is full: a larger file cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", ["zarr2", "zarr3", "n5"])
def test_a_full_disk_is_a_failure_and_no_refusal(tmp_path, format):
    with files_of_at_most(10), pytest.raises(StorageError, match="cannot be made") as caught:
        make(tmp_path / "a", format=format)
    assert caught.value.exit_code == 1
    assert "File too large" in str(caught.value)


def test_nothing_is_still_written_after_a_write_has_failed(tmp_path):
    """The first chunk is too large for the disk; the others would follow later."""
    volume = make(tmp_path / "a", shape=(100, 50, 50), chunk_shape=(5, 5, 5))
    voxels = np.ones(volume.roi.shape, np.uint8)
    voxels[:5, :5, :5] = np.random.default_rng(0).integers(0, 256, (5, 5, 5), np.uint8)
    with files_of_at_most(100), pytest.raises(StorageError, match="File too large"):
        volume.write(volume.roi, voxels)
    written = [path for path in (tmp_path / "a" / "c").rglob("*") if path.is_file()]
    assert len(written) == 20 * 10 * 10 - 1


@pytest.mark.parametrize("format", ["zarr2", "zarr3", "n5"])
def test_a_place_that_cannot_be_is_refused(tmp_path, format):
    (tmp_path / "file").touch()
    with pytest.raises(VolumeError, match="cannot be made"):
        make(tmp_path / "file" / "a", format=format)


def test_chunks_and_shards_are_clipped_to_the_shape(tmp_path):
    volume = make(tmp_path / "a", chunk_shape=(4, 8, 16), shard_shape=(8, 64, 64))
    assert tuple(volume.chunk_shape) == (4, 7, 11)
    assert tuple(volume.shard_shape) == (8, 7, 11)


def test_default_chunks_are_thin_and_hold_one_channel(tmp_path):
    volume = make(tmp_path / "a", shape=(100, 700, 900), channels=3, dtype=np.float32)
    assert tuple(volume.chunk_shape) == (16, 256, 256)
    assert zarr.open(tmp_path / "a", mode="r").chunks == (1, 16, 256, 256)
