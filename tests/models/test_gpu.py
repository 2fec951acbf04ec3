"""The student on a GPU; its operators are tried on the processor, the copies where a GPU is."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from models.teachers import SMALL
from models.test_folded import sections
from models.test_student import random_student

from emslice.demo.synthetic import synthetic_em
from emslice.errors import PrecisionError
from emslice.models.checkpoint import load_checkpoint
from emslice.models.folded import FoldedStudent
from emslice.models.gpu import GpuStudent
from emslice.models.student import Window
from emslice.models.windows import EagerRunner, FoldedRunner

AREA = (slice(5, 43), slice(0, 61))
NOT_BLANK = np.zeros(6, np.bool_)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def apart(found, expected):
    return np.abs(found.astype(int) - expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", [Window((0, 0), (48, 64)), Window((32, 16), (112, 240))])
def test_codes_are_those_of_the_folded_student(device, window):
    network, raw = random_student(), sections((6, 48, 64))
    blank = np.array([False, False, True, False, False, False])
    found = GpuStudent(network, torch.float32, device).run(raw, blank, window, AREA)
    expected = FoldedStudent(network).run(raw, blank, window, AREA)
    assert found.shape == (3, 5, 38, 61)
    assert not found[:, 1].any()
    assert (apart(found, expected) <= 1).mean() > 0.999


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.999), (torch.bfloat16, 0.9)])
def test_half_precision_stays_near_with_a_trained_network(device, dtype, least):
    network = load_checkpoint(files("emslice") / "demo" / "student.ckpt").network
    raw, _ = synthetic_em((6, 48, 64), seed=7)
    window = Window((0, 0), (48, 64))
    found = GpuStudent(network, dtype, device).run(raw, NOT_BLANK, window, AREA)
    expected = FoldedStudent(network).run(raw, NOT_BLANK, window, AREA)
    assert (apart(found, expected) <= 1).mean() > least


@pytest.mark.parametrize("device", DEVICES)
def test_features_beyond_float16_are_an_error_not_a_mask(device):
    network, window = random_student(), Window((0, 0), (48, 64))
    student = GpuStudent(network, torch.float16, device)
    with pytest.raises(PrecisionError, match="65504"):
        student.run(sections((2, 48, 64)), NOT_BLANK[:2], window, AREA)


@pytest.mark.parametrize("device", DEVICES)
def test_codes_do_not_depend_on_how_sections_are_grouped(device):
    network, raw, window = random_student(), sections((6, 48, 64)), Window((0, 0), (48, 64))
    student = GpuStudent(network, torch.float32, device)
    whole = student.run(raw, NOT_BLANK, window, AREA)
    parts = [student.run(raw[z : z + 2], NOT_BLANK[:2], window, AREA) for z in range(5)]
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


@pytest.mark.gpu
def test_many_sections_overtake_no_copy():
    """More than there are buffers, on a device that is busy."""
    network, raw = random_student(), sections((40, 160, 208))
    area, window = (slice(None), slice(None)), Window((0, 0), (160, 208))
    student, blank = GpuStudent(network, torch.bfloat16), np.zeros(40, np.bool_)
    runs = [student.run(raw, blank, window, area) for _ in range(3)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    one = student.run(raw[30:32], blank[:2], window, area)
    np.testing.assert_array_equal(runs[0][:, 30:31], one)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", SMALL)
def test_a_3d_network_gives_what_the_folded_one_gives(device, kind):
    network = SMALL[kind]()
    shape = (6, 32, 48) if network.blended else (30, 230, 230)
    volume = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    with torch.inference_mode():
        found = EagerRunner(network, torch.float32, device).affinities(volume)
        expected = FoldedRunner(network, torch.float32).affinities(volume)
    np.testing.assert_allclose(found, expected, atol=2e-4)
