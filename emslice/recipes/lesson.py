"""What recipes have in common: crops as they are shown, and what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from emslice.config.training import TrainConfig
from emslice.models.student import Student
from emslice.training.distill import pairs_of
from emslice.training.targets import Targets, pair_targets, widen_border


@dataclass(frozen=True)
class Pairs:
    """Pairs of adjacent sections and what their affinities should be."""

    raw: Tensor
    """Float, shape (N, 2, Y, X), in [0, 1]."""
    targets: Targets
    labelled: Targets
    """The same; links of unlabelled crops are not usable."""


@dataclass(frozen=True)
class Crops:
    """A batch of crops."""

    raw: Tensor
    """Float, shape (B, Z, Y, X), in [0, 1]."""
    labels: Tensor
    """int64, the same shape; 0 is background."""
    valid: Tensor
    """Bool, the same shape."""
    labelled: Tensor
    """Bool, shape (B,)."""

    @property
    def known(self) -> Tensor:
        """Bool, shape (B, Z, Y, X): valid and labelled."""
        return self.valid & self.labelled.view(-1, 1, 1, 1)

    @property
    def n_pairs(self) -> int:
        """Pairs of adjacent sections of a crop."""
        return self.raw.shape[1] - 1

    def pairs(self) -> Pairs:
        """All pairs of adjacent sections, in the order crop, section."""
        targets = pair_targets(pairs_of(self.labels), pairs_of(self.valid))
        labelled = self.labelled.repeat_interleave(self.n_pairs)
        return Pairs(pairs_of(self.raw), targets, targets.only(labelled))


class Lesson(nn.Module):
    """Networks that learn; its forward takes a batch and the step, and gives parts of the loss."""

    product: ClassVar[str] = "student"
    """Which network is validated and written."""

    needs: tuple[str, ...]
    """Kinds of crops: pairs, volume."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.compat = config.reference_compat

    def forward(self, batch: dict[str, dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Parts of the loss, weighted; their sum goes down."""
        raise NotImplementedError

    def read(self, sample: dict[str, Tensor]) -> Crops:
        """Crops of a batch; in the released code what is not valid is black, and background."""
        raw, labels, valid = sample["raw"], sample["labels"], sample["valid"]
        if self.config.data.widen_border:
            labels = widen_border(labels)
        if self.compat:
            raw, labels, valid = raw * valid, labels * valid, torch.ones_like(valid)
        return Crops(raw, labels, valid, sample["labelled"])

    def groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Parameters that are trained, and their rate as a multiple of the student's."""
        ratio = self.config.optimiser.teacher_ratio
        for name, part in self.named_children():
            trained = [p for p in part.parameters() if p.requires_grad]
            if trained:
                yield trained, 1.0 if name == self.product else ratio


def embed(student: Student, raw: Tensor, one_by_one: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings of pairs, in one batch.

    ``one_by_one`` is the number of pairs of a crop if those at the same place of all crops are
    to be a batch of their own, as in the released code: batch normalisation sees the difference.
    """
    if not one_by_one:
        before, here = student(raw)
        return before, here
    seen = [student(part) for part in raw.unflatten(0, (-1, one_by_one)).unbind(1)]
    return tuple(torch.stack(heads, 1).flatten(0, 1) for heads in zip(*seen, strict=True))  # type: ignore[return-value]
