"""A run that exists, planned again: as it was, or with other parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from emslice.config.load import load_config
from emslice.config.schema import DEFAULT_LOWEST, DEFAULT_RADIUS
from emslice.errors import ConfigError
from emslice.ledger.database import Ledger
from emslice.service.plan import Plan, plan_from_affinities, plan_from_raw
from emslice.volumes.places import local_path


def plan_again(
    folder: str | Path,
    assignments: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan of an existing run; what other parameters touch will be done again, and only that.

    Raises
    ------
    ConfigError
        No run in the folder, or one whose input or checkpoint is gone.
    """
    folder = local_path(folder)
    record = read_record(folder)
    source, config = record["input"], record["config"]
    method = config["agglomeration"]
    if method["lowest_threshold"] == min(DEFAULT_LOWEST, method["threshold"]):
        method["lowest_threshold"] = None  # it was left to the default, which may change
    fragments = config["fragments"]
    if fragments["radius"] == DEFAULT_RADIUS[fragments.get("dimensions", 2)]:
        fragments["radius"] = None  # as above
    config.setdefault("dust", {"min_size": 0})  # a run from before there was dust
    config["raw"].setdefault("normalize", "none")  # nor was raw normalised
    merged = load_config(None, assignments, options, base=config)
    make = plan_from_raw if source["kind"] == "raw" else plan_from_affinities
    return make(source["url"], folder, merged, resume=True)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``run.yaml`` says.

    Raises
    ------
    ConfigError
        No run in the folder.
    """
    try:
        record: dict[str, Any] = yaml.safe_load((folder / "run.yaml").read_text())
        _ = record["input"]["kind"], record["config"]["agglomeration"]["lowest_threshold"]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigError(
            f"RUN {folder}: holds no readable run.yaml ({error}). Check the path; a run is "
            f"started by 'emslice segment'."
        ) from error
    return record


def release_failed(folder: str | Path) -> list[tuple[str, str]]:
    """Give quarantined tasks another chance; (stage, key) of each.

    Raises
    ------
    ConfigError
        No run in the folder.
    RunLockedError
        The run is being worked on.
    """
    path = local_path(folder) / "ledger.sqlite"
    if not path.exists():
        raise ConfigError(f"RUN {folder}: holds no ledger. Check the path.")
    with Ledger(path) as ledger:
        ledger.lock("retry")
        try:
            return [(attempt.stage, attempt.key) for attempt in ledger.release()]
        finally:
            ledger.unlock()
