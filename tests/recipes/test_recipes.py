"""What each recipe moves, and what it leaves alone."""

import numpy as np
import pytest
import torch
from recipes.small import configured, train
from torch import nn

from emslice.errors import ConfigError
from emslice.recipes.building import (
    make_batches,
    make_crops,
    make_fabric,
    make_lesson,
    make_optimiser,
)
from emslice.recipes.datasets import open_volumes
from emslice.recipes.lesson import embed
from emslice.training.distill import pairs_of
from emslice.training.losses import pair_cosines, pair_loss


def prepared(volumes, recipe, **changes):
    """A lesson and its first batch."""
    config = configured(volumes, **changes)
    lesson, _ = make_lesson(recipe, config)
    crops = make_crops(config, lesson.needs, open_volumes(config.data).train)
    return lesson, next(make_batches(config, crops, make_fabric(config), 0))


def graded(lesson, batch, step=0, *names):
    """Parts of the loss; gradients are those of the named ones, or of all."""
    losses = lesson(batch, step)
    torch.stack([losses[name] for name in names or losses]).sum().backward()
    return losses


@pytest.fixture(scope="module")
def teacher(volumes, tmp_path_factory):
    """A checkpoint of a small 3D network."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    train(volumes, run, "teacher3d", steps=1, data__validate_on=None)
    return str(run / "best.ckpt")


BEFORE_NORMALISATION = (".0.bias", ".3.bias", ".1.bias")
"""Ends of names of biases that batch normalisation takes away: no gradient but of rounding."""


@pytest.mark.parametrize("recipe", ["supervised", "teacher3d", "cad", "cad_iad"])
def test_the_gradient_reaches_everything_that_is_trained(volumes, recipe):
    lesson, batch = prepared(volumes, recipe, augment__probability=0)
    graded(lesson, batch)
    for name, parameter in lesson.named_parameters():
        if name.startswith("encoder."):
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, name
    moved = {name for name, p in lesson.named_parameters() if p.grad is not None and p.grad.any()}
    idle = {n for n, p in lesson.named_parameters() if p.requires_grad} - moved
    assert all(name.endswith(BEFORE_NORMALISATION) for name in idle), idle


def test_a_frozen_teacher_is_not_moved_and_stays_in_evaluation_mode(volumes, teacher):
    lesson, batch = prepared(
        volumes, "cad", teacher__weights=teacher, teacher__frozen=True, teacher__poses="flips"
    )
    lesson.train()
    assert not lesson.teacher.training
    assert not lesson.teacher.network.training
    losses = graded(lesson, batch)
    assert set(losses) == {"labels", "distill", "fgi"}
    assert all(p.grad is None for p in lesson.teacher.parameters())
    assert {id(p) for group, _ in lesson.groups() for p in group} == {
        id(p) for p in lesson.student.parameters()
    }


def test_what_a_frozen_teacher_said_comes_from_disk(volumes, teacher, tmp_path):
    settings = {"teacher__weights": teacher, "teacher__frozen": True, "data__distinct": 4}
    plain, batch = prepared(volumes, "cad", **settings)
    cached, _ = prepared(volumes, "cad", **settings, teacher__cache=str(tmp_path / "said"))
    raw = batch["volume"]["raw"]
    first, again = cached.teacher(raw), cached.teacher(raw)
    assert len(list((tmp_path / "said").rglob("*.*"))) == 1
    for one, two, true in zip(first, again, plain.teacher(raw), strict=True):
        assert torch.equal(one, two)
        np.testing.assert_allclose(one, true, rtol=1e-3, atol=2e-3)  # kept as float16


@pytest.mark.parametrize("mutual", [False, True])
def test_distillation_moves_a_teacher_only_if_it_is_mutual(volumes, mutual):
    lesson, batch = prepared(volumes, "cad", teacher__mutual=mutual)
    graded(lesson, batch, 0, "distill", "fgi")
    moved = [p for p in lesson.teacher.parameters() if p.grad is not None and p.grad.any()]
    assert bool(moved) == mutual
    assert all(p.grad is not None for p in lesson.student.parameters())


def test_a_teacher_does_not_teach_before_its_step(volumes):
    lesson, batch = prepared(volumes, "cad", loss__start=5)
    assert set(lesson(batch, 4)) == {"teacher", "labels"}
    assert set(lesson(batch, 5)) == {"teacher", "labels", "distill", "fgi"}


def test_an_unlabelled_crop_is_learned_from_the_teacher_alone(volumes):
    lesson, batch = prepared(volumes, "cad", augment__probability=0)
    sample = batch["volume"]
    sample["labels"], sample["labelled"] = 0 * sample["labels"], torch.tensor([False])
    with torch.no_grad():
        losses = lesson(batch, 0)
    assert float(losses["labels"]) == float(losses["teacher"]) == float(losses["fgi"]) == 0
    assert float(losses["distill"]) > 0


def test_pairs_one_by_one_are_pairs_together_once_nothing_is_measured_of_the_batch(volumes):
    lesson, batch = prepared(volumes, "cad")
    lesson.eval()
    pairs = pairs_of(batch["volume"]["raw"])
    for one, other in zip(embed(lesson.student, pairs), embed(lesson.student, pairs, 3),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other)


def test_the_released_behaviour_clips_and_grafts_as_released(volumes):
    ours, batch = prepared(volumes, "cad", augment__probability=0)
    theirs, _ = prepared(volumes, "cad", reference_compat=True, augment__probability=0)
    theirs.load_state_dict(ours.state_dict())
    for lesson in (ours, theirs):
        lesson.eval()
    pairs = ours.read(batch["volume"]).pairs()
    with torch.no_grad():
        found = [lesson(batch, 0) for lesson in (ours, theirs)]
        cosine = pair_cosines(*ours.student(pairs.raw))
        clipped = pair_loss(cosine, pairs.labelled, clipped=True)
    assert found[1]["labels"].item() == pytest.approx(3 * clipped.item(), rel=1e-5)
    assert found[0]["labels"].item() > found[1]["labels"].item()
    assert found[0]["teacher"].item() == pytest.approx(found[1]["teacher"].item())
    assert found[0]["fgi"].item() != pytest.approx(found[1]["fgi"].item())


def test_a_step_is_that_of_adam_by_hand(volumes):
    """Amsgrad, eps 0.01 and weight decay, as published."""
    lesson, batch = prepared(volumes, "supervised")
    config = lesson.config
    optimiser, _ = make_optimiser(config, lesson)
    by_hand = ByHand(lesson, config.optimiser)
    for step in range(3):
        graded(lesson, batch, step)
        expected = by_hand.step()
        optimiser.step()
        optimiser.zero_grad()
        for name, parameter in lesson.named_parameters():
            torch.testing.assert_close(
                parameter.detach().double(), expected[name], rtol=1e-6, atol=1e-8
            )


class ByHand:
    """Adam as its paper writes it, with the largest second moment so far (Reddi et al. 2018)."""

    def __init__(self, network: nn.Module, settings):
        self.network, self.settings, self.n = network, settings, 0
        self.state = {
            name: [torch.zeros_like(p, dtype=torch.float64) for _ in range(3)]
            for name, p in network.named_parameters()
        }

    def step(self):
        s, self.n = self.settings, self.n + 1
        b1, b2 = s.betas
        moved = {}
        for name, p in self.network.named_parameters():
            gradient = p.grad.double() + s.weight_decay * p.detach().double()
            m, v, largest = self.state[name]
            m.mul_(b1).add_((1 - b1) * gradient)
            v.mul_(b2).add_((1 - b2) * gradient**2)
            torch.maximum(largest, v, out=largest)
            root = (largest / (1 - b2**self.n)).sqrt() + s.eps
            moved[name] = p.detach().double() - s.rate * (m / (1 - b1**self.n)) / root
        return moved


def test_a_student_learns(volumes, tmp_path):
    """The loss falls by a third in 60 small steps."""
    changes = {"steps": 60, "log_every": 10, "validation__every": 60,
               "optimiser__eps": 1e-8, "student__features": 8,
               "augment__probability": 0}  # fmt: skip
    trained = train(volumes, tmp_path / "run", **changes)
    from emslice.training.metrics import read_metrics

    losses = [float(r["value"]) for r in read_metrics(tmp_path / "run") if r["name"] == "labels"]
    assert losses[-1] < 2 / 3 * losses[0]
    assert trained.best < 3.0


def test_labels_are_needed_unless_a_frozen_teacher_says_what_is_right(volumes, teacher, tmp_path):
    unlabelled = [{"raw": str(volumes / "raw.npy"), "sections": [0, 10]}]
    with pytest.raises(ConfigError, match="no volume has labels"):
        train(volumes, tmp_path / "a", data__train=unlabelled)
    trained = train(
        volumes, tmp_path / "b", "cad", steps=2, data__train=unlabelled, teacher__weights=teacher,
        teacher__frozen=True,
    )  # fmt: skip
    assert trained.steps == 2


def test_the_released_behaviour_shows_what_is_outside_as_black_background(volumes):
    lesson, batch = prepared(volumes, "cad", reference_compat=True, augment__probability=0)
    batch["volume"]["valid"][:, :, :, :9] = False
    crops = lesson.read(batch["volume"])
    assert not crops.raw[:, :, :, :9].any()
    assert not crops.labels[:, :, :, :9].any()


def test_the_losses_of_the_pairs_of_a_crop_add_up(volumes):
    lesson, batch = prepared(volumes, "supervised", crops="volume", augment__probability=0)
    lesson.eval()
    crops = lesson.read(batch["volume"])
    pairs = crops.pairs()
    with torch.no_grad():
        found = lesson(batch, 0)["labels"]
        mean = pair_loss(pair_cosines(*lesson.student(pairs.raw)), pairs.labelled)
    assert found.item() == pytest.approx(3 * mean.item())
