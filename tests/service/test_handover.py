"""Fragments follow close behind the network, and nobody sees it in the result."""

import shutil
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.runs import Silent, failing, store_affinities, write
from service.test_holes import labels_of

import emslice
from emslice.config.load import load_config
from emslice.errors import ConfigError
from emslice.geometry.boxes import Coordinate
from emslice.geometry.lattice import Z_RUN, TileLattice
from emslice.ledger.database import Ledger
from emslice.service.again import plan_again, release_failed
from emslice.service.plan import plan_from_affinities, plan_from_raw
from emslice.service.segment import RunFailedError, segment
from emslice.service.stages import stages_of
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.holes import Holes
from emslice.stages.layout import Frame, index_of
from emslice.stages.streaming import Handover
from emslice.stages.tiles import PredictTiles, StoredAffinities, TileSet

SHAPE = (50, 30, 41)
TILE = 3 * Z_RUN * 30 * 41
"""Bytes of one tile: a run of whole sections."""

METHOD = {"threshold": 0.9, "min_size": 20}


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(1, 256, SHAPE).astype(np.uint8)


@pytest.fixture
def url(tmp_path, raw):
    return write(tmp_path / "raw.zarr", raw)


@pytest.fixture(scope="module")
def expected(raw, small_checkpoint):
    codes = emslice.predict_affinities(raw, small_checkpoint)
    return emslice.segment_affinities(codes, radius=3, **METHOD)


def plan_of(url, folder, checkpoint, **more):
    options = {
        "checkpoint": str(checkpoint),
        "fragments.radius": 3,
        "agglomeration.threshold": METHOD["threshold"],
        "dust.min_size": METHOD["min_size"],
        "workers": 1,
        "block": (13, 21, 41),
        "handover.memory": str(TILE),
        **more,
    }
    return plan_from_raw(url, folder, load_config(options=options))


@contextmanager
def watching(tiles, seen, stop_after=None):
    """Note how many tiles there are when a block begins; Ctrl-C after some blocks."""
    whole = FragmentBlocks.open

    @contextmanager
    def watched(self):
        with whole(self) as process:

            def attempt(key):
                if len(seen) == stop_after:
                    raise KeyboardInterrupt
                seen.append(len(list(Path(tiles).glob("*.npy"))))
                return process(key)

            yield attempt

    FragmentBlocks.open = watched
    try:
        yield
    finally:
        FragmentBlocks.open = whole


@pytest.mark.parametrize("workers", [1, 2])
def test_little_may_wait_and_the_segmentation_is_the_same(
    tmp_path, url, small_checkpoint, expected, workers
):
    plan = plan_of(url, tmp_path / "run", small_checkpoint, workers=workers)
    assert stages_of(plan).handover is not None
    record = segment(plan, Silent())
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)
    assert {"predict", "fragments", "relabel"} <= record.stages.keys()
    assert record.stages["predict"]["tasks"] == 4
    assert record.stages["fragments"]["tasks"] == 4 * 2


def test_what_waits_is_bounded(tmp_path, url, small_checkpoint):
    plan, seen = plan_of(url, tmp_path / "run", small_checkpoint), []
    stages = stages_of(plan)
    with watching(Path(stages.predict.tiles.folder) / "tiles", seen):
        segment(plan, Silent())
    assert len(seen) == stages.fragments.n_tasks
    assert max(seen) <= 2  # of four; blocks of 13 sections straddle the runs of 16
    assert not list(Path(stages.predict.tiles.folder).rglob("*.npy"))


def test_what_fits_is_predicted_first(tmp_path, url, small_checkpoint):
    plan = plan_of(url, tmp_path / "run", small_checkpoint, **{"handover.memory": "1 GiB"})
    assert stages_of(plan).handover is None


@pytest.mark.parametrize("lost", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path, url, small_checkpoint, expected, lost
):
    """Also when the scratch folder was emptied meanwhile, as by a reboot."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    plan, seen = plan_of(
        url, tmp_path / "run", small_checkpoint, **{"handover.scratch": str(scratch)}
    ), []  # fmt: skip
    with watching(scratch, seen, stop_after=3), pytest.raises(KeyboardInterrupt):
        segment(plan, Silent())
    assert list(scratch.rglob("*.npy"))
    if lost:
        shutil.rmtree(scratch)
        scratch.mkdir()
    again = []
    with watching(scratch, again):
        segment(plan_again(tmp_path / "run"), Silent())
    assert len(seen) + len(again) == stages_of(plan).fragments.n_tasks
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)
    assert not list(scratch.iterdir())


def test_a_tile_that_fails_is_masked_and_mended(tmp_path, url, raw, small_checkpoint, expected):
    with failing(PredictTiles, {"2_0_0"}), pytest.raises(RunFailedError, match="1 tasks failed"):
        segment(plan_of(url, tmp_path / "run", small_checkpoint), Silent())
    codes = emslice.predict_affinities(raw, small_checkpoint)
    codes[:, 32:48] = 0
    masked = emslice.segment_affinities(codes, radius=3, **METHOD)
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), masked)
    release_failed(tmp_path / "run")
    segment(plan_again(tmp_path / "run"), Silent())
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)


def test_a_run_goes_on_with_another_bound(tmp_path, url, small_checkpoint, expected):
    plan, seen = plan_of(url, tmp_path / "run", small_checkpoint), []
    with watching(tmp_path, seen, stop_after=3), pytest.raises(KeyboardInterrupt):
        segment(plan, Silent())
    segment(plan_again(tmp_path / "run", ["handover.memory=8 GiB"]), Silent())
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)
    with Ledger(tmp_path / "run" / "ledger.sqlite") as ledger:
        assert ledger.count(plan.fingerprints["predict"]).done == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"handover.scratch": "nowhere"}, "nowhere is not a folder"),
        ({"handover.scratch": ".", "affinities": "keep"}, "only affinities that are dropped"),
        ({"handover.scratch": "/dev/shm", "handover.memory": "900 TiB"}, "are free on /dev/shm"),
    ],
)
def test_a_place_that_cannot_work_is_refused_before_any_work(
    tmp_path, url, small_checkpoint, options, reason, monkeypatch
):
    monkeypatch.setattr("emslice.service.handover.n_voxels", lambda roi: 2**60)
    with pytest.raises(ConfigError, match=reason):
        plan_of(url, tmp_path / "run", small_checkpoint, **options)
    assert not (tmp_path / "run").exists()


def test_stored_affinities_have_no_handover(tmp_path):
    with pytest.raises(ConfigError, match="handover"):
        plan_from_affinities(
            store_affinities(tmp_path), tmp_path / "run",
            load_config(options={"handover.memory": "1 GiB"}),
        )  # fmt: skip


SIDES = st.tuples(st.integers(1, 70), st.integers(1, 50), st.integers(1, 1200))


@settings(deadline=None, max_examples=60)
@given(SIDES, st.tuples(*[st.integers(0, 20)] * 3), st.tuples(*[st.integers(5, 400)] * 3),
       st.integers(1, 10**7))  # fmt: skip
def test_every_task_comes_once_and_after_what_it_reads(shape, offset, block, group_bytes):
    domain = tuple(n + o + 3 for n, o in zip(shape, offset, strict=True))
    frame = Frame((offset, shape), domain, block, None)
    tiles = TileSet(frame, TileLattice(domain[1:], 512), "nowhere")
    predict = PredictTiles(tiles, "", "", {"device": "cpu"}, None, "p", 0)
    fragments = FragmentBlocks(frame, StoredAffinities(""), 5, "", "f", 0, Holes())
    order = {"predict": {}, "fragments": {}}
    for i, wave in enumerate(Handover(predict, fragments, group_bytes, 0).tasks()):
        for name, key in wave:
            assert key not in order[name]
            order[name][key] = i
    assert set(order["predict"]) == set(tiles.keys())
    assert len(order["fragments"]) == len(frame.grid)
    for key, wave in order["fragments"].items():
        read = fragments.read_box(index_of(key))
        assert all(order["predict"][tile] < wave for tile in tiles.meeting(read))
    _check_room(tiles, fragments, order, group_bytes)


def _check_room(tiles, fragments, order, group_bytes):
    """At the end of a wave there wait two groups, and tiles that a later layer of blocks reads."""
    largest = prod(map(int, Coordinate(fragments.frame.roi[1])[1:])) * 3 * Z_RUN
    needs = [
        sum(3 * prod(map(int, tiles.box(t).shape)) for t in tiles.meeting(fragments.read_box(i)))
        for i in fragments.frame.grid
    ]
    last = {
        tile: max(order["fragments"]["_".join(map(str, i))]
                  for i in fragments.readers(tiles.box(tile)))
        for tile in tiles.keys()  # noqa: SIM118
    }  # fmt: skip
    for wave in range(max(order["fragments"].values()) + 1):
        waiting = [t for t, w in order["predict"].items() if w <= wave <= last[t]]
        size = sum(3 * prod(map(int, tiles.box(t).shape)) for t in waiting)
        assert size <= 2 * (group_bytes + max(needs)) + largest
