"""Cross-dimension affinity distillation (CAD, CVPR 2024): a 3D teacher teaches a 2D student.

    emslice train cad --config configs/train/ac4_small.yaml --out runs/cad

One step: crops -> the teacher's embeddings -> its error to the labels, unless it is frozen
          all pairs of adjacent sections -> the student's embeddings and affinities
               -> error to the labels
               -> error to the teacher's affinities, from step loss.start on
               -> error of its sections grafted into the teacher's volume (FGI), likewise
"""

from __future__ import annotations

from torch import Tensor

from emslice.config.training import OFFSETS, TrainConfig
from emslice.models.student import Student
from emslice.models.superhuman import Superhuman
from emslice.recipes.lesson import Crops, Lesson, embed
from emslice.training.distill import distillation_loss, fgi_loss, released_fgi, taught_affinity
from emslice.training.losses import pair_cosines, pair_loss, volume_cosines, volume_loss
from emslice.training.targets import volume_targets
from emslice.training.teaching import FrozenTeacher

LEAKED = 27
"""Columns that the released code leaves out, where it grafts: a variable used twice."""


class Cad(Lesson):
    """A student, and a 3D teacher that learns with it or is frozen."""

    needs: tuple[str, ...] = ("volume",)

    def __init__(
        self, config: TrainConfig, student: Student, teacher: Superhuman | FrozenTeacher
    ) -> None:
        super().__init__(config)
        self.student, self.teacher = student, teacher
        self.offsets = OFFSETS[config.teacher.channels]

    def forward(self, batch: dict[str, dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Errors to labels and teacher."""
        crops, weight = self.read(batch["volume"]), self.config.loss
        losses, volume, affinity = self._teach(crops)
        pairs, n = crops.pairs(), crops.n_pairs  # whose losses add up
        sections = embed(self.student, pairs.raw, n if self.compat else 0)
        cosine = pair_cosines(*sections)
        losses["labels"] = weight.labels * n * pair_loss(cosine, pairs.labelled, self.compat)
        if step < weight.start:
            return losses
        skipped = LEAKED if self.compat and weight.fgi else 0
        losses["distill"] = weight.distill * n * distillation_loss(
            cosine, taught_affinity(affinity), pairs.targets, self.compat, skipped
        )  # fmt: skip
        if weight.fgi:
            losses["fgi"] = weight.fgi * self._graft(sections, volume, crops)
        return losses

    def _teach(self, crops: Crops) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """What the teacher learns itself, its embedding, and the affinities that it teaches."""
        if isinstance(self.teacher, FrozenTeacher):
            return {}, *self.teacher(crops.raw)
        volume = self.teacher(crops.raw[:, None])
        cosine = volume_cosines(volume, self.offsets)
        targets = volume_targets(crops.labels, crops.known, self.offsets)
        losses = {"teacher": volume_loss(cosine, targets, self.config.teacher.near)}
        if not (self.config.teacher.mutual or self.compat):
            volume, cosine = volume.detach(), cosine.detach()
        return losses, volume, cosine

    def _graft(self, sections: tuple[Tensor, Tensor], volume: Tensor, crops: Crops) -> Tensor:
        if self.compat:
            return released_fgi(
                *sections, volume, volume_targets(crops.labels, crops.known, self.offsets)
            )
        return crops.n_pairs * fgi_loss(*sections, volume, crops.labels, crops.known)
