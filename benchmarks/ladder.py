"""The ladder against one graph in memory: steps, bytes, seconds, peak memory.

    python -m benchmarks.ladder --codes CODES.npy [--edges 3_000_000] [--json]

The graph of real affinities (uint8 codes, shape (3, Z, Y, X)) as one node, then a lattice whose
statistics are like real ones. Every row of the table is a process of its own, which reads the rows
from a file; its peak (VmHWM) is above what the process had before it began. Results are compared
by a hash of merges.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

LOWEST = 0.3


def store_graph(path: str, codes: str | None, n_edges: int, name: str) -> None:
    """Write the rows of a graph: of real codes, or of a lattice."""
    import numpy as np

    from benchmarks.agglomeration import lattice
    from emslice.ledger.rows import save_rows
    from emslice.ops.contacts import contacts_of
    from emslice.ops.linkage import Linkage
    from emslice.ops.open_graph import base_graph
    from emslice.stages.agglomerate import oversegment

    if codes is None:
        graph, ids = lattice(n_edges, "like real ones")
    else:
        parts = oversegment(np.load(codes), histograms=True)
        graph, ids = parts.graph, parts.fragments.ids
    save_rows(Path(path), [base_graph(contacts_of(graph, ids), Linkage(name))])


def measure(path: str, name: str, part: float) -> dict[str, Any]:
    """Agglomerate a stored graph with a part of its bytes as budget; 0 is all in memory."""
    import numpy as np

    from emslice.ledger.rows import iter_rows, load_rows, stored_size
    from emslice.ledger.scratch import ScratchStore
    from emslice.ops import ladder
    from emslice.ops.linkage import Linkage, integer_threshold
    from emslice.ops.open_graph import OpenGraph, decide
    from emslice.ops.row_tables import join_rows
    from emslice.service.machine import peak_memory

    linkage, none = Linkage(name), np.zeros(0, np.uint64)
    lowest, file = integer_threshold(LOWEST), Path(path)
    warm = next(iter_rows(file, 1000))  # compile before memory and time are looked at
    with tempfile.TemporaryDirectory() as folder:
        store = ScratchStore(Path(folder), linkage)
        list(ladder.climb_down(store, [warm], none, lowest, linkage, 10**6, 10**6).rest)
        decide(join_rows([warm]), none, lowest, linkage)
    size, steps = stored_size(file), []
    before, begin, cpu = peak_memory(), time.perf_counter(), time.process_time()
    facts: dict[str, Any] = {"linkage": name, "size": size, "part": part}
    if not part:
        tree = decide(load_rows(file), none, lowest, linkage).merges
    else:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            store, budget = ScratchStore(Path(folder), linkage), int(size * part)

            def note(step: ladder.Step) -> None:
                steps.append(
                    {**vars(step), "read": store.read_bytes, "written": store.written_bytes}
                )

            sources: Any = iter_rows(file, max(1, budget // 4 // 260))
            found = ladder.climb_down(
                store, sources, none, lowest, linkage, budget, size, report=note
            )
            rest: list[OpenGraph] = list(found.rest)
            assert not any(len(rows) for rows in rest)  # nothing waits at a root
            tree = found.merges
            facts |= {"read": store.read_bytes, "written": store.written_bytes, "budget": budget}
    facts |= {
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
        "peak": peak_memory() - before,
        "merges": len(tree.child),
        "steps": steps,
    }
    content = b"".join(c.tobytes() for c in (tree.child, tree.parent, tree.score))
    return {**facts, "hash": hashlib.sha256(content).hexdigest()[:16]}


def main() -> None:
    """Print a table, or a JSON line for each row of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", help="affinities, .npy; without, only the lattice")
    parser.add_argument("--edges", type=int, default=3_000_000, help="of the lattice; 0 for none")
    parser.add_argument("--linkage", default="quantile_max")
    parser.add_argument("--parts", type=float, nargs="+", default=[0, 0.5, 0.2, 0.05])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    graphs = [("real", arguments.codes)] if arguments.codes else []
    graphs += [("lattice", None)] if arguments.edges else []
    with tempfile.TemporaryDirectory() as folder:
        for what, codes in graphs:
            path, hashes = f"{folder}/{what}.parquet", set()
            with spawn.Pool(1) as pool:
                pool.apply(store_graph, (path, codes, arguments.edges, arguments.linkage))
            for part in arguments.parts:
                with spawn.Pool(1) as pool:
                    row = {"graph": what, **pool.apply(measure, (path, arguments.linkage, part))}
                hashes.add(row["hash"])
                show(row, arguments.json)
            assert len(hashes) == 1, f"results differ: {hashes}"


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print a row, and the steps below it."""
    if as_json:
        print(json.dumps(row), flush=True)
        return
    mib, steps = 2**20, row["steps"]
    print(
        f"| {row['graph']} | {row['size'] / mib:.0f} | {row.get('budget', 0) / mib:.0f} "
        f"| {len(steps)} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['peak'] / mib:.0f} "
        f"| {row.get('read', 0) / mib:.0f} | {row.get('written', 0) / mib:.0f} |",
        flush=True,
    )
    for step in steps:
        print(
            f"    to {step['cut']:.4f}: {step['components']:,} components in {step['bins']} bins, "
            f"largest {step['largest'] / mib:.2f}, in all {step['loaded'] / mib:.1f} MiB; "
            f"{step['merges']:,} merges; {step['read'] / mib:.0f} read so far"
        )


if __name__ == "__main__":
    main()
