"""CAD and inter-architecture distillation (EM-SliceCrafter): a SAM teacher sharpens boundaries.

    emslice train cad_iad --config configs/train/ac4_small.yaml --out runs/cad_iad

One step: what CAD does
          pairs of sections -> frozen SAM features -> the adapter's embeddings and affinities
               -> error of student and adapter to the labels
               -> error of one to the other (IAD), which moves both
               -> error of pairs of which one section is the student's, one the adapter's (FGI)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from emslice.config.training import TrainConfig
from emslice.models.sam_adapter import SamAdapter
from emslice.models.sam_encoders import SectionEncoder
from emslice.models.student import Student
from emslice.models.superhuman import Superhuman
from emslice.recipes.cad import Cad
from emslice.training.distill import cross_graft_loss, distillation_loss
from emslice.training.losses import pair_cosines, pair_loss
from emslice.training.teaching import Cache, FrozenTeacher


class CadIad(Cad):
    """A student, its 3D teacher, and a SAM teacher."""

    needs = ("volume", "pairs")

    def __init__(
        self,
        config: TrainConfig,
        student: Student,
        teacher: Superhuman | FrozenTeacher,
        encoder: SectionEncoder,
        adapter: SamAdapter,
        cache: Cache | None = None,
    ) -> None:
        super().__init__(config, student, teacher)
        self.encoder, self.adapter, self._cache = encoder, adapter, cache

    def forward(self, batch: dict[str, dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Errors to labels and both teachers."""
        losses, weight = super().forward(batch, step), self.config.loss
        pairs = self.read(batch["pairs"]).pairs()
        student, sam = self.student(pairs.raw), self._adapted(pairs.raw)
        ours, theirs = pair_cosines(*student), pair_cosines(*sam)
        labels = pair_loss(ours, pairs.labelled, self.compat)
        losses["pair_labels"] = weight.labels * labels
        losses["sam_labels"] = weight.sam_labels * pair_loss(theirs, pairs.labelled, self.compat)
        losses["consistency"] = weight.consistency * distillation_loss(
            ours, theirs.clamp(0, 1), pairs.targets, clipped=True
        )  # the plain square: both are moved, and neither is the truth
        if weight.cross_graft:
            grafted = cross_graft_loss(student, sam, pairs.labelled, self.compat)
            losses["cross_graft"] = weight.cross_graft * grafted
        return losses

    def _adapted(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The SAM teacher's embeddings of both sections of pairs."""
        sections = torch.cat(raw.split(1, 1))
        encode: Callable[[Tensor], Tensor] = self.encoder
        features = encode(sections) if self._cache is None else self._cache(encode, sections)
        before, here = self.adapter(*features.chunk(2))
        return before, here
