"""Peak memory of a pipeline, in a process of its own.

    python -m benchmarks.peak_memory ours|published CODES.npy

The baseline is the resident size once everything is imported and compiled and the pipeline has run
on a corner of the data, and the kernel's high-water mark is set back there. The affinities are
loaded after it: 3 bytes a voxel as codes, 12 more as the floats that waterz reads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.pipelines import Watch, as_floats, our_tree, run_published

STATUS = Path("/proc/self/status")


def bytes_per_voxel(which: str, codes: Path) -> float:
    """Growth of the peak of a fresh process over its baseline, by the voxels."""
    command = [sys.executable, "-m", __spec__.name, which, str(codes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return float(done.stdout.split()[-1])


def main(which: str, path: str) -> None:
    """Print bytes a voxel."""
    corner = np.ascontiguousarray(np.load(path, mmap_mode="r")[:, :2, :64, :64])
    _run(which, corner)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _kib("VmRSS")
    codes = np.load(path)
    _run(which, codes)
    print((_kib("VmHWM") - before) * 1024 / codes[0].size)


def _run(which: str, codes: np.ndarray) -> None:
    if which == "ours":
        our_tree(codes, Watch())
    else:
        run_published(as_floats(codes), codes)


def _kib(name: str) -> int:
    line = next(text for text in STATUS.read_text().splitlines() if text.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
