"""A box that cannot be made is masked: the rest is exact, and mending does no more than it must."""

from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from service.runs import failing

import emslice
from emslice.config.load import load_config
from emslice.geometry.boxes import Roi, parse_roi, within
from emslice.ledger.database import Ledger
from emslice.service.again import plan_again, release_failed
from emslice.service.plan import plan_from_affinities, plan_from_raw
from emslice.service.segment import RunFailedError, segment
from emslice.stages.agglomeration import AgglomerateBlocks
from emslice.stages.fragments import FragmentBlocks
from emslice.stages.tiles import PredictTiles
from emslice.volumes import create_volume, open_volume
from emslice.volumes.digest import digest_array

SHAPE = (6, 30, 34)
RADIUS = 3
THRESHOLD, DUST = 0.9, 20  # some 40 segments with quantile_max, 200 with mean; half are small
METHOD = {"threshold": THRESHOLD, "min_size": DUST}


class Silent:
    def stage(self, name, voxels):
        return nullcontext(lambda n: None)


def codes_of(seed):
    """Codes with wide fragments and many ties."""
    rng = np.random.default_rng(seed)
    levels = np.linspace(0, 255, rng.choice([4, 9, 40])).astype(np.uint8)
    codes = levels[rng.integers(0, len(levels), (3, *SHAPE))]
    return np.maximum(codes, (rng.random((3, *SHAPE)) < 0.8) * np.uint8(200))


def stored(folder, codes):
    volume = create_volume(
        folder / "aff.zarr", shape=SHAPE, dtype="uint8", channels=3, chunk_shape=(2, 11, 9)
    )
    volume.write(volume.roi, codes)
    return volume.url


def config(**more):
    return load_config(
        None,
        [],
        {
            "fragments.radius": RADIUS,
            "workers": 1,
            "block": (2, 11, 10),  # 3 x 3 x 4 of them
            "dust.min_size": DUST,
            "agglomeration.threshold": THRESHOLD,
            **more,
        },
    )


def outcome(plan):
    """Whether a plan ended without holes."""
    try:
        segment(plan, Silent())
    except RunFailedError:
        return False
    return True


def record_of(folder):
    return yaml.safe_load((Path(folder) / "run.yaml").read_text())


def labels_of(folder):
    volume = open_volume(Path(folder) / "segmentation.zarr")
    return volume.read(volume.roi)


def in_memory(codes, boxes=(), **options):
    """What the volume with masked boxes gives, in one piece."""
    codes, whole = codes.copy(), Roi((0, 0, 0), SHAPE)
    for box in boxes:
        codes[(slice(None), *within(parse_roi(box, whole), whole))] = 0
    return emslice.segment_affinities(codes, radius=RADIUS, **{**METHOD, **options})


def attempts(folder, stage):
    """Attempts at each task with a record of the newest fingerprint of a stage."""
    with Ledger(Path(folder) / "ledger.sqlite", create=False) as ledger:
        found = {}
        for path in (Path(folder) / "stages" / stage).iterdir():
            for key in ledger.done_keys(path.name):
                found[path.name, key] = ledger.attempts(path.name, key)[-1].started
        return found


CASES = {
    "one block": (FragmentBlocks, {"1_1_2"}),
    "blocks side by side": (FragmentBlocks, {"1_1_2", "1_1_3", "2_1_2"}),
    "a corner and the middle": (FragmentBlocks, {"0_0_0", "1_2_2"}),
    "a block's graph": (AgglomerateBlocks, {"0/1_1_2"}),
}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("stage", "keys"), CASES.values(), ids=CASES.keys())
def test_a_failed_block_gives_the_segmentation_of_the_masked_volume(
    tmp_path, stage, keys, dimensions
):
    codes, deep = codes_of(1), {"fragments.dimensions": dimensions}
    plan = plan_from_affinities(stored(tmp_path, codes), tmp_path / "run", config(**deep))
    with failing(stage, keys), pytest.raises(RunFailedError, match="emslice retry"):
        segment(plan, Silent())
    record = record_of(tmp_path / "run")
    boxes = [hole["roi"] for hole in record["holes"]]
    assert (record["state"], len(boxes)) == ("holes", len(keys))
    masked = in_memory(codes, boxes, dimensions=dimensions)
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), masked)
    assert record["digests"]["segmentation"] == digest_array(masked)
    assert record["counts"]["segments"] == len(np.unique(masked[masked > 0]))
    assert record["counts"]["masked_voxels"] == (in_memory(codes, boxes, min_size=0) == 0).sum()
    assert (tmp_path / "run" / "preview.png").exists()

    release_failed(tmp_path / "run")
    segment(plan_again(tmp_path / "run"), Silent())
    np.testing.assert_array_equal(
        labels_of(tmp_path / "run"), in_memory(codes, dimensions=dimensions)
    )
    assert record_of(tmp_path / "run")["state"] == "done"


@pytest.mark.parametrize("seed", [2316, *range(5)])
def test_failures_that_come_and_go_leave_no_trace(tmp_path_factory, seed):
    failures_come_and_go(tmp_path_factory, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_times_failures_that_come_and_go_leave_no_trace(tmp_path_factory, seed):
    failures_come_and_go(tmp_path_factory, 1000 + seed)


def failures_come_and_go(tmp_path_factory, seed):
    """Any blocks fail, in any stage, with any linkage; then others; then some; then none."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(seed)
    codes = codes_of(seed)
    block = tuple(int(n) for n in rng.integers((1, 5, 5), (5, 14, 14)))
    plan = plan_from_affinities(stored(folder, codes), folder / "run", config(block=block))
    grid = [-(-n // b) for n, b in zip(SHAPE, block, strict=True)]

    def some_keys():
        number = int(rng.integers(0, 3))
        return {"_".join(str(rng.integers(n)) for n in grid) for _ in range(number)}

    for linkage in ("quantile_max", "mean", "quantile_max", "quantile_max"):
        raised, lost = some_keys(), {f"0/{key}" for key in some_keys()}
        with failing(FragmentBlocks, raised), failing(AgglomerateBlocks, lost):
            whole = outcome(plan)
        record = record_of(folder / "run")
        if not whole and record["state"] != "holes":  # not one block was done
            assert "segmentation.zarr" not in record["error"]
            return
        boxes = [hole["roi"] for hole in record.get("holes", [])]
        expected = in_memory(codes, boxes, linkage=plan.config.agglomeration.linkage)
        np.testing.assert_array_equal(labels_of(folder / "run"), expected)
        release_failed(folder / "run")
        plan = plan_again(folder / "run", [f"agglomeration.linkage={linkage}"])
    assert outcome(plan)
    np.testing.assert_array_equal(labels_of(folder / "run"), in_memory(codes))


def test_mending_does_the_block_its_readers_and_their_paths_again_and_nothing_else(tmp_path):
    codes = codes_of(2)
    url = stored(tmp_path, codes)
    plan = plan_from_affinities(url, tmp_path / "run", config(block=(2, 6, 7)))
    with failing(FragmentBlocks, {"0_0_0"}), pytest.raises(RunFailedError):
        segment(plan, Silent())
    before = {s: attempts(tmp_path / "run", s) for s in ("fragments", "agglomerate", "relabel")}
    release_failed(tmp_path / "run")
    segment(plan_again(tmp_path / "run"), Silent())
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), in_memory(codes))
    again = {
        s: {key for (_, key), at in attempts(tmp_path / "run", s).items()
            if before[s].get((_, key)) != at}
        for s in before
    }  # fmt: skip
    assert again["fragments"] == {"0_0_0", "0_0_1", "0_1_0", "0_1_1"}
    assert {"0/0_0_0", "0/0_0_1", "1/0_0_0", "3/0_0_0"} <= again["agglomerate"]
    leaves = {key for key in again["agglomerate"] if key.startswith("0/")}
    assert len(leaves) < 20  # of 75: those whose exits end elsewhere come on top
    stitch = attempts(tmp_path / "run", "stitch")
    assert stitch  # one fingerprint for each set of holes


def test_results_are_hidden_while_they_are_mended(tmp_path):
    codes = codes_of(3)
    plan = plan_from_affinities(stored(tmp_path, codes), tmp_path / "run", config())
    with failing(FragmentBlocks, {"1_1_2"}), pytest.raises(RunFailedError):
        segment(plan, Silent())
    link, seen = tmp_path / "run" / "segmentation.zarr", []
    assert link.exists()
    from emslice.stages.relabelling import RelabelChunks

    whole = RelabelChunks.open

    @contextmanager
    def watched(self):
        with whole(self) as process:
            seen.append(link.is_symlink())
            yield process

    release_failed(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelabelChunks, "open", watched)
        segment(plan_again(tmp_path / "run"), Silent())
    assert seen == [False]
    assert link.exists()


@pytest.mark.parametrize("affinities", ["drop", "keep"])
def test_a_tile_that_cannot_be_predicted_is_masked_and_mended(
    tmp_path, small_checkpoint, affinities
):
    array = np.random.default_rng(5).integers(1, 256, (20, 40, 48)).astype(np.uint8)
    raw = create_volume(tmp_path / "raw.zarr", shape=array.shape, dtype=array.dtype)
    raw.write(raw.roi, array)
    parameters = config(checkpoint=str(small_checkpoint), affinities=affinities, block=(7, 21, 19))
    plan = plan_from_raw(raw.url, tmp_path / "run", parameters)
    with failing(PredictTiles, {"1_0_0"}), pytest.raises(RunFailedError):
        segment(plan, Silent())
    record = record_of(tmp_path / "run")
    assert [hole["roi"] for hole in record["holes"]] == ["16:20,0:40,0:48"]
    codes = emslice.predict_affinities(array, small_checkpoint)
    masked = codes.copy()
    masked[:, 16:] = 0
    expected = emslice.segment_affinities(masked, radius=RADIUS, **METHOD)
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)

    release_failed(tmp_path / "run")
    segment(plan_again(tmp_path / "run"), Silent())
    expected = emslice.segment_affinities(codes, radius=RADIUS, **METHOD)
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)
    if affinities == "keep":
        kept = open_volume(tmp_path / "run" / "affinities.zarr")
        np.testing.assert_array_equal(kept.read(kept.roi), codes)


def test_a_failed_node_of_the_octree_leaves_no_segmentation(tmp_path):
    codes = codes_of(4)
    plan = plan_from_affinities(stored(tmp_path, codes), tmp_path / "run", config())
    with failing(AgglomerateBlocks, {"1/0_0_0"}), pytest.raises(RunFailedError, match="1/0_0_0"):
        segment(plan, Silent())
    assert record_of(tmp_path / "run")["state"] == "failed"
    assert not (tmp_path / "run" / "segmentation.zarr").exists()
    release_failed(tmp_path / "run")
    segment(plan_again(tmp_path / "run"), Silent())
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), in_memory(codes))
