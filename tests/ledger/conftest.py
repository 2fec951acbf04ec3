"""A ledger that may be written, and attempts to write into it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference.strategies import graph_of

from emslice.ledger.database import Ledger
from emslice.ledger.records import Attempt
from emslice.ops.contacts import contacts_of
from emslice.ops.linkage import LINKAGES, Linkage
from emslice.ops.open_graph import base_graph

CHILD = Path(__file__).with_name("coordinator.py")


@pytest.fixture
def attempt():
    """Function that makes an attempt at a task."""

    def make(key="0_0_0", outcome="done", digest=None, fingerprint="f1", **facts):
        if digest is not None:
            facts["digest"] = digest
        error = "Traceback: boom" if outcome == "raised" else None
        started = "2025-01-02T03:04:05+00:00"
        return Attempt(
            "fragments", fingerprint, key, "w1", started, 1.5, 2**33, outcome, error, facts
        )

    return make


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        opened.lock("tester")
        yield opened
        opened.unlock()


@pytest.fixture
def coordinator():
    """Function that starts ``coordinator.py`` as a process; none outlives the test."""
    started = []

    def start(*arguments):
        child = subprocess.Popen(
            [sys.executable, CHILD, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture(params=LINKAGES)
def table(request):
    """Eleven rows with histograms of different lengths, and their linkage."""
    rows = [(u, u + 1 + u % 3, {10 * u: 2, 7: 1}) for u in range(1, 12)]
    ids = np.arange(16, dtype=np.uint64) + np.uint64(2**63)
    linkage = Linkage(request.param)
    return base_graph(contacts_of(graph_of(rows), ids), linkage), linkage
