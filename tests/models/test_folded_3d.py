"""The folded 3D networks: the same functions as the plain ones."""

import numpy as np
import pytest
import torch
from models.teachers import SMALL, small_superhuman
from torch.nn import functional as F

from emslice.models.folded import as_array
from emslice.models.folded_3d import fold_volume, outputs_of
from emslice.models.profile import bfloat16_unit
from emslice.ops.upsample import add_upsampled

needs_bfloat16 = pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
PRECISIONS = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)]
KINDS = {
    **SMALL,
    "concatenated": lambda: small_superhuman(merge="cat"),
    "transposed": lambda: small_superhuman(upsampling="transposed"),
    "shallow": lambda: small_superhuman(filters=(3, 4)),
}


def volume_for(name, seed=0):
    shape = (30, 214, 241) if name.startswith("mala") else (5, 32, 48)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_outputs_are_those_of_the_plain_network(name):
    network, volume = KINDS[name](), volume_for(name)
    expected = network.logits(torch.from_numpy(volume)[None, None].float() / 255)[0]
    found = outputs_of(fold_volume(network, torch.float32), volume, as_float=True)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.std()))


@needs_bfloat16
@pytest.mark.parametrize("name", ["ssns", "savem3", "mala"])
@torch.inference_mode()
def test_bfloat16_keeps_the_outputs_roughly(name):
    """Random weights exaggerate: the residual blocks of the others are chaotic."""
    network, volume = KINDS[name](), volume_for(name)
    expected = network.logits(torch.from_numpy(volume)[None, None].float() / 255)[0]
    found = outputs_of(fold_volume(network, torch.bfloat16), volume, as_float=True)
    assert (found - expected).square().mean().sqrt() < 0.06 * expected.std()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("as_float", [True, False])
@torch.inference_mode()
def test_outputs_are_stored_as_asked(dtype, as_float):
    folded = fold_volume(small_superhuman(), dtype)
    found = outputs_of(folded, volume_for("embedding"), as_float)
    assert found.dtype == (torch.float32 if as_float else dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["embedding", "ssns", "mala"])
def test_the_network_is_not_changed(name, dtype):
    network = KINDS[name]()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fold_volume(network, dtype)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (3, 4, 5, 7), (2, 5, 1, 3)])
def test_sections_are_upsampled_with_aligned_corners_and_added(shape):
    generator = torch.Generator().manual_seed(3)
    z, y, x, c = shape
    deep = torch.randn(shape, generator=generator)
    skip = torch.randn(z, 2 * y, 2 * x, c, generator=generator)
    scale = torch.randn(c, generator=generator)
    wide = F.interpolate(deep.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear",
                         align_corners=True)  # fmt: skip
    expected = wide.permute(0, 2, 3, 1) + scale * skip
    total = torch.empty_like(skip)
    add_upsampled(*map(as_array, (skip, scale, deep, total)))
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-5)
