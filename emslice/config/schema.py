"""Every parameter of a segmentation, with its default and its bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]


DEFAULT_LOWEST = 0.3
"""Contagion grows below (design.md 8); between here and the threshold every cut is free."""


class Strict(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RawConfig(Strict):
    """How raw is read."""

    window: tuple[int, int] | None = None
    """Values that become black and white; needed for uint16."""


class PredictConfig(Strict):
    """How the network is run."""

    device: Literal["cpu", "cuda"] = "cpu"

    tile: Annotated[int, Field(ge=512, multiple_of=16)] = 1024
    """Longest side of a tile's core, voxels. Part of the compute profile."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of weights and features. Resolved when a run is planned: bfloat16 on processors that
    multiply it, else float32. Part of the compute profile."""

    threads: Positive = 1
    """Threads of one operator. Part of the compute profile; workers are the way to use cores."""


class FragmentsConfig(Strict):
    """How fragments are made."""

    radius: Annotated[int, Field(ge=1, le=255)] = 64
    """Cap of the distance transform and halo of the stage, voxels."""


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


class SegmentConfig(Strict):
    """A segmentation, from raw or from stored affinities."""

    checkpoint: str | None = None
    """Weights of the student; not needed for stored affinities."""

    roi: str | None = None
    """Box z0:z1,y0:y1,x0:x1 in voxels of the whole volume; by default all of it."""

    affinities: Literal["keep", "drop"] = "drop"

    block: tuple[Positive, Positive, Positive] | None = None
    """Unit of work, voxels z, y, x; (32, 512, 512) by default. Never changes the result."""

    workers: Positive | None = None
    """By default one for each core."""

    raw: RawConfig = RawConfig()
    predict: PredictConfig = PredictConfig()
    fragments: FragmentsConfig = FragmentsConfig()
    agglomeration: AgglomerationConfig = AgglomerationConfig()
