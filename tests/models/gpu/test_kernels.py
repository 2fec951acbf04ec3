"""Kernels against PyTorch's operators: interpreted on the processor, compiled on a GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models.gpu.devices import DEVICE, DEVICES, kernels

from emslice.models.gpu.operators import Answer, Head, PlainOperators, Shares
from emslice.models.student import Window, shares_along, upsample

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ROUNDING = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
PLAIN = PlainOperators()


def features(channels, height, width, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((1, channels, height, width), generator=generator)
    return values.to(device, dtype).contiguous(memory_format=torch.channels_last)


def shares_in(window, shape, device):
    axes = zip(shape, window.origin, window.section, strict=True)
    return Shares(
        *(share.to(device, torch.float32) for axis in axes for share in shares_along(*axis))
    )


def head(channels, length, dtype, device, seed=0):
    """The end of a decoder with random weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((channels, channels, 3, 3), generator=generator) / channels**0.5 / 3
    out = torch.randn((length, channels), generator=generator)
    bias, shift = (torch.randn(n, generator=generator) / 4 for n in (channels, length))
    return Head(weight.to(device, dtype), bias.to(device), out.to(device, dtype), shift.to(device))


def finished(operators, before, here, heads, area):
    """Codes of an area, and whether all was finite."""
    device, (_, _, *shape) = here.device, here.shape
    codes = torch.full((3, *shape), 7, dtype=torch.uint8, device=device)
    finite = torch.ones(1, dtype=torch.uint8, device=device)
    where = torch.tensor(area, dtype=torch.int32, device=device)
    operators.finish(before, here, heads, Answer(where, codes, finite))
    _, _, rows, columns = area
    assert (codes[:, rows:] == 7).all()
    assert (codes[:, :, columns:] == 7).all()
    codes[1, 0], codes[2, :, 0] = 0, 0  # they mean nothing
    return codes[:, :rows, :columns].cpu().numpy().astype(int), bool(finite)


@pytest.mark.parametrize("channels", [3, 16, 80])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_convolution_ends_with_bias_and_relu(device, dtype, channels):
    values, bias = features(3, 11, 26, dtype, device), torch.linspace(-1, 3, channels).to(device)
    weight = torch.cat([features(3, 3, 3, dtype, device, seed) for seed in range(channels)])
    found = kernels(device).TritonOperators().convolve(values, weight, bias)
    expected = torch.relu(
        torch.nn.functional.conv2d(values.float(), weight.float(), bias, padding=1)
    )
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.float(), expected, atol=10 * ROUNDING[dtype], rtol=ROUNDING[dtype]
    )
    assert (found == 0).float().mean() > 0.2


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_finite_is_not_clipped_away(device):
    values = features(1, 4, 6, torch.float32, device)
    values[0, 0, 2, 3] = torch.nan
    weight = torch.ones((2, 1, 3, 3), device=device)
    found = (
        kernels(device).TritonOperators().convolve(values, weight, torch.zeros(2, device=device))
    )
    assert found.isnan().sum() == 2 * 9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("window", "channels"),
    [
        (Window((0, 0), (5, 9)), (4, 8)),
        (Window((0, 13), (5, 40)), (3, 5)),
        (Window((2, 4), (7, 13)), (1, 16)),
        (Window((2, 4), (7, 13)), (70, 2)),
    ],
)
def test_joining_is_upsampling_and_concatenation(device, dtype, window, channels):
    skip = features(channels[0], 10, 18, dtype, device, 1)
    deep = features(channels[1], 5, 9, dtype, device, 2)
    shares = shares_in(window, (5, 9), device)
    found = kernels(device).TritonOperators().join(skip, deep, shares)
    expected = torch.cat([skip.float(), upsample(deep.float(), window)], 1)
    torch.testing.assert_close(found.float(), expected, atol=ROUNDING[dtype], rtol=ROUNDING[dtype])
    assert found.is_contiguous(memory_format=torch.channels_last)
    plain = PLAIN.join(skip, deep, shares)
    torch.testing.assert_close(plain, found, atol=2 * ROUNDING[dtype], rtol=ROUNDING[dtype])


@pytest.mark.parametrize("device", DEVICES)
def test_one_row_of_one_column_is_repeated(device):
    skip, deep = (features(2, *n, torch.float32, device) for n in ((2, 2), (1, 1)))
    shares = shares_in(Window((0, 0), (1, 1)), (1, 1), device)
    joined = kernels(device).TritonOperators().join(skip, deep, shares)
    torch.testing.assert_close(joined[:, 2:], deep.expand(1, 2, 2, 2))


@pytest.mark.parametrize("device", DEVICES)
def test_features_are_written_in_the_type_that_is_asked_for(device):
    values, bias = features(3, 11, 26, torch.float32, device), torch.zeros(5, device=device)
    weight = torch.cat([features(3, 3, 3, torch.float32, device, seed) for seed in range(5)])
    out = features(5, 11, 26, torch.float16, device)
    for operators in (kernels(device).TritonOperators(), PLAIN):
        expected = operators.convolve(values, weight, bias)
        assert operators.convolve(values, weight, bias, out.zero_()) is out
        torch.testing.assert_close(out, expected.half())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1), (torch.float16, 3)])
def test_codes_are_those_of_cosines(device, dtype, most):
    before, here = (features(32, 13, 21, dtype, device, seed) for seed in (3, 4))
    ends = head(32, 16, dtype, device), head(32, 16, dtype, device)
    here += 2 * before  # else few would be alike
    for area in ((0, 0, 13, 21), (3, 5, 7, 11), (0, 20, 13, 1), (12, 0, 1, 21), (4, 4, 2, 2)):
        found, finite = finished(kernels(device).TritonOperators(), before, here, ends, area)
        expected, _ = finished(PLAIN, before, here, ends, area)
        assert finite
        assert np.abs(found - expected).max() <= most
        assert (np.abs(found - expected) <= 1).mean() > 0.99
    codes, _ = finished(PLAIN, before, here, ends, (0, 0, 13, 21))
    assert (codes.std((1, 2)) > 20).all()


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 9)),
    data=st.data(),
)
def test_any_area_of_any_embedding_has_the_codes_of_cosines(shape, sizes, data):
    height, width = shape
    top, left = (data.draw(st.integers(0, n - 1)) for n in shape)
    rows = data.draw(st.integers(1, height - top))
    columns = data.draw(st.integers(1, width - left))
    before, here = (features(sizes[0], *shape, torch.float32, DEVICE, seed) for seed in (5, 6))
    ends = tuple(head(*sizes, torch.float32, DEVICE, seed) for seed in (1, 2))
    ends[0].shift.zero_()
    ends[0].bias.fill_(-10)  # no length anywhere
    area = (top, left, rows, columns)
    for both in (ends, ends[::-1]):
        found, _ = finished(kernels().TritonOperators(), before, here, both, area)
        expected, _ = finished(PLAIN, before, here, both, area)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.filterwarnings("ignore:invalid value")  # of the interpreter
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("section", [0, 1])
def test_one_number_that_is_not_finite_is_seen_inside_the_area_only(device, bad, section):
    pair = [features(4, 8, 9, torch.float32, device, seed) for seed in (7, 8)]
    ends = head(4, 4, torch.float32, device), head(4, 4, torch.float32, device)
    ends[section].weight.abs_()
    pair[section][0, 2, 2, 5] = bad  # and so in rows 1 to 3 behind the convolution
    for operators in (kernels(device).TritonOperators(), PLAIN):
        assert not finished(operators, *pair, ends, (3, 2, 4, 5))[1]
        assert finished(operators, *pair, ends, (4, 2, 3, 5))[1]


@pytest.mark.parametrize("device", DEVICES)
def test_a_code_does_not_depend_on_the_shape_of_its_tile(monkeypatch, device):
    """Sizes that a compiler would treat apart: 1, multiples of 16, others."""
    operators = kernels(device).TritonOperators()
    # What lies beyond a tile has a part in a convolution, and cuDNN is not what is tested.
    monkeypatch.setattr(kernels(device), "_convolution", lambda features, weight: features)
    before, here = (features(32, 48, 40, torch.float32, device, seed) for seed in (9, 10))
    ends = head(32, 16, torch.float32, device), head(32, 16, torch.float32, device, 1)
    whole, _ = finished(operators, before, here, ends, (0, 0, 48, 40))
    for rows, columns in ((16, 32), (17, 31), (5, 1)):
        parts = (t[:, :, :rows, :columns] for t in (before, here))
        parts = [t.contiguous(memory_format=torch.channels_last) for t in parts]
        found, _ = finished(operators, *parts, ends, (0, 0, rows, columns))
        np.testing.assert_array_equal(found[0], whole[0, :rows, :columns])
        np.testing.assert_array_equal(found[1, 1:], whole[1, 1:rows, :columns])
        np.testing.assert_array_equal(found[2, :, 1:], whole[2, :rows, 1:columns])


COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from emslice.models.gpu import kernels

kind = sys.argv[1]
signatures = {
    kernels._activate: (
        f"*{kind} *fp32 *{kind} i32", {"CHANNELS": 16, "PADDED": 16, "BLOCK": kernels.PIXELS},
    ),
    kernels._join: (
        f"*{kind} *{kind} *fp32 *fp32 *fp32 *fp32 *{kind} i32 i32",
        {"SKIP": 16, "SKIP_PADDED": 16, "DEEP": 32, "DEEP_PADDED": 32, "BLOCK": kernels.PIXELS},
    ),
    kernels._finish: (
        f"*{kind} *fp32 *{kind} *fp32 " * 2 + "*i32 *u8 *u8 i32 i32",
        {"CHANNELS": 32, "PADDED": 32, "LENGTH": 16, "LENGTH_PADDED": 16, "BLOCK": kernels.PIXELS},
    ),
}
for kernel, (types, constants) in signatures.items():
    names = kernel.arg_names
    types = [*types.split(), *["constexpr"] * len(constants)]
    aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(types) if t[0] == "*"}
    source = ASTSource(kernel, dict(zip(names, types, strict=True)), constants, aligned)
    for capability in (80, 90):
        target = GPUTarget("cuda", capability, 32)
        binary = compile(source, target, options=kernels.EXACT)
        assert binary.asm["cubin"]
        # Products of float32 matrices are contracted, in one order.
        assert kernel is kernels._finish and kind == "fp32" or "fma" not in binary.asm["ptx"]
        print(kernel.__name__, capability, "v4" in binary.asm["ptx"])
"""


@pytest.mark.parametrize("kind", ["fp16", "bf16", "fp32"])
def test_kernels_compile_for_gpus_without_one(tmp_path, kind):
    """Down to machine code, features read 16 bytes at a time and nothing contracted."""
    kernels()
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-W", "error", "-c", COMPILE, kind]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    assert [line[1] for line in lines] == ["80", "90"] * 3
    assert {line[2] for line in lines} == {"True"}
