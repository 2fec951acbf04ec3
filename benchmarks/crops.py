"""What a training crop costs, by its shape and by what is done to it; and what a worker holds.

    python -m benchmarks.crops [--json] [--crops 60]

Reads ``EMSLICE_DATA`` (default ../shared/data): ac4_crop [0:70], in memory, and once as zarr read
crop by crop. One thread; seconds are those of the thread on a processor, of crops one after the
other. ``usual`` has the probabilities of the published training and rare defects, the other rows
do one thing to every crop. ``monai elastic`` is MONAI's own random transform over the same crop,
for comparison: raw and labels, elastic deformation and rotation, no context around the crop.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from emslice.training.augment import Augmentation
from emslice.training.crops import CropDataset
from emslice.training.defects import Defects
from emslice.training.sources import TrainingVolume, VolumeSpec
from emslice.volumes.importing import import_volume

DATA = Path(os.environ.get("EMSLICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
CROPS = {"pair": (2, 256, 256), "block": (18, 160, 160)}

NO_DEFECTS = Defects(
    missing=0, shift=0, misalignment=0, blur=0, dirt=0, noise=0,
    missing_sections=1, displacement=16, blur_sigma=3, dirt_spots=5, dirt_radius=20,
    noise_std=0.1,
)  # fmt: skip
NOTHING = Augmentation(
    probability=1, flip=0, rotate=0, rescale=0, elastic=0, grey=0,
    degrees=360, scale=0.2, elastic_alpha=16, elastic_sigma=4,
    contrast=0.3, brightness=0.3, gamma=1, defects=NO_DEFECTS,
)  # fmt: skip
WARPED = replace(NOTHING, flip=1, rotate=1, rescale=1, elastic=1)
ALL_DEFECTS = Defects(1, 1, 1, 1, 1, 1, 1, 16, 3, 5, 20, 0.1)
AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "usual": replace(
        NOTHING, probability=0.5, flip=0.5, rotate=0.5, rescale=0.5, elastic=0.5, grey=0.5,
        defects=Defects(0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 1, 16, 3, 5, 20, 0.1),
    ),
    "flip": replace(NOTHING, flip=1),
    "rotate": replace(NOTHING, rotate=1),
    "elastic": replace(NOTHING, elastic=1),
    "rotate, rescale, elastic": WARPED,
    "grey": replace(NOTHING, grey=1),
    "defects": replace(NOTHING, defects=ALL_DEFECTS),
    "everything": replace(WARPED, grey=1, defects=ALL_DEFECTS),
}  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line.")
@click.option("--crops", default=60, show_default=True, help="Crops of each row.")
def main(as_json: bool, crops: int) -> None:
    """Measure crops of ac4_crop."""
    torch.set_num_threads(1)
    start = time.thread_time()
    volume = open_volume(DATA / "ac4_crop.h5:raw", DATA / "ac4_crop.h5:labels", 2 << 30)
    volume.load()
    result: dict[str, Any] = {
        "load_s": time.thread_time() - start,
        "volume_mb": sum(t.nbytes for t in volume._memory.values()) / 1e6,
        "crop_ms": {},
        "private_mb_of_worker": {},
    }
    for kind, shape in CROPS.items():
        rows = {
            name: time_crops(CropDataset([volume], shape, augment, seed=0), crops)
            for name, augment in AUGMENTATIONS.items()
        }
        with stored_volume() as stored:
            dataset = CropDataset([stored], shape, AUGMENTATIONS["usual"], seed=0)
            rows["usual, crop by crop from zarr"] = time_crops(dataset, crops)
        rows["monai elastic"] = time_calls(monai_elastic(volume, shape), crops)
        result["crop_ms"][kind] = rows
        dataset = CropDataset([volume], shape, AUGMENTATIONS["everything"], seed=0)
        result["private_mb_of_worker"][kind] = private_mb(dataset, 20)
    result["load"] = os.getloadavg()
    print(json.dumps(result)) if as_json else show(result)


def open_volume(raw: Path, labels: Path, memory_bytes: int) -> TrainingVolume:
    """The training sections of AC4."""
    spec = VolumeSpec(str(raw), str(labels), None, (0, 70), None, 1.0, None)
    return TrainingVolume.open(spec, "data.train[0]", memory_bytes)


@contextmanager
def stored_volume() -> Iterator[TrainingVolume]:
    """The same as zarr in chunks of 16 x 128 x 128, too large for the memory that it may take."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "labels"):
            import_volume(
                f"{DATA / 'ac4_crop.h5'}:{name}", f"{folder}/{name}", chunk_shape=(16, 128, 128)
            )
        yield open_volume(Path(folder, "raw"), Path(folder, "labels"), 1)


def time_crops(dataset: CropDataset, n: int) -> dict[str, float]:
    """Milliseconds of a crop: median, mean, and what one in twenty exceeds."""
    numbers = iter(range(1 + n))
    return time_calls(lambda: dataset[next(numbers)], n)


def time_calls(call: Callable[[], Any], n: int) -> dict[str, float]:
    """Milliseconds of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(n):
        start = time.thread_time()
        call()
        times.append(1000 * (time.thread_time() - start))
    return {
        "median": statistics.median(times),
        "mean": statistics.mean(times),
        "p95": statistics.quantiles(times, n=20)[-1] if n > 1 else times[0],
    }


def monai_elastic(volume: TrainingVolume, shape: tuple[int, int, int]) -> Callable[[], Any]:
    """Function that deforms one crop by MONAI's own elastic transform, as documented there."""
    from monai.transforms import Rand2DElasticd

    sample = CropDataset([volume], shape, None, seed=0)[0]
    transform = Rand2DElasticd(
        keys=["raw", "labels"], spacing=(20, 20), magnitude_range=(1, 2), prob=1.0,
        rotate_range=(3.14,), mode=("bilinear", "nearest"), padding_mode="zeros",
    )  # fmt: skip
    transform.set_random_state(0)
    return lambda: transform({"raw": sample["raw"], "labels": sample["labels"].float()})


def private_mb(dataset: CropDataset, n: int) -> float:
    """Memory that a forked process has for itself after some crops, in MB."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        for index in range(n):
            dataset[index]
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        kb = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        os.write(theirs, str(kb).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(ours, 99)) * 1024 / 1e6


def show(result: dict[str, Any]) -> None:
    """Print tables."""
    print("| crop | augmentation | median ms | mean ms | 95 % ms | crops/s |")
    print("|---|---|---|---|---|---|")
    for kind, rows in result["crop_ms"].items():
        for name, ms in rows.items():
            print(f"| {kind} | {name} | {ms['median']:.1f} | {ms['mean']:.1f} | {ms['p95']:.1f} "
                  f"| {1000 / ms['mean']:.0f} |")  # fmt: skip
    print(f"read into memory: {result['load_s']:.1f} s, {result['volume_mb']:.0f} MB")
    for kind, mb in result["private_mb_of_worker"].items():
        print(f"private memory of a forked worker, {kind}: {mb:.0f} MB")
    print("load", *(f"{n:.1f}" for n in result["load"]))


if __name__ == "__main__":
    main()
