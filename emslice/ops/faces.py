"""The outermost layers of a block: all that its neighbours need to know of it.

An affinity belongs to the later voxel, so a block keeps labels *and* codes of its lower faces and
labels of its upper ones. Edges across a face are made from these planes without reading a volume
again; exits are looked up in them; and a fragment that touches one of them is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Coordinate, Roi, within
from emslice.ops.contacts import Contacts, combine, contacts_across
from emslice.ops.lut import Lut

AXES = range(3)


@dataclass(frozen=True)
class Faces:
    """Planes of a box, each one voxel thick, for the axes z, y, x."""

    box: Roi

    lower: tuple[NDArray[np.uint64], ...]
    """Labels of the first layer along each axis; shape of the box with that axis 1."""

    codes: tuple[NDArray[np.uint8], ...]
    """Codes of the same voxels, of the channel along that axis."""

    upper: tuple[NDArray[np.uint64], ...]
    """Labels of the last layer along each axis."""

    def relabelled(self, lut: Lut) -> Faces:
        """The same planes with other labels."""
        return replace(
            self,
            lower=tuple(lut.apply(plane) for plane in self.lower),
            upper=tuple(lut.apply(plane) for plane in self.upper),
        )


def cut_faces(labels: NDArray[np.uint64], affinity: NDArray[np.uint8], box: Roi) -> Faces:
    """Faces of a block from its labels (Z, Y, X) and codes (3, Z, Y, X)."""
    first = [np.take(labels, [0], axis) for axis in AXES]
    codes = [np.take(affinity[axis], [0], axis) for axis in AXES]
    last = [np.take(labels, [-1], axis) for axis in AXES]
    return Faces(box, tuple(first), tuple(codes), tuple(last))


def layer(box: Roi, axis: int, last: bool) -> Roi:
    """Box of the first or last layer along an axis."""
    begin, shape = list(box.begin), list(box.shape)
    if last:
        begin[axis] += shape[axis] - 1
    shape[axis] = 1
    return Roi(begin, shape)


def join_faces(children: Sequence[Faces], box: Roi) -> Faces:
    """Faces of a box from those of the blocks that fill it."""

    def plane(axis: int, last: bool, name: str) -> NDArray[Any]:
        target = layer(box, axis, last)
        out: NDArray[Any] | None = None
        for child in children:
            piece = layer(child.box, axis, last)
            if target.contains(piece):
                values = getattr(child, name)[axis]
                if out is None:
                    out = np.zeros(tuple(int(n) for n in target.shape), values.dtype)
                out[within(piece, target)] = values
        assert out is not None
        return out

    return Faces(
        box,
        tuple(plane(axis, False, "lower") for axis in AXES),
        tuple(plane(axis, False, "codes") for axis in AXES),
        tuple(plane(axis, True, "upper") for axis in AXES),
    )


def contacts_between(children: Sequence[Faces], histograms: bool = False) -> Contacts:
    """Rows across the faces that blocks of one grid have in common."""
    by_begin: Mapping[tuple[int, ...], Faces] = {
        tuple(int(n) for n in child.box.begin): child for child in children
    }
    found = []
    for child in children:
        for axis in AXES:
            step = Coordinate(int(child.box.shape[axis]) if i == axis else 0 for i in AXES)
            later = by_begin.get(tuple(int(n) for n in child.box.begin + step))
            if later is not None:
                planes = child.upper[axis], later.lower[axis], later.codes[axis]
                found.append(contacts_across(*planes, histograms))
    return combine(found)


@dataclass(frozen=True)
class Sides:
    """Which labels touch each side of a box: ascending, without 0, for the axes z, y, x."""

    box: Roi
    lower: tuple[NDArray[np.uint64], ...]
    upper: tuple[NDArray[np.uint64], ...]


def sides_of(faces: Faces) -> Sides:
    """Sides of a block."""

    def labels(planes: tuple[NDArray[np.uint64], ...]) -> tuple[NDArray[np.uint64], ...]:
        return tuple(_without_0(plane.ravel()) for plane in planes)

    return Sides(faces.box, labels(faces.lower), labels(faces.upper))


def join_sides(children: Sequence[Sides], box: Roi) -> Sides:
    """Sides of a box from those of the blocks or nodes that fill it."""

    def labels(axis: int, last: bool) -> NDArray[np.uint64]:
        outer, found = layer(box, axis, last), [np.zeros(0, np.uint64)]
        for child in children:
            if outer.contains(layer(child.box, axis, last)):
                found.append((child.upper if last else child.lower)[axis])
        return _without_0(np.concatenate(found))

    lower, upper = (tuple(labels(axis, last) for axis in AXES) for last in (False, True))
    return Sides(box, lower, upper)


def touching(sides: Sides, roi: Roi) -> NDArray[np.uint64]:
    """Labels on sides behind which there is more of the volume, ascending."""
    found = [np.zeros(0, np.uint64)]
    for axis in AXES:
        if sides.box.begin[axis] > roi.begin[axis]:
            found.append(sides.lower[axis])
        if sides.box.end[axis] < roi.end[axis]:
            found.append(sides.upper[axis])
    return _without_0(np.concatenate(found))


def _without_0(labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
    labels = np.unique(labels)
    return labels[labels != 0]
