"""Raw to affinities: the network on every tile of the lattice that a box touches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi, clip, cut, n_voxels, within
from emslice.geometry.lattice import Z_RUN, Tile
from emslice.models.augment import TilePredictor
from emslice.models.profile import operator_threads
from emslice.ops.blank import blank_voxels
from emslice.stages.intensity import AS_IT_IS, Intensity
from emslice.volumes import ArrayVolume, Volume

VERSION = 2
"""Raised when the same parameters would give other affinities."""


def predict(
    raw: Volume,
    predictor: TilePredictor,
    roi: Roi,
    intensity: Intensity = AS_IT_IS,
    workers: int = 1,
    advance: Callable[[int], None] = lambda voxels: None,
) -> ArrayVolume:
    """Affinity codes of a box of the raw volume.

    Raw is read up to a tile's halo beyond the box, and the section before it: a voxel has the
    same codes whatever box was asked for. Blank raw has no affinities, which masks it.

    Parameters
    ----------
    raw : Volume, uint8 or uint16, covering its domain
    predictor : TilePredictor
        On the lattice of the domain's sections.
    intensity : Intensity
        How raw becomes what the network sees; by default raw of 8 bits as it is.
    workers : int
        Threads, each on tiles of its own; the number changes no voxel.
    advance : callable
        Told how many voxels were finished.

    Returns
    -------
    affinities : ArrayVolume, uint8, shape (3, Z, Y, X)

    Notes
    -----
    3 bytes a voxel, and per worker about 1 kB a pixel of a tile's read box.
    """
    codes = np.zeros((3, *(int(n) for n in roi.shape)), np.uint8)
    affinities = ArrayVolume(
        codes, offset=roi.begin, domain_shape=raw.domain.shape, resolution_nm=raw.resolution_nm
    )

    def work(task: tuple[Roi, Tile, Roi]) -> None:
        sections, tile, answer = task
        part = _predict_tile(raw, predictor, tile, sections, answer, intensity)
        affinities.write(answer, part)
        advance(n_voxels(answer))

    with operator_threads(predictor.profile.threads) as set_threads:
        if workers == 1:  # in this thread, where Ctrl-C reaches it
            for part in _tasks(predictor, roi):
                work(part)
            return affinities
        with ThreadPoolExecutor(workers, initializer=set_threads) as pool:
            tasks = [pool.submit(work, task) for task in _tasks(predictor, roi)]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return affinities


def _tasks(predictor: TilePredictor, roi: Roi) -> list[tuple[Roi, Tile, Roi]]:
    """Runs of sections x tiles that meet the box, each with the part of the box it answers for."""
    axis_y, axis_x = predictor.lattice.axes
    tasks = []
    for sections in cut(roi, axis=0, step=Z_RUN):
        for tile in predictor.lattice.tiles():
            (y0, y1), (x0, x1) = axis_y.answer(tile.y), axis_x.answer(tile.x)
            core = Roi((sections.begin[0], y0, x0), (sections.shape[0], y1 - y0, x1 - x0))
            answer = clip(core, roi)
            if not answer.empty:
                tasks.append((sections, tile, answer))
    return tasks


def _predict_tile(
    raw: Volume,
    predictor: TilePredictor,
    tile: Tile,
    sections: Roi,
    answer: Roi,
    intensity: Intensity,
) -> NDArray[np.uint8]:
    """Codes of the part of a tile's core that is asked for; blank voxels have none."""
    (axis_y, axis_x), first = predictor.lattice.axes, int(sections.begin[0])
    source_y, source_x = axis_y.sources(tile.y), axis_x.sources(tile.x)
    # the outermost sections of the volume are their own partners
    behind = int(sections.end[0]) + predictor.behind
    z = np.clip(np.arange(first - 1, behind), 0, int(raw.domain.end[0]) - 1)
    seen = _box_of(z, source_y, source_x)
    values = raw.read(seen)
    z, source_y, source_x = (
        line - int(low) for line, low in zip((z, source_y, source_x), seen.begin, strict=True)
    )
    padded = intensity(values, seen)[np.ix_(z, source_y, source_x)]
    blank = np.array([not section.any() for section in values])[z]
    codes = predictor.affinities(padded, tile, blank)
    core_y, core_x = axis_y.answer(tile.y)[0], axis_x.answer(tile.x)[0]
    core = Roi((first, core_y, core_x), codes.shape[1:])
    asked = codes[(slice(None), *within(answer, core))]
    asked[:, blank_voxels(values)[within(answer, seen)]] = 0
    return asked


def _box_of(*lines: NDArray[np.int64]) -> Roi:
    """The box of the voxels that are read along each axis."""
    begin = [int(line.min()) for line in lines]
    return Roi(begin, [int(line.max()) + 1 - lo for line, lo in zip(lines, begin, strict=True)])
