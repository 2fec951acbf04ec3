"""What a training says of itself: ``train.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from emslice.errors import ConfigError

RECORD = "train.yaml"


def read_record(folder: Path) -> dict[str, Any]:
    """What ``train.yaml`` says.

    Raises
    ------
    ConfigError
        There is none, or it is no record of a training.
    """
    try:
        record = yaml.safe_load((folder / RECORD).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no training ({RECORD} is missing); check the path.") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{folder / RECORD}: cannot be read ({error}).") from error
    if not isinstance(record, dict) or "recipe" not in record:
        raise ConfigError(f"{folder / RECORD}: is no record of a training.")
    return record
