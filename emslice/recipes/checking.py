"""What is missing or wrong in the data of a training."""

from __future__ import annotations

from pathlib import Path

from emslice.config.load import load_as
from emslice.config.training import TrainConfig
from emslice.errors import EmsliceError
from emslice.recipes.datasets import Named, name_volumes, open_volume
from emslice.volumes.layouts import check_layout, dataset_layout


def check_data(
    file: str | Path | None, layout: str | None, root: str | None
) -> tuple[list[str], list[str]]:
    """A line for each volume that is sound, and one for each thing that is wrong.

    Raises
    ------
    ConfigError
        The configuration itself is wrong, or the layout unknown.
    """
    if file is None:
        assert layout is not None
        problems = [str(finding) for finding in check_layout(layout, root or ".")]
        parts = [] if problems else dataset_layout(layout, root or ".")
        return [f"{part.split}: {part.raw}, sections {part.sections or 'all'}" for part in parts], (
            problems
        )
    config = load_as(TrainConfig, file, (), {"data.root": root})
    data = config.data
    problems = []
    if data.layout is not None:
        problems = [str(finding) for finding in check_layout(data.layout, data.root or ".")]
        if problems:
            return [], problems
    found = []
    for named in [volume for part in name_volumes(data) for volume in part]:
        try:
            found.append(_describe(named, config))
        except EmsliceError as error:
            problems.append(str(error))
    return found, problems


def _describe(named: Named, config: TrainConfig) -> str:
    volume = open_volume(named, config.data)
    shape = " x ".join(str(n) for n in volume.shape)
    kind = "labelled" if volume.labelled else "unlabelled"
    return f"{named.key}: {named.volume.raw}, {shape} voxels z, y, x, {kind}"
