"""Every parameter of a segmentation, with its default and its bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from emslice.units import human_bytes, parse_bytes

Positive = Annotated[int, Field(ge=1)]
GreyValue = Annotated[float, Field(ge=0, le=255)]
Contrast = Annotated[float, Field(gt=0, le=255)]


DEFAULT_LOWEST = 0.3
"""Contagion grows below (design.md 8); between here and the threshold every cut is free."""

LEAST_NODE_MEMORY = 4096
"""Bytes. Below, every row would be a step."""


DEFAULT_RADIUS = {2: 64, 3: 32}
"""Voxels, by dimensions. In 3D the halo is paid along z as well (docs/design/0011)."""


class Strict(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaheConfig(Strict):
    """Contrast-limited adaptive histogram equalisation."""

    cell: Annotated[int, Field(ge=16, le=4096)] = 128
    """Voxels along a side of a cell; cells start at the origin of the volume."""

    clip: Annotated[float, Field(ge=1, le=256)] = 2.0
    """Most that a grey value may have, as a multiple of what each has in a flat histogram."""


class RawConfig(Strict):
    """How raw is read."""

    window: tuple[int, int] | None = None
    """Values that become black and white; needed for uint16."""

    normalize: Literal["auto", "none", "affine", "match", "clahe"] = "auto"
    """Grey values moved towards those of the network's training. affine: to their mean and
    standard deviation. match: every section to the histogram of the volume, then as affine.
    clahe: equalised cell by cell. auto: affine for the imported checkpoints for which that was
    measured to help and where a target is given, none otherwise. Raw 0 counts nowhere and stays
    0."""

    statistics: Literal["section", "volume"] = "section"
    """What affine measures: each section, or all of them together."""

    target: tuple[GreyValue, Contrast] | None = None
    """Mean and standard deviation, 0 to 255, for affine and match; by default what the
    checkpoint states."""

    clahe: ClaheConfig = ClaheConfig()


class PredictConfig(Strict):
    """How the network is run."""

    device: Literal["cpu", "cuda"] = "cpu"

    tile: Annotated[int, Field(ge=512, multiple_of=16)] = 1024
    """Longest side of a tile's core, voxels. Part of the compute profile."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and features. Resolved when a run is planned: float16 on GPUs, bfloat16 on
    processors that multiply it, else float32. Part of the compute profile."""

    crop: tuple[Positive, Positive, Positive] | None = None
    """Of 3D networks: voxels z, y, x of one call, by default as published."""

    stride: tuple[Positive, Positive, Positive] | None = None
    """Of 3D networks: voxels z, y, x from one call to the next, by default as published."""

    threads: Positive = 1
    """Threads of one operator. Part of the compute profile; workers are the way to use cores."""

    augment: Literal["none", "flips", "all"] = "none"
    """Poses that affinities are the mean over. flips: 4, along y, x, both and neither. all: 16,
    those, transposed or not, sections in order or in reverse. Time grows with their number."""


class FragmentsConfig(Strict):
    """How fragments are made."""

    method: Literal["rainfall", "flood", "mutex"] = "rainfall"
    """Only rainfall is the same in every blocking. flood (the published watershed) and mutex end
    fragments at the faces of a block along y and x, and need emslice[compare]."""

    dimensions: Literal[2, 3] = 2
    """2: section by section. 3: in the volume, for isotropic voxels; rainfall only."""

    radius: Annotated[int, Field(ge=1, le=255)] | None = None
    """Cap of rainfall's distance transform, and its halo, voxels; 64 in 2D, 32 in 3D."""

    @property
    def cap(self) -> int:
        """The radius, resolved."""
        return self.radius or DEFAULT_RADIUS[self.dimensions]


class AgglomerationConfig(Strict):
    """How fragments merge."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Affinity: merge while the score is at least this."""

    lowest_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Merges are kept down to here, so that any threshold above is available afterwards.
    By default 0.3, or the threshold if that is lower."""

    linkage: Literal["mean", "quantile_max", "quantile"] = "quantile_max"
    """Score of a pair: mean of its affinities, or a quantile: of the largest of each pair of
    fragments, or of all."""

    quantile: Annotated[int, Field(ge=0, le=99)] = 50
    """Percent, for quantile_max and quantile."""

    method: Literal["exact", "waterz"] = "exact"
    """Only exact is the same in every blocking. waterz needs emslice[compare], stored affinities
    and a block that holds the whole ROI, and knows no merge but those at the threshold."""

    node_memory: str | None = None
    """Memory for the graph of a node above the blocks, such as "4 GiB"; a larger graph is worked
    off in parts from disk. By default half of what a worker has. Never changes the result."""

    @field_validator("node_memory")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        if value is not None and parse_bytes(value) < LEAST_NODE_MEMORY:
            raise ValueError(f"a node needs at least {human_bytes(LEAST_NODE_MEMORY)}")
        return value

    @model_validator(mode="after")
    def _lowest_is_lowest(self) -> AgglomerationConfig:
        if self.lowest_threshold is not None and self.lowest_threshold > self.threshold:
            raise ValueError(
                f"lowest_threshold {self.lowest_threshold:g} is above threshold "
                f"{self.threshold:g}; lower it or leave it out"
            )
        return self

    @property
    def lowest(self) -> float:
        """Lowest threshold, resolved."""
        if self.lowest_threshold is None:
            return min(DEFAULT_LOWEST, self.threshold)
        return self.lowest_threshold


class DustConfig(Strict):
    """What becomes of small segments."""

    min_size: Annotated[int, Field(ge=0)] = 100
    """Voxels: a segment of fewer joins the neighbour of at least so many to which its affinities
    add up to the most. 0 leaves all as they are."""

    alone: Literal["drop", "keep"] = "drop"
    """Those that have no such neighbour become 0, or stay."""


class HandoverConfig(Strict):
    """Where affinities that are dropped wait until they are read. Never changes the result."""

    memory: str = "8 GiB"
    """How much may wait, about: predict goes on as fragments take it. What fits is predicted
    first, as a whole."""

    scratch: str | None = None
    """Folder on this machine, such as /dev/shm or that of a local disk; by default in RUN."""

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        parse_bytes(value)
        return value


class SegmentConfig(Strict):
    """A segmentation, from raw or from stored affinities."""

    checkpoint: str | None = None
    """Weights of a student or a 3D network; not needed for stored affinities."""

    roi: str | None = None
    """Box z0:z1,y0:y1,x0:x1 in voxels of the whole volume; by default all of it."""

    mask: str | None = None
    """Volume of integers or booleans over the same voxels; where it is 0, they are left out."""

    affinities: Literal["keep", "drop"] = "drop"

    block: tuple[Positive, Positive, Positive] | None = None
    """Unit of work, voxels z, y, x; (32, 512, 512) by default, (128, 256, 256)
    for fragments in 3D. Never changes the result of the default methods."""

    workers: Positive | None = None
    """By default one for each core."""

    raw: RawConfig = RawConfig()
    predict: PredictConfig = PredictConfig()
    handover: HandoverConfig = HandoverConfig()
    fragments: FragmentsConfig = FragmentsConfig()
    agglomeration: AgglomerationConfig = AgglomerationConfig()
    dust: DustConfig = DustConfig()
