"""waterz behind a call without its traps."""

import sys

import numpy as np
import pytest

from emslice.errors import ConfigError
from emslice.ops.linkage import LINKAGES, Linkage
from emslice.ops.waterz_method import check_waterz, waterz_lut

IDS = np.array([0, 900, 70, 8000, 2], np.uint64)


def row_of_four(*codes):
    """Four fragments of two voxels in a row, and codes between them."""
    labels = np.repeat(np.arange(1, 5, dtype=np.int32), 2)[None, None]
    affinity = np.full((3, 1, 1, 8), 255, np.uint8)
    affinity[2, 0, 0, 2::2] = codes
    return affinity, labels


@pytest.fixture(autouse=True)
def _waterz():
    pytest.importorskip("waterz")


@pytest.mark.parametrize("name", LINKAGES)
def test_a_segment_is_called_by_its_smallest_fragment_id(name):
    affinity, labels = row_of_four(200, 20, 180)
    lut = waterz_lut(affinity, labels, IDS, 0.5, Linkage(name))
    np.testing.assert_array_equal(lut.apply(IDS), [0, 70, 70, 2, 2])
    assert (np.diff(lut.fragments.astype(np.int64)) > 0).all()


@pytest.mark.parametrize(("code", "segments"), [(127, 2), (128, 1)])
def test_the_threshold_is_met_where_the_exact_way_meets_it(code, segments):
    affinity, labels = row_of_four(255, 255, code)
    lut = waterz_lut(affinity, labels, IDS, 0.5, Linkage())
    assert len(np.unique(lut.apply(IDS[1:]))) == segments


def test_fragments_given_are_left_as_they_are_and_nothing_is_printed(capfd):
    affinity, labels = row_of_four(200, 20, 180)
    before = labels.copy()
    waterz_lut(affinity, labels, IDS, 0.5, Linkage())
    np.testing.assert_array_equal(labels, before)
    assert capfd.readouterr().out == ""


def test_a_quantile_that_would_need_a_compiler_is_refused():
    with pytest.raises(ConfigError, match=r"agglomeration\.quantile: waterz ships no score for 42"):
        check_waterz(Linkage("quantile_max", 42))


def test_a_missing_waterz_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "waterz", None)
    with pytest.raises(ConfigError, match=r"pip install emslice\[compare\]"):
        check_waterz(Linkage())
