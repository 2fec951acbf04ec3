"""Figures of docs/design/0017-gpu.md that can be counted."""

import pytest
import torch

from emslice.models.student import Student

count_traffic = pytest.importorskip("benchmarks.traffic").count_traffic


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 2.4), (torch.float16, 2.7)])
def test_kernels_of_our_own_are_fewer_and_move_less(dtype, least):
    network = Student().eval()
    plain, ours = (count_traffic(network, dtype, 128, kernels) for kernels in (False, True))
    assert (plain["kernels"], ours["kernels"]) == (226, 60)
    assert plain["bytes_per_pixel"] > least * ours["bytes_per_pixel"]
