"""Supervised: a student learns from labels alone; what every distillation must beat.

    emslice train supervised --config configs/train/ac4_small.yaml --out runs/supervised

One step: pairs of adjacent sections -> two embeddings -> three cosines
               -> weighted squared error to the affinities of the labels
"""

from __future__ import annotations

from torch import Tensor

from emslice.config.training import TrainConfig
from emslice.models.student import Student
from emslice.recipes.lesson import Lesson
from emslice.training.losses import pair_cosines, pair_loss


class Supervised(Lesson):
    """A student and its labels."""

    def __init__(self, config: TrainConfig, student: Student) -> None:
        super().__init__(config)
        self.student, self.needs = student, (config.crops,)

    def forward(self, batch: dict[str, dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Error to the labels."""
        crops = self.read(batch[self.config.crops])
        pairs = crops.pairs()
        cosine = pair_cosines(*self.student(pairs.raw))
        loss = pair_loss(cosine, pairs.labelled, self.compat)
        return {"labels": self.config.loss.labels * crops.n_pairs * loss}
