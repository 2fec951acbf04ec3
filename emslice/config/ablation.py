"""An ablation: variants of a training, each with several seeds, scored on one test set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emslice.config.load import load_as
from emslice.config.schema import Strict
from emslice.config.training import TrainConfig


class VariantConfig(Strict):
    """One way to train."""

    recipe: str
    set: dict[str, Any] = Field(default={})
    """Dotted keys of the training that differ. In a text, ``{name}`` stands for the best checkpoint
    of the training of that name below ``first``."""


class AblationConfig(Strict):
    """What is trained, and on what it is scored."""

    train: str
    """Training configuration that all start from; a path from the folder of this file."""

    evaluate: str
    """Test set, likewise."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)

    baselines: tuple[str, ...] = ("raw",)
    """Checkpoints that are scored beside the variants; raw is the one without a network."""

    first: dict[str, VariantConfig] = Field(default={})
    """Trained once, before the variants: their teachers."""

    variants: Annotated[dict[str, VariantConfig], Field(min_length=1)]


def load_ablation(file: str | Path) -> AblationConfig:
    """Checked configuration of an ablation; its paths are resolved.

    Raises
    ------
    ConfigError
        Unreadable file, unknown key, value of the wrong kind.
    """
    config = load_as(AblationConfig, file)
    folder = Path(file).parent
    places = {name: str(folder / getattr(config, name)) for name in ("train", "evaluate")}
    return config.model_copy(update=places)


def variant_config(
    ablation: AblationConfig, variant: VariantConfig, root: str | None, seed: int, **names: str
) -> TrainConfig:
    """Configuration of one training of an ablation; ``names`` are what ``{name}`` stands for."""
    changes = {"seed": seed, **({"data.root": root} if root else {}), **variant.set}
    assignments = [f"{key}={json.dumps(_filled(value, names))}" for key, value in changes.items()]
    return load_as(TrainConfig, ablation.train, assignments)


def _filled(value: Any, names: dict[str, str]) -> Any:
    """A value with the texts in it filled in."""
    if isinstance(value, dict):
        return {key: _filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, names) for inner in value]
    return value.format(**names) if isinstance(value, str) else value
