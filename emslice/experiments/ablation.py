"""Which part of a recipe is worth what: variants trained with several seeds, and scored.

A folder holds all of it, and the same call goes on with what is there: finished trainings and
finished scores stay, a training that was stopped is resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emslice.config.ablation import AblationConfig, VariantConfig, load_ablation, variant_config
from emslice.config.training import TrainConfig
from emslice.errors import ConfigError
from emslice.recipes.building import RECIPES
from emslice.recipes.card import NAME
from emslice.recipes.records import BEST, LAST, RECORD, read_record
from emslice.recipes.running import Watch, resolved, resume, start
from emslice.service.ablation import Ablation, summarise_runs, write_ablation
from emslice.service.evaluating import evaluate_pairs, plan_evaluation
from emslice.service.reporting import Reporter
from emslice.service.scores import Evaluation

MEASURES = ("voi", "arand", "best_voi", "best_threshold")


@dataclass(frozen=True)
class Job:
    """A training of an ablation."""

    name: str
    """Its folder below that of the ablation."""
    variant: str
    seed: int
    recipe: str
    config: TrainConfig


def run_ablation(
    file: str | Path,
    out: str | Path,
    root: str | None,
    watch: Callable[[str], Watch],
    reporter: Reporter,
) -> tuple[Ablation, Evaluation]:
    """Train, score, and write ``ablation.csv``, ``ablation_runs.csv`` and ``ablation.png``.

    Parameters
    ----------
    root : folder that the volumes' paths start from
    watch : callable
        Given the name of a training, gives what `start` wants.

    Raises
    ------
    ConfigError
        Bad input; nothing was written.
    """
    ablation, out = load_ablation(file), Path(out).resolve()
    first, jobs = plan_jobs(ablation, out, root)
    plan_evaluation(ablation.evaluate, ("raw",), out / "scores", (), root)  # before hours of work
    for job in [*first, *jobs]:
        _train(job, out / job.name, watch(job.name))
    checkpoints = tuple(str(out / job.name / BEST) for job in jobs)
    plan = plan_evaluation(
        ablation.evaluate, (*checkpoints, *ablation.baselines), out / "scores", (), root
    )
    scored = evaluate_pairs(plan, reporter)
    found = summarise_runs([*_rows(jobs, checkpoints, plan, scored)])
    write_ablation(found, out)
    return found, scored


def plan_jobs(ablation: AblationConfig, out: Path, root: str | None) -> tuple[list[Job], list[Job]]:
    """Trainings of teachers, and of every variant and seed; every configuration is checked."""
    teachers = {name: str(out / "first" / name / BEST) for name in ablation.first}
    first = [
        _job(f"first/{name}", name, ablation, variant, root, ablation.seeds[0], {})
        for name, variant in ablation.first.items()
    ]
    jobs = [
        _job(f"{name}-{seed}", name, ablation, variant, root, seed, teachers)
        for name, variant in ablation.variants.items()
        for seed in ablation.seeds
    ]
    return first, jobs


def _job(
    name: str,
    variant: str,
    ablation: AblationConfig,
    asked: VariantConfig,
    root: str | None,
    seed: int,
    teachers: dict[str, str],
) -> Job:
    if asked.recipe not in RECIPES:
        known = ", ".join(RECIPES)
        raise ConfigError(f"variants.{variant}.recipe: {asked.recipe!r} is none of {known}.")
    try:
        config = resolved(variant_config(ablation, asked, root, seed, **teachers))
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"variants.{variant}.set: a {{name}} stands for nothing ({error}); name a training "
            f"below first: {', '.join(teachers) or 'there is none'}."
        ) from None
    return Job(name, variant, seed, asked.recipe, config)


def _train(job: Job, folder: Path, watch: Watch) -> None:
    if not (folder / RECORD).exists():
        start(job.recipe, job.config, folder, watch)
        return
    record = read_record(folder)
    if (record["recipe"], record["config"]) != (job.recipe, job.config.model_dump(mode="json")):
        raise ConfigError(
            f"{folder}: was trained with another recipe or configuration. Choose another --out, or "
            f"remove it."
        )
    if not ((folder / LAST).exists() and (folder / NAME).exists()):
        resume(folder, watch)


def _rows(
    jobs: list[Job], checkpoints: tuple[str, ...], plan: Any, scored: Evaluation
) -> list[dict[str, Any]]:
    """Variant, seed and scores of each training, the mean over volumes where there are several."""
    paths = {pair.checkpoint: str(pair.config.checkpoint) for pair in plan.pairs}
    volumes = {row["volume"] for row in scored.rows}
    wanted = "mean" if "mean" in volumes else next(iter(volumes))
    by_path = {paths.get(r["checkpoint"]): r for r in scored.rows if r["volume"] == wanted}
    rows = []
    for job, checkpoint in zip(jobs, checkpoints, strict=True):
        row = by_path[checkpoint]
        measured = {key: row[key] for key in MEASURES if row.get(key) is not None}
        rows.append({"variant": job.variant, "seed": job.seed, **measured})
    return rows
