"""Small runs from random affinities, for tests of what is done with a run afterwards."""

from contextlib import contextmanager

import numpy as np
import pytest

from emslice.config.load import load_config
from emslice.ledger.merges import load_merges
from emslice.service.plan import plan_from_affinities
from emslice.service.segment import segment
from emslice.volumes import create_volume

SHAPE, BLOCK = (5, 31, 43), (3, 17, 23)


class Silent:
    """A reporter that tells nobody."""

    @contextmanager
    def stage(self, name, voxels):
        yield lambda n: None


def store_affinities(folder, seed=0, shape=SHAPE):
    """Affinities of all scores in ``folder``, smooth enough for fragments of some size."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(60, 256, (3, *shape)).astype(np.uint8)
    codes[:, 1:3, 5:9, 5:20] = 0  # masked
    return write(folder / "aff.zarr", codes)


def write(path, array, **facts):
    """URL of a new volume that holds an array."""
    channels = len(array) if array.ndim == 4 else None
    volume = create_volume(
        path, shape=array.shape[-3:], dtype=array.dtype, channels=channels, **facts
    )
    volume.write(volume.roi, array)
    return volume.url


def run_of(url, folder, threshold, **options):
    """Segment stored affinities in small blocks; the record of the run."""
    dotted = {"agglomeration.threshold": threshold, "block": list(BLOCK), "workers": 1}
    dotted["dust.min_size"] = 0
    config = load_config(options={**dotted, **options})
    return segment(plan_from_affinities(url, folder, config), Silent())


def scores_in(run):
    """Every score at which something merged, ascending, as affinities."""
    tables = list(run.glob("stages/agglomerate/*/nodes/*/*/merges.parquet"))
    assert len(tables) == 9
    return np.unique(np.concatenate([load_merges(t).score for t in tables])) / 2**24


@contextmanager
def failing(stage, keys):
    """Tasks of a stage raise while this lasts."""
    whole = stage.open

    @contextmanager
    def broken(self):
        with whole(self) as process:

            def attempt(key):
                if key in keys:
                    raise OSError(f"no luck with {key}")
                return process(key)

            yield attempt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "open", broken)
        yield
