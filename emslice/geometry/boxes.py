"""Boxes and triples: daisy's `Roi` and `Coordinate`, and the few functions emslice adds.

A box is half-open, in voxels, z, y, x. A *domain* is the full extent of the raw volume and starts
at the origin; every box, id and lattice refers to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from funlib.geometry import Coordinate, Roi  # what daisy re-exports; importing daisy costs more

from emslice.errors import GeometryError

__all__ = [
    "Coordinate",
    "Roi",
    "clip",
    "cut",
    "n_voxels",
    "parse_roi",
    "parse_triple",
    "show",
    "within",
]


def parse_triple(text: str | Sequence[Any], what: str, kind: type = int) -> tuple[Any, Any, Any]:
    """Three numbers from ``"z,y,x"`` or a sequence.

    >>> parse_triple("40,4,4", "--resolution")
    (40, 4, 4)
    """
    try:
        parts = text.split(",") if isinstance(text, str) else list(text)
        values = tuple(kind(part) for part in parts)
        exact = all(isinstance(p, str) or p == v for p, v in zip(parts, values, strict=True))
    except (TypeError, ValueError, OverflowError):
        values, exact = (), False
    if len(values) != 3 or not exact:
        raise GeometryError(f"{what}: expected three numbers z,y,x, got {text!r}.")
    return values


def parse_roi(text: str, domain: Roi, what: str = "--roi") -> Roi:
    """Box from ``"z0:z1,y0:y1,x0:x1"`` in domain voxels; an empty end means the domain's.

    >>> show(parse_roi("0:4,:,8:", Roi((0, 0, 0), (9, 16, 32))))
    '0:4,0:16,8:32'

    Raises
    ------
    GeometryError
        Not three ranges, an empty box, or a box that leaves the domain.
    """
    ranges = text.split(",")
    if len(ranges) != 3 or any(part.count(":") != 1 for part in ranges):
        raise GeometryError(f"{what}: expected z0:z1,y0:y1,x0:x1 in voxels, got {text!r}.")
    try:
        ends = [
            (int(lo) if lo.strip() else int(first), int(hi) if hi.strip() else int(last))
            for (lo, hi), first, last in zip(
                (part.split(":") for part in ranges), domain.begin, domain.end, strict=True
            )
        ]
    except ValueError:
        raise GeometryError(f"{what}: expected whole numbers, got {text!r}.") from None
    begin = [lo for lo, _ in ends]
    if any(hi <= lo for lo, hi in ends):
        raise GeometryError(f"{what}: {text!r} is empty; each end must lie above its begin.")
    roi = Roi(begin, [hi - lo for lo, hi in ends])
    if not domain.contains(roi):
        raise GeometryError(
            f"{what}: {show(roi)} leaves the volume, which spans {show(domain)}. "
            f"ROIs are counted in voxels of the whole volume."
        )
    return roi


def show(roi: Roi) -> str:
    """Text that `parse_roi` reads back.

    >>> show(Roi((0, 8, 8), (4, 8, 16)))
    '0:4,8:16,8:24'
    """
    return ",".join(f"{lo}:{hi}" for lo, hi in zip(roi.begin, roi.end, strict=True))


def n_voxels(roi: Roi) -> int:
    """Voxels in a box.

    >>> n_voxels(Roi((1, 1, 1), (2, 3, 5)))
    30
    """
    z, y, x = (int(n) for n in roi.shape)
    return z * y * x


def within(inner: Roi, outer: Roi) -> tuple[slice, slice, slice]:
    """Slices of ``inner`` in an array that covers ``outer``."""
    if not outer.contains(inner):
        raise GeometryError(f"{show(inner)} is not inside {show(outer)}.")
    low = inner.begin - outer.begin
    z, y, x = (slice(int(lo), int(lo + n)) for lo, n in zip(low, inner.shape, strict=True))
    return z, y, x


def clip(roi: Roi, bounds: Roi) -> Roi:
    """The part of ``roi`` inside ``bounds``; empty (shape with a 0) if they do not meet."""
    begin = [max(a, b) for a, b in zip(roi.begin, bounds.begin, strict=True)]
    end = [min(a, b) for a, b in zip(roi.end, bounds.end, strict=True)]
    return Roi(begin, [max(0, hi - lo) for lo, hi in zip(begin, end, strict=True)])


def cut(roi: Roi, axis: int, step: int) -> list[Roi]:
    """``roi`` in slabs of at most ``step`` along ``axis``, on the grid anchored at the origin.

    >>> [show(slab) for slab in cut(Roi((3, 0, 0), (6, 1, 1)), axis=0, step=4)]
    ['3:4,0:1,0:1', '4:8,0:1,0:1', '8:9,0:1,0:1']
    """
    slabs, low, end = [], int(roi.begin[axis]), int(roi.end[axis])
    while low < end:
        high = min(end, (low // step + 1) * step)
        begin, shape = list(roi.begin), list(roi.shape)
        begin[axis], shape[axis] = low, high - low
        slabs.append(Roi(begin, shape))
        low = high
    return slabs
