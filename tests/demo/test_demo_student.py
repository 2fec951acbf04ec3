"""The checkpoint that emslice ships, and the script that makes it."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import emslice.demo.synthetic
from emslice.demo.synthetic import synthetic_em
from emslice.models.checkpoint import load_checkpoint
from emslice.ops.affinity import pair_affinity

SHIPPED = Path(emslice.demo.synthetic.__file__).parent / "student.ckpt"
SCRIPT = Path(__file__).parents[2] / "workflows/train_demo_student.py"


@pytest.fixture(scope="module")
def prediction():
    """Affinities of the shipped student on a volume of the demo's seed, and the truth."""
    raw, truth = synthetic_em((8, 128, 112), (30, 6, 6), seed=0)
    network = load_checkpoint(SHIPPED).network
    sections = torch.from_numpy(raw / np.float32(255))[None]
    with torch.inference_mode():
        pairs = network.affinity_embeddings(sections)
        affinity = torch.stack([pair_affinity(a[0], b[0]) for a, b in pairs], 1)
    return affinity.numpy(), truth  # sections 1 to 7, and 0 to 7


def test_the_shipped_student_is_small_and_says_where_it_comes_from():
    checkpoint = load_checkpoint(SHIPPED)
    assert SHIPPED.stat().st_size < 1_000_000
    assert checkpoint.resolution_nm == (30, 6, 6)
    assert 0 not in checkpoint.provenance["training_seeds"]
    assert "synthetic" in checkpoint.provenance["data"]
    assert checkpoint.provenance["scores"][0]["seed"] == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_shipped_student_separates_processes(prediction, axis):
    affinity, truth = prediction
    later, earlier = np.delete(truth, 0, axis), np.delete(truth, -1, axis)
    if axis == 0:
        value = affinity[0]
    else:
        value = np.delete(affinity[axis], 0, axis)
        later, earlier = later[1:], earlier[1:]
    within = (later == earlier) & (later > 0)
    assert value[within].mean() > 0.85
    assert value[~within].mean() < 0.35


def test_three_steps_of_training_write_a_checkpoint(tmp_path):
    out = tmp_path / "small.ckpt"
    options = ["--steps", "3", "--volumes", "1", "--features", "4", "--no-score", "--out", str(out)]
    train = runpy.run_path(str(SCRIPT))["main"]
    result = CliRunner().invoke(train, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(out)
    assert checkpoint.network.features == 4
    assert checkpoint.provenance["kept_step"] == 3
