"""The 3D networks: sizes as published, shapes, and what their outputs may see."""

import pytest
import torch
from models.teachers import NARROW, SMALL, small_mala, small_superhuman

from emslice.errors import ConfigError
from emslice.models.mala import Mala
from emslice.models.networks import count_parameters
from emslice.models.superhuman import Superhuman

PUBLISHED = {
    1_478_036: Superhuman,
    1_477_659: lambda: Superhuman(outputs=3, head="affinity"),
    1_555_471: lambda: Superhuman(outputs=3, head="affinity", merge="cat", upsampling="transposed"),
    6_721_825: lambda: Superhuman(
        (32, 64, 128, 256), 1, "boundary", merge="cat", upsampling="transposed"
    ),
    84_020_644: Mala,
    84_020_475: lambda: Mala(outputs=3, head="affinity"),
}


def volume(shape, seed=0):
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", PUBLISHED)
def test_parameters_are_as_many_as_published(n):
    with torch.device("meta"):
        assert count_parameters(PUBLISHED[n]()) == n


@pytest.mark.parametrize(("options", "n"), [({}, 196), ({"upsampling": "transposed"}, 204)])
def test_a_superhuman_file_has_as_many_tensors_as_published(options, n):
    with torch.device("meta"):
        assert len(Superhuman(**options).state_dict()) == n


@pytest.mark.parametrize("name", [n for n in SMALL if not n.startswith("mala")])
@torch.inference_mode()
def test_superhuman_keeps_the_shape_of_the_volume(name):
    network = SMALL[name]()
    assert network(volume((3, 32, 48))).shape == (1, network.spec["outputs"], 3, 32, 48)


@torch.inference_mode()
def test_mala_answers_for_the_inside_of_the_volume():
    network = small_mala(outputs=2, widths=(1, 1, 1, 1))
    assert network(volume((30, 214, 241))).shape == (1, 2, 2, 2, 29)


@torch.inference_mode()
def test_the_published_crop_of_mala_answers_for_25_sections_of_56_by_56():
    network = Mala((1, 1, 1, 1)).eval()
    assert network(volume(Mala.crop)).shape == (1, 16, *Mala.stride)
    assert tuple(c - 2 * m for c, m in zip(Mala.crop, Mala.margin, strict=True)) == Mala.stride


@pytest.mark.parametrize("name", ["affinity", "ssns", "savem3"])
@torch.inference_mode()
def test_affinities_and_boundaries_lie_between_0_and_1(name):
    network, raw = SMALL[name](), volume((2, 16, 32))
    found = network(raw)
    torch.testing.assert_close(found, torch.sigmoid(network.logits(raw)))
    assert found.min() > 0
    assert found.max() < 1
    assert found.std() > 0.01


@torch.inference_mode()
def test_sections_are_joined_by_convolutions_only():
    """Two 3x3x3 convolutions in each of nine blocks see two sections each: 18 in all."""
    network = small_superhuman().double()
    raw = volume((40, 16, 16)).double()
    changed = raw.clone()
    changed[:, :, 0] = 0
    apart = (network(raw) - network(changed)).abs().amax((0, 1, 3, 4))
    assert apart[18] > 0
    assert apart[19:].max() == 0


@torch.inference_mode()
def test_mala_sees_its_margin_and_no_further():
    network = small_mala(widths=(1, 1, 1, 1)).double()
    raw = volume((31, 214, 214)).double()
    changed = raw.clone()
    changed[:, :, 30] = 0
    apart = (network(raw) - network(changed)).abs().amax((0, 1, 3, 4))
    assert apart[:2].max() == 0
    assert apart[2] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "flow"}, "head: 'flow' is none of embedding, affinity, boundary"),
        ({"head": "affinity", "outputs": 5}, "no neighborhood has 5 channels"),
        ({"head": "boundary", "outputs": 3}, "a boundary is one channel, not 3"),
        ({"merge": "max"}, "merge: 'max'"),
        ({"upsampling": "nearest"}, "upsampling: 'nearest'"),
        ({"filters": (3,)}, "filters"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Superhuman(**{"filters": NARROW} | options)
