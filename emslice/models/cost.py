"""What a network costs: multiplications, counted on tensors that hold no numbers."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from emslice.geometry.boxes import Roi, n_voxels
from emslice.geometry.lattice import Lattice
from emslice.geometry.windows import WindowLattice
from emslice.models.networks import Network
from emslice.models.student import Student

SIDE = 64
"""Voxels y, x of the sections that a student is counted on; the ratio is the same for any."""


def macs_per_voxel(network: Network, lattice: Lattice, roi: Roi) -> float:
    """Multiplications of convolutions for a voxel of a box.

    Of a student, those of a pair of sections, without the rims that its tiles share and the stems
    that pairs share. Of a 3D network, all the windows that meet the box, overlap included.
    """
    kind = type(network)
    sizes = {name: value for name, value in network.spec.items() if name != "network"}
    with torch.device("meta"):
        hollow = kind(**sizes).eval()
    if isinstance(hollow, Student):
        return _count(hollow, (1, 2, SIDE, SIDE)) / SIDE**2
    assert isinstance(lattice, WindowLattice)
    windows = math.prod(len(row) for row in lattice.windows(roi))
    return windows * _count(hollow, (1, 1, *lattice.crop)) / n_voxels(roi)


@torch.inference_mode()
def _count(network: nn.Module, shape: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2
