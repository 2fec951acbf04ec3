"""The student on a GPU; its operators are tried on the processor, the copies where a GPU is."""

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import pytest
import torch
from models.gpu.devices import DEVICES, kernels
from models.teachers import SMALL
from models.test_folded import sections
from models.test_student import random_student

from emslice.demo.synthetic import synthetic_em
from emslice.errors import PrecisionError
from emslice.models.checkpoint import load_checkpoint
from emslice.models.folded import FoldedStudent
from emslice.models.gpu import GpuStudent
from emslice.models.gpu.operators import PlainOperators
from emslice.models.student import Window
from emslice.models.windows import EagerRunner, FoldedRunner

AREA = (slice(5, 43), slice(0, 61))
NOT_BLANK = np.zeros(6, np.bool_)


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_give_the_codes_of_plain_operators(device, dtype):
    network = load_checkpoint(files("emslice") / "demo" / "student.ckpt").network
    raw, _ = synthetic_em((3, 32, 48), seed=7)
    window, area = Window((16, 32), (112, 240)), (slice(5, 27), slice(0, 45))
    fast, plain = (
        GpuStudent(network, dtype, device, operators).run(raw, NOT_BLANK[:3], window, area)
        for operators in (kernels(device).TritonOperators(), PlainOperators())
    )
    assert apart(fast, plain).max() <= (1 if dtype == torch.float32 else 4)
    assert (apart(fast, plain) <= 1).mean() > 0.999


@pytest.mark.parametrize("device", DEVICES)
def test_a_lane_forgets_the_tile_before(device):
    """Another place, another area, and what was not finite."""
    network = load_checkpoint(files("emslice") / "demo" / "student.ckpt").network
    raw, _ = synthetic_em((3, 48, 64), seed=7)
    blank, all_of_it = NOT_BLANK[:3], (slice(0, 48), slice(0, 64))
    tiles = [(Window((0, 0), (112, 240)), AREA), (Window((64, 176), (112, 240)), all_of_it)]
    expected = [GpuStudent(network, torch.float32, device).run(raw, blank, *t) for t in tiles]
    assert apart(expected[0], expected[1][:, :, *AREA]).max() > 1
    student = GpuStudent(network, torch.float32, device)
    for turn in (0, 1, 0):
        np.testing.assert_array_equal(student.run(raw, blank, *tiles[turn]), expected[turn])


def test_lanes_wait_for_another_tile_of_their_shape_while_there_is_room():
    student, raw = GpuStudent(random_student(), torch.float32, "cpu"), sections((2, 96, 64))
    with student.lanes.lane((80, 64), Window((0, 0), (80, 64)), AREA) as lane:
        student.lanes.kept_bytes = 3 * lane.bytes  # less than 96 + 80 + 64 rows, 48 too many
    shapes = [(16 * n, 64) for n in (1, 2, 3, 4, 5, 6)]
    for height, width in [*shapes, shapes[-1]]:
        window, area = Window((0, 0), (height, width)), (slice(0, height), slice(0, width))
        with student.lanes.lane((height, width), window, area) as lane:
            assert lane.shape == (height, width)
        student.run(raw[:, :height], NOT_BLANK[:2], window, area)
    assert [lane.shape for lane in student.lanes._free] == shapes[-3:]


def test_a_run_without_anything_to_predict_takes_no_lane():
    student, blank = GpuStudent(random_student(), torch.float32, "cpu"), np.ones(3, np.bool_)
    blank[0] = False
    codes = student.run(sections((3, 48, 64)), blank, Window((0, 0), (48, 64)), AREA)
    assert codes.shape == (3, 2, 38, 61)
    assert not codes.any()
    assert not student.lanes._free


class BadOnce(PlainOperators):
    """Sees a number that is not finite in the first pair."""

    n = 0

    def finish(self, before, here, heads, answer):
        super().finish(before, here, heads, answer)
        self.n += 1
        if self.n == 1:
            answer.finite.zero_()


def test_what_was_not_finite_in_one_pair_fails_its_run_and_no_other():
    student = GpuStudent(random_student(), torch.float32, "cpu", BadOnce())
    task = sections((4, 48, 64)), NOT_BLANK[:4], Window((0, 0), (48, 64)), AREA
    with pytest.raises(PrecisionError):
        student.run(*task)
    assert student.run(*task).shape == (3, 3, 38, 61)


@pytest.mark.parametrize("device", DEVICES)
def test_tasks_at_the_same_time_have_the_codes_of_tasks_one_by_one(device):
    """Each in a lane of its own; recordings of one while others run."""
    network = load_checkpoint(files("emslice") / "demo" / "student.ckpt").network
    student, blank = GpuStudent(network, torch.float32, device), np.zeros(9, np.bool_)
    tiles = [
        (synthetic_em((9, 48, 64), seed=s)[0], Window((16 * s, 0), (240, 64))) for s in range(6)
    ]
    alone = GpuStudent(network, torch.float32, device)
    expected = [alone.run(raw, blank, window, AREA) for raw, window in tiles]
    meet = threading.Barrier(3)

    def run(tile):
        meet.wait()
        return student.run(tile[0], blank, tile[1], AREA)

    with ThreadPoolExecutor(3) as pool:
        for found, wanted in zip(pool.map(run, tiles), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_recorded_pair_has_the_bytes_of_one_that_is_not(dtype):
    network = load_checkpoint(files("emslice") / "demo" / "student.ckpt").network
    raw, _ = synthetic_em((6, 160, 208), seed=7)
    window, area = Window((0, 0), (160, 208)), (slice(None), slice(None))
    recorded = GpuStudent(network, dtype)
    eager = GpuStudent(network, dtype)
    eager.network.operators.recorded = False
    codes = [student.run(raw, NOT_BLANK, window, area) for student in (recorded, eager)]
    np.testing.assert_array_equal(*codes)


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
