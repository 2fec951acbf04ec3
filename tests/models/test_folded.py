"""The folded student: the same function as the network, and what bfloat16 may change of it."""

import h5py
import numpy as np
import pytest
import torch
from models.test_student import random_student

from emslice.models.checkpoint import load_checkpoint
from emslice.models.folded import FoldedStudent, as_array, fold, join
from emslice.models.profile import bfloat16_unit
from emslice.models.student import Window, upsample
from emslice.ops.affinity import pair_affinity, quantise

needs_bfloat16 = pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
PRECISIONS = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)]
WHOLE = (slice(None), slice(None))


def sections(shape=(2, 48, 64), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@torch.inference_mode()
def folded_embeddings(network, pair, dtype=torch.float32):
    student = FoldedStudent(network, dtype)
    window = Window((0, 0), pair.shape[1:])
    return student.decode(student.stem(pair[0]), student.stem(pair[1]), window)


@torch.inference_mode()
def plain_embeddings(network, pair):
    first, second = network(torch.from_numpy(pair).float()[None] / 255)
    return first[0], second[0]


@torch.inference_mode()
def plain_codes(network, pair):
    return quantise(pair_affinity(*plain_embeddings(network, pair))).numpy()


@torch.inference_mode()
def folded_codes(network, pair, dtype):
    student = FoldedStudent(network, dtype)
    stems = [student.stem(section) for section in pair]
    return student.codes(*stems, Window((0, 0), pair.shape[1:]), WHOLE)


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 48, 64), (2, 160, 32)])
def test_folding_keeps_the_embeddings(shape):
    network, pair = random_student(), sections(shape)
    found, expected = folded_embeddings(network, pair), plain_embeddings(network, pair)
    scale = max(float(e.abs().max()) for e in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1, scale))


@torch.inference_mode()
def test_a_folded_convolution_is_the_convolution_and_its_normalisation():
    block = random_student().double().up1
    weight, bias = fold(block[3], block[4], torch.float64)
    features = torch.rand(1, 16, 8, 8, dtype=torch.float64)
    found = torch.conv2d(features, weight, bias.double(), padding=1)
    torch.testing.assert_close(found, block[4](block[3](features)), rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("origin", [(0, 0), (3, 9)])
def test_joined_features_are_the_skip_and_the_upsampled_ones(dtype, origin):
    skip, deep = (torch.randn(1, c, *size).to(dtype) for c, size in ((3, (10, 14)), (5, (5, 7))))
    skip, deep = (t.contiguous(memory_format=torch.channels_last) for t in (skip, deep))
    window = Window(origin, (11, 20))
    expected = torch.cat([skip.float(), upsample(deep.float(), window)], 1)
    tolerance = 2e-6 if dtype == torch.float32 else 2**-8 * 4
    joined = join(skip, deep, window)
    assert joined.dtype == dtype
    torch.testing.assert_close(joined.float(), expected, rtol=0, atol=tolerance)


@torch.inference_mode()
def test_values_are_rounded_to_bfloat16_as_torch_does():
    deep = torch.randn(1, 64, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    skip = torch.zeros(1, 1, 16, 16).bfloat16()
    window = Window((0, 0), (8, 8))
    found = join(skip, deep, window)[:, 1:]
    expected = join(skip.float(), deep.float(), window)[:, 1:].bfloat16()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_network_is_not_changed(precision):
    network = random_student()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    FoldedStudent(network, precision)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@torch.inference_mode()
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arrays_share_the_memory_of_tensors(dtype):
    tensor = torch.ones(2, 3, dtype=dtype)
    as_array(tensor)[1, 2] = 0
    assert tensor.float().sum() == 5


@pytest.fixture(scope="module")
def real(data_dir):
    """The published network of AC4 and a pair of its sections."""
    with h5py.File(data_dir / "ac4_crop.h5") as file:
        pair = file["raw"][10:12, :256, :256]
    return load_checkpoint(data_dir / "checkpoints" / "cad_AC34.ckpt").network, pair


@pytest.mark.parametrize(
    ("precision", "share"),
    [(torch.float32, 0.999), pytest.param(torch.bfloat16, 0.98, marks=needs_bfloat16)],
)
def test_codes_of_real_em_are_those_of_the_plain_network(real, precision, share):
    """Measured: all of float32, 99.4 % of bfloat16 on AC4 (docs/results/predict.md)."""
    apart = np.abs(folded_codes(*real, precision).astype(int) - plain_codes(*real))
    assert (apart <= 1).mean() >= share


@needs_bfloat16
def test_a_rounded_first_convolution_would_be_seen(real, monkeypatch):
    network, pair = real
    rounded = FoldedStudent(network, torch.bfloat16)
    rounded._blocks["inc"] = [
        (weight.bfloat16().float(), bias) for weight, bias in rounded._blocks["inc"]
    ]
    with torch.inference_mode():
        stems = [rounded.stem(section) for section in pair]
        codes = rounded.codes(*stems, Window((0, 0), pair.shape[1:]), WHOLE)
    apart = np.abs(codes.astype(int) - plain_codes(network, pair))
    assert (apart <= 1).mean() < 0.97
