"""Raw to affinities: the network on every cell of its lattice that a box touches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Coordinate, Roi, clip, n_voxels, within
from emslice.geometry.lattice import Index, Sources
from emslice.models.predictor import Predictor
from emslice.models.profile import operator_threads
from emslice.ops.blank import BLANK_SIDE, blank_voxels
from emslice.stages.intensity import AS_IT_IS, Intensity
from emslice.volumes import ArrayVolume, Volume

VERSION = 2
"""Raised when the same parameters would give other affinities."""


def predict(
    raw: Volume,
    predictor: Predictor,
    roi: Roi,
    intensity: Intensity = AS_IT_IS,
    workers: int = 1,
    advance: Callable[[int], None] = lambda voxels: None,
) -> ArrayVolume:
    """Affinity codes of a box of the raw volume.

    Raw is read as far beyond the box as the network looks: a voxel has the same codes whatever box
    was asked for. Blank raw has no affinities, which masks it.

    Parameters
    ----------
    raw : Volume, uint8 or uint16, covering its domain
    predictor : Predictor
        On a lattice of the domain.
    intensity : Intensity
        How raw becomes what the network sees; by default raw of 8 bits as it is.
    workers : int
        Threads, each on cells of its own; the number changes no voxel.
    advance : callable
        Told how many voxels were finished.

    Returns
    -------
    affinities : ArrayVolume, uint8, shape (3, Z, Y, X)

    Notes
    -----
    3 bytes a voxel, and per worker what the predictor says.
    """
    codes = np.zeros((3, *(int(n) for n in roi.shape)), np.uint8)
    affinities = ArrayVolume(
        codes, offset=roi.begin, domain_shape=raw.domain.shape, resolution_nm=raw.resolution_nm
    )

    def work(task: tuple[Index, Roi]) -> None:
        index, answer = task
        affinities.write(answer, _predict_cell(raw, predictor, index, answer, intensity))
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


def _tasks(predictor: Predictor, roi: Roi) -> list[tuple[Index, Roi]]:
    """Cells that meet the box, each with the part of the box that it answers for."""
    lattice = predictor.lattice
    return [(index, clip(lattice.owned(index), roi)) for index in lattice.meeting(roi)]


def _predict_cell(
    raw: Volume,
    predictor: Predictor,
    index: Index,
    answer: Roi,
    intensity: Intensity,
) -> NDArray[np.uint8]:
    """Codes of the part of a cell that is asked for; blank voxels have none."""
    sources = predictor.lattice.sources(index, answer)
    seen = _seen(sources, answer, raw.domain)
    values = raw.read(seen)
    place = _place(sources, seen)
    shown = intensity(values, seen)[place]
    codes = predictor.codes(shown, (values != 0)[place], index, answer)
    codes[:, blank_voxels(values)[within(answer, seen)]] = 0
    return codes


def _place(sources: Sources, seen: Roi) -> tuple[Any, ...]:
    """Index of what is shown in what was read; slices, which copy nothing, if nothing repeats."""
    found = [shown - int(low) for shown, low in zip(sources, seen.begin, strict=True)]
    if all((np.diff(line) == 1).all() for line in found):
        return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in found)
    return np.ix_(*found)


def _seen(sources: Sources, answer: Roi, domain: Roi) -> Roi:
    """What is read: all that is shown, and what decides whether the answer is blank."""
    blank = answer.grow(Coordinate(0, BLANK_SIDE - 1, BLANK_SIDE - 1)).intersect(domain)
    begin = [min(int(s.min()), int(b)) for s, b in zip(sources, blank.begin, strict=True)]
    end = [max(int(s.max()) + 1, int(e)) for s, e in zip(sources, blank.end, strict=True)]
    return Roi(begin, [high - low for low, high in zip(begin, end, strict=True)])
