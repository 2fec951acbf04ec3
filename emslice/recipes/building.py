"""From a configuration to networks, crops and a loop; everything is checked before any step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import nn

from emslice.config.training import CropConfig, TrainConfig
from emslice.errors import CheckpointError, ConfigError
from emslice.models.checkpoint import load_checkpoint
from emslice.models.networks import Network
from emslice.models.student import Student
from emslice.models.superhuman import Superhuman
from emslice.recipes.cad import Cad
from emslice.recipes.lesson import Lesson
from emslice.recipes.supervised import Supervised
from emslice.recipes.teacher3d import Teacher3d
from emslice.training.augment import Augmentation
from emslice.training.crops import CropDataset, make_loader
from emslice.training.defects import Defects
from emslice.training.features import FeatureCache
from emslice.training.loop import Batch
from emslice.training.sources import TrainingVolume
from emslice.training.teaching import FrozenTeacher
from emslice.units import parse_bytes

RECIPES = {
    "supervised": "A student learns from labels alone.",
    "teacher3d": "A 3D network learns from labels.",
    "cad": "A 3D teacher teaches a student (CAD; FGI).",
    "cad_iad": "CAD, and a SAM teacher beside it (EM-SliceCrafter; IAD, FGI).",
}
"""What `emslice train` knows, in a line each."""

VERSION = 1
"""Raised when a frozen teacher would say something else of the same crop."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_fabric(config: TrainConfig) -> Fabric:
    """Devices, precision and processes.

    Raises
    ------
    ConfigError
        No such device.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of each choice
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if torch.cuda.device_count() < config.devices:
            raise ConfigError(
                f"device: {config.devices} GPUs are asked for, torch sees "
                f"{torch.cuda.device_count()}. Set device=cpu, or fewer devices."
            )
        # Some backward passes of resampling have no such kernel; they warn.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
    precision: Literal["32-true", "bf16-mixed"] = (
        "32-true" if config.precision == "float32" else "bf16-mixed"
    )
    strategy = "ddp" if config.devices > 1 else "auto"
    return Fabric(
        accelerator=device, strategy=strategy, devices=config.devices, precision=precision
    )


def resolution_of(volumes: list[TrainingVolume], config: TrainConfig) -> tuple[float, float, float]:
    """Voxel size of the training data in nm, zyx.

    Raises
    ------
    ConfigError
        Neither the volumes nor the configuration state it.
    """
    stated = config.data.resolution_nm or next(
        (v.resolution_nm for v in volumes if v.resolution_nm), None
    )
    if stated is None:
        raise ConfigError(
            "data.resolution_nm: the volumes do not state their voxel size; give it in "
            "nanometres, z,y,x."
        )
    return stated


def make_crops(
    config: TrainConfig, kinds: tuple[str, ...], volumes: list[TrainingVolume]
) -> dict[str, CropDataset]:
    """Crops of each kind that a recipe needs."""
    augment = config.augment.model_dump()
    change = Augmentation(**{**augment, "defects": Defects(**augment["defects"])})
    found = {}
    for number, kind in enumerate(kinds):
        asked: CropConfig = getattr(config.data, kind)
        if asked.batch % config.devices:
            raise ConfigError(
                f"data.{kind}.batch: {asked.batch} crops do not go evenly to {config.devices} "
                f"devices."
            )
        _check_crop(asked.crop, f"data.{kind}.crop")
        found[kind] = CropDataset(
            volumes,
            asked.crop,
            change,
            config.seed * len(kinds) + number,
            config.data.distinct,
            min_labelled=config.data.min_labelled,
        )
    return found


def _check_crop(crop: tuple[int, int, int], key: str) -> None:
    z, y, x = crop
    if z < 2 or y % 16 or x % 16:
        raise ConfigError(
            f"{key}: {crop} has less than 2 sections, or sides along y and x that are no "
            f"multiples of 16."
        )


def make_batches(
    config: TrainConfig, crops: dict[str, CropDataset], fabric: Fabric, first_step: int
) -> Iterator[Batch]:
    """Batches of all steps from one on."""
    loaders = [
        make_loader(
            dataset,
            getattr(config.data, kind).batch // config.devices,
            first_step,
            config.steps - first_step,
            config.data.workers,
            fabric.global_rank,
            fabric.world_size,
        )
        for kind, dataset in crops.items()
    ]
    for batch in zip(*loaders, strict=True):
        yield dict(zip(crops, batch, strict=True))


Files = dict[str, str]
"""What identifies each file that a training begins with, by its key."""


def make_lesson(recipe: str, config: TrainConfig) -> tuple[Lesson, Files]:
    """Networks of a recipe with their first weights, and the files that these are of."""
    torch.manual_seed(config.seed)
    files: Files = {}
    if recipe == "teacher3d":
        return Teacher3d(config, make_teacher(config, files)), files
    student = make_student(config, files)
    if recipe == "supervised":
        return Supervised(config, student), files
    if config.loss.start >= config.steps:
        raise ConfigError(
            f"loss.start: {config.loss.start} is not before the end of {config.steps} steps, so "
            f"the teacher would never teach. Set it lower."
        )
    teacher = make_teacher(config, files)
    length = teacher.spec["outputs"]
    if config.loss.fgi and length != student.embedding:
        raise ConfigError(
            f"loss.fgi: sections cannot be grafted, since the teacher's embedding has {length} "
            f"numbers and the student's {student.embedding}. Set loss.fgi=0, or give both the same."
        )
    teaches = freeze(config, teacher, files) if config.teacher.frozen else teacher
    if recipe == "cad":
        return Cad(config, student, teaches), files
    return _with_sam(config, student, teaches, files), files


def _with_sam(
    config: TrainConfig, student: Student, teacher: Superhuman | FrozenTeacher, files: Files
) -> Lesson:
    # Here, since transformers is not needed otherwise.
    from emslice.models.sam_adapter import SamAdapter
    from emslice.models.sam_encoders import make_encoder
    from emslice.recipes.cad_iad import CadIad

    sam = config.sam
    if sam is None:
        raise ConfigError(
            "sam: cad_iad needs a SAM teacher. Name its file by sam.weights, or set "
            "sam.size=random_tiny for a trial without SAM."
        )
    encoder = make_encoder(
        sam.encoder, sam.weights, sam.sha256, sam.size, config.seed, sam.standardise
    )
    if sam.weights is not None:
        files["sam.weights"] = encoder.fingerprint
    crop = config.data.pairs.crop
    if any(n % encoder.multiple for n in crop[1:]):
        raise ConfigError(
            f"data.pairs.crop: {crop} does not fit the encoder {sam.encoder}, which takes "
            f"multiples of {encoder.multiple} along y and x."
        )
    adapter = SamAdapter(embedding=student.embedding, channels=encoder.channels)
    cache = None
    if sam.cache is not None:
        cache = make_cache(
            sam.cache, encoder.fingerprint, parse_bytes(sam.cache_limit), "sam.cache"
        )
    return CadIad(config, student, teacher, encoder, adapter, cache)


def make_student(config: TrainConfig, files: Files) -> Student:
    """A student, random or of a checkpoint, which is added to ``files``."""
    asked = config.student
    if asked.weights is not None:
        return _loaded(asked.weights, Student, "student.weights", files)
    return channels_last(Student(asked.features, asked.embedding))


def make_teacher(config: TrainConfig, files: Files) -> Superhuman:
    """A 3D network, random or of a checkpoint, which is added to ``files``."""
    asked = config.teacher
    if asked.weights is not None:
        network: Superhuman = _loaded(asked.weights, Superhuman, "teacher.weights", files)
    else:
        network = channels_last(Superhuman(asked.filters, asked.embedding))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            part.momentum = asked.momentum
        elif isinstance(part, nn.Conv3d) and asked.weights is None:
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return network


def freeze(config: TrainConfig, teacher: Superhuman, files: Files) -> FrozenTeacher:
    """A teacher that is not trained, and remembers what it said."""
    asked, cache = config.teacher, None
    if asked.cache is not None:
        identity = f"{files['teacher.weights']}/{asked.poses}/{config.precision}/{VERSION}"
        cache = make_cache(asked.cache, identity, None, "teacher.cache")
    return FrozenTeacher(teacher, asked.poses, cache, DTYPES[config.precision])


def make_cache(folder: str, identity: str, limit: int | None, key: str) -> FeatureCache:
    """What a frozen network said, in a folder; `ConfigError` if it cannot be made."""
    # The same network rounds otherwise elsewhere; whoever computes first must not decide.
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    try:
        return FeatureCache(Path(folder), f"{identity}/{gpu}/{torch.__version__}", limit)
    except OSError as error:
        raise ConfigError(f"{key}: {folder} cannot be a folder ({error}).") from error


def _loaded(path: str, kind: Any, key: str, files: Files) -> Any:
    checkpoint = load_checkpoint(path)
    network: Network = checkpoint.network
    files[key] = checkpoint.sha256
    if not isinstance(network, kind):
        raise CheckpointError(
            f"{key}: {path} holds a {network.name}, expected a {kind.name}. Name another file."
        )
    if network.spec.get("head", "embedding") != "embedding":
        raise CheckpointError(f"{key}: {path} gives {network.spec['head']}, expected embeddings.")
    return channels_last(network)


def channels_last(network: Any) -> Any:
    """The network with its channels innermost in memory: a student's step takes 7 % less."""
    flat = isinstance(network, Student)
    return network.to(memory_format=torch.channels_last if flat else torch.channels_last_3d)


def make_optimiser(
    config: TrainConfig, lesson: Lesson
) -> tuple[torch.optim.Optimizer, list[float]]:
    """Adam over all that is trained, and the rate of each of its groups as a multiple."""
    asked = config.optimiser
    groups = list(lesson.groups())
    optimiser = torch.optim.Adam(
        [{"params": parameters} for parameters, _ in groups],
        lr=asked.rate,
        betas=asked.betas,
        eps=asked.eps,
        weight_decay=asked.weight_decay,
        amsgrad=asked.amsgrad,
    )
    return optimiser, [ratio for _, ratio in groups]
