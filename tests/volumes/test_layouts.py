"""Data as the authors ship it is found, and what is wrong with it is said all at once."""

import h5py
import numpy as np
import pytest

from emslice.errors import ConfigError
from emslice.volumes.layouts import LAYOUTS, check_layout, dataset_layout
from emslice.volumes.sources import open_source

PLANE = (5, 7)


def put(path, array, key="main"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = array


def put_pair(raw, labels, n, seed=0):
    rng = np.random.default_rng(seed)
    put(raw, rng.integers(1, 256, (n, *PLANE)).astype(np.uint8))
    put(labels, rng.integers(0, 9, (n, *PLANE)).astype(np.int64))


@pytest.fixture
def root(tmp_path):
    """A folder with every data set."""
    for stem, n in [
        *((f"cremi/cremi{k}", 125) for k in "ABC"),
        ("ac3_ac4/AC3", 256), ("ac3_ac4/AC4", 100), ("wafer4/wafer4", 125),
    ]:  # fmt: skip
        put_pair(tmp_path / f"{stem}_inputs.h5", tmp_path / f"{stem}_labels.h5", n)
    for part, count in [("train", 3), ("val", 1), ("test", 2)]:
        for i in range(count):
            folder = tmp_path / "zebrafinch" / part
            put_pair(folder / f"image_{i}.h5", folder / f"gt_{i}.h5", 4)
    return tmp_path


def test_sound_data_have_no_findings_and_every_part_opens(root):
    assert len(LAYOUTS) == 7
    for name in LAYOUTS:
        assert check_layout(name, root) == []
        parts = dataset_layout(name, root)
        assert {"train", "test"} <= {part.split for part in parts}
        for part in parts:
            with open_source(part.raw) as raw, open_source(part.labels) as labels:
                assert raw.shape == labels.shape
                assert part.sections is None or part.sections[1] <= raw.shape[0]


def test_the_splits_are_the_published_ones(tmp_path):
    def splits(name):
        parts = dataset_layout(name, tmp_path)
        return [(part.raw.split("/")[-1][:7], part.split, part.sections) for part in parts]

    assert splits("ac34") == [("AC4_inp", "train", (0, 80)), ("AC3_inp", "test", (0, 100))]
    assert splits("wafer4") == [("wafer4_", "train", (0, 100)), ("wafer4_", "test", (100, 125))]
    assert len(splits("cremi")) == 6
    assert splits("cremiB") == [("cremiB_", "train", (0, 100)), ("cremiB_", "test", (100, 125))]


def test_zebrafinch_pairs_images_and_truth_by_number(root):
    parts = dataset_layout("zebrafinch", root)
    assert [part.split for part in parts] == ["train"] * 3 + ["validate"] + ["test"] * 2
    for part in parts:
        assert part.raw.replace("/image_", "/gt_") == part.labels
        assert part.raw.endswith(".h5:main")


def test_every_problem_is_listed_at_once(root):
    ones = np.ones((125, *PLANE), np.uint8)
    (root / "cremi/cremiA_labels.h5").rename(root / "cremi/cremiA_label.h5")
    put(root / "cremi/cremiB_inputs.h5", ones, key="volumes/raw")
    put(root / "cremi/cremiB_labels.h5", ones * 0.5)
    put(root / "cremi/cremiC_inputs.h5", ones[:, :3].astype(np.uint16))
    found = [str(finding) for finding in check_layout("cremi", root)]
    expected = {
        "cremiA_labels.h5": "no such file. Similar: cremi/cremiA_label.h5",
        "cremiB_inputs.h5": "no dataset 'main'; it has: volumes (a group)",
        "cremiB_labels.h5": "holds float64",
        "cremiC_inputs.h5": "holds uint16",
        "cremiC_labels.h5": "its shape is (125, 5, 7), that of cremiC_inputs.h5 is (125, 3, 7)",
    }
    assert len(found) == len(expected)
    for line, (name, words) in zip(found, expected.items(), strict=True):
        assert name in line
        assert words in line


def test_labels_that_are_empty_where_a_split_needs_them_are_found(root):
    labels = np.ones((125, *PLANE), np.uint16)
    labels[100:] = 0
    put(root / "wafer4/wafer4_labels.h5", labels)
    (finding,) = check_layout("wafer4", root)
    assert "every label in sections 100:125 (test) is 0" in finding.text


def test_another_number_of_sections_is_found(root):
    for name, n in [("AC4", 79), ("AC3", 100)]:
        folder = root / "ac3_ac4"
        put_pair(folder / f"{name}_inputs.h5", folder / f"{name}_labels.h5", n)
    found = check_layout("ac34", root)
    assert [finding.path.name for finding in found] == ["AC4_inputs.h5", "AC4_labels.h5"]
    assert "has 79 sections; the published split (train 0:80) counts at least 80" in found[0].text


def test_a_file_that_is_no_hdf5_and_one_of_another_rank_are_found(root):
    (root / "wafer4/wafer4_inputs.h5").write_bytes(b"\x89HDF cut off")
    put(root / "wafer4/wafer4_labels.h5", np.ones((2, 125, *PLANE), np.uint16))
    found = check_layout("wafer4", root)
    assert "cannot be read as HDF5 (12 bytes" in found[0].text
    assert "has the shape (2, 125, 5, 7); expected (Z, Y, X)" in found[1].text


def test_a_zebrafinch_volume_without_truth_and_an_empty_folder_are_found(root):
    (root / "zebrafinch/train/gt_1.h5").unlink()
    for path in (root / "zebrafinch/val").iterdir():
        path.unlink()
    found = check_layout("zebrafinch", root)
    assert len(found) == 2
    assert found[0].path.name == "gt_1.h5"
    assert "zebrafinch/train/gt_0.h5" in found[0].text
    assert "no image*.h5 and no gt*.h5" in found[1].text


def test_a_folder_that_is_not_there_is_one_finding(tmp_path):
    (finding,) = check_layout("cremi", tmp_path / "gone")
    assert "no such folder" in str(finding)
    assert len(check_layout("cremi", tmp_path)) == 6


def test_an_unknown_layout_is_refused_with_the_nearest(tmp_path):
    for function in (dataset_layout, check_layout):
        with pytest.raises(ConfigError, match=r"unknown layout 'wafer'.*Did you mean 'wafer4'"):
            function("wafer", tmp_path)
