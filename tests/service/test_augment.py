"""``predict.augment`` in a run: the codes of the array API, for any box; part of fingerprints."""

import numpy as np
import pytest
from service.runs import Silent, write

import emslice
from emslice.config.load import load_config
from emslice.errors import ConfigError
from emslice.service.plan import plan_from_raw
from emslice.service.segment import segment
from emslice.volumes import open_volume

SHAPE = (19, 37, 42)


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(4).integers(1, 256, SHAPE).astype(np.uint8)


def plan_of(url, folder, checkpoint, **more):
    options = {"checkpoint": str(checkpoint), "workers": 1, "affinities": "keep", **more}
    return plan_from_raw(url, folder, load_config(options=options))


@pytest.mark.parametrize(
    ("augment", "box"), [("all", (slice(3, 17), slice(5, 37), slice(0, 30))),
                         ("flips", (slice(0, 19), slice(0, 37), slice(0, 42)))],
)  # fmt: skip
def test_a_run_has_the_codes_of_the_python_api(raw, small_checkpoint, tmp_path, augment, box):
    """Equalised besides: the section behind a box must have been measured."""
    url = write(tmp_path / "raw.zarr", raw)
    roi = ",".join(f"{s.start}:{s.stop}" for s in box)
    more = {"predict.augment": augment, "raw.normalize": "clahe", "roi": roi, "block": (7, 20, 42)}
    segment(plan_of(url, tmp_path / "run", small_checkpoint, **more), Silent())
    kept = open_volume(tmp_path / "run/affinities.zarr")
    whole = emslice.predict_affinities(raw, small_checkpoint, augment=augment, normalize="clahe")
    np.testing.assert_array_equal(kept.read(kept.roi), whole[(slice(None), *box)])


def test_poses_are_part_of_the_fingerprint_if_there_are_several(raw, small_checkpoint, tmp_path):
    url = write(tmp_path / "raw.zarr", raw)
    none, flips, sixteen = (
        plan_of(url, tmp_path / "x", small_checkpoint, **{"predict.augment": name})
        for name in ("none", "flips", "all")
    )
    plain = plan_of(url, tmp_path / "x", small_checkpoint)
    assert plain.fingerprints == none.fingerprints
    prints = {plan.fingerprints["predict"] for plan in (none, flips, sixteen)}
    assert len(prints) == 3


def test_an_unknown_augmentation_is_refused(raw, small_checkpoint):
    with pytest.raises(ConfigError, match=r"predict\.augment.*'flips'"):
        emslice.predict_affinities(raw, small_checkpoint, augment="rotations")
