"""Finished runs of several variants and seeds, as one table: mean and spread by variant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emslice.errors import ConfigError
from emslice.ledger.files import write_atomic, write_table
from emslice.viewer.dots import draw_dots

KEYS = ("variant", "seed")


@dataclass(frozen=True)
class Spread:
    """A measure over the seeds of a variant."""

    n: int
    """Seeds that have it."""

    mean: float
    sd: float | None
    """Sample standard deviation; None of a single seed, which says nothing of it."""

    def __str__(self) -> str:
        sd = "" if self.sd is None else f" +- {self.sd:.4f}"
        return f"{self.mean:.4f}{sd}"


@dataclass(frozen=True)
class Ablation:
    """Every variant, in the order in which they came; so are the measures."""

    variants: dict[str, dict[str, Spread]]
    """Variant -> measure -> spread; a measure that no seed has is missing."""

    runs: tuple[dict[str, Any], ...]
    """Variant, seed and measures of each run."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what was measured, of any run."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run if name not in KEYS))

    def rows(self) -> list[dict[str, Any]]:
        """Lines of ``ablation.csv``: variant, seeds, and mean and sd of every measure."""
        rows = []
        for variant, spreads in self.variants.items():
            row: dict[str, Any] = {"variant": variant, "seeds": len(self.seeds(variant))}
            for name in self.measures:
                spread = spreads.get(name)
                row[f"{name}_mean"] = "" if spread is None else spread.mean
                row[f"{name}_sd"] = "" if spread is None or spread.sd is None else spread.sd
            rows.append(row)
        return rows

    def seeds(self, variant: str) -> list[Any]:
        """Seeds of a variant."""
        return [run["seed"] for run in self.runs if run["variant"] == variant]

    def text(self) -> str:
        """Table for a terminal."""
        cells = [["variant", "seeds", *self.measures]]
        for variant, spreads in self.variants.items():
            shown = [str(spreads[m]) if m in spreads else "" for m in self.measures]
            cells.append([variant, str(len(self.seeds(variant))), *shown])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        variants = {
            variant: {name: asdict(spread) for name, spread in spreads.items()}
            for variant, spreads in self.variants.items()
        }
        return {"variants": variants, "runs": list(self.runs)}


def summarise_runs(rows: Sequence[Mapping[str, Any]]) -> Ablation:
    """Mean and standard deviation over seeds of everything that runs measured.

    Parameters
    ----------
    rows : mappings
        ``variant``, ``seed`` and measures; None and the empty text are measures not taken.

    Raises
    ------
    ConfigError
        No run, a run without variant or seed, one that is there twice, or a measure that is no
        finite number. All are listed.
    """
    if not rows:
        raise ConfigError("ablation: no finished run; wait for one, or check the folder.")
    problems, runs, seen = [], [], set()
    for number, row in enumerate(rows, 1):
        run = {name: value for name, value in row.items() if value not in (None, "")}
        missing = [key for key in KEYS if key not in run]
        if "variant" in run:
            run["variant"] = str(run["variant"])
        if missing:
            problems.append(f"run {number} has no {' and no '.join(missing)}")
            continue
        name = f"{run['variant']}, seed {run['seed']}"
        if name in seen:
            problems.append(f"{name} is there twice")
        seen.add(name)
        for measure in run.keys() - set(KEYS):
            value = _number(run[measure])
            if value is None:
                problems.append(f"{name}: {measure} is {run[measure]!r}, no finite number")
            else:
                run[measure] = value
        runs.append(run)
    if problems:
        raise ConfigError(f"ablation: {'; '.join(sorted(problems))}.")
    if not any(run.keys() - set(KEYS) for run in runs):
        raise ConfigError("ablation: no run measured anything; evaluate them first.")
    variants = {variant: _spreads(runs, variant) for variant in _variants(runs)}
    return Ablation(variants, tuple(runs))


def _number(value: Any) -> float | int | None:
    """A finite number, from a number or its text."""
    try:
        number = value if isinstance(value, int | float) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _variants(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(run["variant"]) for run in runs))


def _spreads(runs: Sequence[Mapping[str, Any]], variant: str) -> dict[str, Spread]:
    spreads = {}
    own = [run for run in runs if str(run["variant"]) == variant]
    for name in dict.fromkeys(name for run in own for name in run if name not in KEYS):
        values = [float(run[name]) for run in own if name in run]
        sd = statistics.stdev(values) if len(values) > 1 else None
        spreads[name] = Spread(len(values), statistics.fmean(values), sd)
    return spreads


def write_ablation(found: Ablation, folder: Path, drawn: Sequence[str] | None = None) -> list[Path]:
    """Write ``ablation.csv``, ``ablation_runs.csv`` and ``ablation.png``; their paths.

    Parameters
    ----------
    drawn : names of measures, optional
        A frame of the picture each; by default VOI and ARAND, or all if there is neither.
    """
    table, runs, picture = (
        folder / name for name in ("ablation.csv", "ablation_runs.csv", "ablation.png")
    )
    known = found.measures
    chosen = list(drawn or [m for m in known if "voi" in m or "arand" in m] or known)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"ablation: no run measured {name!r}; known: {', '.join(known)}.")
    dots = {
        name: {
            variant: [run[name] for run in found.runs if run["variant"] == variant and name in run]
            for variant in found.variants
        }
        for name in chosen
    }
    write_table(table, found.rows())
    write_table(runs, [{name: run.get(name, "") for name in (*KEYS, *known)} for run in found.runs])
    write_atomic(picture, draw_dots(dots))
    return [table, runs, picture]
