"""The trainable half of the SAM teacher: size as published, values as a slow twin says."""

import pytest
import torch
from reference.sam_adapter import adapt

from emslice.errors import ConfigError
from emslice.models.networks import count_parameters
from emslice.models.sam_adapter import SamAdapter

NARROW = {"widths": (7, 5, 4, 3), "embedding": 2, "channels": 6}


def features(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def adapter():
    torch.manual_seed(4)
    return SamAdapter(**NARROW)


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        assert count_parameters(SamAdapter()) == 2_618_592


@torch.inference_mode()
def test_embeddings_have_the_resolution_of_the_section():
    before, here = features((2, 3, 256, 2, 3))
    found = SamAdapter()(before, here)
    assert [tuple(embedding.shape) for embedding in found] == [(3, 16, 32, 48)] * 2


@torch.inference_mode()
def test_matches_one_voxel_at_a_time(adapter):
    before, here = features((2, 1, 6, 2, 3))
    expected = adapt(adapter.state_dict(), before[0], here[0])
    for found, wanted in zip(adapter(before, here), expected, strict=True):
        torch.testing.assert_close(found[0], wanted)


@torch.inference_mode()
def test_a_batch_is_adapted_pair_by_pair(adapter):
    before, here = features((2, 3, 6, 2, 3))
    found = adapter(before, here)
    for k in range(3):
        alone = adapter(before[k : k + 1], here[k : k + 1])
        for section in (0, 1):
            torch.testing.assert_close(found[section][k : k + 1], alone[section])


@torch.inference_mode()
def test_swapped_sections_have_swapped_embeddings_once_fusion_is_swapped(adapter):
    before, here = features((2, 1, 6, 2, 3))
    first, second = adapter(before, here)
    assert not torch.allclose(adapter(here, before)[0], second, atol=1e-3)
    for fusion in adapter.fusions:
        fusion.weight.copy_(torch.cat(fusion.weight.chunk(2, 1)[::-1], 1))
    swapped = adapter(here, before)
    torch.testing.assert_close(swapped[0], second)
    torch.testing.assert_close(swapped[1], first)


@torch.inference_mode()
def test_equal_sections_have_equal_embeddings(adapter):
    section = features((1, 6, 2, 3))
    first, second = adapter(section, section)
    torch.testing.assert_close(first, second)


@torch.inference_mode()
def test_each_section_changes_both_embeddings(adapter):
    before, here = features((2, 1, 6, 2, 3))
    known = adapter(before, here)
    for changed in (adapter(before + 1, here), adapter(before, here + 1)):
        assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(known, changed, strict=True))


def test_a_gradient_reaches_every_parameter(adapter):
    first, second = adapter(*features((2, 1, 6, 2, 3)))
    (first.square().sum() + second.sum()).backward()
    parameters = dict(adapter.named_parameters())
    assert len(parameters) == 20
    for name, parameter in parameters.items():
        assert parameter.grad.abs().max() > 0, name


def test_the_spec_builds_the_same_network_again(adapter):
    sizes = {key: value for key, value in adapter.spec.items() if key != "network"}
    SamAdapter(**sizes).load_state_dict(adapter.state_dict())
    assert adapter.spec == {"network": "sam_adapter", "widths": [7, 5, 4, 3], "embedding": 2,
                            "channels": 6}  # fmt: skip


@pytest.mark.parametrize("widths", [(8, 4, 2), (8, 4, 2, 0)])
def test_an_adapter_that_cannot_be_is_refused(widths):
    with pytest.raises(ConfigError, match="expected 4 positive widths"):
        SamAdapter(widths)
