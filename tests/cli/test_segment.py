"""``emslice segment``: one result whatever the way to it, and a folder that says what was done."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import emslice
from emslice.demo.synthetic import synthetic_em
from emslice.geometry.boxes import Roi
from emslice.ledger.merges import load_merges
from emslice.models.profile import bfloat16_unit
from emslice.volumes import create_volume, open_volume
from emslice.volumes.digest import digest_array

STAGES = ["predict", "fragments", "stitch", "agglomerate", "cut", "dust", "relabel"]


def digest_of(run, volume):
    return run("digest", volume).out.splitlines()[-1]


def test_a_run_gives_the_segmentation_of_the_python_api(run, raw, small_checkpoint, tmp_path):
    answer = run(
        "segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint, "--workers", "1"
    )
    assert answer.code == 0, answer.err
    affinities = emslice.predict_affinities(raw.read(raw.roi), small_checkpoint)
    segmentation = emslice.segment_affinities(affinities)
    assert digest_of(run, tmp_path / "run/segmentation.zarr") == digest_array(segmentation)


def test_a_run_from_its_own_affinities_gives_the_same_digest(run, raw, small_checkpoint, tmp_path):
    box = ("--roi", "1:5,8:40,3:50")
    kept = ("--checkpoint", small_checkpoint, "--affinities", "keep", "--workers", "1")
    assert run("segment", raw.url, tmp_path / "a", *kept, *box).code == 0
    stored = tmp_path / "a/affinities.zarr"
    answer = run("segment", "--from-affinities", stored, tmp_path / "b", *box, "--workers", "1")
    assert answer.code == 0, answer.err
    assert digest_of(run, tmp_path / "a/segmentation.zarr") == digest_of(
        run, tmp_path / "b/segmentation.zarr"
    )


def test_a_roi_keeps_its_place_and_resolution(run, raw, small_checkpoint, tmp_path):
    weights = ("--checkpoint", small_checkpoint, "--affinities", "keep", "--workers", "1")
    answer = run("segment", raw.url, tmp_path / "run", "--roi", "2:5,8:40,10:57", *weights)
    assert answer.code == 0, answer.err
    for name in ("segmentation.zarr", "affinities.zarr"):
        volume = open_volume(tmp_path / "run" / name)
        assert volume.roi == Roi((2, 8, 10), (3, 32, 47))
        assert volume.domain == raw.domain
        assert volume.resolution_nm == (40, 4, 4)


def test_ids_of_a_roi_are_linear_indices_in_the_domain(run, raw, small_checkpoint, tmp_path):
    box = ("--roi", "2:5,8:40,10:57", "--min-size", "0")
    run(
        "segment",
        raw.url,
        tmp_path / "run",
        *box,
        "--checkpoint",
        small_checkpoint,
        "--workers",
        "1",
    )
    volume = open_volume(tmp_path / "run/segmentation.zarr")
    labels = volume.read(volume.roi)
    ids = np.unique(labels[labels > 0]) - 1
    assert len(ids) > 10
    z, rest = np.divmod(ids, 40 * 57)
    y, x = np.divmod(rest, 57)
    assert z.min() >= 2
    assert z.max() < 5
    assert y.min() >= 8
    assert x.min() >= 10


def test_the_record_says_what_was_done(run, raw, small_checkpoint, tmp_path):
    run("segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint, "--workers", "1")
    record = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    assert record["state"] == "done"
    assert record["profile"]["threads"] == 1
    assert record["config"]["agglomeration"]["lowest_threshold"] == 0.3
    assert list(record["stages"]) == [*STAGES, "digest"]
    assert record["digests"]["segmentation"] == digest_of(run, tmp_path / "run/segmentation.zarr")
    tables = (tmp_path / "run").glob("stages/agglomerate/*/nodes/*/*/merges.parquet")
    assert sum(len(load_merges(t).child) for t in tables) == record["counts"]["merges"]
    assert (tmp_path / "run/preview.png").stat().st_size > 0


def changed_stages(run, folder, *options):
    """Stages whose fingerprint an option changes, from stored affinities."""
    codes = np.random.default_rng(5).integers(0, 256, (3, 2, 30, 40)).astype(np.uint8)
    stored = create_volume(folder / "codes.zarr", shape=codes.shape[1:], dtype=np.uint8, channels=3)
    stored.write(stored.roi, codes)
    prints = []
    for name, extra in (("a", ()), ("b", options)):
        given = ("--from-affinities", stored.url, "--workers", "1")
        answer = run("segment", *given, folder / name, *extra)
        assert answer.code == 0, answer.err
        stages = yaml.safe_load((folder / name / "run.yaml").read_text())["stages"]
        del stages["digest"]  # no result of its own
        prints.append({stage: facts["fingerprint"] for stage, facts in stages.items()})
    return {stage for stage in prints[0] if prints[0][stage] != prints[1][stage]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--min-size", "7"), {"dust", "relabel"}),
        (("--set", "dust.alone=keep"), {"dust", "relabel"}),
        (("--threshold", "0.6"), {"cut", "dust", "relabel"}),
        (("--linkage", "mean"), {"agglomerate", "cut", "dust", "relabel"}),
        (("--set", "agglomeration.quantile=30"), {"agglomerate", "cut", "dust", "relabel"}),
        # Only this linkage needs histograms, and only its runs pay for them.
        (("--linkage", "quantile"), set(STAGES) - {"predict"}),
    ],
)
def test_an_option_changes_only_the_stages_that_depend_on_it(run, tmp_path, options, expected):
    assert changed_stages(run, tmp_path, *options) == expected


@pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
def test_another_precision_predicts_again(run, raw, small_checkpoint, tmp_path):
    records = []
    for precision in ("float32", "bfloat16"):
        answer = run("segment", raw.url, tmp_path / precision, "--checkpoint", small_checkpoint,
                     "--set", f"predict.precision={precision}", "--workers", "1")  # fmt: skip
        assert answer.code == 0, answer.err
        records.append(yaml.safe_load((tmp_path / precision / "run.yaml").read_text()))
        assert records[-1]["profile"]["precision"] == precision
    one, other = (record["stages"]["predict"]["fingerprint"] for record in records)
    assert one != other


def test_the_precision_of_a_run_is_never_auto(run, raw, small_checkpoint, tmp_path):
    run("segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint, "--workers", "1")
    record = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    expected = "float32" if bfloat16_unit() is None else "bfloat16"
    assert record["profile"]["precision"] == expected


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A volume of cells, a network that sees them, and the digest of its segmentation."""
    raw, _ = synthetic_em((6, 40, 57), seed=4)
    volume = create_volume(
        tmp_path_factory.mktemp("cells") / "raw.zarr", shape=raw.shape, dtype=raw.dtype
    )
    volume.write(volume.roi, raw)
    checkpoint = Path(emslice.__file__).parent / "demo" / "student.ckpt"
    affinities = emslice.predict_affinities(raw, checkpoint)
    segmentation = emslice.segment_affinities(affinities, 0.9, min_size=5)
    assert len(np.unique(segmentation)) > 7
    return volume.url, checkpoint, digest_array(segmentation)


@pytest.mark.parametrize(
    "option",
    [
        ("--block", "3,11,13"), ("--block", "1,40,57"), ("--block", "6,13,200"),
        ("--affinities", "keep"), ("--block", "2,50,8", "--workers", "2"),
    ],
)  # fmt: skip
def test_blocks_workers_and_keeping_do_not_change_the_digest(run, cells, tmp_path, option):
    url, checkpoint, expected = cells
    answer = run("segment", url, tmp_path / "run", "--checkpoint", checkpoint, "--workers", "1",
                 "--threshold", "0.9", "--min-size", "5", *option)  # fmt: skip
    assert answer.code == 0, answer.err
    assert digest_of(run, tmp_path / "run/segmentation.zarr") == expected


def test_dropped_affinities_leave_no_tile_and_kept_ones_one_volume(
    run, raw, small_checkpoint, tmp_path
):
    for name in ("drop", "keep"):
        run("segment", raw.url, tmp_path / name, "--checkpoint", small_checkpoint,
            "--affinities", name, "--workers", "1", "--block", "2,20,20")  # fmt: skip
        assert not list((tmp_path / name).rglob("tiles/*"))
        assert (tmp_path / name / "affinities.zarr").exists() == (name == "keep")


def test_a_wholly_masked_box_is_a_warning(run, tmp_path, small_checkpoint):
    volume = create_volume(tmp_path / "blank.zarr", shape=(3, 40, 50), dtype=np.uint8)
    answer = run("segment", volume.url, tmp_path / "run", "--checkpoint", small_checkpoint,
                 "--workers", "1")  # fmt: skip
    assert answer.code == 0
    assert "everything is masked" in answer.err


def test_json_lines_tell_stages_and_end_with_the_record(run, raw, small_checkpoint, tmp_path):
    answer = run(
        "segment",
        raw.url,
        tmp_path / "run",
        "--checkpoint",
        small_checkpoint,
        "--json",
        "--workers",
        "1",
    )
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert {line["stage"] for line in lines[:-1]} >= {"predict", "fragments", "agglomerate"}
    assert all(line["done"] <= line["total"] for line in lines[:-1])
    assert lines[-1]["state"] == "done"


def test_a_resolution_that_does_not_fit_is_a_warning_with_the_factor(
    run, small_checkpoint, tmp_path
):
    volume = create_volume(
        tmp_path / "coarse.zarr", shape=(2, 20, 30), dtype=np.uint8, resolution_nm=(40, 8, 8)
    )
    volume.write(volume.roi, np.full((2, 20, 30), 9, np.uint8))
    answer = run(
        "segment", volume.url, tmp_path / "run", "--checkpoint", small_checkpoint, "--workers", "1"
    )
    assert answer.code == 0
    assert "factor of 1 x 2 x 2" in answer.err
    assert "40 x 8 x 8 nm" in answer.err


def test_fragments_in_three_dimensions_are_those_of_the_python_api(run, small_checkpoint, tmp_path):
    """The halo along z reaches over runs of sections, whose tiles are dropped when all are done."""
    from emslice.volumes import create_volume

    array = np.random.default_rng(6).integers(1, 256, (39, 33, 26)).astype(np.uint8)
    volume = create_volume(tmp_path / "cube.zarr", shape=array.shape, dtype=array.dtype)
    volume.write(volume.roi, array)
    expected = emslice.segment_affinities(
        emslice.predict_affinities(array, small_checkpoint), dimensions=3, radius=7
    )
    answer = run("segment", volume.url, tmp_path / "run", "--checkpoint", small_checkpoint,
                 "--set", "fragments.dimensions=3", "--set", "fragments.radius=7",
                 "--block", "10,20,15", "--workers", "2")  # fmt: skip
    assert answer.code == 0, answer.err
    assert digest_of(run, tmp_path / "run/segmentation.zarr") == digest_array(expected)
    assert not list((tmp_path / "run").rglob("tiles/*"))


def test_a_run_resumed_in_three_dimensions_takes_their_radius(run, raw, small_checkpoint, tmp_path):
    common = ("--checkpoint", small_checkpoint, "--workers", "1")
    run("segment", raw.url, tmp_path / "run", *common)
    found = []
    for assignments in ([], ["--set", "fragments.dimensions=3"]):
        assert run("resume", tmp_path / "run", *assignments, "--workers", "1").code == 0
        found.append(yaml.safe_load((tmp_path / "run/run.yaml").read_text())["config"]["fragments"])
    assert [(f["dimensions"], f["radius"]) for f in found] == [(2, 64), (3, 32)]
