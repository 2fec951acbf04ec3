"""The demo: a synthetic volume on disk, the main job, scores and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from emslice.config.load import load_config
from emslice.demo.synthetic import synthetic_em
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.metrics import Scores
from emslice.service.evaluate import evaluate_volumes
from emslice.service.plan import plan_from_raw
from emslice.service.record import RunRecord
from emslice.service.reporting import Reporter
from emslice.service.segment import segment
from emslice.viewer.panels import affinity_colours, grey, label_colours, save_panels
from emslice.volumes import create_volume, open_volume

RESOLUTION_NM = (30.0, 6.0, 6.0)


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    folder: Path
    record: RunRecord
    scores: Scores

    @property
    def picture(self) -> Path:
        """Raw, affinity, segmentation and truth of the middle section."""
        return self.folder / "demo.png"


def run_demo(
    folder: str | Path, reporter: Reporter, shape: tuple[int, int, int] = (48, 256, 256)
) -> Demo:
    """Make a synthetic volume, segment it with the shipped student, score it, draw it.

    Raises
    ------
    ConfigError
        ``folder`` exists and is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: already exists. Choose another name, or remove it.")
    with reporter.stage("synthesize", int(np.prod(shape))) as advance:
        raw, truth = synthetic_em(shape, seed=0)
        for name, array in (("raw.zarr", raw), ("truth.zarr", truth)):
            volume = create_volume(
                folder / name, shape=shape, dtype=array.dtype, resolution_nm=RESOLUTION_NM
            )
            volume.write(volume.roi, array)
        advance(raw.size)
    with as_file(files("emslice.demo") / "student.ckpt") as checkpoint:
        config = load_config(options={"checkpoint": str(checkpoint), "affinities": "keep"})
        plan = plan_from_raw(str(folder / "raw.zarr"), folder / "run", config)
        record = segment(plan, reporter)
    segmentation = folder / "run" / "segmentation.zarr"
    demo = Demo(folder, record, evaluate_volumes(str(segmentation), str(folder / "truth.zarr")))
    _draw(demo)
    return demo


def _draw(demo: Demo) -> None:
    names = ("raw.zarr", "run/affinities.zarr", "run/segmentation.zarr", "truth.zarr")
    volumes = [open_volume(demo.folder / name) for name in names]
    _, height, width = volumes[0].roi.shape
    middle = int(volumes[0].roi.shape[0]) // 2
    section = Roi((middle, 0, 0), (1, height, width))
    raw, affinity, segmentation, truth = (volume.read(section) for volume in volumes)
    panels = [
        (f"raw, section {middle}", grey(raw[0])),
        ("affinity (z, y, x = red, green, blue)", affinity_colours(affinity[:, 0])),
        ("segmentation", label_colours(segmentation[0], raw[0])),
        ("truth", label_colours(truth[0].astype(np.uint64), raw[0])),
    ]
    save_panels(demo.picture, panels)
