"""The figures of ``benchmarks.postprocess`` for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def table(result: dict[str, Any]) -> str:
    """Every figure, one table after another."""
    parts = [_ways(result), _distance(result["distance"]), _graphs(result)]
    if "quality" in result:
        parts += [_quality(result["quality"]), _blocks(result["blocks"])]
    return "\n\n".join("\n".join(part) for part in parts)


def _ways(result: dict[str, Any]) -> Iterator[str]:
    yield f"{'one core':22s} {'ours':>10s} {'published':>10s}"
    pairs = {
        "Mvoxel/s": ("mvox_per_s", "mvox_per_s_published"),
        "bytes a voxel": ("bytes_per_voxel", "bytes_per_voxel_published"),
        "VOI": ("voi", "voi_published"),
    }
    for name, keys in pairs.items():
        yield f"{name:22s} {result[keys[0]]:10.3f} {result[keys[1]]:10.3f}"
    scores = result["scores"]
    yield f"{'ARAND':22s} {scores['ours']['arand']:10.3f} {scores['published']['arand']:10.3f}"
    for way, steps in result["steps_mvox_per_s"].items():
        for name, speed in steps.items():
            yield f"  {way + ': ' + name:30s} {speed:10.2f} Mvoxel/s"
    ratios = ", ".join(f"{ratio:.1f}" for ratio in result["ratios"])
    yield f"published / ours: {result['ratio']:.2f} times the time (pairs: {ratios})"
    renumbered = ", ".join(f"{voi:.3f}" for voi in result["voi_published_renumbered"])
    yield f"VOI published, fragments numbered otherwise: {renumbered}"
    yield f"edges/s of agglomeration: {result['edges_per_s']:,.0f} ({result['edges']:,} edges)"


def _distance(distance: dict[str, Any]) -> Iterator[str]:
    yield f"{'distance transform':22s} {'Mvoxel/s':>10s} {'time/ours':>10s} {'differ':>8s}"
    for name, row in distance["rows"].items():
        yield (
            f"{name:22s} {row['mvox_per_s']:10.1f} {row['seconds_by_ours']:10.2f} "
            f"{row['voxels_that_differ']:8d}"
        )
    for name, reason in distance["left_out"].items():
        yield f"{name:22s} left out: {reason}"


def _graphs(result: dict[str, Any]) -> Iterator[str]:
    yield f"{'edges':>12s} {'fragments':>10s} {'ns/edge':>9s}"
    for row in result["growth_rows"]:
        yield f"{row['edges']:12,d} {row['fragments']:10,d} {row['ns_per_edge']:9.0f}"
    yield f"growth: {result['growth']:.2f}"
    yield (
        f"\n{'volume':10s} {'edges':>10s} {'merges':>9s} {'Mvox/s':>8s} {'ns/edge':>9s} "
        f"{'/real':>6s}"
    )
    for row in result["odd"]:
        edge, by = row["ns_per_edge"], row["by_real"]
        shown = f"{edge:9.0f} {by:6.2f}" if edge is not None else f"{'-':>9s} {'-':>6s}"
        yield (
            f"{row['volume']:10s} {row['edges']:10,d} {row['merges']:9,d} "
            f"{row['mvox_per_s']:8.2f} {shown}"
        )


def _quality(quality: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{'fragments':10s} {'linkage':14s} {'method':8s} {'VOI 0.5':>8s} {'ARAND':>7s} "
        f"{'best at':>8s} {'VOI':>7s} {'ARAND':>7s}"
    )
    for row in quality["rows"]:
        default, best = row["default"], row["best"]
        yield (
            f"{row['fragments']:10s} {row['linkage']:14s} {row['method']:8s} "
            f"{default['voi']:8.3f} {default['arand']:7.3f} {best['threshold']:8.2f} "
            f"{best['voi']:7.3f} {best['arand']:7.3f}"
        )
    if isinstance(quality["multicut"], str):
        yield f"multicut {quality['multicut']}"
    else:
        for row in quality["multicut"]:
            yield (
                f"{row['fragments']:10s} {'multicut':14s} {'':8s} {row['voi']:8.3f} "
                f"{row['arand']:7.3f}   {row['n_fragments']:,} fragments, "
                f"{row['segments']:,} segments, {row['seconds']:.1f} s"
            )
    for name, reason in quality["left_out"].items():
        yield f"{name:10s} left out: {reason}"


def _blocks(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'method':8s} {'block side':>10s} {'from one block':>15s} {'VOI':>7s} {'ARAND':>7s}"
    for row in rows:
        yield (
            f"{row['method']:8s} {row['side']:10d} {row['voi_from_one_block']:15.3f} "
            f"{row['voi']:7.3f} {row['arand']:7.3f}"
        )
