"""Dust in a run: the same in blocks as in memory, at every cut, and in every count."""

import numpy as np
import pytest
import yaml
from reference.dust import without_dust
from service.runs import BLOCK, SHAPE, Silent, failing, run_of, store_affinities

import emslice
from emslice.config.load import load_config
from emslice.ledger.arrays import load_arrays, save_arrays
from emslice.service.again import plan_again, release_failed
from emslice.service.cutting import plan_cut, write_cut
from emslice.service.plan import plan_from_affinities
from emslice.service.segment import RunFailedError, segment
from emslice.stages.dusting import DustBlocks
from emslice.volumes import open_volume

DUST = {"dust.min_size": 20}


def labels_of(url):
    volume = open_volume(url)
    return volume.read(volume.roi)


@pytest.fixture
def url(tmp_path):
    return store_affinities(tmp_path)


@pytest.mark.parametrize("alone", ["drop", "keep"])
@pytest.mark.parametrize(
    ("linkage", "threshold", "min_size"), [("quantile_max", 0.9, 20), ("mean", 0.8, 8)]
)
def test_a_run_in_blocks_is_the_whole_and_counts_what_went(
    tmp_path, url, linkage, threshold, min_size, alone
):
    codes = labels_of(url)
    before = emslice.segment_affinities(codes, threshold, linkage, min_size=0)
    expected = without_dust(codes, before, min_size, alone)
    whole = emslice.segment_affinities(codes, threshold, linkage, min_size=min_size, alone=alone)
    np.testing.assert_array_equal(whole, expected)
    options = {"agglomeration.linkage": linkage, "dust.min_size": min_size, "dust.alone": alone}
    for i, block in enumerate((BLOCK, (2, 9, 50), (5, 31, 43))):
        record = run_of(url, tmp_path / f"{i}", threshold, **options, block=list(block))
        np.testing.assert_array_equal(labels_of(tmp_path / f"{i}/segmentation.zarr"), expected)
        n, counts = len(np.unique(before[before > 0])), record.counts
        assert counts["segments"] == len(np.unique(expected[expected > 0])) < n
        assert counts["dust_joined"] + counts["dust_dropped"] == n - counts["segments"]
        assert counts["dust_joined"] > 5
        assert alone == "drop" or counts["dust_dropped"] == 0


def test_without_dust_there_is_no_such_stage(tmp_path, url):
    record = run_of(url, tmp_path / "run", 0.9)
    assert "dust" not in record.stages
    assert not [name for name in record.counts if "dust" in name]
    options = {"agglomeration.threshold": 0.9, "block": list(BLOCK)}
    wanted = {"dust.alone": "keep", "dust.min_size": 0}  # says nothing without small segments
    plan = plan_from_affinities(url, tmp_path / "new", load_config(options={**options, **wanted}))
    assert plan.fingerprints["relabel"] == record.stages["relabel"]["fingerprint"]
    wanted = {"dust.min_size": 7}
    plan = plan_from_affinities(url, tmp_path / "new", load_config(options={**options, **wanted}))
    assert plan.fingerprints["cut"] == record.stages["cut"]["fingerprint"]
    assert plan.fingerprints["relabel"] != record.stages["relabel"]["fingerprint"]


def test_a_cut_is_the_run_at_that_threshold_dust_included(tmp_path, url):
    run_of(url, tmp_path / "run", 0.5, **DUST)
    straight = run_of(url, tmp_path / "straight", 0.9, **DUST, block=[5, 20, 43])
    cut = write_cut(tmp_path / "run", 0.9, tmp_path / "cut.zarr", Silent())
    assert (cut.digest, cut.segments) == (
        straight.digests["segmentation"], straight.counts["segments"],
    )  # fmt: skip
    record = segment(plan_cut(tmp_path / "run", 0.9), Silent())
    assert (record.digests, record.counts) == (straight.digests, straight.counts)
    other = run_of(url, tmp_path / "other", 0.9, **{"dust.min_size": 5})
    assert other.digests != straight.digests
    cut = write_cut(tmp_path / "run", 0.9, tmp_path / "five.zarr", Silent(), min_size=5)
    assert cut.digest == other.digests["segmentation"]
    record = segment(plan_cut(tmp_path / "run", 0.9, min_size=5), Silent())
    assert record.digests == other.digests
    assert record.stages["cut"]["done_before"] == record.stages["cut"]["tasks"]


def test_a_run_from_before_there_was_dust_has_none_and_can_have_it(tmp_path, url):
    plain = run_of(url, tmp_path / "run", 0.9)
    expected = run_of(url, tmp_path / "straight", 0.9, **DUST)
    tables = list((tmp_path / "run").glob("stages/fragments/*/blocks/*/rows.npz"))
    assert len(tables) == 8
    for table in tables:
        save_arrays(table, **{k: v for k, v in load_arrays(table).items() if k != "voxels"})
    said = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    del said["config"]["dust"]
    (tmp_path / "run/run.yaml").write_text(yaml.safe_dump(said))
    assert (
        plan_again(tmp_path / "run").fingerprints["relabel"]
        == (plain.stages["relabel"]["fingerprint"])
    )
    record = segment(plan_again(tmp_path / "run", ["dust.min_size=20"]), Silent())
    assert record.digests == expected.digests
    assert record.stages["fragments"]["done_before"] == record.stages["fragments"]["tasks"]


@pytest.mark.parametrize("key", ["up/0/0_0_0", "up/1/0_0_0", "down/0/1_1_1"])
def test_a_table_of_dust_that_fails_leaves_no_segmentation_until_it_is_mended(tmp_path, url, key):
    with failing(DustBlocks, {key}), pytest.raises(RunFailedError, match=key):
        run_of(url, tmp_path / "run", 0.9, **DUST)
    assert not (tmp_path / "run/segmentation.zarr").exists()
    release_failed(tmp_path / "run")
    segment(plan_again(tmp_path / "run"), Silent())
    expected = emslice.segment_affinities(labels_of(url), 0.9, min_size=20)
    assert labels_of(tmp_path / "run/segmentation.zarr").shape == SHAPE
    np.testing.assert_array_equal(labels_of(tmp_path / "run/segmentation.zarr"), expected)
