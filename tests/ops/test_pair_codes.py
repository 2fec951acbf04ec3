import numpy as np
import pytest
import torch

from emslice.ops.affinity import pair_affinity, quantise
from emslice.ops.pair_codes import pair_codes


def embeddings(shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.5, 1, (5, *shape)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (17, 33)])
def test_codes_are_those_of_the_affinities(shape):
    before, here = embeddings(shape)
    found = pair_codes(before, here)
    expected = quantise(pair_affinity(*map(torch.from_numpy, (before, here)))).numpy()
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart == 0).mean() > 0.99


def test_an_embedding_of_zeros_is_like_nothing():
    before, here = embeddings((4, 5))
    here[:, 1, 2] = 0
    codes = pair_codes(before, here)
    assert not codes[:, 1, 2].any()


def test_stored_bfloat16_gives_the_codes_of_its_values():
    rounded = [torch.from_numpy(e).bfloat16() for e in embeddings((9, 21))]
    stored = pair_codes(*(t.view(torch.uint16).numpy() for t in rounded))
    np.testing.assert_array_equal(stored, pair_codes(*(t.float().numpy() for t in rounded)))


def test_a_part_of_a_larger_map_may_be_compared():
    before, here = embeddings((12, 15))
    part = np.s_[:, 2:9, 4:13]
    np.testing.assert_array_equal(
        pair_codes(before[part], here[part]),
        pair_codes(before[part].copy(), here[part].copy()),
    )
