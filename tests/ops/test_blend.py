import numpy as np
import pytest

from emslice.geometry.boxes import Roi
from emslice.geometry.windows import WindowLattice
from emslice.ops.blend import Blend, gaussian_weights


def test_weights_are_as_published():
    weights = gaussian_weights((18, 160, 160))
    assert weights.dtype == np.float32
    assert weights.max() == pytest.approx(0.957, abs=5e-4)
    assert weights[0, 0, 0] == pytest.approx(1e-6, rel=1e-3)
    assert weights[0, 80, 80] == pytest.approx(4.7e-6, rel=0.01)


def test_weights_equal_their_formula_one_voxel_at_a_time():
    weights, shape = gaussian_weights((3, 4, 6)), (3, 4, 6)
    for place in np.ndindex(shape):
        d2 = sum((2 * i / (n - 1) - 1) ** 2 for i, n in zip(place, shape, strict=True))
        assert weights[place] == pytest.approx(1e-6 + np.exp(-d2 / 0.08), rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1)])
def test_a_window_of_one_voxel_is_its_own_middle(shape):
    assert gaussian_weights(shape).max() == pytest.approx(1 + 1e-6)


LATTICE = WindowLattice((11, 19, 23), (4, 8, 10), (3, 4, 5))


def blended(answer, affinity_of):
    """Codes of a box by windows in order."""
    z_axis, y_axis, x_axis = LATTICE.axes
    rows = LATTICE.windows(answer)
    blend = Blend(answer, gaussian_weights(LATTICE.output), 3, z_axis.begin(rows[0][0]))
    for z in rows[0]:
        for y in rows[1]:
            for x in rows[2]:
                affinity = affinity_of((z, y, x))
                if affinity is not None:
                    blend.add(affinity, y_axis.begin(y), x_axis.begin(x))
        blend.end_row(z == rows[0][-1])
    return blend.codes


def random_affinity(window):
    rng = np.random.default_rng(window)
    return rng.random((3, *LATTICE.output), np.float32)


def mean_at(voxel):
    """Weighted mean of all windows that hold a voxel, in float64."""
    weights, total, weight = gaussian_weights(LATTICE.output).astype(float), np.zeros(3), 0.0
    for window in np.ndindex(*(axis.n for axis in LATTICE.axes)):
        place = tuple(
            v - axis.begin(j) for v, j, axis in zip(voxel, window, LATTICE.axes, strict=True)
        )
        if all(0 <= i < n for i, n in zip(place, LATTICE.output, strict=True)):
            total += weights[place] * random_affinity(window)[(slice(None), *place)]
            weight += weights[place]
    return total / weight


def test_every_voxel_is_the_weighted_mean_of_the_windows_that_hold_it():
    codes = blended(Roi((0, 0, 0), LATTICE.shape), random_affinity)
    for voxel in [(0, 0, 0), (5, 9, 11), (10, 18, 22), (3, 4, 5), (8, 0, 12)]:
        expected = np.minimum(256 * mean_at(voxel), 255)
        np.testing.assert_allclose(codes[(slice(None), *voxel)], expected - 0.5, atol=0.501)


@pytest.mark.parametrize("box", [((0, 0, 0), (11, 1, 23)), ((4, 7, 9), (3, 8, 2))])
def test_a_box_has_the_codes_of_the_whole(box):
    whole = blended(Roi((0, 0, 0), LATTICE.shape), random_affinity)
    place = tuple(slice(low, low + n) for low, n in zip(*box, strict=True))
    np.testing.assert_array_equal(blended(Roi(*box), random_affinity), whole[:, *place])


def test_windows_that_agree_are_not_changed_by_blending():
    codes = blended(
        Roi((0, 0, 0), LATTICE.shape), lambda window: np.ones((3, *LATTICE.output), np.float32)
    )
    assert (codes == 255).all()


def test_voxels_that_no_window_came_for_have_no_affinity():
    assert not blended(Roi((0, 0, 0), LATTICE.shape), lambda window: None).any()
