"""Another threshold for a run that is agglomerated: a cut of its merges and new labels.

In place, the run goes on with another threshold, which does cut, dust and relabel and nothing
below. Elsewhere, the same stages write to a new volume and the run stays as it is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emslice.engine.coordinator import run_stage
from emslice.engine.executor import Executor
from emslice.engine.plan import check_budget
from emslice.engine.records import MemoryRecords
from emslice.engine.stage import Stage
from emslice.errors import EmsliceError, StorageError, VolumeError
from emslice.geometry.boxes import n_voxels
from emslice.ledger.files import sync_folder
from emslice.service.held import HeldRun, hold_run
from emslice.service.machine import check_writable, free_memory
from emslice.service.mending import last_line
from emslice.service.plan import Plan
from emslice.service.reporting import Reporter, in_voxels
from emslice.service.segment import RunFailedError, open_executor
from emslice.volumes import open_volume
from emslice.volumes.digest import digest
from emslice.volumes.places import local_path

FEW_TASKS = 16
"""Tasks of relabel below which starting workers takes longer than the work."""


@dataclass(frozen=True)
class Cut:
    """A segmentation at another threshold, outside of its run."""

    run: str
    threshold: float
    segmentation: str
    segments: int
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def plan_cut(
    folder: str | Path,
    threshold: float,
    workers: int | None = None,
    min_size: int | None = None,
) -> Plan:
    """Plan of a run at another threshold, of which cut, dust and relabel are all there is to do.

    Raises
    ------
    ConfigError
        As `hold_run`.
    """
    with hold_run(folder, threshold, workers, min_size) as run:
        return run.plan


def write_cut(
    folder: str | Path,
    threshold: float,
    out: str | Path,
    reporter: Reporter,
    workers: int | None = None,
    min_size: int | None = None,
) -> Cut:
    """Segmentation of a run at another threshold as a new volume, complete or not there at all.

    Raises
    ------
    ConfigError
        As `hold_run`, or there is something at ``out``.
    RunFailedError
        A task failed.
    """
    target = local_path(out)
    if os.path.lexists(target):
        raise VolumeError(f"--out {target}: exists already; choose another place or remove it.")
    with hold_run(folder, threshold, workers, min_size) as run:
        plan, stages = run.plan, run.stages
        dust = [stages.dust] if stages.dust else []
        check_budget([stages.cut, *dust, stages.relabel], free_memory(), plan.workers)
        check_writable(target, 2 * n_voxels(plan.roi), "--out")
        try:
            with _workspace(target) as work:
                return _write(run, threshold, target, work, reporter)
        except (OSError, MemoryError) as error:
            if isinstance(error, EmsliceError):
                raise
            raise StorageError(f"--out {target}: {error or 'out of memory'}") from error


def _write(run: HeldRun, threshold: float, target: Path, work: Path, reporter: Reporter) -> Cut:
    plan = run.plan
    if run.stages.relabel.n_tasks < FEW_TASKS:
        plan = replace(plan, workers=1)
    cut, dust = replace(run.stages.cut, folder=str(work / "cut")), run.stages.dust
    dust = dust and replace(dust, cut=cut, folder=str(work / "dust"))
    relabel = replace(run.stages.relabel, tables=dust or cut, folder=str(work))
    with open_executor(plan) as executor:
        segments = sum(fact["segments"] for fact in _run(cut, plan, executor, reporter))
        if dust is not None:
            facts = _run(dust, plan, executor, reporter)
            segments -= sum(fact.get("joined", 0) + fact.get("dropped", 0) for fact in facts)
        _run(relabel, plan, executor, reporter)
    with reporter.stage("digest", n_voxels(plan.roi)) as advance:
        found = digest(open_volume(relabel.path), workers=plan.workers)
        advance(n_voxels(plan.roi))
    run.ledger.renew()  # raises if another coordinator may have changed what was read
    relabel.path.rename(target)
    sync_folder(target.parent)
    return Cut(str(plan.folder), threshold, str(target), segments, found)


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A folder beside the target, so that a rename is all that is left; removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(stage: Stage, plan: Plan, executor: Executor, reporter: Reporter) -> list[dict[str, Any]]:
    """Facts of all tasks of a stage, which leaves no records."""
    voxels, records = n_voxels(plan.roi), MemoryRecords()
    with reporter.stage(stage.name, voxels) as advance:
        result = run_stage(stage, executor, records, report=in_voxels(advance, voxels))
    if not result.is_complete:
        key = result.quarantined[0]
        reason = last_line(records.reasons[stage.fingerprint][key])
        raise RunFailedError(
            f"RUN {plan.folder}: {len(result.quarantined)} of {result.total} tasks of stage "
            f"{stage.name!r} failed. The first is {key}: {reason}. Nothing was written."
        )
    return [dict(attempt.facts) for attempt in records.attempts if attempt.outcome == "done"]
