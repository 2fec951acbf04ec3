"""A run cut at a threshold is the run at that threshold, and costs neither input nor merges."""

from functools import partial

import numpy as np
import pytest
import yaml
from service.runs import BLOCK, Silent, run_of, scores_in, store_affinities

from emslice.errors import ConfigError
from emslice.ledger.database import Ledger
from emslice.ledger.lease import RunLockedError
from emslice.service import cutting
from emslice.service.cutting import plan_cut, write_cut
from emslice.service.plan import plan_from_affinities
from emslice.service.segment import segment
from emslice.volumes import open_volume
from emslice.volumes.digest import digest

LINKAGES = ["quantile_max", "mean"]


def files_of(folder):
    """What is in a folder, and when it was written; the ledger holds the lease."""
    return {
        path.relative_to(folder): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("ledger")
    }


@pytest.fixture(scope="module", params=LINKAGES)
def made(request, tmp_path_factory):
    """(folder with affinities and a run at 0.7 that goes down to 0.25, its linkage)."""
    folder = tmp_path_factory.mktemp(request.param)
    url = store_affinities(folder)
    options = {"agglomeration.linkage": request.param, "agglomeration.lowest_threshold": 0.25}
    run_of(url, folder / "run", 0.7, **options)
    return folder, request.param


def thresholds_of(run):
    """The lowest, the highest, round ones, and scores that occur, also next to them."""
    scores = scores_in(run)
    exact = scores[np.linspace(0, len(scores) - 1, 5).astype(int)]
    beside = [np.nextafter(exact[2], 0), np.nextafter(exact[2], 1)]
    found = [0.25, 0.5, 0.7, 0.9, 1.0, *exact, *beside]
    return sorted({float(t) for t in found})


def test_a_cut_at_a_threshold_is_a_run_at_that_threshold(made, tmp_path):
    folder, linkage = made
    thresholds = thresholds_of(folder / "run")
    assert len(thresholds) >= 10
    found = []
    for i, threshold in enumerate(thresholds):
        cut = write_cut(folder / "run", threshold, tmp_path / f"{i}.zarr", Silent())
        options = {
            "agglomeration.linkage": linkage, "agglomeration.lowest_threshold": threshold,
            "block": [5, 31, 43],
        }  # fmt: skip
        straight = run_of(str(folder / "aff.zarr"), tmp_path / f"{i}", threshold, **options)
        assert cut.digest == straight.digests["segmentation"], threshold
        assert cut.segments == straight.counts["segments"]
        found.append(cut.segments)
    assert found == sorted(found)
    assert len(set(found)) > 5  # the thresholds are not all alike


def test_a_cut_elsewhere_leaves_the_run_as_it_is_and_nothing_else_behind(made, tmp_path):
    folder, _ = made
    before, link = files_of(folder / "run"), (folder / "run/segmentation.zarr").resolve()
    cut = write_cut(folder / "run", 0.4, tmp_path / "deep" / "cut.zarr", Silent())
    assert files_of(folder / "run") == before
    assert (folder / "run/segmentation.zarr").resolve() == link
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["cut.zarr"]
    volume = open_volume(tmp_path / "deep" / "cut.zarr")
    assert digest(volume) == cut.digest
    assert volume.attributes["fingerprint"]


def test_a_cut_in_place_does_cut_and_relabel_only(tmp_path):
    url = store_affinities(tmp_path)
    run_of(url, tmp_path / "run", 0.5)
    for threshold in (0.8, 0.3, 0.5):
        record = segment(plan_cut(tmp_path / "run", threshold), Silent())
        straight = run_of(url, tmp_path / f"{threshold}", threshold)
        assert record.digests == straight.digests
        assert digest(open_volume(tmp_path / "run/segmentation.zarr")) in record.digests.values()
        for name in ("fragments", "stitch", "agglomerate"):
            assert record.stages[name]["done_before"] == record.stages[name]["tasks"]
    assert record.stages["cut"]["done_before"] == record.stages["cut"]["tasks"]  # 0.5 again


def test_a_lower_default_does_not_agglomerate_again(tmp_path):
    """A run at 0.2 keeps merges down to 0.2; at 0.6 the default would be 0.3."""
    run_of(store_affinities(tmp_path), tmp_path / "run", 0.2)
    record = segment(plan_cut(tmp_path / "run", 0.6), Silent())
    assert record.stages["agglomerate"]["done_before"] == record.stages["agglomerate"]["tasks"]
    record = segment(plan_cut(tmp_path / "run", 0.2), Silent())
    assert record.stages["relabel"]["done_before"] == record.stages["relabel"]["tasks"]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (0.2, ["0.2 is below", "0.25", "agglomeration.lowest_threshold", "emslice resume"]),
        (1.5, ["1.5 is not within 0 to 1"]),
        (-0.1, ["-0.1 is not within 0 to 1"]),
        (float("nan"), ["nan is not within 0 to 1"]),
    ],
)
def test_a_threshold_that_cannot_be_cut_at_is_refused(made, tmp_path, threshold, words, elsewhere):
    folder, _ = made
    before = files_of(folder)
    run, out = folder / "run", tmp_path / "out.zarr"
    attempt = partial(write_cut, run, threshold, out, Silent())
    if not elsewhere:
        attempt = partial(plan_cut, run, threshold)
    with pytest.raises(ConfigError) as error:
        attempt()
    assert all(word in str(error.value) for word in words)
    assert files_of(folder) == before
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_not_overwritten(made, tmp_path):
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_cut(made[0] / "run", 0.5, tmp_path / "out.zarr", Silent())
    assert not list((tmp_path / "out.zarr").iterdir())


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no readable run\.yaml"):
        plan_cut(tmp_path, 0.5)


@pytest.mark.parametrize("stage", ["fragments", "agglomerate"])
def test_a_run_that_is_not_finished_below_is_refused(tmp_path, stage):
    record = run_of(store_affinities(tmp_path), tmp_path / "run", 0.5)
    fingerprint = record.stages[stage]["fingerprint"]
    with Ledger(tmp_path / "run/ledger.sqlite") as ledger:
        ledger.lock("test")
        ledger.forget(fingerprint, list(ledger.done_keys(fingerprint))[:2])
        ledger.unlock()
    total = record.stages[stage]["tasks"]
    with pytest.raises(ConfigError, match=f"{total - 2} of {total} tasks of stage '{stage}'"):
        write_cut(tmp_path / "run", 0.6, tmp_path / "out.zarr", Silent())
    assert not (tmp_path / "out.zarr").exists()


def test_a_run_whose_relabelling_is_missing_can_be_cut(tmp_path):
    url = store_affinities(tmp_path)
    record = run_of(url, tmp_path / "run", 0.5)
    with Ledger(tmp_path / "run/ledger.sqlite") as ledger:
        ledger.lock("test")
        for stage in ("cut", "relabel"):
            fingerprint = record.stages[stage]["fingerprint"]
            ledger.forget(fingerprint, ledger.done_keys(fingerprint))
        ledger.unlock()
    cut = write_cut(tmp_path / "run", 0.5, tmp_path / "out.zarr", Silent())
    assert cut.digest == record.digests["segmentation"]


def test_an_input_that_changed_is_refused_and_not_segmented_again(tmp_path):
    url = store_affinities(tmp_path)
    run_of(url, tmp_path / "run", 0.5)
    volume = open_volume(url, writable=True)
    volume.write(volume.roi, volume.read(volume.roi) // 2)
    with pytest.raises(ConfigError, match="not what it was made from"):
        plan_cut(tmp_path / "run", 0.6)


def test_a_run_that_another_coordinator_holds_is_refused(tmp_path):
    run_of(store_affinities(tmp_path), tmp_path / "run", 0.5)
    with Ledger(tmp_path / "run/ledger.sqlite") as ledger:
        ledger.lock("somebody")
        with pytest.raises(RunLockedError, match="held by somebody"):
            write_cut(tmp_path / "run", 0.6, tmp_path / "out.zarr", Silent())
        with pytest.raises(RunLockedError, match="held by somebody"):
            plan_cut(tmp_path / "run", 0.6)
        ledger.unlock()
    assert yaml.safe_load((tmp_path / "run/run.yaml").read_text())["state"] == "done"
    assert not (tmp_path / "out.zarr").exists()


def test_a_cut_that_fails_leaves_nothing(tmp_path):
    run_of(store_affinities(tmp_path), tmp_path / "run", 0.5)
    table = next((tmp_path / "run").glob("stages/agglomerate/*/nodes/0/*/merges.parquet"))
    table.write_bytes(b"")
    with pytest.raises(Exception, match="Nothing was written"):
        write_cut(tmp_path / "run", 0.6, tmp_path / "out.zarr", Silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aff.zarr", "run"]


def test_workers_do_not_change_a_cut(made, tmp_path, monkeypatch):
    one = write_cut(made[0] / "run", 0.6, tmp_path / "one.zarr", Silent())
    monkeypatch.setattr(cutting, "FEW_TASKS", 0)
    two = write_cut(made[0] / "run", 0.6, tmp_path / "two.zarr", Silent(), workers=2)
    assert (one.digest, one.segments) == (two.digest, two.segments)


def test_a_plan_for_a_cut_is_that_of_a_new_run_with_that_threshold(tmp_path):
    from emslice.config.load import load_config

    url = store_affinities(tmp_path)
    run_of(url, tmp_path / "run", 0.5)
    options = {"agglomeration.threshold": 0.6, "block": list(BLOCK), "dust.min_size": 0}
    fresh = plan_from_affinities(url, tmp_path / "new", load_config(options=options))
    assert plan_cut(tmp_path / "run", 0.6).fingerprints == fresh.fingerprints
