"""Where the tests of this folder run, and Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before kernels are declared

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where kernels run: compiled on a GPU, else interpreted."""


def kernels(device=DEVICE):
    """The module of kernels, or a skip."""
    pytest.importorskip("triton", reason="no Triton for this system")
    if device != DEVICE:
        pytest.skip("kernels are compiled for the GPU here, and not interpreted")
    from emslice.models.gpu import kernels

    return kernels
