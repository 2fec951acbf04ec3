"""Where the tests of this folder run; Triton's interpreter is asked for by the root's conftest."""

import os

import pytest
import torch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where kernels run: compiled on a GPU, else interpreted."""


def kernels(device=DEVICE):
    """The module of kernels, or a skip."""
    pytest.importorskip("triton", reason="no Triton for this system")
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("there is a GPU that this build of PyTorch does not see")
    if device != DEVICE:
        pytest.skip("kernels are compiled for the GPU here, and not interpreted")
    from emslice.models.gpu import kernels

    return kernels
