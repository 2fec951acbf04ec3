"""What a training says of itself: ``training.yaml``, and ``config.yaml`` to train again with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from emslice.errors import ConfigError
from emslice.ledger.files import write_atomic

RECORD, CONFIG = "training.yaml", "config.yaml"
BEST, LAST = "best.ckpt", "last.ckpt"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record into a new folder; ``training.yaml``, which makes it one, comes last."""
    texts = [
        yaml.safe_dump(part, sort_keys=False).encode()
        for part in (record["config"], {k: v for k, v in record.items() if k != "config"})
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip((CONFIG, RECORD), texts, strict=True):
        write_atomic(folder / name, text)


def read_record(folder: Path) -> dict[str, Any]:
    """What a training says, its ``config`` included.

    Raises
    ------
    ConfigError
        There is none, or it is no record of a training.
    """
    try:
        record, config = (yaml.safe_load((folder / name).read_text()) for name in (RECORD, CONFIG))
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise ConfigError(f"{folder}: no training ({name} is missing); check the path.") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{folder / RECORD}: cannot be read ({error}).") from error
    if not isinstance(record, dict) or "recipe" not in record:
        raise ConfigError(f"{folder / RECORD}: is no record of a training.")
    return {**record, "config": config}
