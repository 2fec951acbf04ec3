"""A sweep gives at every threshold what evaluating the cut there gives, from one table."""

import csv
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from service.runs import SHAPE, Silent, run_of, scores_in, store_affinities, write

from emslice.errors import ConfigError
from emslice.ledger.database import Ledger
from emslice.ledger.lease import RunLockedError
from emslice.service import sweeping
from emslice.service.cutting import write_cut
from emslice.service.evaluate import evaluate_volumes
from emslice.service.sweeping import sweep, thresholds_from
from emslice.volumes import create_volume, open_volume

NAMES = ["threshold", "voi_split", "voi_merge", "voi", "arand", "segments"]


def truth_of(run, seed=1):
    """Labels that are right in part: segments at 0.6 joined at random, and voxels of 0 and 7."""
    rng = np.random.default_rng(seed)
    volume = open_volume(run / "segmentation.zarr")
    labels = (volume.read(volume.roi) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(60)) + 1
    labels[:, :, 21:25] = 7
    labels[rng.random(SHAPE) < 0.1] = 0
    return labels.astype(np.uint16)


@pytest.fixture(scope="module", params=["quantile_max", "mean"])
def desk(request, tmp_path_factory):
    """A folder with a run at 0.6 that goes down to 0.25, and with truth."""
    folder = tmp_path_factory.mktemp(request.param)
    url = store_affinities(folder, seed=2)
    run_of(
        url, folder / "run", 0.6,
        **{"agglomeration.linkage": request.param, "agglomeration.lowest_threshold": 0.25},
    )  # fmt: skip
    write(folder / "truth.zarr", truth_of(folder / "run"))
    return folder


def check_against_cuts(desk, found, folder, **options):
    """Compare some rows with evaluations of real cuts; how many scores differ between rows."""
    rows = [found.rows[i] for i in (0, 7, 18, 30, 45, 49)]
    for row in rows:
        cut = write_cut(desk / "run", row.threshold, folder / f"{row.threshold}.zarr", Silent())
        scores = evaluate_volumes(cut.segmentation, str(desk / "truth.zarr"), found.roi, **options)
        for name, value in scores.as_dict().items():
            assert getattr(row, name) == pytest.approx(value, abs=1e-9, rel=0)
        assert row.segments == cut.segments
    return len({row.voi for row in rows})


def test_every_row_is_what_evaluate_says_of_the_cut(desk, tmp_path):
    found = sweep(desk / "run", desk / "truth.zarr", Silent())
    assert len(found.rows) == 50
    assert (found.rows[0].threshold, found.rows[-1].threshold) == (0.25, 1)
    assert check_against_cuts(desk, found, tmp_path) >= 4


@pytest.mark.parametrize("roi", ["1:3,4:30,11:40", "4:5,:,:", "0:2,0:9,0:9"])
def test_a_box_is_scored_with_merges_from_outside(desk, tmp_path, roi):
    found = sweep(desk / "run", desk / "truth.zarr", Silent(), roi=roi)
    assert check_against_cuts(desk, found, tmp_path) > 2


def test_another_label_is_ignored(desk, tmp_path):
    found = sweep(desk / "run", desk / "truth.zarr", Silent(), ignore=7)
    assert check_against_cuts(desk, found, tmp_path, ignore=7) >= 4
    assert found.rows != sweep(desk / "run", desk / "truth.zarr", Silent()).rows


def test_blocks_change_no_row(desk, tmp_path):
    linkage = {"agglomeration.linkage": desk.name.rstrip("0123456789")}
    options = {"agglomeration.lowest_threshold": 0.25, "block": list(SHAPE), **linkage}
    run_of(str(desk / "aff.zarr"), tmp_path / "run", 0.6, **options)
    whole = sweep(tmp_path / "run", desk / "truth.zarr", Silent(), roi="0:4,2:31,:")
    assert sweep(desk / "run", desk / "truth.zarr", Silent(), roi="0:4,2:31,:").rows == whole.rows


def test_tables_are_added_up_in_any_portions(desk, monkeypatch):
    once = sweep(desk / "run", desk / "truth.zarr", Silent()).rows
    monkeypatch.setattr(sweeping, "PENDING_ROWS", 1)
    assert sweep(desk / "run", desk / "truth.zarr", Silent()).rows == once


def test_scores_at_exact_thresholds_count_the_merges_there(desk, tmp_path, monkeypatch):
    scores = scores_in(desk / "run")
    at = scores[scores >= 0.25][:: len(scores) // 4][:4]
    wanted = sorted({float(np.nextafter(s, way)) for s in at for way in (0, 1)} | set(at))
    wanted = [t for t in wanted if t >= 0.25]
    monkeypatch.setattr(sweeping, "thresholds_from", lambda *_: wanted)
    for row in sweep(desk / "run", desk / "truth.zarr", Silent()).rows:
        cut = write_cut(desk / "run", row.threshold, tmp_path / f"{row.threshold}", Silent())
        assert row.segments == cut.segments
        assert row.voi == pytest.approx(
            evaluate_volumes(cut.segmentation, str(desk / "truth.zarr")).voi, abs=1e-9
        )


def test_the_table_holds_the_rows_and_the_picture_is_one(desk):
    found = sweep(desk / "run", desk / "truth.zarr", Silent())
    with found.table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == NAMES
    assert [{name: float(line[name]) for name in NAMES} for line in lines] == [
        asdict(row) for row in found.rows
    ]
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    assert found.best.voi == min(row.voi for row in found.rows)


def test_a_truth_of_a_part_scores_that_part(desk, tmp_path):
    whole = open_volume(desk / "truth.zarr")
    box = whole.roi.__class__((1, 5, 9), (3, 20, 30))
    part = create_volume(
        tmp_path / "part.zarr", shape=box.shape, dtype=np.uint16, offset=box.begin,
        domain_shape=SHAPE,
    )  # fmt: skip
    part.write(box, whole.read(box))
    found = sweep(desk / "run", part.url, Silent())
    assert found.roi == "1:4,5:25,9:39"
    assert found.rows == sweep(desk / "run", whole.url, Silent(), roi=found.roi).rows
    with pytest.raises(ConfigError, match=r"TRUTH .*part.zarr covers 1:4,5:25,9:39"):
        sweep(desk / "run", part.url, Silent(), roi="0:4,5:25,9:39")


def test_a_perfect_truth_scores_zero_at_its_threshold(desk):
    found = sweep(desk / "run", desk / "run/segmentation.zarr", Silent(), ignore=0)
    assert found.best.voi == pytest.approx(0, abs=1e-9)
    (row,) = [row for row in found.rows if row.threshold == 0.6]
    assert (row.voi, row.arand) == (found.best.voi, 0)


def written_elsewhere(path, array, offset):
    shape = [o + n for o, n in zip(offset, array.shape, strict=True)]
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, offset=offset, domain_shape=shape
    )
    volume.write(volume.roi, array)
    return volume.url


def test_a_truth_that_cannot_score_is_refused_and_nothing_is_written(tmp_path):
    run_of(store_affinities(tmp_path), tmp_path / "run", 0.5)
    ones = np.ones(SHAPE, np.uint16)
    attempts = {
        "no such volume": partial(sweep, truth_url=tmp_path / "gone.zarr"),
        "expected integer labels": partial(
            sweep, truth_url=write(tmp_path / "float.zarr", ones.astype(np.float32))
        ),
        "nothing to score": partial(sweep, truth_url=write(tmp_path / "blank.zarr", ones * 0)),
        "no voxel in common": partial(
            sweep, truth_url=written_elsewhere(tmp_path / "far.zarr", ones, (9, 0, 0))
        ),
        "leaves the volume": partial(
            sweep, truth_url=write(tmp_path / "t.zarr", ones), roi="0:6,:,:"
        ),
    }
    for message, attempt in attempts.items():
        with pytest.raises(ConfigError, match=message):
            attempt(tmp_path / "run", reporter=Silent())
    assert not list((tmp_path / "run").glob("sweep*"))


def test_a_run_that_another_coordinator_holds_is_not_swept(tmp_path):
    run_of(store_affinities(tmp_path), tmp_path / "run", 0.5)
    truth = write(tmp_path / "t.zarr", np.ones(SHAPE, np.uint16))
    with Ledger(tmp_path / "run/ledger.sqlite") as ledger:
        ledger.lock("somebody")
        with pytest.raises(RunLockedError, match="held by somebody"):
            sweep(tmp_path / "run", truth, Silent())
        ledger.unlock()
    sweep(tmp_path / "run", truth, Silent())  # and leaves it free
    sweep(tmp_path / "run", truth, Silent())


@pytest.mark.parametrize(
    ("lowest", "chosen"),
    [(0.3, 0.5), (0.3, 0.5003), (0.3, 0.77777), (0.1, 0.1), (0.33333, 0.9), (0.0, 1.0)],
)
def test_fifty_thresholds_hold_the_ends_the_runs_own_and_the_default(lowest, chosen):
    found = thresholds_from(lowest, chosen)
    assert len(found) == 50
    assert found == sorted(found)
    assert min(found) == lowest
    assert max(found) == 1
    assert chosen in found
    assert 0.5 in found or chosen == 0.5003  # both are at one step: the run's own stays


def test_a_run_that_only_goes_down_to_one_has_one_row():
    assert thresholds_from(1.0, 1.0) == [1.0]
