"""A 3D network on the windows of a cell: raw in, affinity codes out."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emslice.errors import PrecisionError
from emslice.geometry.boxes import Roi
from emslice.geometry.lattice import Index
from emslice.geometry.neighborhood import NEAREST
from emslice.geometry.windows import WindowLattice
from emslice.models.augment import POSES, Pose
from emslice.models.augment_windows import AugmentedRunner, VolumeRunner
from emslice.models.folded import as_array
from emslice.models.folded_3d import fold_volume, outputs_of
from emslice.models.gpu import all_finite, out_of_range, same_kernels
from emslice.models.networks import VolumeNetwork
from emslice.models.profile import ComputeProfile
from emslice.ops.affinity import boundary_affinity, repeat_first_lines, volume_affinity
from emslice.ops.blend import Blend, gaussian_weights
from emslice.ops.volume_affinity import volume_affinity as volume_affinity_compiled


class FoldedRunner:
    """On processors."""

    def __init__(self, network: VolumeNetwork, dtype: torch.dtype) -> None:
        self._head, self._folded = network.head, fold_volume(network, dtype)

    def affinities(self, volume: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeds = self._head == "embedding"
        outputs = outputs_of(self._folded, volume, as_float=not embeds)
        if embeds:
            affinity = torch.from_numpy(volume_affinity_compiled(as_array(outputs), NEAREST))
            return _array(repeat_first_lines(affinity))
        return _array(head_affinity(torch.sigmoid(outputs), self._head))


class EagerRunner:
    """As PyTorch runs it, for other devices; a copy of the network is moved there."""

    def __init__(self, network: VolumeNetwork, dtype: torch.dtype, device: str) -> None:
        self._network = copy.deepcopy(network).to(device, dtype)
        self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._dtype, self._device = dtype, device

    def affinities(self, volume: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `VolumeRunner`; raises `PrecisionError`."""
        batch = torch.from_numpy(np.ascontiguousarray(volume)[None, None]).to(self._device)
        with same_kernels():
            outputs = self._network((batch.float() / 255).to(self._dtype))[0]
        if not all_finite(outputs):
            raise PrecisionError(out_of_range(self._dtype))
        return _array(head_affinity(outputs.float(), self._network.head))


def head_affinity(outputs: Tensor, head: str) -> Tensor:
    """Affinities to the nearest neighbours from what a network gives, shape (3, Z, Y, X)."""
    if head == "affinity":
        return outputs[:3]
    if head == "boundary":
        return repeat_first_lines(boundary_affinity(outputs[0], NEAREST))
    return repeat_first_lines(volume_affinity(outputs, NEAREST))


def _array(affinity: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = affinity.cpu().numpy()
    return array


class WindowPredictor:
    """A 3D network on the windows of one volume.

    The codes of a voxel depend on the windows that hold it and on the profile, never on the box
    that was asked for: windows go through the network one by one, and are added in the order of
    z, y, x. A window in which nothing was imaged has no part in it.

    Parameters
    ----------
    network : Superhuman or Mala
        In evaluation mode; it is not changed.
    lattice : WindowLattice
        Of the domain.
    profile : ComputeProfile
    poses : tuple of Pose
        Over which each window's affinities are averaged.
    """

    def __init__(
        self,
        network: VolumeNetwork,
        lattice: WindowLattice,
        profile: ComputeProfile,
        poses: tuple[Pose, ...] = POSES["none"],
    ) -> None:
        self.lattice, self.profile = lattice, profile
        self._runner: VolumeRunner
        if profile.device == "cpu":
            self._runner = FoldedRunner(network, getattr(torch, profile.precision))
        else:
            self._runner = EagerRunner(network, getattr(torch, profile.precision), profile.device)
        if poses != POSES["none"]:
            self._runner = AugmentedRunner(self._runner, poses)
        self._weights = (
            gaussian_weights(lattice.output)
            if network.blended
            else np.ones(lattice.output, np.float32)
        )

    @torch.inference_mode()
    def codes(
        self,
        shown: NDArray[np.uint8],
        imaged: NDArray[np.bool_],
        index: Index,
        answer: Roi,
    ) -> NDArray[np.uint8]:
        lattice = self.lattice
        (axis_z, axis_y, axis_x), rows = lattice.axes, lattice.windows(answer)
        first = axis_z.begin(rows[0][0])
        blend = Blend(answer, self._weights, axis_z.stride, first)
        for z in rows[0]:
            for y, x in product(rows[1], rows[2]):
                place = tuple(
                    slice((i - row[0]) * stride, (i - row[0]) * stride + crop)
                    for i, row, stride, crop in zip(
                        (z, y, x), rows, lattice.stride, lattice.crop, strict=True
                    )
                )
                if imaged[place].any():
                    affinity = self._runner.affinities(shown[place])
                    blend.add(affinity, axis_y.begin(y), axis_x.begin(x))
            blend.end_row(z == rows[0][-1])
        return blend.codes
