"""Ideas of ``docs/design/0010-contagion.md``: exact, and each condition of theirs is needed."""

import random
from fractions import Fraction

import pytest
from reference.agglomeration import Row, greedy, hash_of, make_score
from reference.ladder import by_rungs, lone_neighbour, partitions

from emslice.ops.linkage import Linkage

LINKAGES = [
    Linkage("mean"),
    Linkage("quantile"),
    *(Linkage("quantile_max", q) for q in (0, 50, 80)),
]
PALETTES = [(0, 127, 128, 255), (1, 60, 128, 160, 190, 255), tuple(range(256))]
LOWEST = [Fraction(0), Fraction(3, 10), Fraction(1, 2)]


def case(seed):
    """Random rows over up to four blocks, their blocks, rungs and a score."""
    rng = random.Random(seed)
    n, blocks, palette = rng.randint(4, 22), rng.choice([2, 3, 4]), rng.choice(PALETTES)
    block = {u: (u - 1) * blocks // n for u in range(1, n + 1)}
    dense, across, rows = rng.choice([0.15, 0.3, 0.5]), rng.choice([0.05, 0.2]), {}
    for u, v in ((u, v) for u in block for v in block if u < v):
        if rng.random() < dense * (1 if block[u] == block[v] else across):
            codes = sorted(rng.choice(palette) for _ in range(rng.randint(1, 3)))
            tie = (-len(codes), hash_of(u, v), u, v)
            rows[u, v] = Row([codes[-1]], codes, sum(codes), len(codes), tie)
    lowest = rng.choice(LOWEST)
    cuts = {Fraction(rng.randint(1, 255), 256) for _ in range(rng.randint(0, 5))}
    floors = [*sorted((c for c in cuts if c > lowest), reverse=True), lowest]
    return rows, block, floors, make_score(rng.choice(LINKAGES))


def is_exact(seed, method, **fault):
    """Whether the partition of a method is that of the whole at every score."""
    rows, block, floors, score = case(seed)
    if method is lone_neighbour:
        links, _ = method(rows, block, floors[-1], score, **fault)
    else:
        links, _ = method(rows, block, floors, score, **fault)
    whole, _ = greedy(rows, floors[-1], score)
    return partitions(links, len(block) + 1) == partitions(whole, len(block) + 1)


@pytest.mark.parametrize("method", [lone_neighbour, by_rungs])
def test_less_waits_and_nothing_changes(method):
    assert all(is_exact(seed, method) for seed in range(400))


@pytest.mark.slow
@pytest.mark.parametrize("method", [lone_neighbour, by_rungs])
def test_many_more_are_exact(method):
    assert all(is_exact(seed, method) for seed in range(400, 5000))


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        pytest.param(lone_neighbour, {"allowed": 2}, id="two open neighbours"),
        pytest.param(by_rungs, {"joined_by": "edges"}, id="pieces without their low rows"),
        pytest.param(by_rungs, {"counted": "edges"}, id="neighbours without low rows"),
    ],
)
def test_each_condition_is_needed(method, fault):
    assert not all(is_exact(seed, method, **fault) for seed in range(400))


def test_something_is_saved():
    decided, stuck, waiting, lone = 0, 0, 0, 0
    for seed in range(100):
        rows, block, floors, score = case(seed)
        counts = by_rungs(rows, block, floors, score)[1]
        decided, stuck = decided + counts[0], stuck + counts[1]
        waiting += lone_neighbour(rows, block, floors[-1], score, allowed=0)[1]
        lone += lone_neighbour(rows, block, floors[-1], score)[1]
    assert lone < waiting
    assert stuck < decided / 5
