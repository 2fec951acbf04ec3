import numpy as np
import pytest
import torch

from emslice.geometry.neighborhood import NEIGHBORHOODS
from emslice.models.folded import as_array
from emslice.ops import affinity
from emslice.ops.volume_affinity import volume_affinity


def embedding(shape=(6, 5, 31, 40), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3


@pytest.mark.parametrize("n", NEIGHBORHOODS)
def test_equals_the_operator_of_torch(n):
    found = volume_affinity(embedding().numpy(), NEIGHBORHOODS[n])
    expected = affinity.volume_affinity(embedding(), NEIGHBORHOODS[n]).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_links_longer_than_the_volume_are_left_out():
    found = volume_affinity(embedding((2, 2, 3, 5)).numpy(), NEIGHBORHOODS[23])
    assert not found[7:].any()


def test_stored_bfloat16_gives_the_affinities_of_its_values():
    stored = embedding().bfloat16()
    found = volume_affinity(as_array(stored), NEIGHBORHOODS[3])
    np.testing.assert_array_equal(found, volume_affinity(stored.float().numpy(), NEIGHBORHOODS[3]))


def test_an_embedding_of_zeros_is_like_nothing():
    values = embedding((3, 2, 4, 5)).numpy()
    values[:, 1, 2, 3] = 0
    assert not volume_affinity(values, NEIGHBORHOODS[3])[:, 1, 2, 3].any()
