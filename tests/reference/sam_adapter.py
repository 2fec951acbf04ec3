"""The SAM adapter, one section and one voxel of a transposed convolution at a time."""

import torch


def doubled(features, kernel, bias):
    """Transposed convolution 4 x 4, stride 2, of (C, Y, X): every voxel paints its kernel."""
    _, height, length = features.shape
    canvas = torch.zeros(kernel.shape[1], 2 * height + 2, 2 * length + 2)
    for y in range(height):
        for x in range(length):
            painted = torch.einsum("c,cdij->dij", features[:, y, x], kernel)
            canvas[:, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += painted
    return canvas[:, 1:-1, 1:-1] + bias[:, None, None]


def halved(features, kernel, bias):
    """Convolution 3 x 3, stride 2, of (C, Y, X), zeros around it."""
    channels, height, length = features.shape
    padded = torch.zeros(channels, height + 2, length + 2)
    padded[:, 1:-1, 1:-1] = features
    out = torch.zeros(len(kernel), height // 2, length // 2)
    for y in range(height // 2):
        for x in range(length // 2):
            seen = padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            out[:, y, x] = (kernel * seen).sum((1, 2, 3)) + bias
    return out


def adapt(weights, before, here):
    """Embeddings of two sections whose features are (C, Y, X)."""
    parts = ("weight", "bias")
    own = [before, here]
    for step in range(5):
        kernel, bias = (weights[f"doublings.{step}.{part}"] for part in parts)
        if step > 0:
            mix, shift = (weights[f"fusions.{step - 1}.{part}"] for part in parts)
            both = torch.cat(own)
            common = torch.einsum("dc,cyx->dyx", mix[:, :, 0, 0], both) + shift[:, None, None]
            own = [torch.cat([common, section]) for section in own]
        own = [doubled(section, kernel, bias) for section in own]
        if step < 4:
            own = [section.clamp(min=0) for section in own]
    kernel, bias = (weights[f"halving.{part}"] for part in parts)
    return [halved(section, kernel, bias) for section in own]
