"""Methods that a user may choose: what each needs, and what of it is part of a result."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from emslice.config.schema import AgglomerationConfig, FragmentsConfig, SegmentConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.ops.linkage import Linkage
from emslice.ops.waterz_method import check_waterz
from emslice.stages.fragment_methods import INVARIANT, LIBRARIES, check_method


def check_methods(fragments: str, dimensions: int, method: str, linkage: Linkage) -> None:
    """Raise `ConfigError` unless two methods are known and what they need is installed."""
    check_method(fragments, dimensions)
    if method == "waterz":
        check_waterz(linkage)
    elif method != "exact":
        raise ConfigError(f"agglomeration.method: unknown method {method!r}; known: exact, waterz.")


def check_run_methods(
    config: SegmentConfig, block: tuple[int, int, int], roi: Roi, stored: bool
) -> None:
    """Raise `ConfigError` unless a run in blocks can use the methods of its configuration."""
    method = config.agglomeration
    linkage = Linkage(method.linkage, method.quantile)
    check_methods(config.fragments.method, config.fragments.dimensions, method.method, linkage)
    if method.method != "waterz":
        return
    whole = tuple(int(n) for n in roi.shape)
    if block != whole:
        raise ConfigError(
            f"agglomeration.method: waterz cannot merge across blocks, and the block {block} is "
            f"not the whole ROI. Set block to {','.join(map(str, whole))}, or the method to exact."
        )
    if not stored:
        raise ConfigError(
            "agglomeration.method: waterz reads affinities again, which a run from RAW has "
            "dropped by then. Predict first (--affinities keep), then use --from-affinities."
        )


def needs_histograms(linkage: Linkage, method: str) -> bool:
    """Whether fragments must come with histograms; waterz counts for itself."""
    return linkage.needs_histograms and method != "waterz"


def fragments_facts(config: FragmentsConfig) -> dict[str, Any]:
    """What of fragments decides the result; keys that came later only where they are used."""
    if config.method != INVARIANT:
        library = LIBRARIES[config.method]
        return {"method": config.method, "library": f"{library} {version(library)}"}
    facts: dict[str, Any] = {"radius": config.cap}
    if config.dimensions == 3:
        facts["dimensions"] = 3
    return facts


def waterz_facts(config: AgglomerationConfig) -> dict[str, Any]:
    """What of an agglomeration by waterz decides the result, besides its linkage."""
    if config.method != "waterz":
        return {}
    return {"threshold": config.threshold, "library": f"waterz {version('waterz')}"}
