"""The main job: a plan is carried out stage by stage, and the run folder tells what was done.

Results are written under ``stages/<name>/<fingerprint>/`` and flushed, then recorded in the ledger;
``segmentation.zarr`` is switched to them when all is there; ``run.yaml`` is written last. Killed
anywhere, a run goes on with what has no record.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from emslice.engine.coordinator import StageProgress, StageResult, run_stage
from emslice.engine.executor import Executor
from emslice.engine.plan import check_budget
from emslice.engine.stage import Stage
from emslice.errors import ConfigError, EmsliceError, StorageError
from emslice.geometry.boxes import Roi, cut, n_voxels
from emslice.ledger.database import Ledger
from emslice.ledger.files import switch_link
from emslice.ops.affinity import quantise_array
from emslice.ops.intensity import to_uint8
from emslice.service.dropping import Dropping
from emslice.service.machine import free_memory
from emslice.service.plan import Plan
from emslice.service.record import RunRecord
from emslice.service.stages import Stages, stages_of
from emslice.service.supervision import LEASE_S, DoneHook, Supervision
from emslice.viewer.panels import affinity_colours, grey, label_colours, save_panels
from emslice.volumes import Volume, open_volume
from emslice.volumes.digest import digest

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Who is told how far a run has come."""

    def stage(self, name: str, voxels: int) -> AbstractContextManager[Advance]:
        """Enter a stage; yields what to call with voxels done."""


class RunFailedError(EmsliceError):
    """Some tasks could not be done; the others were."""


def segment(plan: Plan, reporter: Reporter) -> RunRecord:
    """Carry out a plan, or go on with it where it stopped.

    Raises
    ------
    RunLockedError
        Another coordinator is at work on this run.
    RunFailedError
        Tasks failed; the ledger has their tracebacks, ``run.yaml`` the first of them.
    EmsliceError
        The run failed otherwise; ``run.yaml`` says why.
    """
    stages = stages_of(plan)
    check_budget(stages.in_order(), free_memory(), plan.workers)
    _check_values(plan, reporter)
    record = RunRecord(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with Ledger(plan.folder / "ledger.sqlite") as ledger:
        ledger.lock(f"{socket.gethostname()}:{os.getpid()}", ttl_s=LEASE_S)
        try:
            record.save()
            _run(plan, stages, reporter, record, ledger)
        except BaseException as error:  # also Ctrl-C: the record says how the run ended
            record.fail(error)
            if isinstance(error, ConfigError):  # found too late to be a refusal: exit code 1
                raise RunFailedError(f"RUN {plan.folder}: {error}") from error
            if isinstance(error, OSError | MemoryError) and not isinstance(error, EmsliceError):
                raise StorageError(f"RUN {plan.folder}: {error or 'out of memory'}") from error
            raise
        finally:
            ledger.unlock()
    return record


def _run(plan: Plan, stages: Stages, reporter: Reporter, record: RunRecord, ledger: Ledger) -> None:
    hooks = _drop_affinities(stages, ledger)
    with Supervision(plan.folder, ledger, stages.in_order(), hooks) as supervision:
        with open_executor(plan) as executor:
            for stage in stages.in_order():
                _run_stage(stage, plan, reporter, record, executor, supervision, ledger)
        _finish(plan, reporter, record, ledger, stages)
        record.finish()
        supervision.end("done")


@contextmanager
def open_executor(plan: Plan) -> Iterator[Executor]:
    """One worker is this process; several are processes of their own, on Dask."""
    executor: Executor
    if plan.workers == 1:
        from emslice.engine.serial import SerialExecutor

        executor = SerialExecutor()
    else:
        from emslice.engine.dask_executor import DaskExecutor

        cuda = plan.config.predict.device == "cuda"
        executor = DaskExecutor.local(plan.workers, resources=("CPU", "GPU") if cuda else ("CPU",))
    try:
        yield executor
    finally:
        executor.close()


def _run_stage(
    stage: Stage,
    plan: Plan,
    reporter: Reporter,
    record: RunRecord,
    executor: Executor,
    supervision: Supervision,
    ledger: Ledger,
) -> None:
    voxels, start = n_voxels(plan.roi), time.perf_counter()
    with reporter.stage(stage.name, voxels) as advance:
        shown = 0

        def report(progress: StageProgress) -> None:
            nonlocal shown
            supervision.progress(progress)
            reached = voxels * progress.done // max(1, progress.total)
            advance(reached - shown)
            shown = reached

        result = run_stage(stage, executor, supervision, report=report)
    seconds = time.perf_counter() - start
    record.stages[stage.name] = {
        "fingerprint": stage.fingerprint,
        "tasks": result.total,
        "done_before": result.done_before,
        "seconds": round(seconds, 3),
        "voxels_per_s": round(voxels / seconds),
        "peak_memory_bytes": result.peak_bytes,
    }
    if not result.is_complete:
        raise RunFailedError(_failure(plan, stage, result, ledger))


def _failure(plan: Plan, stage: Stage, result: StageResult, ledger: Ledger) -> str:
    key = result.quarantined[0]
    reason = ledger.reasons(stage.fingerprint)[key].strip().splitlines()[-1]
    return (
        f"RUN {plan.folder}: {len(result.quarantined)} of {result.total} tasks of stage "
        f"{stage.name!r} failed, the others are done. The first is {key}: {reason}. When the cause "
        f"is gone: emslice retry {plan.folder} --failed"
    )


def _drop_affinities(stages: Stages, ledger: Ledger) -> list[DoneHook]:
    """Delete tiles as their readers are done; a kept volume holds the same codes."""
    if stages.predict is None:
        return []
    done = ledger.done_keys(stages.fragments.fingerprint)
    dropping = Dropping(stages.predict.tiles, stages.fragments, done)
    ledger.forget(stages.predict.fingerprint, dropping.catch_up())
    return [dropping.block_done]


def _finish(
    plan: Plan, reporter: Reporter, record: RunRecord, ledger: Ledger, stages: Stages
) -> None:
    """Counts, digests and picture; then the results take their place."""

    def total(stage: Stage, name: str) -> int:
        return sum(facts.get(name, 0) for _, facts in ledger.facts_of(stage.fingerprint))

    record.counts = {
        "fragments": total(stages.fragments, "fragments"),
        "merges": total(stages.agglomerate, "merges"),
        "segments": total(stages.cut, "segments"),
        "masked_voxels": total(stages.fragments, "masked"),
    }
    segmentation = open_volume(stages.relabel.path)
    start = time.perf_counter()
    with reporter.stage("digest", n_voxels(plan.roi)) as advance:
        record.digests["segmentation"] = digest(segmentation, workers=plan.workers)
        if stages.keep is not None:
            kept = open_volume(stages.keep.path)
            record.digests["affinities"] = digest(kept, workers=plan.workers)
        advance(n_voxels(plan.roi))
    record.stages["digest"] = {"seconds": round(time.perf_counter() - start, 3)}
    _preview(plan, segmentation)
    if stages.keep is not None:
        switch_link(plan.folder / "affinities.zarr", stages.keep.path.absolute())
    switch_link(plan.folder / "segmentation.zarr", Path(segmentation.url))


def _preview(plan: Plan, segmentation: Volume) -> None:
    """The middle section as a picture."""
    begin, shape = list(plan.roi.begin), list(plan.roi.shape)
    begin[0], shape[0] = begin[0] + shape[0] // 2, 1
    section = Roi(begin, shape)
    labels = segmentation.read(section)[0]
    if plan.raw is not None:
        pixels = to_uint8(plan.raw.read(section), plan.config.raw.window)[0]
        first = (f"raw, section {begin[0]}", grey(pixels))
        second = ("segmentation over raw", label_colours(labels, pixels))
    else:
        codes = quantise_array(plan.source.read(section))[:, 0]
        first = (
            f"affinity (z, y, x = red, green, blue), section {begin[0]}",
            affinity_colours(codes),
        )
        second = ("segmentation", label_colours(labels))
    save_panels(plan.folder / "preview.png", [first, second])


def _check_values(plan: Plan, reporter: Reporter) -> None:
    """Refuse stored floats that are no affinities, before anything is written."""
    volume = plan.affinities
    if volume is None or volume.dtype == np.uint8:
        return
    with reporter.stage("check", n_voxels(plan.roi)) as advance:
        for slab in cut(plan.roi, axis=0, step=max(1, int(volume.chunk_shape[0]))):
            first = int(slab.begin[0])
            quantise_array(volume.read(slab), f"affinities {volume.url}", first)
            advance(n_voxels(slab))
