"""Memory of a node never changes a result, whatever stops a run on its way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from service.runs import SHAPE, Silent, run_of, store_affinities, write

from emslice.config.load import load_config
from emslice.errors import ConfigError
from emslice.ledger.merges import load_merges
from emslice.ledger.scratch import ScratchStore
from emslice.service.again import plan_again, release_failed
from emslice.service.machine import BASE_BYTES, LADDER_BYTES
from emslice.service.plan import plan_from_affinities
from emslice.service.segment import RunFailedError, segment
from emslice.service.stages import stages_of

TINY = {"agglomeration.node_memory": "200 KiB"}
LINKAGES = pytest.mark.parametrize("linkage", ["mean", "quantile_max", "quantile"])


@pytest.fixture
def ladders(monkeypatch):
    """Number of graphs that went down the ladder."""
    made = []
    make = ScratchStore.__init__

    def note(self, folder, linkage):
        made.append(folder)
        make(self, folder, linkage)

    monkeypatch.setattr(ScratchStore, "__init__", note)
    return made


def digest_of(record):
    return record.digests["segmentation"]


def merges_in(run):
    """All merges of a run, ascending."""
    tables = [load_merges(p) for p in run.glob("stages/agglomerate/*/nodes/*/*/merges.parquet")]
    assert tables
    columns = [(t.child.tolist(), t.parent.tolist(), t.score.tolist()) for t in tables]
    return sorted(row for three in columns for row in zip(*three, strict=True))


@LINKAGES
def test_nodes_with_little_memory_give_the_same_merges(tmp_path, ladders, linkage):
    url, options = store_affinities(tmp_path, seed=5), {"agglomeration.linkage": linkage}
    whole = run_of(url, tmp_path / "whole", 0.5, **options, block=SHAPE)
    assert not ladders
    for block in ([3, 17, 23], [2, 31, 9]):
        folder = tmp_path / f"little{block[0]}"
        little = run_of(url, folder, 0.5, **options, **TINY, block=block)
        assert ladders
        assert digest_of(little) == digest_of(whole)
        assert merges_in(folder) == merges_in(tmp_path / "whole")
        assert not list(folder.rglob("scratch"))
        ladders.clear()


def test_saturated_affinities_are_cut_by_contacts_and_hash(tmp_path, ladders):
    codes = np.full((3, *SHAPE), 255, np.uint8)
    codes[1:, :, ::3, ::2] = 0  # many fragments, all of which merge
    url = write(tmp_path / "aff.zarr", codes)
    whole = run_of(url, tmp_path / "whole", 0.5, block=SHAPE)
    little = run_of(url, tmp_path / "little", 0.5, **TINY)
    assert ladders
    assert digest_of(little) == digest_of(whole)


KILLED = """
import os, sys
from emslice.config.load import load_config
from emslice.ledger import files
from emslice.service.again import plan_again
from emslice.service.segment import segment
from service.runs import Silent

sync, left = files.sync_folder, int(sys.argv[2])

def count(folder):
    global left
    sync(folder)
    left -= "agglomerate" in str(folder)
    if left == 0:
        os.kill(os.getpid(), 9)

files.sync_folder = count
segment(plan_again(sys.argv[1]), Silent())
"""


@pytest.mark.parametrize("after", [27, 34])
def test_a_run_killed_between_the_files_of_a_node_goes_on(tmp_path, after):
    url = store_affinities(tmp_path, seed=6)
    expected = digest_of(run_of(url, tmp_path / "whole", 0.5))
    config = load_config(options={"block": [3, 17, 23], "workers": 1, **TINY})
    plan = plan_from_affinities(url, tmp_path / "run", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emslice.stages.agglomeration.save_merges", lambda *a: 1 / 0)
        with pytest.raises(RunFailedError):
            segment(plan, Silent())
    release_failed(tmp_path / "run")
    path = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(after)],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert digest_of(segment(plan_again(tmp_path / "run"), Silent())) == expected


def test_the_plan_says_what_a_node_takes(tmp_path):
    url = store_affinities(tmp_path)
    config = load_config(options={"agglomeration.node_memory": "1.5 GiB"})
    plan = plan_from_affinities(url, tmp_path / "run", config)
    assert stages_of(plan).agglomerate.peak_bytes == BASE_BYTES + LADDER_BYTES + 3 * 2**29
    other = load_config(options={"agglomeration.node_memory": "1 GiB"})
    assert plan.fingerprints == plan_from_affinities(url, tmp_path / "run", other).fingerprints


@pytest.mark.parametrize("value", ["much", "4 GB", "-1 GiB", "100 B", "", 7.5, "1e9"])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(ConfigError, match="node_memory"):
        load_config(options={"agglomeration.node_memory": value})
