"""What test-time augmentation gives on real EM, and what it costs.

    python -m benchmarks.augment [--sections 0 40] [--networks cad_AC34 slicecrafter_wafer4]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop and the published students; a network may
also be the path of a checkpoint. Default parameters but for ``predict.augment`` and precision.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import h5py

import emslice
from emslice.models.augment import POSES

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def main() -> None:
    """Print a row for each student and augmentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, nargs=2, default=[0, 40])
    parser.add_argument("--networks", nargs="+", default=["cad_AC34", "slicecrafter_wafer4"])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    with h5py.File(DATA / "ac4_crop.h5") as file:
        raw, truth = (file[name][slice(*arguments.sections)] for name in ("raw", "labels"))
    print("| network | augment | poses | VOI split | VOI merge | VOI | ARAND | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for network in arguments.networks:
        for augment, poses in POSES.items():
            start = time.process_time()
            codes = emslice.predict_affinities(
                raw, network if "/" in network else DATA / "checkpoints" / f"{network}.ckpt",
                precision=arguments.precision, augment=augment, workers=arguments.workers,
            )  # fmt: skip
            seconds = time.process_time() - start
            s = emslice.evaluate(emslice.segment_affinities(codes), truth)
            print(f"| {Path(network).stem} | {augment} | {len(poses)} | {s.voi_split:.3f} | "
                  f"{s.voi_merge:.3f} | {s.voi:.3f} | {s.arand:.3f} | {seconds:.0f} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
