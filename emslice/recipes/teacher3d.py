"""Teacher: a 3D network learns from labels; afterwards it may teach, frozen.

    emslice train teacher3d --config configs/train/ac4_small.yaml --out runs/teacher

One step: crops -> an embedding of every voxel -> cosines at 12 offsets (3 with teacher.channels)
               -> weighted squared error to the affinities of the labels, near ones ten times
"""

from __future__ import annotations

from torch import Tensor

from emslice.config.training import OFFSETS, TrainConfig
from emslice.models.superhuman import Superhuman
from emslice.recipes.lesson import Lesson
from emslice.training.losses import volume_cosines, volume_loss
from emslice.training.targets import volume_targets


class Teacher3d(Lesson):
    """A 3D network and its labels."""

    product = "teacher"
    needs = ("volume",)

    def __init__(self, config: TrainConfig, teacher: Superhuman) -> None:
        super().__init__(config)
        self.teacher = teacher
        self.offsets = OFFSETS[config.teacher.channels]

    def forward(self, batch: dict[str, dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Error to the labels."""
        crops = self.read(batch["volume"])
        cosine = volume_cosines(self.teacher(crops.raw[:, None]), self.offsets)
        targets = volume_targets(crops.labels, crops.known, self.offsets)
        return {"teacher": volume_loss(cosine, targets, self.config.teacher.near)}
