"""Every parameter of a training, with its default and its bounds.

Defaults are those of the published trainings (CAD, EM-SliceCrafter) except where a comment says
what is better and why.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from emslice.config.schema import Positive, Strict
from emslice.geometry.neighborhood import NEIGHBORHOODS
from emslice.units import parse_bytes


def _is_a_size(value: str) -> str:
    parse_bytes(value)
    return value


Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Memory = Annotated[str, AfterValidator(_is_a_size)]
Triple = tuple[Positive, Positive, Positive]


class VolumeConfig(Strict):
    """A volume to train or to validate on."""

    raw: str
    """zarr or N5 volume, or file.h5:dataset, TIFF, .npy."""

    labels: str | None = None
    """Integers over the same voxels, 0 is background; without it the volume is unlabelled."""

    mask: str | None = None
    """Where it is 0, voxels are not used."""

    sections: tuple[Annotated[int, Field(ge=0)], Positive] | None = None
    """First section and the one after the last; by default all."""

    roi: str | None = None
    """Box z0:z1,y0:y1,x0:x1, instead of ``sections``."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often crops come from it, beside the others."""

    window: tuple[int, int] | None = None
    """Values that become black and white; needed for uint16."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> VolumeConfig:
        if self.sections and self.roi:
            raise ValueError("give sections or roi, not both")
        if self.sections and self.sections[0] >= self.sections[1]:
            raise ValueError(f"sections {list(self.sections)} are none; the second is not in them")
        return self


class CropConfig(Strict):
    """What a step is shown."""

    crop: Triple
    batch: Positive


class DataConfig(Strict):
    """Where crops come from."""

    root: str | None = None
    """Folder from which paths that are not absolute start; by default the current one."""

    layout: str | None = None
    """Data set as its authors ship it below root, instead of ``train``: `layouts.LAYOUTS`."""

    hold_out: Annotated[int, Field(ge=0)] = 10
    """Last training sections of each volume of a layout that says nothing of validation: they
    choose the best step instead. The released code chooses it on the test sections."""

    train: tuple[VolumeConfig, ...] = ()

    validate_on: tuple[VolumeConfig, ...] = ()
    """Held out, to choose the best step; never what is reported. None: the last step is it."""

    resolution_nm: tuple[float, float, float] | None = None
    """Voxel size z, y, x, where the volumes do not state it."""

    pairs: CropConfig = CropConfig(crop=(2, 256, 256), batch=16)
    """For what is learned from pairs of sections."""

    volume: CropConfig = CropConfig(crop=(18, 160, 160), batch=2)
    """For what is learned with a 3D teacher."""

    widen_border: bool = True
    """Background where the 3 x 3 voxels around hold two neurons."""

    min_labelled: Share = 0.0
    """Least share of labelled voxels of a crop of a labelled volume."""

    distinct: Positive | None = None
    """Different crops of each kind; then they come again. Teachers' outputs are kept for them."""

    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that make crops. Never changes the weights."""

    memory: Memory = "2 GiB"
    """Up to which a volume is read once and held."""

    @field_validator("validate_on", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return (value,)
        return () if value is None else value

    @model_validator(mode="after")
    def _something_to_train_on(self) -> DataConfig:
        if bool(self.layout) == bool(self.train):
            raise ValueError("give the volumes to train on, or a layout (and not both)")
        return self


class DefectConfig(Strict):
    """Defects of EM that crops are given: the share of augmented crops that have each."""

    missing: Share = 0.0
    """Neighbouring sections are blank; nothing is asked of them."""
    shift: Share = 0.0
    """A section, labels too, lies elsewhere."""
    misalignment: Share = 0.0
    """All sections from one on do."""
    blur: Share = 0.0
    dirt: Share = 0.0
    noise: Share = 0.0
    missing_sections: Positive = 1
    displacement: Annotated[int, Field(ge=0)] = 16
    """Most voxels along y and x."""
    blur_sigma: NotNegative = 3.0
    dirt_spots: Positive = 5
    dirt_radius: NotNegative = 12.0
    noise_std: NotNegative = 0.1


class AugmentConfig(Strict):
    """How crops are changed; nothing here moves raw without its labels."""

    probability: Share = 0.5
    """That a crop is changed at all; each change below then has a probability of its own."""
    flip: Share = 0.5
    rotate: Share = 0.5
    rescale: Share = 0.5
    elastic: Share = 0.5
    grey: Share = 0.5
    degrees: Annotated[float, Field(ge=0, le=360)] = 360.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.2
    elastic_alpha: NotNegative = 16.0
    elastic_sigma: Annotated[float, Field(gt=0)] = 4.0
    contrast: NotNegative = 0.3
    brightness: NotNegative = 0.3
    gamma: NotNegative = 1.0
    """Power of 2, at most, of the exponent."""
    defects: DefectConfig = DefectConfig()


class StudentConfig(Strict):
    """The two-section network."""

    features: Positive = 16
    embedding: Positive = 16
    weights: str | None = None
    """Checkpoint to begin with."""


class TeacherConfig(Strict):
    """The 3D network that teaches, or is itself trained."""

    network: Literal["superhuman"] = "superhuman"
    filters: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=5)] = (
        28, 36, 48, 64, 80,
    )  # fmt: skip
    embedding: Positive = 16
    weights: str | None = None
    """Checkpoint to begin with."""

    frozen: bool = False
    """Not trained; needs ``weights``."""

    mutual: bool = False
    """Whether what the student is taught moves a teacher that is trained with it. The released
    code lets it; a teacher that gives way teaches less."""

    momentum: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Of batch normalisation: how much of its statistics is of the last step. As published, they
    need thousands of steps; a short training wants 0.05."""

    channels: Literal[3, 12] = 12
    """Links that it is trained on."""

    near: NotNegative = 10.0
    """How often its three nearest links count."""

    poses: Literal["none", "flips"] = "none"
    """Of a frozen teacher: affinities that are the mean over 1 or 4 poses."""

    cache: str | None = None
    """Folder for the outputs of a frozen teacher, as float16; with ``data.distinct``, since a crop
    that never comes again is never looked up."""

    @model_validator(mode="after")
    def _frozen_has_weights(self) -> TeacherConfig:
        if self.frozen and self.weights is None:
            raise ValueError("a frozen teacher needs teacher.weights")
        if not self.frozen and (self.poses != "none" or self.cache):
            raise ValueError("poses and cache are for a frozen teacher; set teacher.frozen")
        if self.frozen and self.mutual:
            raise ValueError("a frozen teacher is not moved; drop teacher.frozen or teacher.mutual")
        return self


class SamConfig(Strict):
    """The SAM teacher: a frozen encoder of sections and an adapter that is trained."""

    encoder: Literal["sam2", "sam", "mobile_sam"] = "sam2"
    size: str | None = None
    """A published size, told by the weights if missing; or random_tiny: not SAM, for trials."""
    weights: str | None = None
    """File on this machine; nothing is fetched."""
    sha256: str | None = None
    """Of that file; another one is refused."""
    standardise: bool = False
    """Whether sections get the mean and deviation of natural images; as published, not."""
    cache: str | None = None
    """Folder for features, as float16, so that no section is encoded twice."""
    cache_limit: Memory = "20 GiB"

    @model_validator(mode="after")
    def _real_needs_weights(self) -> SamConfig:
        if self.weights is None and not (self.size or "").startswith("random"):
            raise ValueError(
                "sam.weights: no file is given. Fetch the encoder's checkpoint and name it, or "
                "set sam.size=random_tiny for a trial without SAM"
            )
        return self


class LossConfig(Strict):
    """What each part of the loss counts."""

    labels: NotNegative = 1.0
    """Of the student's affinities to the labels."""
    distill: NotNegative = 1.0
    """Of its affinities to the 3D teacher's (CAD)."""
    fgi: NotNegative = 0.1
    """Of its sections grafted into the 3D teacher's volume; 0: no grafting."""
    consistency: NotNegative = 0.02
    """Between student and SAM teacher (IAD)."""
    sam_labels: NotNegative = 1.0
    """Of the SAM teacher's affinities to the labels."""
    cross_graft: NotNegative = 0.1
    """Of the student's sections paired with the SAM teacher's; 0: none."""
    start: Annotated[int, Field(ge=0)] = 10_000
    """Step from which the 3D teacher teaches."""


class OptimiserConfig(Strict):
    """How weights move. Adam."""

    rate: Annotated[float, Field(gt=0)] = 1e-4
    teacher_ratio: Annotated[float, Field(gt=0)] = 1.0
    """The teachers' rate, as a multiple."""
    schedule: Literal["constant", "poly", "one_cycle"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps in which the rate grows to its value; of one_cycle too."""
    end_rate: NotNegative = 0.0
    power: Annotated[float, Field(gt=0)] = 1.5
    """Of poly."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 0.01
    amsgrad: bool = True
    weight_decay: NotNegative = 1e-6
    clip: Annotated[float, Field(gt=0)] | None = None
    """Longest gradient."""


class ValidateConfig(Strict):
    """How the best step is found: the held-out volume, segmented."""

    every: Positive = 1000
    start: Annotated[int, Field(ge=0)] = 0
    """Step before which it is not worth it."""
    choose: Literal["best", "default"] = "best"
    """VOI at the best threshold, or at 0.5."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of the prediction, which is made on the processor."""
    tile: Annotated[int, Field(ge=512, multiple_of=16)] = 1024
    crop: Triple | None = None
    stride: Triple | None = None
    """Of a 3D network, as in predict."""


class TrainConfig(Strict):
    """A training, by any recipe."""

    steps: Positive = 200_000
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of first weights, crops and augmentation."""

    crops: Literal["pairs", "volume"] = "pairs"
    """Of supervised: pairs, or all pairs of the crops that a 3D teacher would see."""

    reference_compat: bool = False
    """Do as the released code does where that differs from its paper (docs/design/0018)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of a step; weights stay float32."""
    threads: Positive | None = None
    """Of a process on a CPU; by default one for each core. Part of what decides the weights."""

    save_every: Positive = 1000
    log_every: Positive = 10

    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    student: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    sam: SamConfig | None = None
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    validation: ValidateConfig = ValidateConfig()

    @model_validator(mode="after")
    def _cache_is_hit(self) -> TrainConfig:
        if self.teacher.cache and self.data.distinct is None:
            raise ValueError("teacher.cache would fill up unread; set data.distinct as well")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> TrainConfig:
        if self.optimiser.warmup > self.steps:
            raise ValueError(
                f"optimiser.warmup {self.optimiser.warmup} is longer than steps {self.steps}"
            )
        return self


OFFSETS = {channels: NEIGHBORHOODS[channels] for channels in (3, 12)}
