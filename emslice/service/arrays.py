"""The Python API: the same steps on NumPy arrays, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emslice.config.load import load_config
from emslice.config.schema import DEFAULT_RADIUS, AgglomerationConfig, DustConfig
from emslice.errors import ConfigError
from emslice.metrics import Scores, count_overlaps
from emslice.models.checkpoint import load_checkpoint
from emslice.models.predictor import facts_of, make_predictor
from emslice.models.profile import resolve_profile
from emslice.ops.affinity import quantise_array
from emslice.ops.dust import DustRule
from emslice.ops.fragments import RADIUS
from emslice.ops.intensity import check_window
from emslice.ops.linkage import Linkage
from emslice.ops.waterz_method import waterz_lut
from emslice.service.machine import n_cores
from emslice.service.methods import check_methods, needs_histograms
from emslice.service.normalising import choose_normalisation
from emslice.stages.agglomerate import clear_dust, grow, oversegment
from emslice.stages.fragment_methods import INVARIANT
from emslice.stages.intensity import CountedLevels
from emslice.stages.predict import predict
from emslice.volumes import ArrayVolume


def predict_affinities(
    raw: NDArray[np.integer[Any]],
    checkpoint: str | Path,
    *,
    window: tuple[int, int] | None = None,
    normalize: str | None = None,
    statistics: str | None = None,
    target: tuple[float, float] | None = None,
    clahe: Mapping[str, float] | None = None,
    augment: str = "none",
    tile: int = 1024,
    device: str = "cpu",
    precision: str = "auto",
    threads: int = 1,
    crop: tuple[int, int, int] | None = None,
    stride: tuple[int, int, int] | None = None,
    workers: int | None = None,
) -> NDArray[np.uint8]:
    """Affinities of a stack of sections, as codes ``floor(256 a)``.

    Channels link a voxel to its lower neighbour along z, y and x. Blank raw (zeros that fill a
    16 x 16 square) has no affinities and will belong to no segment.

    Parameters
    ----------
    raw : uint8 or uint16, shape (Z, Y, X)
        Bright inside, dark membranes.
    checkpoint : path
        Published or of emslice's own format.
    window : (low, high), optional
        Values that become black and white; needed for uint16.
    normalize : "none", "affine", "match" or "clahe"
        How grey values are moved towards those of the network's training; ``statistics``,
        ``target`` and ``clahe`` (``cell`` and ``clip``) are those of ``raw`` in the configuration.
    augment : "none", "flips" or "all"
        Poses that affinities are the mean over: 1, 4 or 16.
    tile, device, precision, threads
        Compute profile: changes codes by little. ``precision`` is "auto", "float32" or "bfloat16".
    crop, stride : (z, y, x), optional
        Of 3D networks: what they see at once and how far apart, by default as published.
    workers : int, optional
        Threads that share the tiles, by default one for each core; changes nothing.

    Returns
    -------
    affinities : uint8, shape (3, Z, Y, X)

    Raises
    ------
    CheckpointError
        A file that holds no network.
    ConfigError
        Raw of another shape or dtype, an unknown normalisation or augmentation, or no target.

    Examples
    --------
    >>> affinities = predict_affinities(raw, "student.ckpt")  # doctest: +SKIP
    >>> neurons = segment_affinities(affinities)  # doctest: +SKIP
    """
    raw = np.asarray(raw)
    _check_3d(raw, "raw")
    check_window(raw.dtype, window)
    given = {"normalize": normalize, "statistics": statistics, "target": target, "clahe": clahe}
    options = {f"raw.{name}": value for name, value in given.items()}
    config = load_config(options={**options, "predict.augment": augment})
    weights, volume = load_checkpoint(checkpoint), ArrayVolume(raw)
    chosen = choose_normalisation(config.raw, weights)
    intensity = chosen.over(window, CountedLevels(volume, window, chosen.cell))
    z, y, x = raw.shape
    lattice = facts_of(weights.network, (z, y, x), tile, crop, stride, augment).lattice
    profile = resolve_profile(device, tile, threads, precision)
    predictor = make_predictor(weights.network, lattice, profile, augment)
    affinities: NDArray[np.uint8] = predict(
        volume, predictor, volume.roi, intensity, workers or n_cores()
    ).array
    return affinities


def segment_affinities(
    affinities: NDArray[Any],
    threshold: float = 0.5,
    linkage: str = "quantile_max",
    *,
    quantile: int = 50,
    lowest_threshold: float | None = None,
    min_size: int | None = None,
    alone: str = "drop",
    dimensions: Literal[2, 3] = 2,
    radius: int | None = None,
    fragments: str = INVARIANT,
    method: str = "exact",
    workers: int | None = None,
) -> NDArray[np.uint64]:
    """Segments of a volume of affinities: exact fragments, merged best first.

    Parameters
    ----------
    affinities : uint8 codes or float in [0, 1], shape (3, Z, Y, X)
        Channels link a voxel to its lower neighbour along z, y, x. A voxel with 0 in all three
        is masked.
    threshold : float
        Fragments merge while their score is at least this affinity.
    linkage : "quantile_max", "quantile" or "mean"
    quantile : int
        Percent, for quantile_max and quantile.
    min_size : int, optional
        A segment of fewer voxels joins the neighbour of at least so many to which its affinities
        add up to the most; 100 by default, 0 leaves all as they are.
    alone : "drop" or "keep"
        Whether those without such a neighbour become 0 or stay.
    dimensions : 2 or 3
        Fragments are made section by section, or in the volume, for isotropic voxels.
    radius : int, optional
        Voxels: the cap of the distance to a boundary, by default 64 in 2D and 32 in 3D.
    fragments : "rainfall", "flood" or "mutex"
        How fragments are made; ``fragments.method`` of the configuration.
    method : "exact" or "waterz"
        How they merge; ``agglomeration.method`` of the configuration.

    Returns
    -------
    segmentation : uint64, shape (Z, Y, X)
        0 is masked or dust; a segment's id is the linear index of its first fragment's root, plus
        one.

    Raises
    ------
    ConfigError
        Wrong shape or dtype, NaN, values outside [0, 1], unknown linkage or method, a method whose
        library is not installed, min_size below 0, unknown ``alone``.
    """
    affinities = np.asarray(affinities)
    check_affinities(affinities.shape)
    statistic = Linkage(linkage, quantile)
    check_methods(fragments, dimensions, method, statistic)
    rule = DustRule(DustConfig().min_size if min_size is None else min_size, alone)
    if lowest_threshold is None:
        lowest_threshold = AgglomerationConfig.model_construct(threshold=threshold).lowest
    codes = quantise_array(affinities)
    if radius is None:
        radius = DEFAULT_RADIUS.get(dimensions, RADIUS)
    parts = oversegment(
        codes,
        radius=radius,
        workers=workers or n_cores(),
        dimensions=dimensions,
        histograms=needs_histograms(statistic, method),
        method=fragments,
    )
    labels, ids = parts.fragments.labels, parts.fragments.ids
    if method == "waterz":
        lut = waterz_lut(codes, labels, ids, threshold, statistic)
    else:
        lut = grow(parts, statistic, lowest_threshold).cut(threshold)
    if rule.min_size > 0:
        lut = clear_dust(parts, lut, rule)
    segments: NDArray[np.uint64] = lut.apply(ids)[labels]
    return segments


def evaluate(segmentation: NDArray[Any], truth: NDArray[Any]) -> Scores:
    """Variation of information (bits) and adapted Rand error of a segmentation.

    Voxels whose truth is 0 are ignored. Same numbers as scikit-image.

    Returns
    -------
    scores : Scores
        ``voi_split``, ``voi_merge``, ``voi``, ``arand``.
    """
    return count_overlaps(np.asarray(segmentation), np.asarray(truth)).scores()


def check_affinities(shape: tuple[int, ...], what: str = "affinities") -> None:
    """Raise `ConfigError` unless a shape is that of three channels and a volume."""
    if len(shape) != 4 or shape[0] != 3 or 0 in shape:
        raise ConfigError(f"{what}: expected shape (3, Z, Y, X), channels z, y, x; got {shape}.")


def _check_3d(array: NDArray[Any], what: str) -> None:
    if array.ndim != 3 or 0 in array.shape:
        raise ConfigError(f"{what}: expected shape (Z, Y, X), got {array.shape}.")
