"""Slow twin of ``emslice/models/windows.py``: a padded volume, every window, in float64."""

import numpy as np
import torch

from emslice.models.windows import head_affinity
from emslice.ops.blend import gaussian_weights


@torch.inference_mode()
def blended_affinities(network, raw, lattice):
    """Affinities (3, Z, Y, X) of a whole volume by the plain network."""
    seen, inner = (
        [(axis.n - 1) * axis.stride + n for axis, n in zip(lattice.axes, sides, strict=True)]
        for sides in (lattice.crop, lattice.output)
    )
    before = [axis.pad + axis.margin for axis in lattice.axes]
    pads = [(b, s - b - n) for b, s, n in zip(before, seen, raw.shape, strict=True)]
    padded = np.pad(raw, pads, mode="reflect")
    total, weight = np.zeros((3, *inner)), np.zeros(inner)
    weights = gaussian_weights(lattice.output) if network.blended else np.ones(lattice.output)
    for window in np.ndindex(*(axis.n for axis in lattice.axes)):
        origin = [j * s for j, s in zip(window, lattice.stride, strict=True)]
        crop = padded[tuple(slice(o, o + c) for o, c in zip(origin, lattice.crop, strict=True))]
        outputs = network(torch.from_numpy(crop)[None, None].float() / 255)[0]
        place = tuple(slice(o, o + n) for o, n in zip(origin, lattice.output, strict=True))
        total[:, *place] += weights * head_affinity(outputs, network.head).numpy()
        weight[place] += weights
    volume = tuple(slice(a.pad, a.pad + n) for a, n in zip(lattice.axes, raw.shape, strict=True))
    return (total / weight)[:, *volume]
