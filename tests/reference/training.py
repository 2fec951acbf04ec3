"""Training's targets and losses as their equations say, one link at a time."""

import numpy as np


def widened(labels):
    """Section by section: 0 where the 3 x 3 voxels around hold two neurons."""
    out = labels.copy()
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                around = labels[z, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                if len(set(around[around > 0].tolist())) > 1:
                    out[z, y, x] = 0
    return out


def links(shape, offset):
    """Every voxel whose neighbour at an offset is inside, with that neighbour."""
    for p in np.ndindex(*shape):
        q = tuple(a + b for a, b in zip(p, offset, strict=True))
        if all(0 <= n < s for n, s in zip(q, shape, strict=True)):
            yield p, q


def targets(labels, valid, offset):
    """(affinity, usable) of one crop and one offset."""
    affinity, usable = np.zeros(labels.shape), np.zeros(labels.shape, bool)
    for p, q in links(labels.shape, offset):
        affinity[p] = labels[p] == labels[q] > 0
        usable[p] = valid[p] and valid[q]
    return affinity, usable


def weights(affinity, usable):
    """Balanced weights of some links of one crop."""
    some = affinity[usable]
    ones = np.where(usable, 1.0, 0.0)
    if len(some) == 0 or some.min() == some.max():
        return ones
    f = min(max(some.mean(), 0.05), 0.99)
    if f > 0.5:
        return np.where(affinity == 0, f / (1 - f), 1.0) * ones
    return np.where(affinity > 0, (1 - f) / f, 1.0) * ones


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def error(c, t, clipped):
    """Error of a cosine to an affinity."""
    if clipped:
        return (min(max(c, 0), 1) - t) ** 2
    return t * (1 - c) ** 2 + (1 - t) * max(c, 0) ** 2 - t * (1 - t)


def pair_cosine(before, here, channel, y, x):
    """Cosine of one link of a pair; embeddings of shape (C, Y, X)."""
    other = (before[:, y, x], here[:, y - 1, x], here[:, y, x - 1])[channel]
    return cosine(here[:, y, x], other)


def pair_loss(before, here, wanted, usable, weight, clipped=False):
    """Sum over channels of the mean over all usable links of all pairs; arrays (N, 3, Y, X)."""
    total = 0.0
    for channel in range(3):
        errors = [
            weight[n, channel, y, x]
            * error(
                pair_cosine(before[n], here[n], channel, y, x), wanted[n, channel, y, x], clipped
            )
            for n, y, x in np.argwhere(usable[:, channel])
        ]
        total += sum(errors) / max(1, len(errors))
    return total


def volume_loss(embedding, labels, valid, offsets, near):
    """A 3D teacher's loss, balanced over all channels of a crop at once."""
    sums, counts = np.zeros(len(offsets)), np.zeros(len(offsets))
    for volume, ids, known in zip(embedding, labels, valid, strict=True):
        parts = [targets(ids, known, offset) for offset in offsets]
        affinity, usable = (np.stack(part) for part in zip(*parts, strict=True))
        weight = weights(affinity, usable)
        for k, offset in enumerate(offsets):
            for p, q in links(ids.shape, offset):
                if usable[(k, *p)]:
                    c = cosine(volume[:, *p], volume[:, *q])
                    sums[k] += weight[(k, *p)] * (c - affinity[(k, *p)]) ** 2
                    counts[k] += 1
    emphasis = np.where(np.arange(len(offsets)) < 3, near, 1)
    return float((emphasis * sums / np.maximum(counts, 1)).sum())


def fgi_loss(before, here, teacher, labels, valid):
    """Mean over heads and distances; heads (B, Z - 1, C, Y, X), teacher (B, C, Z, Y, X)."""
    b, _, depth, height, width = teacher.shape
    losses = []
    for head, embedded in ((0, before), (1, here)):
        for reach in range(1, 5):
            found = []
            for crop in range(b):
                ends = []
                for pair in range(depth - 1):
                    z, other = pair + head, pair + head + reach
                    if other >= depth:
                        continue
                    for y, x in np.ndindex(height, width):
                        one, two = labels[crop, z, y, x], labels[crop, other, y, x]
                        usable = valid[crop, z, y, x] and valid[crop, other, y, x]
                        c = cosine(embedded[crop, pair, :, y, x], teacher[crop, :, other, y, x])
                        ends.append((c, float(one == two > 0), bool(usable)))
                if ends:
                    wanted, usable = (np.array(part) for part in list(zip(*ends, strict=True))[1:])
                    weight = weights(wanted, usable)
                    found += [
                        w * error(c, t, False)
                        for (c, t, u), w in zip(ends, weight, strict=True)
                        if u
                    ]
            if depth - 1 - head - reach >= 0:
                losses.append(sum(found) / max(1, len(found)))
    return sum(losses) / len(losses)


def released_fgi(before, here, teacher, wanted, weight):
    """As the released loop runs, with its mistakes; wanted and weight (B, Z, Y, X) of channel 0."""
    depth = teacher.shape[2]
    total = 0.0
    for z in range(depth - 1):
        value = 0.0
        for shift in (1, 2, 3, 4):
            if z + shift > depth - 2:
                continue
            value = 0.0  # what shorter shifts gave is lost
            if shift > 1:
                value += _dots(before[:, z], teacher[:, :, z + shift], wanted, weight, z + 1)
            value += _dots(here[:, z], teacher[:, :, z + 1 + shift], wanted, weight, z + 2)
        total += value
    return total


def _dots(one, two, wanted, weight, section):
    product = np.clip((one * two).sum(1), 0, 1)
    return float((weight[:, section] * (product - wanted[:, section]) ** 2).mean())
