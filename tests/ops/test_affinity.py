from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.affinity import (
    boundary_affinity_by_voxel,
    pair_affinity_by_voxel,
    volume_affinity_by_voxel,
)

from emslice.errors import ConfigError, GeometryError
from emslice.geometry.neighborhood import NEAREST, NEIGHBORHOODS
from emslice.ops.affinity import (
    boundary_affinity,
    pair_affinities,
    pair_affinity,
    quantise,
    quantise_array,
    repeat_first_lines,
    volume_affinity,
)


def embeddings(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, *shape, generator=generator)


def array_of(value, dtype):
    return np.full((3, 1, 2, 5), value, dtype)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (1, 7), (2, 2), (2, 9), (3, 4), (7, 5), (11, 1), (13, 2)]),
    seed=st.integers(0, 999),
)
def test_equals_one_voxel_at_a_time(shape, seed):
    before, here = embeddings(shape, seed)
    expected = pair_affinity_by_voxel(before.double().numpy(), here.double().numpy())
    np.testing.assert_allclose(pair_affinity(before, here).numpy(), expected, atol=2e-6)


def test_the_first_line_repeats_the_third():
    before, here = embeddings((5, 7), 3)
    affinity = pair_affinity(before, here)
    torch.testing.assert_close(affinity[1, 0], affinity[1, 2], rtol=0, atol=0)
    torch.testing.assert_close(affinity[2, :, 0], affinity[2, :, 2], rtol=0, atol=0)


def test_affinity_does_not_depend_on_the_length_of_an_embedding():
    before, here = embeddings((5, 7), 4)
    scale = torch.rand(5, 7, generator=torch.Generator().manual_seed(5)) * 100 + 0.01
    torch.testing.assert_close(pair_affinity(before, here * scale), pair_affinity(before, here))


def test_opposite_embeddings_have_no_affinity():
    here = torch.ones(4, 2, 3)
    assert not pair_affinity(-here, here)[0].any()


def test_an_embedding_of_zero_has_no_affinity():
    zero = torch.zeros(4, 3, 5)
    assert not pair_affinity(zero, zero).any()


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.floats(0, 1, width=32))
def test_a_code_is_the_floor_of_256_a(value):
    expected = min(floor(256 * value), 255)
    assert quantise(torch.tensor([value])).tolist() == [expected]
    assert quantise_array(array_of(value, np.float32)).ravel().tolist() == [expected] * 30


@pytest.mark.parametrize("k", range(257))
def test_codes_change_exactly_at_the_256ths(k):
    just_below = np.nextafter(np.float32(k / 256), np.float32(-1))
    assert quantise(torch.tensor([k / 256])).item() == min(k, 255)
    if k:
        assert quantise_array(array_of(just_below, np.float32)).max() == k - 1


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.floats(0, 1, width=16))
def test_float16_codes_are_exact(value):
    assert quantise_array(array_of(value, np.float16)).max() == min(floor(256 * value), 255)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.floats(0, 1))
def test_float64_codes_are_exact(value):
    assert quantise_array(array_of(value, np.float64)).max() == min(floor(256 * value), 255)


def test_float64_just_below_a_256th_keeps_the_lower_code():
    assert quantise_array(array_of(0.5 - 1e-12, np.float64)).max() == 127


def test_codes_are_returned_as_they_are():
    codes = np.arange(30, dtype=np.uint8).reshape(3, 1, 2, 5)
    np.testing.assert_array_equal(quantise_array(codes), codes)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.uint64, bool, np.complex64])
def test_other_types_are_refused_by_name(dtype):
    with pytest.raises(ConfigError, match=rf"predictions: dtype is {np.dtype(dtype)}"):
        quantise_array(array_of(1, dtype), "predictions")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_is_refused_with_its_number_and_place(dtype):
    affinity = np.zeros((3, 4, 2, 5), dtype)
    affinity[1, 2, 0, :3] = np.nan
    with pytest.raises(ConfigError, match=r"3 NaN in channel 1, section 2"):
        quantise_array(affinity)


@pytest.mark.parametrize("value", [-0.01, 1.01, 200.0, np.inf, -np.inf, 1 + 1e-12, -1e-60])
def test_values_outside_0_to_1_are_refused_with_their_place(value):
    affinity = np.full((3, 4, 2, 5), 0.5)
    affinity[2, 3, 1, 4] = value
    with pytest.raises(ConfigError, match=r"values from .* in channel 2, section 3"):
        quantise_array(affinity)


SHORT = [offset for offsets in (NEIGHBORHOODS[12], NEIGHBORHOODS[23]) for offset in offsets]
"""Every offset of both families; several are longer than the volumes below."""


def test_a_volume_equals_one_voxel_at_a_time():
    embedding = embeddings((3, 5, 12), 6)[0]
    expected = volume_affinity_by_voxel(embedding.double().numpy(), SHORT)
    np.testing.assert_allclose(volume_affinity(embedding, SHORT).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("n", [7, 17, 23])
def test_a_pair_equals_the_volume_of_its_two_sections(n):
    before, here = embeddings((11, 30), 7)
    volume = torch.stack([before, here], 1)
    found = pair_affinities(before, here, NEIGHBORHOODS[n])
    torch.testing.assert_close(found, volume_affinity(volume, NEIGHBORHOODS[n])[:, 1])


def test_a_pair_has_the_affinities_of_a_segmentation_inside():
    before, here = embeddings((7, 9), 8)
    found, expected = pair_affinities(before, here, NEAREST), pair_affinity(before, here)
    torch.testing.assert_close(found[:, 1:, 1:], expected[:, 1:, 1:])


def test_a_pair_knows_no_section_further_away():
    with pytest.raises(GeometryError, match="0 and -1 along z"):
        pair_affinities(*embeddings((5, 5), 9), NEIGHBORHOODS[12])


def test_a_boundary_equals_one_voxel_at_a_time():
    boundary = torch.rand(3, 5, 12, generator=torch.Generator().manual_seed(10))
    expected = boundary_affinity_by_voxel(boundary.numpy(), SHORT)
    np.testing.assert_allclose(boundary_affinity(boundary, SHORT).numpy(), expected, atol=1e-6)


def test_gradients_reach_both_ends_of_a_link():
    embedding = embeddings((3, 5, 7), 11)[0].abs().requires_grad_()
    volume_affinity(embedding, [(-1, 2, -3)])[0, 1, 1, 4].backward()
    touched = embedding.grad.abs().sum(0).nonzero().tolist()
    assert touched == [[0, 3, 1], [1, 1, 4]]


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 3, 2), (2, 1, 1)])
def test_first_lines_repeat_the_second(shape):
    affinity = torch.rand(4, *shape, generator=torch.Generator().manual_seed(12))
    found = repeat_first_lines(affinity.clone())
    assert torch.equal(found[3], affinity[3])
    for axis in range(3):
        second = min(1, shape[axis] - 1)
        assert torch.equal(found[axis].select(axis, 0), affinity[axis].select(axis, second))
