"""The equivalence tests catch the faults that matter: each is planted, and must be found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import numpy as np
from equivalence.blocks import roi_in, segment_in_blocks, whole
from emslice.ops.dust import DustRule
from emslice.ops.linkage import Linkage
dimensions = int(sys.argv[1])
# Of the first 150, only seed 100 has small segments that join each other, and 32 is the first with
# a neighbour that turns out large; every other fault is found by one of the first three.
for seed in (100, 32, *range(20)) if dimensions == 2 else range(20):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers((2, 8, 8), (5, 16, 18)))
    if dimensions == 3:
        shape = tuple(rng.integers((7, 5, 6), (15, 10, 12)))
    levels = np.linspace(0, 255, rng.choice([2, 3, 6, 40])).astype(np.uint8)
    codes = levels[rng.integers(0, len(levels), (3, *shape))]
    if seed % 3 == 0:  # wide fragments, which feel the halo
        codes = np.maximum(codes, (rng.random((3, *shape)) < 0.9) * np.uint8(200))
    roi, domain = roi_in(shape, (0, 0, 0), (0, 0, 0))
    block = tuple(int(n) for n in rng.integers(2, 8, 3))
    for linkage in (Linkage("mean"), Linkage("quantile_max", 25), Linkage(), Linkage("quantile")):
        dust = DustRule(int(rng.choice([0, 4, 12])), rng.choice(["drop", "keep"]))
        method = (linkage, 0.5, 0.1, 3, dust, dimensions)
        blocks, merges = segment_in_blocks(codes, roi, domain, block, *method)
        segments, all_merges = whole(codes, roi, domain, *method)
        if merges != all_merges or not np.array_equal(blocks, segments):
            raise SystemExit(3)
"""

LADDER = """
import numpy as np
from equivalence.ladders import climb
from reference.strategies import graph_of
from emslice.ops.contacts import contacts_of
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.open_graph import base_graph, decide
for seed in range(40):
    rng = np.random.default_rng(seed)
    n, levels = rng.integers(5, 30), rng.integers(0, 256, rng.choice([1, 3, 20]))
    rows = [
        (*rng.choice(np.arange(1, n + 1), 2, replace=False), {int(c): int(rng.integers(1, 4))})
        for c in rng.choice(levels, 4 * n)
    ]
    ids = np.arange(n + 1, dtype=np.uint64) * np.uint64(3)
    table, lowest = contacts_of(graph_of(rows), ids), integer_threshold(0.1)
    touching = ids[rng.random(n + 1) < 0.1]
    for linkage in (Linkage("mean"), Linkage("quantile_max", 25), Linkage("quantile")):
        graph = base_graph(table, linkage)
        whole = decide(graph, touching, lowest, linkage)
        _, found = climb([graph], touching, lowest, linkage, 6000)
        for a, b in ((found.merges, whole.merges), (found.rest, whole.rest)):
            for name in a.__dataclass_fields__:
                if not np.array_equal(getattr(a, name), getattr(b, name)):
                    raise SystemExit(3)
        if not np.array_equal(found.open_names, whole.open_names):
            raise SystemExit(3)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the code, and in it what numba makes of the code as it is."""
    folder = tmp_path_factory.mktemp("house")
    leave_out = shutil.ignore_patterns("*.pyc")  # but not what numba has made of it already
    shutil.copytree(ROOT / "emslice", folder / "emslice", ignore=leave_out)
    for name in ("equivalence", "reference"):
        shutil.copytree(ROOT / "tests" / name, folder / name, ignore=leave_out)
    for script, dimensions in KINDS.values():
        assert run(folder, script, dimensions) == 0
    return folder


def outcome(house, tmp_path, file, good, bad, kind="blocks"):
    """Exit code of an equivalence script with one line changed."""
    altered = tmp_path / "house"
    shutil.copytree(house, altered)  # with its times: only what changes is compiled again
    path = altered / file
    text = path.read_text()
    assert text.count(good) == 1, f"{file} has {text.count(good)} of {good!r}"
    path.write_text(text.replace(good, bad))
    try:
        return run(altered, *KINDS[kind])
    finally:
        shutil.rmtree(altered)


def run(folder, script, dimensions):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)  # beside the code
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(dimensions)], env=environment,
        cwd=folder, capture_output=True,
    )  # fmt: skip
    assert done.returncode in (0, 1, 3), done.stderr.decode()
    return done.returncode


KINDS = {"blocks": (SCRIPT, 2), "volumes": (SCRIPT, 3), "ladder": (LADDER, 2)}


@pytest.mark.parametrize(
    ("file", "good", "bad"),
    [
        pytest.param(
            "equivalence/blocks.py", "(0, radius, radius)", "(0, radius - 1, radius - 1)",
            id="a halo one voxel short",
        ),
        pytest.param(
            "emslice/ops/open_graph.py",
            "codes[start[:-1][twice]] = largest[twice]",
            "codes[start[:-1][twice]] = codes[start[:-1][twice]]",
            id="a base pair seen twice does not take the maximum",
        ),
        pytest.param(
            "emslice/ops/open_graph.py",
            'adds = linkage.name != "quantile_max"',
            "adds = True",
            id="union where combine belongs",
        ),
        pytest.param(
            "emslice/ops/histograms.py",
            "np.add.reduceat(number, first",
            "np.maximum.reduceat(number, first",
            id="histograms of a pair seen twice do not add",
        ),
        pytest.param(
            "emslice/ops/merging.py",
            "worse = min(key[winner]",
            "worse = max(key[winner]",
            id="the better tie is kept",
        ),
        pytest.param(
            "emslice/ops/merging.py",
            "waiting[a] = waiting[b] = True",
            "waiting[a] = waiting[a]",
            id="no contagion",
        ),
        pytest.param(
            "emslice/ops/dust.py",
            "names = np.concatenate([part.names for part in parts])",
            "names, parts = parts[0].names, parts[:1]",
            id="sizes of children do not add",
        ),
        pytest.param(
            "emslice/ops/dust.py",
            "settled[one] & large[other]",
            "settled[one]",
            id="small joins small",
        ),
        pytest.param(
            "emslice/ops/dust.py",
            "settled[ends[unsure[ends[:, ::-1]]]] = False",
            "settled[ends[unsure[ends[:, ::-1]]]] |= False",
            id="a neighbour that may turn out large is not waited for",
        ),
        pytest.param(
            "emslice/ops/dust.py",
            "unsure = ~large & np.isin(names, touching)",
            "unsure = np.zeros_like(large)",
            id="a part of a segment is taken for all of it",
        ),
        pytest.param(
            "emslice/stages/blockwise.py",
            "rows = combine([*(child.settled.rows for child in children), across])",
            "rows = combine([*(child.settled.rows for child in children)])",
            id="contacts across faces are left out of dust",
        ),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(house, tmp_path, file, good, bad):
    assert outcome(house, tmp_path, file, good, bad) != 0


@pytest.mark.parametrize(
    ("file", "good", "bad"),
    [
        pytest.param(
            "equivalence/blocks.py", "(radius, radius, radius)", "(radius - 1, radius, radius)",
            id="a halo one voxel short along z",
        ),
        pytest.param(
            "emslice/ops/stitch.py", "for axis in AXES:", "for axis in (1, 2):",
            id="exits along z are not looked up",
        ),
        pytest.param(
            "emslice/ops/fragments_3d.py", "if own[x] == 0 or inside:",
            "if labels[z, y, x] == 0 or inside:",
            id="a pointer to just before the block is taken for the mask",
        ),
    ],
)  # fmt: skip
def test_a_fault_of_three_dimensions_is_found(house, tmp_path, file, good, bad):
    assert outcome(house, tmp_path, file, good, bad, "volumes") != 0


@pytest.mark.parametrize(
    ("file", "good", "bad"),
    [
        pytest.param(
            "emslice/ops/ladder.py",
            "rows = union_equal(take_rows(rows, (self.label[ends] == ends).all(axis=1)))",
            "rows = take_rows(rows, (self.label[ends] == ends).all(axis=1))",
            id="rows that became one pair are not united",
        ),
        pytest.param(
            "emslice/ops/ladder.py",
            "spread.add(take_rows(rows, bins >= 0), bins[bins >= 0])",
            "bins[row_keys(rows, self.linkage).score < int(found.cut.score[0] if found.cut else 0)]"
            " = -1; spread.add(take_rows(rows, bins >= 0), bins[bins >= 0])",
            id="a component is run without its rows below the cut",
        ),
        pytest.param(
            "emslice/ops/agglomerate.py",
            "floor += 2**RANK_BITS - n_best",
            "floor += 0",
            id="a component goes on below the cut among rows of its score",
        ),
        pytest.param(
            "emslice/ops/row_tables.py",
            "np.lexsort((-place, rows.pairs",
            "np.lexsort((place, rows.pairs",
            id="the better tie is kept between components",
        ),
    ],
)
def test_a_fault_planted_in_the_ladder_is_found(house, tmp_path, file, good, bad):
    assert outcome(house, tmp_path, file, good, bad, "ladder") != 0
