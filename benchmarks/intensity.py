"""What each normalisation of raw gives with each published student on real EM.

    python -m benchmarks.intensity [--sections 40] [--students cad_wafer4 ...] [--picture FILE]
    python -m benchmarks.intensity --crops 5 --sections 20 --precision auto

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop and the published students; default
parameters but for ``raw.normalize``. Several crops follow each other along z, each a volume of its
own. The picture is that of the first student: raw as the network sees it, and its affinities.
"""

from __future__ import annotations

import argparse
import itertools
import os
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


def crops(sections: int, n: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint16]]]:
    """Raw and truth of crops one behind the other."""
    with h5py.File(DATA / "ac4_crop.h5") as file:
        boxes = [slice(k * sections, (k + 1) * sections) for k in range(n)]
        return [(file["raw"][box], file["labels"][box]) for box in boxes]


def main() -> None:
    """Print a row for each student, mode and crop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=40)
    parser.add_argument("--crops", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--students", nargs="+", default=list(INTENSITY))
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    print("| student | normalize | first | grey | VOI split | VOI merge | VOI | ARAND |")
    print("|---|---|---|---|---|---|---|---|")
    panels: list[tuple[str, NDArray[np.uint8]]] = []
    for student, mode in itertools.product(given.students, given.modes):
        checkpoint = DATA / "checkpoints" / f"{student}.ckpt"
        for k, (raw, truth) in enumerate(crops(given.sections, given.crops)):
            shown = grey_values(raw, checkpoint, MODES[mode])
            codes = emslice.predict_affinities(
                raw, checkpoint, precision=given.precision, **MODES[mode]
            )
            s = emslice.evaluate(emslice.segment_affinities(codes), truth)
            level = f"{shown[raw > 0].mean():.0f} / {shown[raw > 0].std():.0f}"
            print(f"| {student} | {mode} | {k * given.sections} | {level} | {s.voi_split:.3f} | "
                  f"{s.voi_merge:.3f} | {s.voi:.3f} | {s.arand:.3f} |", flush=True)  # fmt: skip
            if student == given.students[0] and k == 0 and given.sections > SHOWN:
                panels += [(f"raw, {mode}", grey(shown[SHOWN])),
                           (f"affinity, {mode}", affinity_colours(codes[:, SHOWN]))]  # fmt: skip
    if given.picture is not None:
        save_panels(given.picture, panels)


if __name__ == "__main__":
    main()
