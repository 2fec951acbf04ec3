"""Losses and distillation against their equations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import training as twin

from emslice.geometry.neighborhood import NEIGHBORHOODS
from emslice.training.distill import (
    cross_graft_loss,
    distillation_loss,
    fgi_loss,
    pairs_of,
    released_fgi,
    taught_affinity,
)
from emslice.training.losses import (
    affinity_error,
    pair_cosines,
    pair_loss,
    volume_cosines,
    volume_loss,
)
from emslice.training.targets import pair_targets, volume_targets

SHAPE = (2, 6, 4, 5)


@pytest.fixture
def crops():
    """Labels and validity of two crops, and a generator."""
    draw = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, SHAPE, generator=draw)
    valid = torch.rand(SHAPE, generator=draw) > 0.1
    return labels, valid, draw


def embeddings(draw, n, channels=5, shape=SHAPE[2:]):
    return [torch.randn(n, channels, *shape, generator=draw) for _ in range(2)]


def as_double(*tensors):
    return [t.double().numpy() for t in tensors]


@given(st.floats(-1, 1), st.floats(0, 1))
def test_the_error_is_the_square_where_the_cosine_is_positive(cosine, affinity):
    c, t = torch.tensor(cosine, dtype=torch.float64), torch.tensor(affinity, dtype=torch.float64)
    found = float(affinity_error(c, t))
    assert found == pytest.approx(twin.error(cosine, affinity, False), abs=1e-12)
    assert found > -1e-12
    if cosine >= 0:
        assert found == pytest.approx((cosine - affinity) ** 2, abs=1e-12)


def test_a_pair_that_belongs_together_is_pulled_even_from_a_negative_cosine():
    cosine = torch.tensor([-0.5], requires_grad=True)
    affinity_error(cosine, torch.ones(1)).sum().backward()
    assert float(cosine.grad) == -3.0
    cosine.grad = None
    affinity_error(cosine, torch.ones(1), clipped=True).sum().backward()
    assert float(cosine.grad) == 0.0


@pytest.mark.parametrize("clipped", [False, True])
def test_the_loss_of_pairs_is_that_of_the_slow_twin(crops, clipped):
    labels, valid, draw = crops
    before, here = embeddings(draw, 10)
    targets = pair_targets(pairs_of(labels), pairs_of(valid))
    found = pair_loss(pair_cosines(before, here), targets, clipped)
    arrays = as_double(before, here, targets.affinity, targets.usable, targets.weights)
    expected = twin.pair_loss(*arrays[:3], arrays[3] > 0, arrays[4], clipped)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_a_teacher_is_that_of_the_slow_twin(crops):
    labels, valid, draw = crops
    embedding = torch.randn(2, 5, *SHAPE[1:], generator=draw)
    offsets = NEIGHBORHOODS[12]
    targets = volume_targets(labels, valid, offsets)
    found = volume_loss(volume_cosines(embedding, offsets), targets, near=10.0)
    expected = twin.volume_loss(*as_double(embedding), labels.numpy(), valid.numpy(), offsets, 10)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_what_a_teacher_says_of_a_pair_is_what_it_says_of_its_later_section():
    cosine = torch.randn(2, 12, 4, 3, 5)
    taught = taught_affinity(cosine)
    assert taught.shape == (6, 3, 3, 5)
    for crop in range(2):
        for z in range(3):
            assert torch.equal(taught[crop * 3 + z], cosine[crop, :3, z + 1].clamp(min=0))


def test_distillation_is_the_weighted_square_between_student_and_teacher(crops):
    labels, valid, draw = crops
    before, here = embeddings(draw, 10)
    taught = torch.rand(10, 3, *SHAPE[2:], generator=draw)
    targets = pair_targets(pairs_of(labels), pairs_of(valid))
    found = distillation_loss(pair_cosines(before, here), taught, targets, clipped=True)
    arrays = as_double(before, here, taught, targets.usable, targets.weights)
    expected = twin.pair_loss(*arrays[:3], arrays[3] > 0, arrays[4], True)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_student_that_agrees_with_its_teacher_has_no_distillation_loss(crops):
    labels, valid, draw = crops
    cosine = pair_cosines(*embeddings(draw, 10)).clamp(min=0)
    targets = pair_targets(pairs_of(labels), pairs_of(valid))
    assert float(distillation_loss(cosine, cosine, targets)) == pytest.approx(0, abs=1e-6)


def test_grafted_sections_are_compared_with_the_labels_of_their_own_distance(crops):
    labels, valid, draw = crops
    before, here = embeddings(draw, 10)
    teacher = torch.randn(2, 5, *SHAPE[1:], generator=draw)
    found = fgi_loss(before, here, teacher, labels, valid)
    pairs = [head.unflatten(0, (2, 5)) for head in (before, here)]
    expected = twin.fgi_loss(*as_double(*pairs, teacher), labels.numpy(), valid.numpy())
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_released_graft_is_that_of_the_released_loop(crops):
    labels, _, draw = crops
    before, here = (part * 0.4 for part in embeddings(draw, 10))
    teacher = torch.randn(2, 5, *SHAPE[1:], generator=draw) * 0.4
    targets = volume_targets(labels, torch.ones_like(labels) > 0, NEIGHBORHOODS[12])
    found = released_fgi(before, here, teacher, targets)
    pairs = [head.unflatten(0, (2, 5)) for head in (before, here)]
    wanted, weight = targets.affinity[:, 0], targets.weights[:, 0]
    expected = twin.released_fgi(*as_double(*pairs, teacher, wanted, weight))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(found) != pytest.approx(
        float(fgi_loss(before, here, teacher, labels, labels >= 0))
    )


def test_crossed_pairs_take_one_section_of_each_network(crops):
    labels, valid, draw = crops
    student, other = embeddings(draw, 10), embeddings(draw, 10)
    targets = pair_targets(pairs_of(labels), pairs_of(valid))
    found = cross_graft_loss(tuple(student), tuple(other), targets)
    first = pair_loss(pair_cosines(student[0], other[1]), targets)
    second = pair_loss(pair_cosines(other[0], student[1]), targets)
    assert float(found) == pytest.approx(float(first + second))


def test_the_first_columns_can_be_left_out_as_the_released_code_does(crops):
    labels, valid, draw = crops
    cosine = pair_cosines(*embeddings(draw, 10))
    taught = torch.rand(cosine.shape, generator=draw)
    targets = pair_targets(pairs_of(labels), pairs_of(valid))
    changed = taught.clone()
    changed[..., :2] = 0.5
    part = [distillation_loss(cosine, t, targets, first_column=2) for t in (taught, changed)]
    assert part[0] == part[1]
    assert distillation_loss(cosine, taught, targets) != distillation_loss(cosine, changed, targets)


def test_twin_of_pairs_counts_every_link_once():
    usable = np.zeros((1, 3, 2, 2), bool)
    usable[0, 0] = True
    ones = np.ones((1, 3, 2, 2))
    embedding = np.ones((1, 4, 2, 2))
    assert twin.pair_loss(embedding, embedding, 0 * ones, usable, ones) == pytest.approx(1.0)
