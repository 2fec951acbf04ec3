"""Trainings that take seconds: a synthetic volume, small networks, few steps."""

import numpy as np
import torch

from emslice.config.load import load_as
from emslice.config.training import TrainConfig
from emslice.demo.synthetic import synthetic_em
from emslice.recipes.running import start

SILENT = lambda done, steps: lambda loss, best: None  # noqa: E731


def write_volumes(folder):
    """raw.npy and labels.npy, 14 x 80 x 96, with the last sections for validation."""
    raw, labels = synthetic_em((14, 80, 96), (30.0, 6.0, 6.0), 5)
    np.save(folder / "raw.npy", raw)
    np.save(folder / "labels.npy", labels.astype(np.uint32))


def tree(folder, **changes):
    """Configuration as plain values; ``changes`` are dotted keys with __ for dots."""
    volume = {"raw": str(folder / "raw.npy"), "labels": str(folder / "labels.npy")}
    config = {
        "steps": 6,
        "threads": 1,
        "device": "cpu",
        "save_every": 2,
        "log_every": 2,
        "data": {
            "resolution_nm": [30, 6, 6],
            "train": [{**volume, "sections": [0, 10]}],
            "validate_on": {**volume, "sections": [10, 14]},
            "pairs": {"crop": [2, 32, 64], "batch": 2},
            "volume": {"crop": [4, 32, 48], "batch": 1},
            "workers": 0,
        },
        "student": {"features": 4, "embedding": 4},
        "teacher": {"filters": [4, 6], "embedding": 4},
        "sam": {"size": "random_tiny"},
        "loss": {"start": 0},
        "optimiser": {"rate": 0.003},
        "validation": {"every": 3},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = config
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return config


def configured(folder, **changes):
    return load_as(TrainConfig, base=tree(folder, **changes))


def train(folder, run, recipe="supervised", **changes):
    return start(recipe, configured(folder, **changes), run, SILENT)


def weights(checkpoint):
    """Every tensor of a file."""
    return torch.load(checkpoint, weights_only=True)["weights"]


def same(one, other):
    """Whether two files hold the same weights, bit by bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
