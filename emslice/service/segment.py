"""The main job: a plan is carried out stage by stage, and the run folder tells what was done.

Results are written under ``stages/<name>/<fingerprint>/`` and flushed, then recorded in the ledger;
``segmentation.zarr`` is switched to them when all is there; ``run.yaml`` is written last. Killed
anywhere, a run goes on with what has no record. What fails is masked (``stages/holes.py``): the
others are done, and the result says what it leaves out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from emslice.engine.coordinator import StageProgress, StageResult, run_stage
from emslice.engine.executor import Executor
from emslice.engine.joint import Joint, JointRecords, parts_of
from emslice.engine.plan import check_budget
from emslice.engine.stage import Stage
from emslice.errors import ConfigError, EmsliceError, StorageError
from emslice.geometry.boxes import cut, n_voxels
from emslice.ledger.database import Ledger
from emslice.ops.affinity import quantise_array
from emslice.service.dropping import Dropping
from emslice.service.handover import clear_scratch
from emslice.service.machine import free_memory
from emslice.service.mending import can_be_left_out, holes_of, last_line, list_holes, stale_tasks
from emslice.service.plan import Plan
from emslice.service.record import RunRecord
from emslice.service.reporting import Reporter, in_voxels
from emslice.service.results import publish, take_down
from emslice.service.stages import Stages, stages_of
from emslice.service.supervision import LEASE_S, DoneHook, Supervision


class RunFailedError(EmsliceError):
    """Some tasks could not be done; the others were."""


def segment(plan: Plan, reporter: Reporter) -> RunRecord:
    """Carry out a plan, or go on with it where it stopped.

    Raises
    ------
    RunLockedError
        Another coordinator is at work on this run.
    RunFailedError
        Tasks failed; the ledger has their tracebacks, ``run.yaml`` the first of them. If they are
        tiles or blocks, there is a segmentation without them.
    EmsliceError
        The run failed otherwise; ``run.yaml`` says why.
    """
    check_budget(stages_of(plan).to_run(), free_memory(), plan.workers)
    _check_values(plan, reporter)
    record = RunRecord(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with Ledger(plan.folder / "ledger.sqlite") as ledger:
        ledger.lock(f"{socket.gethostname()}:{os.getpid()}", ttl_s=LEASE_S)
        try:
            record.save()
            _Run(plan, reporter, record, ledger).to_the_end()
        except BaseException as error:  # also Ctrl-C: the record says how the run ended
            record.fail(error)
            if isinstance(error, ConfigError):  # found too late to be a refusal: exit code 1
                raise RunFailedError(f"RUN {plan.folder}: {error}") from error
            if isinstance(error, OSError | MemoryError) and not isinstance(error, EmsliceError):
                raise StorageError(f"RUN {plan.folder}: {error or 'out of memory'}") from error
            raise
        finally:
            ledger.unlock()
    if record.holes:
        raise RunFailedError(_what_is_left_out(plan, record))
    return record


class _Run:
    def __init__(self, plan: Plan, reporter: Reporter, record: RunRecord, ledger: Ledger) -> None:
        self._plan, self._reporter, self._record, self._ledger = plan, reporter, record, ledger
        self._stages = stages_of(plan, holes_of(stages_of(plan), ledger))

    def to_the_end(self) -> None:
        """All stages, once more for each set of holes, which mostly is none; then the results."""
        plan, ledger, record = self._plan, self._ledger, self._record
        with Supervision(plan.folder, ledger, self._stages.in_order(), []) as supervision:
            with open_executor(plan) as executor:
                while not self._run_stages(executor, supervision):
                    self._stages = stages_of(plan, holes_of(self._stages, ledger))
            record.holes = list_holes(self._stages, ledger)
            publish(plan, self._reporter, record, ledger, self._stages)
            record.finish()
            clear_scratch(plan.config, plan.folder)
            supervision.end("holes" if record.holes else "done")

    def _run_stages(self, executor: Executor, supervision: Supervision) -> bool:
        """Every stage in order; False as soon as there is a hole that some have not seen."""
        stages, ledger = self._stages, self._ledger
        self._forget_stale(stages.fragments)  # before it is asked which tiles are read again
        if stages.keep is not None:
            self._forget_stale(stages.keep)
        supervision.watch(stages.in_order(), _drop_affinities(stages, ledger))
        return all(
            self._bring_to_its_end(stage, executor, supervision) for stage in stages.to_run()
        )

    def _bring_to_its_end(self, stage: Stage, executor: Executor, supervision: Supervision) -> bool:
        """Do what a stage has not done yet; False if that made a hole that others must see."""
        parts = parts_of(stage)
        for part in parts:
            self._forget_stale(part)
        if all(part.name in self._record.stages and self._is_over(part) for part in parts):
            return True  # done before the hole was found
        for part in parts:
            self._check_failures(part, n_done=part.n_tasks)
        self._run_stage(stage, executor, supervision)
        return all(self._is_settled(part) for part in parts)

    def _is_settled(self, stage: Stage) -> bool:
        """Whether a stage is at its end and no hole has come up."""
        holes = holes_of(self._stages, self._ledger)
        return holes == self._stages.fragments.holes and self._is_over(stage)

    def _is_over(self, stage: Stage) -> bool:
        count = self._ledger.count(stage.fingerprint)
        return count.done + count.failed == stage.n_tasks

    def _forget_stale(self, stage: Stage) -> None:
        """Results that are mended in place are hidden first: a crash may come at any line."""
        stale = stale_tasks(self._stages, stage, self._ledger)
        if stale:
            take_down(self._plan, stage)
            self._ledger.forget(stage.fingerprint, stale)

    def _run_stage(self, stage: Stage, executor: Executor, supervision: Supervision) -> None:
        voxels = n_voxels(self._plan.roi)
        joint = JointRecords(stage, supervision) if isinstance(stage, Joint) else None
        with self._reporter.stage(stage.name, voxels) as advance:
            show = in_voxels(advance, voxels)

            def report(progress: StageProgress) -> None:
                for part in [progress] if joint is None else joint.progress(progress):
                    supervision.progress(part)
                show(progress)

            result = run_stage(stage, executor, joint or supervision, report=report)
        results = [result] if joint is None else joint.results(result)
        for part, own in zip(parts_of(stage), results, strict=True):
            self._note(part, own)
            self._check_failures(part, own.done_before + own.done_now)

    def _check_failures(self, stage: Stage, n_done: int) -> None:
        """Go on without what makes a hole, unless a stage did nothing else."""
        reasons = self._ledger.reasons(stage.fingerprint)
        if reasons and not (n_done and can_be_left_out(self._stages, stage, reasons)):
            raise RunFailedError(_failure(self._plan, stage, reasons))

    def _note(self, stage: Stage, result: StageResult) -> None:
        voxels, before = n_voxels(self._plan.roi), self._record.stages.get(stage.name, {})
        seconds = result.seconds + before.get("seconds", 0)  # in vain, as a hole was found later
        self._record.stages[stage.name] = {
            "fingerprint": stage.fingerprint,
            "tasks": result.total,
            "done_before": before.get("done_before", result.done_before),
            "seconds": round(seconds, 3),
            "voxels_per_s": round(voxels / seconds) if seconds else None,
            "peak_memory_bytes": result.peak_bytes,
        }


@contextmanager
def open_executor(plan: Plan) -> Iterator[Executor]:
    """One worker is this process; several are processes of their own, on Dask."""
    executor: Executor
    if plan.workers == 1:
        from emslice.engine.serial import SerialExecutor

        executor = SerialExecutor()
    else:
        from emslice.engine.dask_executor import DaskExecutor

        executor = DaskExecutor.local(plan.workers, n_gpus=_n_gpus(plan))
    try:
        yield executor
    finally:
        executor.close()


def _n_gpus(plan: Plan) -> int:
    """Devices that predict; torch is not imported where nothing does."""
    if plan.prediction is None or plan.prediction.profile.device != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def _failure(plan: Plan, stage: Stage, reasons: dict[str, str]) -> str:
    key, reason = next(iter(reasons.items()))
    return (
        f"RUN {plan.folder}: {len(reasons)} of {stage.n_tasks} tasks of stage {stage.name!r} "
        f"failed and the run cannot do without them. The first is {key}: "
        f"{last_line(reason)}. When the cause is gone: emslice retry {plan.folder} "
        f"--failed"
    )


def _what_is_left_out(plan: Plan, record: RunRecord) -> str:
    first = record.holes[0]
    return (
        f"RUN {plan.folder}: {len(record.holes)} tasks failed, the others are done. "
        f"{plan.folder / 'segmentation.zarr'} is the segmentation with their boxes masked. The "
        f"first is {first['key']} of stage {first['stage']!r} ({first['roi']}): {first['reason']}. "
        f"When the cause is gone: emslice retry {plan.folder} --failed"
    )


def _drop_affinities(stages: Stages, ledger: Ledger) -> list[DoneHook]:
    """Delete tiles as their readers are done; a kept volume holds the same codes."""
    if stages.predict is None:
        return []
    fragments, keep = stages.fragments, stages.keep
    blocks = ledger.iter_done(fragments.fingerprint)
    slabs = () if keep is None else ledger.iter_done(keep.fingerprint)
    dropping = Dropping(stages.predict.tiles, fragments, blocks, keep, slabs)
    ledger.forget(stages.predict.fingerprint, dropping.catch_up())
    return [dropping.task_done]


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
