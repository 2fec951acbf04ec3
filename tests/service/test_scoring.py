"""Checkpoints on labelled volumes: the numbers of the commands that do it one by one, once."""

import csv
import json

import h5py
import numpy as np
import pytest
import tifffile
import yaml
from models.teachers import SMALL
from service.runs import Silent, write

from emslice.errors import CheckpointError, ConfigError, StorageError
from emslice.models.checkpoint import save_checkpoint
from emslice.models.student import Student
from emslice.service import evaluating
from emslice.service.arrays import evaluate, predict_affinities, segment_affinities
from emslice.service.evaluating import evaluate_pairs, plan_evaluation
from emslice.service.scores import MEAN

SHAPE = (7, 40, 57)
SEGMENT = {
    "predict": {"precision": "float32"},
    "agglomeration": {"threshold": 0.6, "linkage": "mean"},
    "dust": {"min_size": 20},
    "workers": 1,
}


@pytest.fixture(scope="module")
def arrays():
    """Raw with dark lines between four cells, and the cells."""
    rng = np.random.default_rng(4)
    raw = rng.integers(150, 250, SHAPE).astype(np.uint8)
    raw[:, 18:21] = raw[:, :, 28:32] = 20
    truth = np.zeros(SHAPE, np.uint16)
    for i, (y, x) in enumerate([(0, 0), (0, 32), (21, 0), (21, 32)]):
        truth[:, y : y + 18, x : x + 25] = i + 1
    return raw, truth


@pytest.fixture
def desk(tmp_path, arrays):
    """A folder with the volume as HDF5, zarr and TIFF, and a test set of the first two."""
    raw, truth = arrays
    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["raw"], file["labels"] = raw, truth
    write(tmp_path / "raw.zarr", raw)
    write(tmp_path / "truth.zarr", truth)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    negative = truth.astype(np.int64)
    negative[-1, -1, -1] = -1
    np.save(tmp_path / "negative.npy", negative)
    return tmp_path


def volume(raw="both.h5:raw", truth="both.h5:labels", **more):
    return {"raw": raw, "truth": truth, **more}


def plan(desk, *checkpoints, out="scores", volumes=None, **more):
    """Plan of a test set that is written to a file."""
    volumes = volumes or {"part": volume(roi="2:6,:,:")}
    content = {"thresholds": [0.4, 0.8], "segment": SEGMENT, "volumes": volumes, **more}
    (desk / "set.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    checkpoints = tuple(map(str, checkpoints))
    return plan_evaluation(desk / "set.yaml", checkpoints, desk / out, root=str(desk))


def done(desk, *checkpoints, **more):
    return evaluate_pairs(plan(desk, *checkpoints, **more), Silent())


def test_a_pair_has_the_scores_of_predicting_segmenting_and_evaluating(
    desk, arrays, small_checkpoint
):
    raw, truth = arrays
    (row,) = done(desk, small_checkpoint).rows
    codes = predict_affinities(raw, small_checkpoint, precision="float32")[:, 2:6]
    for prefix, threshold in [("", 0.6), ("best_", row["best_threshold"])]:
        neurons = segment_affinities(codes, threshold, "mean", min_size=20)
        for name, value in evaluate(neurons, truth[2:6]).as_dict().items():
            assert row[prefix + name] == pytest.approx(value)
        assert row[prefix + "segments"] == len(np.unique(neurons[neurons > 0]))
    assert row["best_threshold"] in (0.4, 0.6, 0.8)
    assert (row["roi"], row["voxels"]) == ("2:6,0:40,0:57", 4 * 40 * 57)


def test_any_kind_of_file_gives_the_same_scores(desk, small_checkpoint):
    kinds = {
        "hdf5": volume(), "zarr": volume("raw.zarr", "truth.zarr"),
        "mixed": volume("raw.zarr", "truth.tif"),
    }  # fmt: skip
    rows = done(desk, small_checkpoint, volumes=kinds).rows[:3]
    assert [row["volume"] for row in rows] == list(kinds)
    assert len({(row["voi"], row["arand"], row["segments"]) for row in rows}) == 1


def test_the_baseline_needs_no_network_and_finds_cells_between_dark_lines(desk):
    (row,) = done(desk, "raw", volumes={"all": volume()}).rows
    assert row["voi_merge"] == pytest.approx(0, abs=1e-9)
    assert (row["parameters"], row["mac_per_voxel"], row["sha256"]) == (0, 0, "raw")


def test_a_3d_network_and_a_student_take_what_is_their_own(desk, small_checkpoint):
    save_checkpoint(desk / "teacher.ckpt", SMALL["embedding"](), (40, 4, 4), {})
    sizes = {"crop": [5, 32, 48], "stride": [3, 16, 24], "augment": "flips"}
    segment = {**SEGMENT, "predict": {"precision": "float32", **sizes}}
    planned = plan(desk, small_checkpoint, desk / "teacher.ckpt", segment=segment)
    student, teacher = planned.pairs
    assert (student.config.predict.crop, student.config.predict.augment) == (None, "flips")
    assert (teacher.config.predict.crop, teacher.config.predict.augment) == ((5, 32, 48), "flips")
    assert teacher.mac_per_voxel > student.mac_per_voxel > 0
    (row,) = done(desk, desk / "teacher.ckpt", segment=segment).rows
    assert row["parameters"] == teacher.parameters


def test_a_network_beats_the_baseline_on_real_data(data_dir, tmp_path):
    crop = {"raw": "ac4_crop.h5:raw", "truth": "ac4_crop.h5:labels", "roi": "72:75,0:160,0:224"}
    content = {"thresholds": [0.3, 0.5, 0.7], "volumes": {"ac4": crop}}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(content))
    names = (str(data_dir / "checkpoints/cad_AC34.ckpt"), "raw")
    planned = plan_evaluation(tmp_path / "set.yaml", names, tmp_path / "s", root=str(data_dir))
    network, baseline = evaluate_pairs(planned, Silent()).rows
    assert network["voi"] < 0.7 < baseline["best_voi"]
    assert (network["parameters"], network["mac_per_voxel"]) == (900_816, 70_432)


def test_means_are_over_volumes_whatever_their_size(desk, small_checkpoint):
    volumes = {"small": volume(roi="0:2,:,:"), "large": volume(roi="2:7,:,:")}
    found = done(desk, small_checkpoint, "raw", volumes=volumes)
    assert [row["volume"] for row in found.rows] == ["small", "small", "large", "large"] + [
        MEAN
    ] * 2
    first, mean = [row for row in found.rows if row["checkpoint"] == "raw"][::2]
    other = next(r for r in found.rows if (r["volume"], r["checkpoint"]) == ("large", "raw"))
    for name in ("voi", "arand", "best_voi"):
        assert mean[name] == pytest.approx((first[name] + other[name]) / 2)
    assert mean["voxels"] == 7 * 40 * 57


def test_table_sweeps_and_pictures_are_written(desk, small_checkpoint):
    found = done(desk, small_checkpoint, "raw")
    with found.table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["voi"]) for line in lines] == [row["voi"] for row in found.rows]
    with (found.folder / "sweeps.csv").open(newline="") as file:
        assert [line["threshold"] for line in csv.DictReader(file)] == ["0.4", "0.6", "0.8"] * 2
    pictures = [found.picture, *(found.folder / "sections").iterdir()]
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
    json.dumps(found.as_dict())


def test_finished_pairs_are_kept_and_new_ones_added(desk, small_checkpoint):
    first = done(desk, small_checkpoint)
    again = done(desk, small_checkpoint, "raw")
    assert (first.done, again.done) == (1, 1)
    assert again.rows[0] == first.rows[0]  # seconds too: they are those of the record


def test_a_change_of_what_scores_depend_on_makes_a_new_pair(desk, arrays):
    done(desk, "raw")
    assert done(desk, "raw", thresholds=[0.4, 0.7]).done == 1
    assert done(desk, "raw", ignore=1).done == 1
    assert done(desk, "raw", segment={**SEGMENT, "dust": {"min_size": 0}}).done == 1
    with h5py.File(desk / "both.h5", "a") as file:
        file["labels"][:] = arrays[1][::-1] + 5
    assert done(desk, "raw").done == 1
    assert done(desk, "raw", segment={**SEGMENT, "workers": 2}).done == 0


def test_a_pair_without_its_picture_is_done_again(desk):
    found = done(desk, "raw")
    next((found.folder / "sections").iterdir()).unlink()
    assert done(desk, "raw").done == 1


def test_a_stop_between_picture_and_record_costs_that_pair_only(
    desk, small_checkpoint, monkeypatch
):
    whole = evaluating.save_pair

    def stop_at_raw(path, found):
        if found.checkpoint == "raw":
            raise KeyboardInterrupt
        whole(path, found)

    monkeypatch.setattr(evaluating, "save_pair", stop_at_raw)
    with pytest.raises(KeyboardInterrupt):
        done(desk, small_checkpoint, "raw")
    monkeypatch.undo()
    assert done(desk, small_checkpoint, "raw").done == 1


def test_a_checkpoint_that_changes_meanwhile_is_not_scored(desk, small_checkpoint):
    copy = desk / "student.ckpt"
    copy.write_bytes(small_checkpoint.read_bytes())
    planned = plan(desk, copy)
    save_checkpoint(copy, Student(2, 3).eval(), (40.0, 4.0, 4.0), {})
    with pytest.raises(StorageError, match=r"student.ckpt: has changed"):
        evaluate_pairs(planned, Silent())


def test_checkpoints_of_one_file_name_are_told_apart_by_folder(desk, small_checkpoint):
    for name in ("a", "b"):
        (desk / name).mkdir()
        (desk / name / "best.ckpt").write_bytes(small_checkpoint.read_bytes())
    planned = plan(desk, desk / "a/best.ckpt", desk / "b/best.ckpt")
    assert [pair.checkpoint for pair in planned.pairs] == ["a-best", "b-best"]


@pytest.mark.parametrize("normalize", ["none", "affine", "clahe", "raw"])
def test_a_box_of_a_large_volume_keeps_what_is_seen_around_it(desk, small_checkpoint, normalize):
    segment = {}
    if normalize != "raw":
        segment = {"raw": {"normalize": normalize, "target": [120, 40]}}
    checkpoint = "raw" if normalize == "raw" else small_checkpoint
    whole, part = (
        evaluating.predict_labelled(pair.labelled, pair.config, pair.labelled.raw())
        for more in ({}, {"roi": "3:6,10:30,7:50"})
        for pair in plan(desk, checkpoint, volumes={"v": volume(segment=segment, **more)}).pairs
    )
    np.testing.assert_array_equal(part, whole[:, 3:6, 10:30, 7:50])


def test_the_baseline_masks_a_blank_that_a_box_cuts(desk):
    with h5py.File(desk / "both.h5", "a") as file:
        file["raw"][:, 8:26, 4:40] = 0
    whole, part = (
        evaluating.predict_labelled(pair.labelled, pair.config, pair.labelled.raw())
        for more in ({}, {"roi": "3:6,15:35,7:50"})
        for pair in plan(desk, "raw", volumes={"v": volume(**more)}).pairs
    )
    assert not whole[:, 3:6, 15:26, 7:40].any()
    np.testing.assert_array_equal(part, whole[:, 3:6, 15:35, 7:50])


REFUSED = {
    "no checkpoint": ({}, [], "none to score"),
    "no file": ({"v": volume(raw="gone.h5")}, ["raw"], r"volumes\.v: .*gone\.h5: no such file"),
    "no dataset": ({"v": volume(truth="both.h5:gt")}, ["raw"], "no dataset 'gt'"),
    "box outside": ({"v": volume(roi="0:9,:,:")}, ["raw"], "leaves the volume"),
    "other shape": ({"v": volume(truth="short.npy")}, ["raw"], r"of \(3, 40, 57\) voxels"),
    "other voxels": (
        {"v": volume("fine.zarr", "coarse.zarr")}, ["raw"], "40 x 8 x 8 nm, raw of 40 x 4 x 4 nm",
    ),
    "negative truth": ({"v": volume(truth="negative.npy")}, ["raw"], "labels down to -1"),
    "a mean": ({"mean": volume()}, ["raw"], "cannot name a picture"),
    "a long name": ({"v" * 101: volume()}, ["raw"], "cannot name a picture"),
    "float truth": ({"v": volume(truth="float.npy")}, ["raw"], "expected integer labels"),
    "empty truth": ({"v": volume(truth="empty.npy")}, ["raw"], "nothing to score"),
    "uint16 raw": ({"v": volume(raw="both.h5:labels")}, ["raw"], r"raw\.window"),
    "no network": ({"v": volume()}, ["set.yaml"], "not a readable checkpoint"),
    "waterz": (
        {"v": volume(segment={"agglomeration": {"method": "waterz"}})}, ["raw"], "Set it to exact",
    ),
    "too low": (
        {"v": volume(segment={"agglomeration": {"lowest_threshold": 0.5}})}, ["raw"],
        r"0\.4 is below the lowest threshold",
    ),
    "twice": ({"v": volume()}, ["raw", "raw"], "given twice"),
    "a foreign key": ({"v": volume(segment={"roi": "0:1,:,:"})}, ["raw"], "belongs to the volume"),
    "a misspelt key": ({"v": volume(segment={"dust": {"minsize": 1}})}, ["raw"], "dust.min_size"),
    "a misspelt field": ({"v": volume(rio="0:1,:,:")}, ["raw"], "Did you mean 'roi'"),
}  # fmt: skip


@pytest.mark.parametrize(("volumes", "checkpoints", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored_is_refused_and_nothing_is_written(
    desk, arrays, volumes, checkpoints, message
):
    np.save(desk / "short.npy", arrays[1][:3])
    np.save(desk / "float.npy", arrays[1].astype(np.float32))
    np.save(desk / "empty.npy", arrays[1] * 0)
    write(desk / "fine.zarr", arrays[0], resolution_nm=(40, 4, 4))
    write(desk / "coarse.zarr", arrays[1], resolution_nm=(40, 8, 8))
    checkpoints = [str(desk / c) if c.endswith("yaml") else c for c in checkpoints]
    with pytest.raises((ConfigError, CheckpointError), match=message):
        plan(desk, *checkpoints, volumes=volumes)
    assert not (desk / "scores").exists()


def test_a_folder_of_something_else_is_refused(desk):
    (desk / "scores").mkdir()
    (desk / "scores/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no folder of scores"):
        plan(desk, "raw")


def test_a_shipped_layout_is_a_test_set(desk, arrays):
    raw, truth = (np.repeat(a[:1, :20, :33], 100, axis=0) for a in arrays)
    (desk / "ac3_ac4").mkdir()
    for kind, array in (("inputs", raw), ("labels", truth)):
        with h5py.File(desk / f"ac3_ac4/AC3_{kind}.h5", "w") as file:
            file["main"] = array
    (desk / "set.yaml").write_text("layout: ac34\nthresholds: [0.4, 0.8]\n")
    planned = plan_evaluation(desk / "set.yaml", ("raw",), desk / "s", root=str(desk))
    assert [pair.labelled.name for pair in planned.pairs] == ["AC3"]
    assert evaluate_pairs(planned, Silent()).rows[0]["roi"] == "0:100,0:20,0:33"
