"""Whatever happens to a worker in the middle of a block, the run goes on to the same bytes."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import yaml
from e2e.misbehaving import BAD, Freezing, Killing

import emslice
from emslice.config.load import load_config
from emslice.engine.dask_executor import DaskExecutor
from emslice.geometry.boxes import Roi, parse_roi, within
from emslice.ledger.database import Ledger
from emslice.service import stages
from emslice.service.again import plan_again, release_failed
from emslice.service.plan import plan_from_affinities
from emslice.service.segment import RunFailedError, segment
from emslice.volumes import create_volume, open_volume

SHAPE = (6, 40, 50)


class Silent:
    def stage(self, name, voxels):
        return nullcontext(lambda n: None)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A run of 27 blocks on two workers, which are given up after five silent seconds."""
    local = partial(DaskExecutor.local, worker_ttl_s=5)
    monkeypatch.setattr(DaskExecutor, "local", local)
    codes = np.random.default_rng(4).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    codes = np.maximum(codes, 120)
    volume = create_volume(tmp_path / "aff.zarr", shape=SHAPE, dtype="uint8", channels=3)
    volume.write(volume.roi, codes)
    options = {"workers": 2, "block": (2, 14, 17), "fragments.radius": 4, "dust.min_size": 5}
    return codes, plan_from_affinities(volume.url, tmp_path / "run", load_config(None, [], options))


def labels_of(plan):
    volume = open_volume(plan.folder / "segmentation.zarr")
    return volume.read(volume.roi)


def attempts_at(plan, key):
    with Ledger(plan.folder / "ledger.sqlite", create=False) as ledger:
        return ledger.attempts(plan.fingerprints["fragments"], key)


def test_a_block_that_kills_its_worker_each_time_is_left_out_and_the_rest_is_exact(
    job, monkeypatch
):
    codes, plan = job
    with monkeypatch.context() as patch:
        patch.setattr(stages, "FragmentBlocks", Killing)
        with pytest.raises(RunFailedError, match="emslice retry"):
            segment(plan, Silent())
    record = yaml.safe_load((plan.folder / "run.yaml").read_text())
    (hole,) = record["holes"]
    assert (record["state"], hole["key"]) == ("holes", BAD)
    assert hole["reason"] == "lost 3 times while running alone"
    outcomes = [attempt.outcome for attempt in attempts_at(plan, BAD)]
    assert set(outcomes) == {"lost"}
    assert len(outcomes) in (3, 4)  # the first with others in its batch, or alone by chance
    masked, whole = codes.copy(), Roi((0, 0, 0), SHAPE)
    masked[(slice(None), *within(parse_roi(hole["roi"], whole), whole))] = 0
    np.testing.assert_array_equal(
        labels_of(plan), emslice.segment_affinities(masked, radius=4, min_size=5)
    )

    release_failed(plan.folder)
    segment(plan_again(plan.folder), Silent())
    np.testing.assert_array_equal(
        labels_of(plan), emslice.segment_affinities(codes, radius=4, min_size=5)
    )


def test_a_worker_that_stands_still_in_a_block_is_replaced(job, monkeypatch):
    codes, plan = job
    monkeypatch.setattr(stages, "FragmentBlocks", Freezing)
    segment(plan, Silent())
    np.testing.assert_array_equal(
        labels_of(plan), emslice.segment_affinities(codes, radius=4, min_size=5)
    )
    assert [a.outcome for a in attempts_at(plan, BAD)] == ["lost", "done"]
