"""Where the tests of this folder run, and Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before kernels are declared

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def kernels():
    """The module of kernels, or a skip."""
    pytest.importorskip("triton", reason="no Triton for this system")
    from emslice.models.gpu import kernels

    return kernels
