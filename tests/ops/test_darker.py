"""Raw as affinities: one voxel at a time."""

import itertools

import numpy as np

from emslice.ops.darker import darker_affinity


def test_each_code_is_the_darker_of_two_voxels_and_never_zero():
    raw = np.random.default_rng(2).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    codes = darker_affinity(raw)
    assert codes.shape == (3, 3, 4, 5)
    for axis, z, y, x in itertools.product(range(3), range(3), range(4), range(5)):
        place = [z, y, x]
        place[axis] = max(0, place[axis] - 1)
        assert codes[axis, z, y, x] == max(1, min(raw[z, y, x], raw[tuple(place)]))
