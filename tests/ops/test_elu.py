import numpy as np
import pytest
import torch
from torch.nn import functional as F

from emslice.models.folded import as_array
from emslice.ops.elu import add_elu, elu


def values(n=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(n, generator=generator) * torch.rand(n, generator=generator) * 30
    edges = torch.tensor([0.0, -0.0, -1e-30, -79.9, -80.1, -1e30, 1e30, -0.3465736])
    return torch.cat([spread, edges])


def test_equals_torch_to_the_last_bits():
    features = values()
    expected = F.elu(features.double()).float()
    elu(as_array(features))
    torch.testing.assert_close(features, expected, rtol=2e-7, atol=1.2e-7)


def test_bfloat16_is_rounded_once():
    stored = values().bfloat16()
    expected = F.elu(stored.double()).bfloat16()
    elu(as_array(stored))
    assert (stored == expected).float().mean() > 0.999
    torch.testing.assert_close(stored.float(), expected.float(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_is_scaled_channel_by_channel(dtype):
    features, other = (values(seed=s)[:600].view(200, 3).to(dtype) for s in (1, 2))
    scale = torch.tensor([0.5, -2.0, 1.0])
    expected = F.elu(features.float() + scale * other.float()).to(dtype)
    add_elu(as_array(features), as_array(other), scale.numpy())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(features.float(), expected.float(), rtol=tolerance, atol=tolerance)


def test_nothing_is_no_trouble():
    elu(np.zeros(0, np.float32))
