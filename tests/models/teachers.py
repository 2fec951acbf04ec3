"""Small 3D networks with random weights; those of the published teachers are not published."""

import torch

from emslice.models.mala import Mala
from emslice.models.superhuman import Superhuman

NARROW = (3, 4, 5, 6, 7)


def randomise(network, seed=0):
    """Weights and batch statistics such that every layer matters; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.3, 2, generator=generator)
        elif value.ndim == 5:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point() and "block" in name and name.endswith("weight"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point() and not name.endswith("weight"):
            value.normal_(0, 0.1, generator=generator)
    return network.eval()


def small_superhuman(seed=0, **options):
    """A superhuman network of few channels."""
    return randomise(Superhuman(**{"filters": NARROW, "outputs": 5} | options), seed)


def small_mala(seed=0, **options):
    """A MALA of few channels."""
    return randomise(Mala(**{"widths": (2, 3, 4, 5), "outputs": 5} | options), seed)


SMALL = {
    "embedding": small_superhuman,
    "affinity": lambda: small_superhuman(outputs=12, head="affinity"),
    "ssns": lambda: small_superhuman(
        outputs=3, head="affinity", merge="cat", upsampling="transposed"
    ),
    "savem3": lambda: small_superhuman(
        filters=(3, 4, 5, 6), outputs=1, head="boundary", merge="cat", upsampling="transposed"
    ),
    "mala": small_mala,
    "mala affinity": lambda: small_mala(outputs=3, head="affinity"),
}
"""A network of each kind, by name."""
