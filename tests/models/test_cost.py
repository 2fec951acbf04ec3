"""Multiplications are those that the papers' facts give."""

import pytest

from emslice.geometry.boxes import Roi
from emslice.models.cost import macs_per_voxel
from emslice.models.predictor import facts_of
from emslice.models.student import Student
from emslice.models.superhuman import Superhuman

AC3 = (100, 1024, 1024)


@pytest.mark.parametrize(
    ("network", "expected", "within"), [(Student(16, 16), 70_432, 0), (Superhuman(), 1.40e6, 0.01)]
)
def test_a_voxel_of_ac3_costs_what_the_reference_counts(network, expected, within):
    box = Roi((0, 0, 0), AC3)
    found = macs_per_voxel(network.eval(), facts_of(network, AC3).lattice, box)
    assert found == pytest.approx(expected, rel=within)
