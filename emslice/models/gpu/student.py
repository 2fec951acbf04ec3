"""The student on a GPU: a run of sections in, codes out, copies beside the network.

The same folded function as on processors (`folded`). Only raw and codes cross the bus, 1 and 3
bytes a voxel: while a pair is in the network, the section after it comes and the codes before it
go. What a run has on the device does not depend on its length, so there is nothing to shorten when
memory is scarce.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from emslice.errors import PrecisionError
from emslice.models.gpu.determinism import same_kernels
from emslice.models.gpu.lanes import Lanes
from emslice.models.gpu.network import GpuNetwork
from emslice.models.gpu.operators import Operators
from emslice.models.gpu.range import out_of_range
from emslice.models.student import Student, Window


class GpuStudent:
    """Codes of runs of sections; several threads may ask at a time.

    Parameters
    ----------
    network : Student
        In evaluation mode; it is not changed.
    dtype : torch.dtype
        Of weights and features: float32, bfloat16 or float16.
    device : str
        ``cuda``; on ``cpu`` the same is done one after the other.
    operators : Operators, optional
        By default Triton's on ``cuda``, PyTorch's on ``cpu``.
    """

    def __init__(
        self,
        network: Student,
        dtype: torch.dtype,
        device: str = "cuda",
        operators: Operators | None = None,
    ) -> None:
        self.network = GpuNetwork(network, dtype, device, operators)
        self.lanes = Lanes(self.network)

    @torch.inference_mode()
    def run(
        self,
        sections: NDArray[np.uint8],
        blank: NDArray[np.bool_],
        window: Window,
        area: tuple[slice, slice],
    ) -> NDArray[np.uint8]:
        """As `PairStudent` says.

        Raises
        ------
        PrecisionError
            Features beyond the range of float16.
        UnfitWorkerError
            The memory of the GPU ran short, or the network cannot be recorded for it.
        """
        _, height, width = sections.shape
        codes = np.zeros((3, len(sections) - 1, *sections[0][area].shape), np.uint8)
        if blank[1:].all():
            return codes
        with same_kernels(), self.lanes.lane((height, width), window, area) as lane:
            going_on = False
            for z in range(1, len(sections)):
                if blank[z]:
                    going_on = False
                    continue
                if not going_on:
                    lane.begin(lane.comes.take(sections[z - 1]))
                found = lane.advance(lane.comes.take(sections[z]))
                lane.goes.put(found, codes[:, z - 1])
                going_on = True
            lane.goes.finish()
            finite = lane.finite
        if not finite:
            raise PrecisionError(out_of_range(self.network.dtype))
        return codes
