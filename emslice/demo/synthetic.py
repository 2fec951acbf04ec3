"""A synthetic EM volume with its truth, for the demo and for tests.

Processes are tubes around paths that wander through the tissue; in every section they share the
plane as a power diagram (each voxel goes to the process whose path is nearest, squared distance
less squared radius), so they are packed without gaps and continuous from section to section.
Everything is drawn in nm and from one seed. It is a toy: real tissue is harder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

F32 = np.float32
Floats = NDArray[np.float32]

# Each section is the mean of this many planes through its thickness: a membrane that crosses it
# obliquely is grey and wide, as in a real section.
PLANES = 3
FRAME_NM = 250.0  # tissue simulated around the volume, so that processes can enter and leave
TRUTH_HALF_WIDTH_NM = 8.0
MEMBRANE_HALF_WIDTH_NM = 11.0
MIN_VOXELS = 60  # a smaller piece of a process at the volume's edge is not worth an id


@dataclass(frozen=True)
class Paths:
    """Centre lines that share the tissue; several may belong to one process."""

    centre_nm: NDArray[np.float64]
    """Shape (Z, N, 2), yx, at the middle of every section."""

    radius_nm: NDArray[np.float64]
    """Shape (N,). Its square is the weight in the power diagram."""

    process: NDArray[np.int64]
    """Shape (N,), from 1."""


@dataclass(frozen=True)
class Tissue:
    """Which process fills each voxel, before anything is drawn."""

    paths: Paths
    resolution_nm: tuple[float, float, float]
    owner: NDArray[np.int32]
    """Shape (Z, PLANES, Y, X): index of the path."""

    wall_nm: Floats
    """Shape (Z, PLANES, Y, X): distance to the next process in the plane."""

    @property
    def process(self) -> NDArray[np.int64]:
        """Shape (Z, Y, X), in the middle plane, which says what a section shows."""
        return self.paths.process[self.owner[:, PLANES // 2]]

    @property
    def inside_nm(self) -> Floats:
        """Shape (Z, Y, X): distance to the next process in the middle plane."""
        return self.wall_nm[:, PLANES // 2]

    def noise(self, rng: Generator, step_nm: float) -> Floats:
        """Noise over the volume that varies over ``step_nm``, and over a section at least."""
        shape = (len(self.owner), *self.owner.shape[2:])
        return smooth_noise(rng, shape, [max(1.0, step_nm / r) for r in self.resolution_nm])


def synthetic_em(
    shape: tuple[int, int, int] = (48, 256, 256),
    resolution_nm: tuple[float, float, float] = (30, 6, 6),
    seed: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Raw sections and truth of a made-up piece of neuropil; the same seed gives the same bytes.

    Interiors are bright and membranes dark. Mitochondria and vesicles are dark too and are no
    boundaries. Sections differ in contrast, are shifted against each other, and a few are dark or
    partly blurred.

    Returns
    -------
    raw : uint8, shape (Z, Y, X)
    truth : uint64, shape (Z, Y, X)
        0 on membranes; every other id is one 26-connected piece.

    Notes
    -----
    About 1.6 us and 100 bytes per voxel, in one thread.
    """
    rng = np.random.default_rng(seed)
    paths = _grow_paths(rng, shape, resolution_nm)
    tissue = _fill_planes(rng, paths, shape, resolution_nm)
    raw = _draw_membranes(rng, tissue)
    _draw_mitochondria(rng, raw, tissue)
    _draw_vesicles(rng, raw, tissue)
    # A gap narrower than a voxel would let two ids touch.
    gap_nm = max(TRUTH_HALF_WIDTH_NM, 0.75 * max(resolution_nm[1:]))
    truth = np.where(tissue.inside_nm < gap_nm, 0, tissue.process)
    return _expose(rng, raw), _one_id_per_piece(truth)


def smooth_noise(rng: Generator, shape: tuple[int, ...], step: Sequence[float]) -> Floats:
    """Gaussian noise of about unit variance that varies over ``step`` voxels along each axis."""
    knots = [int(np.ceil(n / s)) + 5 for n, s in zip(shape, step, strict=True)]
    field = rng.standard_normal(knots).astype(F32)
    for axis, (n, s) in enumerate(zip(shape, step, strict=True)):
        at = np.arange(n)[:, None] / s + 2 - np.arange(knots[axis])
        kernel = np.exp(-(at**2) / 0.72)
        kernel /= np.sqrt((kernel**2).sum(1, keepdims=True))
        # einsum and not matmul: the bytes must not depend on the BLAS or its threads.
        field = np.moveaxis(
            np.einsum("ij,j...->i...", kernel.astype(F32), np.moveaxis(field, axis, 0)), 0, axis
        )
    return np.ascontiguousarray(field)


def _grow_paths(
    rng: Generator, shape: tuple[int, int, int], resolution_nm: tuple[float, float, float]
) -> Paths:
    """Paths of many calibres, three in ten of them in one process with a neighbour."""
    size = np.array(shape[1:]) * resolution_nm[1:] + 2 * FRAME_NM
    radius = np.clip(rng.lognormal(np.log(95), 0.55, 4096), 45, 320)
    radius = radius[: max(8, int(np.searchsorted(np.cumsum(np.pi * radius**2), size.prod())))]
    n = len(radius)
    centre = rng.uniform(0, size, (n, 2))
    for _ in range(60):  # spread before the first section
        centre = np.clip(centre + _push(centre, radius), 0, size)
    gap = np.linalg.norm(centre[:, None] - centre, axis=2) + np.diag(np.full(n, np.inf))
    partner = np.where(rng.random(n) < 0.3, gap.argmin(1), np.arange(n))
    # Most processes cross the sections steeply, a fifth of them at about 45 degrees.
    slope = np.where(rng.random(n) < 0.2, 0.8, 0.25)[:, None] * resolution_nm[0]
    velocity = slope * rng.standard_normal((n, 2))
    # Half of the pairs stay together (a profile that is not convex), half part: a branch.
    parts_at = np.where(rng.random(n) < 0.5, shape[0], rng.uniform(0.2, 1, n) * shape[0])
    phase = rng.uniform(0, 2 * np.pi, 2)
    history = np.empty((shape[0], n, 2))
    for z in range(shape[0]):
        history[z] = centre
        velocity = 0.97 * velocity + 0.08 * resolution_nm[0] * rng.standard_normal((n, 2))
        flow = 0.2 * resolution_nm[0] * np.sin(centre[:, ::-1] / 450 + phase + 0.05 * z)
        pull = _pull(centre, radius, partner) * (z < parts_at)[:, None]
        centre = centre + velocity + flow + pull + _push(centre, radius)
        velocity = np.where((centre < 0) | (centre > size), -velocity, velocity)
        centre = np.clip(centre, 0, size)
    if rng.random() < 0.5:  # branches meet instead of parting
        history = history[::-1].copy()
    # Sections are cut and photographed one by one: they never lie exactly on each other.
    jitter = rng.normal(0, 0.7, (shape[0], 2)) + np.cumsum(rng.normal(0, 0.3, (shape[0], 2)), 0)
    history += (jitter * resolution_nm[1:])[:, None] - FRAME_NM
    _, process = connected_components(coo_array((np.ones(n), (np.arange(n), partner)), (n, n)))
    return Paths(history, radius, process.astype(np.int64) + 1)


def _push(centre: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Step that moves overlapping paths apart, the thinner of two more."""
    away = centre[:, None] - centre  # (N, N, 2), from the second to the first
    apart = np.linalg.norm(away, axis=2) + 1e-9
    overlap = np.maximum(0, 0.9 * (radius[:, None] + radius) - apart)
    share = radius**2 / (radius[:, None] ** 2 + radius**2)
    step = (away * (0.3 * overlap * share / apart)[:, :, None]).sum(1)
    return np.clip(step, -25, 25)


def _pull(
    centre: NDArray[np.float64], radius: NDArray[np.float64], partner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Step that keeps a path beside its partner; none for a path that is its own."""
    towards = centre[partner] - centre
    apart = np.linalg.norm(towards, axis=1)
    slack = np.maximum(0, apart - 0.6 * (radius + radius[partner]))
    return towards * (0.3 * slack / (apart + 1e-9))[:, None]


def _fill_planes(
    rng: Generator,
    paths: Paths,
    shape: tuple[int, int, int],
    resolution_nm: tuple[float, float, float],
) -> Tissue:
    """Divide every plane among the paths; noise in the coordinates makes the borders wavy."""
    n_sections, height, width = shape
    owner = np.empty((n_sections, PLANES, height, width), np.int32)
    tissue = Tissue(paths, resolution_nm, owner, np.empty(owner.shape, F32))
    y_nm = (np.arange(height) * resolution_nm[1])[:, None]
    x_nm = np.arange(width) * resolution_nm[2]
    y_nm, x_nm = (
        (at + 30 * tissue.noise(rng, 130) + 6 * tissue.noise(rng, 40)).astype(F32)
        for at in (y_nm, x_nm)
    )
    weight = (paths.radius_nm**2).astype(F32)
    following = np.concatenate([paths.centre_nm, paths.centre_nm[-1:]])
    preceding = np.concatenate([paths.centre_nm[:1], paths.centre_nm])
    for z, plane in np.ndindex(n_sections, PLANES):
        ahead = (plane + 0.5) / PLANES - 0.5  # of the middle, in sections
        there = following[z + 1] if ahead > 0 else preceding[z]
        centre = paths.centre_nm[z] + abs(ahead) * (there - paths.centre_nm[z])
        out = (owner[z, plane], tissue.wall_nm[z, plane])
        _nearest_process(y_nm[z], x_nm[z], centre.astype(F32), weight, paths.process, out)
    return tissue


@njit(nogil=True)
def _nearest_process(y, x, centre, weight, process, out):  # type: ignore[no-untyped-def]
    """Power diagram of one plane: owning path, and distance to the nearest other process."""
    owner, wall_nm = out
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            best, second = np.float32(1e30), np.float32(1e30)
            mine, other = 0, 0
            for k in range(centre.shape[0]):
                dy, dx = y[i, j] - centre[k, 0], x[i, j] - centre[k, 1]
                d = dy * dy + dx * dx - weight[k]
                if d < best:
                    # A closer path of the same process is no rival of the one before.
                    if process[k] != process[mine]:
                        second, other = best, mine
                    best, mine = d, k
                elif d < second and process[k] != process[mine]:
                    second, other = d, k
            owner[i, j] = mine
            dy, dx = centre[mine, 0] - centre[other, 0], centre[mine, 1] - centre[other, 1]
            # The boundary between two paths is a line; this is the distance to it.
            wall_nm[i, j] = (second - best) / (2 * np.sqrt(dy * dy + dx * dx) + np.float32(1e-3))


def _draw_membranes(rng: Generator, tissue: Tissue) -> Floats:
    """Bright, mottled cytoplasm and dark membranes of uneven width, in grey levels."""
    n = int(tissue.paths.process.max()) + 1
    process = tissue.process
    shade = rng.normal(0, 8, n) - 22 * (rng.random(n) < 0.12)
    mottle = rng.uniform(5, 15, n)[process]
    raw = 176 + shade[process] + mottle * (tissue.noise(rng, 20) + tissue.noise(rng, 60))
    uneven, loose = tissue.noise(rng, 100), tissue.noise(rng, 100)
    # Dense patches stand for synapses; elsewhere the membrane is thin and sometimes pale.
    half_width = MEMBRANE_HALF_WIDTH_NM * (1 + 0.1 * uneven + 1.2 * np.maximum(0, uneven - 1.7))
    ink = np.clip(0.86 + 0.1 * uneven, 0.5, 1)
    # Here and there the two membranes stand apart, with a pale cleft between them.
    cleft = 9 * np.clip(loose - 0.3, 0, 1)
    dark = np.zeros(process.shape, F32)
    for plane in range(PLANES):
        wall = tissue.wall_nm[:, plane]
        dark += expit((half_width + cleft - wall) / 3) - 0.6 * expit((cleft - 4 - wall) / 2)
    return (raw + dark * ink / PLANES * (36 - raw)).astype(F32)


def _draw_mitochondria(rng: Generator, raw: Floats, tissue: Tissue) -> None:
    """Dark, striped ellipsoids with a darker rim, along some of the wider paths."""
    paths, process = tissue.paths, tissue.process
    thickness, *pixel = tissue.resolution_nm
    y_nm = np.arange(raw.shape[1])[:, None] * pixel[0]
    x_nm = np.arange(raw.shape[2]) * pixel[1]
    wide = np.flatnonzero(paths.radius_nm > 85)
    for k in rng.choice(wide, int(0.9 * len(wide))):
        middle, half = rng.uniform(0, len(raw)), rng.uniform(200, 500) / thickness
        calibre = min(0.55 * paths.radius_nm[k], rng.uniform(60, 130))
        long, angle = rng.uniform(1, 2), rng.uniform(0, np.pi)
        aside = rng.normal(0, 0.15, 2) * paths.radius_nm[k]
        for z in range(max(0, int(middle - half)), min(len(raw), int(middle + half) + 1)):
            cy, cx = paths.centre_nm[z, k] + aside
            size = calibre * np.sqrt(max(0.02, 1 - ((z - middle) / half) ** 2))
            angle += rng.normal(0, 0.05)
            along = (y_nm - cy) * np.sin(angle) + (x_nm - cx) * np.cos(angle)
            across = (x_nm - cx) * np.sin(angle) - (y_nm - cy) * np.cos(angle)
            depth = size * (1 - np.hypot(along / (size * long), across / size))
            # Its own membrane keeps away from that of the process.
            depth = np.minimum(depth, tissue.inside_nm[z] - 26)
            depth[process[z] != paths.process[k]] = -1
            stripes = 108 + 14 * np.sin(along / 7 + 2 * np.sin(across / 30))
            cover = np.clip(depth / 4, 0, 1)
            raw[z] += cover * (np.where(depth < 9, 62, stripes) - raw[z])


def _draw_vesicles(rng: Generator, raw: Floats, tissue: Tissue) -> None:
    """Clouds of small rings in some processes, and a few dense dots anywhere inside."""
    _, *pixel = tissue.resolution_nm
    busy = rng.random(int(tissue.paths.process.max()) + 1) < 0.25
    cloud = busy[tissue.process] & (tissue.noise(rng, 150) > 0)
    inside = pixel[0] * pixel[1] * (tissue.inside_nm > 26)
    rings = rng.random(raw.shape) < np.where(cloud, 4e-4, 6e-6) * inside
    dots = rng.random(raw.shape) < 4e-6 * inside
    raw -= 70 * np.minimum(_bumps(rings, 10, pixel) - 0.6 * _bumps(rings, 5, pixel), 1)
    raw -= 110 * np.minimum(_bumps(dots, 8, pixel), 1)


def _bumps(spots: NDArray[np.bool_], sigma_nm: float, pixel_nm: list[float]) -> Floats:
    """A Gaussian of height 1 at every spot, within its section."""
    sigma = [0.0, *(sigma_nm / r for r in pixel_nm)]
    peak = 1 / max(1.0, 2 * np.pi * sigma[1] * sigma[2])
    return ndimage.gaussian_filter(spots.astype(F32), sigma, truncate=3) / F32(peak)


def _expose(rng: Generator, raw: Floats) -> NDArray[np.uint8]:
    """What the microscope makes of it: blur, uneven contrast, noise, some bad sections."""
    n = len(raw)
    image = ndimage.gaussian_filter(raw, (0, 0.6, 0.6))
    shape = raw.shape
    bad = rng.permutation(n)
    for z in bad[: n // 16]:  # out of focus in a part of the section
        blurred = ndimage.gaussian_filter(image[z], rng.uniform(1.2, 2.2))
        part = np.clip(0.5 + smooth_noise(rng, shape[1:], [60, 60]), 0, 1)
        image[z] += part * (blurred - image[z])
    gain = rng.uniform(0.85, 1.2, n)
    offset = rng.normal(-18, 9, n)
    dark = bad[n // 16 : n // 8]
    gain[dark] *= 0.7
    image = 128 + (image - 128) * gain[:, None, None].astype(F32)
    image += offset[:, None, None] + 7 * smooth_noise(rng, shape, [1, 90, 90])
    image[dark] -= 30
    # Shot noise grows with brightness; the detector's own does not. Both a little correlated.
    noise = rng.standard_normal(shape, F32) * np.sqrt(np.maximum(image, 8) * 0.6 + 60)
    image += ndimage.gaussian_filter(noise, (0, 0.5, 0.5))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _one_id_per_piece(labels: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Number the 26-connected pieces of the labels from 1; pieces of a few voxels become 0."""
    pieces = np.zeros(labels.shape, np.uint64)
    count = 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        piece, _ = ndimage.label(labels[box] == label, np.ones((3, 3, 3)))
        sizes = np.bincount(piece.ravel())
        keep = np.flatnonzero(sizes >= MIN_VOXELS)
        keep = keep[keep > 0]
        table = np.zeros(len(sizes), np.uint64)
        table[keep] = np.arange(count + 1, count + 1 + len(keep))
        pieces[box] += table[piece]
        count += len(keep)
    return pieces
