"""What a run folder says of itself: ``run.yaml``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

import emslice
from emslice.geometry.boxes import show
from emslice.ledger.files import write_atomic
from emslice.service.machine import peak_memory
from emslice.service.plan import Plan


def now() -> str:
    """Present time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class RunRecord:
    """What ``run.yaml`` says."""

    plan: Plan
    state: str = "running"
    created: str = field(default_factory=lambda: now())
    finished: str | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    """Grey values of raw, if they were measured to normalise it."""
    holes: list[dict[str, Any]] = field(default_factory=list)
    """Stage, task, box and reason of each box that could not be made and reads as masked."""
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order a reader wants them."""
        plan, source = self.plan, self.plan.source
        record: dict[str, Any] = {
            "emslice": emslice.__version__,
            "state": self.state,
            "created": self.created,
            "finished": self.finished,
            "input": {
                "url": source.url,
                "kind": "affinities" if plan.raw is None else "raw",
                "shape": [int(n) for n in source.roi.shape],
                "dtype": str(source.dtype),
                "resolution_nm": list(source.resolution_nm) if source.resolution_nm else None,
            },
            "roi": show(plan.roi),
            "domain_shape": [int(n) for n in plan.domain.shape],
        }
        if plan.prediction is not None:
            checkpoint = plan.prediction.checkpoint
            record["checkpoint"] = {
                "name": checkpoint.name,
                "sha256": checkpoint.sha256,
                "resolution_nm": list(checkpoint.resolution_nm or ()) or None,
            }
            record["profile"] = plan.prediction.profile.as_dict()
            record["intensity"] = {"normalize": "none"}
        if plan.measurement is not None:
            record["intensity"] = {**plan.measurement.normalisation.facts(), **self.measured}
        record["config"] = _resolved(plan)
        record["warnings"] = list(plan.warnings)
        record["stages"] = self.stages
        record["counts"] = self.counts
        record["digests"] = self.digests
        if self.holes:
            record["holes"] = self.holes
        record["peak_memory_bytes"] = peak_memory()
        if self.error is not None:
            record["error"] = self.error
        return record

    def save(self) -> None:
        """Write ``run.yaml``, atomically."""
        text = yaml.safe_dump(self.as_dict(), sort_keys=False)
        write_atomic(self.plan.folder / "run.yaml", text.encode())

    def finish(self) -> None:
        """Note that everything the record names is on disk."""
        self.state, self.finished = "holes" if self.holes else "done", now()
        self.save()

    def fail(self, error: BaseException) -> None:
        """Note why the run stopped, if the disk still takes it."""
        self.state, self.finished = "failed", now()
        self.error = f"{type(error).__name__}: {error}".removesuffix(": ")
        with suppress(OSError):  # the disk may be what failed; the error itself reaches the user
            self.save()


def _resolved(plan: Plan) -> dict[str, Any]:
    """The configuration with every default resolved."""
    config = plan.config.model_dump(mode="json")
    config["agglomeration"]["lowest_threshold"] = plan.config.agglomeration.lowest
    config["fragments"]["radius"] = plan.config.fragments.cap
    config["workers"] = plan.workers
    config["block"] = list(plan.block_shape)
    if plan.mask is not None:
        config["mask"] = plan.mask.url
    if plan.config.checkpoint is not None:
        config["checkpoint"] = str(Path(plan.config.checkpoint).absolute())
    return config
