"""What teachers add to a student's loss: CAD, IAD, and features grafted from one to the other.

Written to the equations of CAD (CVPR 2024) and EM-SliceCrafter. Crops are cut into the pairs of
their adjacent sections, in the order crop, section: pair ``z`` of a crop is its sections ``z`` and
``z + 1``. Where the released code does something else than its paper says, `released_fgi` and
``first_column`` do as the code does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from emslice.training.losses import affinity_error, pair_cosines, pair_loss, weighted_mean
from emslice.training.targets import Targets, balance_weights

REACH = 4
"""Sections over which a student's features are grafted into a teacher's volume."""


def pairs_of(volume: Tensor) -> Tensor:
    """All pairs of adjacent sections of crops, shape (B (Z - 1), 2, Y, X).

    Parameters
    ----------
    volume : Tensor, shape (B, Z, Y, X)
    """
    return torch.stack([volume[:, :-1], volume[:, 1:]], 2).flatten(0, 1)


def taught_affinity(cosine: Tensor) -> Tensor:
    """What a 3D teacher says of the later section of each pair, shape (B (Z - 1), 3, Y, X).

    Parameters
    ----------
    cosine : Tensor, float, shape (B, K, Z, Y, X)
        Of the teacher; the first three channels are the nearest ones.
    """
    return cosine[:, :3, 1:].clamp(min=0).transpose(1, 2).flatten(0, 1)


def distillation_loss(
    cosine: Tensor, taught: Tensor, targets: Targets, clipped: bool = False, first_column: int = 0
) -> Tensor:
    """Error of a student's affinities to a teacher's, weighted as labels are (CAD and IAD).

    Parameters
    ----------
    cosine, taught : Tensor, float, shape (N, 3, Y, X)
        Cosines of the student; affinities of the teacher, in [0, 1].
    first_column : int
        Columns before it are left out; the released code leaves out 27 by mistake.
    """
    error = affinity_error(cosine, taught, clipped)
    usable = targets.usable
    if first_column:
        usable = usable.clone()
        usable[..., :first_column] = False
    return weighted_mean(error, targets.weights, usable)


def fgi_loss(
    before: Tensor, here: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor
) -> Tensor:
    """Loss of a student's sections grafted into a teacher's volume (FGI).

    The embedding of a section, by either head, is compared with the teacher's 1 to 4 sections
    further on; labels say what that affinity should be. The mean over distances and heads.

    Parameters
    ----------
    before, here : Tensor, float, shape (B (Z - 1), C, Y, X)
        The student's, of `pairs_of` the crops.
    teacher : Tensor, float, shape (B, C, Z, Y, X)
    labels : Tensor, int64, shape (B, Z, Y, X)
    valid : Tensor, bool, the same shape
    """
    b, _, depth = teacher.shape[:3]
    heads = [_unit(head.unflatten(0, (b, depth - 1)).transpose(1, 2)) for head in (before, here)]
    taught, losses = _unit(teacher), []
    for first, head in enumerate(heads):  # head ``first`` begins at section ``first``
        for reach in range(1, min(REACH, depth - 1 - first) + 1):
            n = depth - first - reach
            cosine = (head[:, :, :n] * taught[:, :, first + reach :]).sum(1, keepdim=True)
            ends = [slice(first, first + n), slice(first + reach, None)]
            one, other = (labels[:, end] for end in ends)
            targets = ((one == other) & (one > 0))[:, None].float()
            usable = (valid[:, ends[0]] & valid[:, ends[1]])[:, None]
            error = affinity_error(cosine, targets)
            weights = balance_weights(targets, usable, together=False)
            losses.append(weighted_mean(error, weights, usable))
    return torch.stack(losses).mean()


def released_fgi(before: Tensor, here: Tensor, teacher: Tensor, targets: Targets) -> Tensor:
    """The graft as CAD's released code computes it, mistakes included; a sum over pairs.

    Of each pair only the longest distance that fits counts, embeddings are not normalised, and the
    targets are those of the neighbouring section whatever the distance (reference, section 6.4).

    Parameters
    ----------
    before, here, teacher
        As for `fgi_loss`.
    targets : Targets
        Of the volume, shape (B, K, Z, Y, X); channel 0 links to the section before.
    """
    b, _, depth = teacher.shape[:3]
    one, two = (head.unflatten(0, (b, depth - 1)) for head in (before, here))
    wanted, weights = targets.affinity[:, :1], targets.weights[:, :1]
    total = teacher.new_zeros(())
    for z in range(depth - 2):
        reach = min(REACH, depth - 2 - z)
        grafts = [(two[:, z], z + 2)] if reach == 1 else [(one[:, z], z + 1), (two[:, z], z + 2)]
        for head, target in grafts:
            behind = z + reach + (target - z - 1)
            affinity = (head * teacher[:, :, behind]).sum(1, keepdim=True).clamp(0, 1)
            error = (affinity - wanted[:, :, target]) ** 2
            total = total + weighted_mean(error, weights[:, :, target], torch.ones_like(error) > 0)
    return total


def cross_graft_loss(
    student: tuple[Tensor, Tensor],
    other: tuple[Tensor, Tensor],
    targets: Targets,
    clipped: bool = False,
) -> Tensor:
    """Loss of pairs of which one section is the student's and one the SAM teacher's.

    Parameters
    ----------
    student, other : (before, here), each Tensor, float, shape (N, C, Y, X)
    """
    first = pair_loss(pair_cosines(student[0], other[1]), targets, clipped)
    second = pair_loss(pair_cosines(other[0], student[1]), targets, clipped)
    return first + second


def _unit(embedding: Tensor) -> Tensor:
    return F.normalize(embedding.float(), dim=1)
