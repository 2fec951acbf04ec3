"""Adaptive equalisation: its slow twin, and no dependence on the box that is looked at."""

import h5py
import numpy as np
import pytest
from reference.clahe import clahe

from emslice.ops.clahe import equalise, equalising_tables
from emslice.ops.lookup import count_levels


def section(seed, shape=(23, 41)):
    rng = np.random.default_rng(seed)
    values = rng.normal(60, 12, shape) + np.linspace(0, 90, shape[1])
    values = np.clip(values, 1, 255).astype(np.uint8)
    values[rng.random(shape) < 0.1] = 0
    return values


def equalised(values, cell, clip):
    tables, sizes = equalising_tables(
        count_levels(values[None], values[None], (cell, cell))[0], clip
    )
    moved = equalise(values, (0, 0), tables, sizes, (0, 0), cell)
    moved[values == 0] = 0
    return moved


@pytest.mark.parametrize(("cell", "clip"), [(7, 2.0), (16, 1.5), (16, 40.0), (64, 3.0)])
def test_matches_one_voxel_at_a_time(cell, clip):
    values = section(cell)
    values[:8, :17] = 0  # cells that are wholly blank
    np.testing.assert_array_equal(equalised(values, cell, clip), clahe(values, cell, clip))


def test_cells_that_a_border_cuts_to_a_line_do_not_shout():
    """A cell of one row has a histogram of its own; it weighs one row of sixteen."""
    values = section(3, (64, 80))
    longer = np.concatenate([values, np.full((1, 80), 255, np.uint8)])
    apart = np.abs(equalised(values, 64, 2.0).astype(int) - equalised(longer, 64, 2.0)[:64])
    assert apart.max() <= 10


def test_a_full_range_is_used_where_there_was_little():
    values = np.random.default_rng(0).integers(100, 141, (64, 64)).astype(np.uint8)
    moved = equalised(values, 32, 256.0)
    assert moved.min() < 10
    assert moved.max() > 245
    assert equalised(values, 32, 2.0).std() < moved.std()


def test_it_does_to_real_em_what_scikit_image_does(data_dir):
    """The latter reflects at borders and clips otherwise: alike, not equal."""
    from skimage.exposure import equalize_adapthist

    with h5py.File(data_dir / "ac4_crop.h5") as file:
        values = file["raw"][7]
    theirs = 255 * equalize_adapthist(values, (128, 128), clip_limit=2 / 256)
    ours = equalised(values, 128, 2.0)
    shown = values > 0
    assert np.corrcoef(ours[shown], theirs[shown])[0, 1] > 0.97
