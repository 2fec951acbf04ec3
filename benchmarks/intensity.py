"""What each normalisation of raw gives with each published student on real EM.

    python -m benchmarks.intensity [--sections 40] [--students cad_wafer4 ...] [--picture FILE]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop and the published students. Float32,
default parameters but for ``raw.normalize``. The picture is that of the first student: raw as the
network sees it, and its affinities.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import emslice
from emslice.config.schema import RawConfig
from emslice.models.checkpoint import INTENSITY, load_checkpoint
from emslice.service.normalising import choose_normalisation
from emslice.stages.intensity import CountedLevels
from emslice.viewer.panels import affinity_colours, grey, save_panels
from emslice.volumes import ArrayVolume

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
MODES: dict[str, dict[str, Any]] = {
    "none": {"normalize": "none"},
    "affine": {"normalize": "affine"},
    "affine, volume": {"normalize": "affine", "statistics": "volume"},
    "match": {"normalize": "match"},
    "clahe": {"normalize": "clahe"},
}
SHOWN = 20
"""Section of the picture."""


def grey_values(raw: NDArray[np.uint8], checkpoint: Path, options: dict[str, Any]) -> Any:
    """What the network sees."""
    chosen = choose_normalisation(RawConfig(**options), load_checkpoint(checkpoint))
    volume = ArrayVolume(raw)
    return chosen.over(None, CountedLevels(volume, None, chosen.cell))(raw, volume.roi)


def main() -> None:
    """Print a row for each student and mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=40)
    parser.add_argument("--students", nargs="+", default=list(INTENSITY))
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with h5py.File(DATA / "ac4_crop.h5") as file:
        raw, truth = file["raw"][: arguments.sections], file["labels"][: arguments.sections]
    print("| student | normalize | grey | VOI split | VOI merge | VOI | ARAND | s |")
    print("|---|---|---|---|---|---|---|---|")
    panels: list[tuple[str, NDArray[np.uint8]]] = []
    for student in arguments.students:
        for mode, options in MODES.items():
            checkpoint = DATA / "checkpoints" / f"{student}.ckpt"
            shown = grey_values(raw, checkpoint, options)
            start = time.perf_counter()
            codes = emslice.predict_affinities(raw, checkpoint, precision="float32", **options)
            seconds = time.perf_counter() - start
            s = emslice.evaluate(emslice.segment_affinities(codes), truth)
            level = f"{shown[raw > 0].mean():.0f} / {shown[raw > 0].std():.0f}"
            print(f"| {student} | {mode} | {level} | {s.voi_split:.3f} | {s.voi_merge:.3f} | "
                  f"{s.voi:.3f} | {s.arand:.3f} | {seconds:.0f} |", flush=True)  # fmt: skip
            if student == arguments.students[0]:
                panels += [(f"raw, {mode}", grey(shown[SHOWN])),
                           (f"affinity, {mode}", affinity_colours(codes[:, SHOWN]))]  # fmt: skip
    if arguments.picture is not None:
        save_panels(arguments.picture, panels)


if __name__ == "__main__":
    main()
