"""A fingerprint depends on everything it names, and on nothing else."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import emslice.ledger.fingerprint
from emslice.ledger.fingerprint import fingerprint, volume_identity
from emslice.volumes import create_volume, open_volume


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


@pytest.fixture
def group(tmp_path):
    """An OME-Zarr group of two levels, each with chunks."""
    for level in "01":
        volume = create_volume(
            tmp_path / "em" / level, shape=(6, 5, 7), dtype=np.uint8, chunk_shape=(2, 3, 4),
            format="zarr2",
        )  # fmt: skip
        volume.write(volume.roi, np.ones((6, 5, 7), np.uint8))
    (tmp_path / "em" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "em" / ".zattrs").write_text(
        json.dumps({"multiscales": [{"datasets": [{"path": "0"}]}]})
    )
    return tmp_path / "em"


def rewrite(file):
    """Other bytes at another time, as a second import would leave them."""
    file.write_bytes(file.read_bytes() + b" ")


@pytest.mark.parametrize("name", [".zattrs", "0/.zarray", "0/.zattrs", "0/1/0/1"])
@pytest.mark.parametrize("says_array", [True, False])
def test_all_of_the_array_that_is_read_counts(group, name, says_array):
    array = [open_volume(group).path] if says_array else []
    before = volume_identity(str(group), *array)
    assert volume_identity(str(group), *array) == before
    rewrite(group / name)
    assert volume_identity(str(group), *array) != before


def test_an_array_that_is_not_read_does_not_count(group):
    before = volume_identity(str(group), str(group / "0"))
    shutil.rmtree(group / "1")
    (group / "labels").mkdir()
    assert volume_identity(str(group), str(group / "0")) == before
    assert volume_identity(str(group), str(group / "labels")) != before


@pytest.mark.parametrize("change", ["bytes", "time", "gone", "more"])
def test_rewritten_voxels_are_noticed(group, change):
    chunk, before = group / "0/2/1/0", volume_identity(str(group / "0"))
    if change == "bytes":
        rewrite(chunk)
    elif change == "time":
        os.utime(chunk, ns=(0, 7))
    elif change == "gone":
        chunk.unlink()
    else:
        chunk.with_name("9").touch()
    assert volume_identity(str(group / "0")) != before


def test_what_the_system_leaves_behind_does_not_count(group):
    before = volume_identity(str(group / "0"))
    for name in (".DS_Store", "1/.nfs0001", "1/0/0.__lock"):
        (group / "0" / name).touch()
    assert volume_identity(str(group / "0")) == before


@pytest.mark.parametrize("is_flat", [True, False])
def test_at_most_so_many_chunks_are_looked_at_and_they_are_spread(tmp_path, monkeypatch, is_flat):
    monkeypatch.setattr(emslice.ledger.fingerprint, "SAMPLED_FILES", 6)
    for z in range(9):
        for x in range(9):
            file = tmp_path / (f"{z}.{x}" if is_flat else f"c/{z}/{x}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    looked_at, is_dir = [], Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda self: looked_at.append(self) or is_dir(self))
    volume_identity(str(tmp_path))
    files = [path for path in looked_at if path.is_file()]
    sections = [path.name[0] if is_flat else path.parent.name for path in files]
    assert sections == list("013578" if is_flat else "023568") or len(set(sections)) == 6
    assert len(files) == 6
