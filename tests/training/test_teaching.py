"""A teacher that is not trained, asked in several poses."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from emslice.training.features import FeatureCache
from emslice.training.teaching import FrozenTeacher, unflipped

FLIPS = [(), (2,), (3,), (2, 3)]
SHAPE = (2, 4, 5, 7)


def draw(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def linked(shape, seed):
    """Random affinities (B, 3, Z, Y, X), 0 where the earlier voxel is outside."""
    affinity = draw((shape[0], 3, *shape[1:]), seed)
    for k in range(3):
        affinity[:, k].select(k + 1, 0).zero_()
    return affinity


def looked_up(turned, axes):
    """Slow twin: both voxels of every link are sought in the turned crop."""
    batch, _, *shape = turned.shape
    found = torch.zeros_like(turned)
    for k, here in itertools.product(range(3), itertools.product(*map(range, shape))):
        if here[k] == 0:
            continue
        there = tuple(n - (axis == k) for axis, n in enumerate(here))
        ends = [
            tuple(shape[i] - 1 - n if i + 1 in axes else n for i, n in enumerate(end))
            for end in (here, there)
        ]
        for b in range(batch):
            found[b, k, *here] = turned[b, k, *max(ends)]
    return found


@pytest.mark.parametrize("axes", [*FLIPS, (1,), (1, 2, 3)])
def test_each_link_is_found_by_its_two_voxels(axes):
    turned = linked(SHAPE, seed=3)
    assert torch.equal(unflipped(turned, axes), looked_up(turned, axes))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), *[st.integers(1, 4)] * 3),
    axes=st.sampled_from(FLIPS),
    seed=st.integers(0, 99),
)
def test_crops_of_any_shape_are_turned_back(shape, axes, seed):
    turned = linked(shape, seed)
    assert torch.equal(unflipped(turned, axes), looked_up(turned, axes))


@pytest.mark.parametrize("axes", FLIPS)
def test_turning_twice_changes_nothing(axes):
    affinity = linked(SHAPE, seed=5)
    assert torch.equal(unflipped(unflipped(affinity, axes), axes), affinity)


class Symmetric(nn.Module):
    """Turned crops have turned embeddings, to the last bit."""

    def forward(self, raw):
        greatest, least = (s * F.max_pool3d(s * raw, 3, 1, 1) for s in (1, -1))
        return torch.cat([raw - 0.5, greatest - 0.8, least - 0.2], 1)


class Lopsided(nn.Module):
    """A network with weights, which sees a turned crop otherwise."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(8)
            self.layer = nn.Conv3d(1, 5, 3, padding=1)
            self.norm = nn.BatchNorm3d(5)
        self.seen = []

    def forward(self, raw):
        found = self.norm(self.layer(raw))
        self.seen.append(found.dtype)
        return found


def test_a_network_without_a_sense_of_direction_says_the_same_in_each_pose():
    raw = draw(SHAPE)
    embedding, affinity = FrozenTeacher(Symmetric(), "none")(raw)
    turned_embedding, turned_affinity = FrozenTeacher(Symmetric(), "flips")(raw)
    assert torch.equal(turned_embedding, embedding)
    torch.testing.assert_close(turned_affinity, affinity)
    assert 0.1 < float((affinity[:, :, 1:, 1:, 1:] > 0).float().mean()) < 0.9


def test_affinities_are_the_mean_over_poses_and_the_embedding_that_of_the_crop():
    raw, network = draw(SHAPE), Lopsided().eval()
    embedding, affinity = FrozenTeacher(network, "flips")(raw)
    said = [FrozenTeacher(network)(raw.flip(axes)) for axes in FLIPS]
    expected = torch.stack([looked_up(s[1], axes) for s, axes in zip(said, FLIPS, strict=True)])
    torch.testing.assert_close(affinity, expected.mean(0))
    assert torch.equal(embedding, said[0][0])
    assert float((affinity - said[0][1]).abs().max()) > 0.05


def test_shapes_range_and_links_that_leave_the_crop():
    embedding, affinity = FrozenTeacher(Lopsided(), "flips")(draw(SHAPE))
    assert embedding.shape == (2, 5, 4, 5, 7)
    assert affinity.shape == (2, 3, 4, 5, 7)
    assert 0 <= float(affinity.min()) < float(affinity.max()) <= 1 + 1e-6
    for k in range(3):
        assert not affinity[:, k].select(k + 1, 0).any()


def test_it_stays_in_evaluation_mode_and_learns_nothing():
    network, raw = Lopsided(), draw(SHAPE)
    teacher = FrozenTeacher(network)
    lesson = nn.ModuleDict({"teacher": teacher}).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    embedding, affinity = teacher(raw.requires_grad_())
    assert lesson.training
    assert not any(part.training for part in teacher.modules())
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not embedding.requires_grad
    assert not affinity.requires_grad
    for name, value in network.state_dict().items():  # moments of the batch norm among them
        assert torch.equal(value, before[name]), name


def test_the_cache_is_off_by_half_precision_only_and_asks_once(tmp_path):
    raw, network = draw(SHAPE), Lopsided()
    exact = FrozenTeacher(network, "flips")(raw)
    network.seen.clear()
    for _ in range(2):
        cached = FrozenTeacher(network, "flips", FeatureCache(tmp_path, "lopsided"))
        embedding, affinity = cached(raw)
        torch.testing.assert_close(embedding, exact[0], rtol=2**-10, atol=1e-5)
        torch.testing.assert_close(affinity, exact[1], rtol=2**-10, atol=1e-5)
        assert embedding.dtype == affinity.dtype == torch.float32
    assert len(network.seen) == 2 * 4  # each crop in each pose, and then never again


@pytest.mark.parametrize("cached", [False, True])
def test_the_network_runs_in_the_precision_that_is_asked_for(cached):
    network = Lopsided()
    cache = FeatureCache(None, "lopsided") if cached else None
    exact = FrozenTeacher(network)(draw(SHAPE))[1]
    found = FrozenTeacher(network, cache=cache, dtype=torch.bfloat16)(draw(SHAPE))[1]
    assert network.seen[0] == torch.float32
    assert set(network.seen[1:]) == {torch.bfloat16}
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05)
