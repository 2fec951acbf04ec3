"""A configuration from a YAML file, ``--set`` pairs and command-line options, in that order."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from emslice.config.schema import SegmentConfig
from emslice.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def load_config(
    file: str | Path | None = None,
    assignments: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> SegmentConfig:
    """Checked configuration of a segmentation; see `load_as`."""
    return load_as(SegmentConfig, file, assignments, options, base)


def load_as(
    kind: type[Config],
    file: str | Path | None = None,
    assignments: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
    what: str = "",
) -> Config:
    """Checked configuration of any kind; later sources win.

    Parameters
    ----------
    file : path, optional
        YAML mapping.
    assignments : iterable of ``key.sub=value``
        Values are YAML.
    options : mapping, optional
        Dotted keys; None means not given.
    base : mapping, optional
        What everything else is laid over: the configuration of an earlier run.
    what : str
        Where wrong keys and values are, if it is the file alone: it begins the message.

    Raises
    ------
    ConfigError
        Unreadable file, unknown key (with the nearest known one), value of the wrong kind.
    """
    tree = copy.deepcopy(dict(base or {}))
    tree.update(_read(file) if file else {})
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: expected key.sub=value.")
        _assign(tree, key.strip(), _yaml(value, f"--set {key}"))
    for key, value in (options or {}).items():
        if value is not None:
            _assign(tree, key, value)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        found = [what and f"{what}:", *(_explain(item, kind) for item in error.errors())]
        raise ConfigError(" ".join(filter(None, found))) from None


def known_keys(model: type[BaseModel] = SegmentConfig, prefix: str = "") -> list[str]:
    """Every dotted key of the configuration."""
    keys = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if _is_model(kind):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _read(file: str | Path) -> dict[str, Any]:
    try:
        content = _yaml(Path(file).read_text(), f"--config {file}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: cannot be read ({error}).") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"--config {file}: expected a mapping of keys, got {content!r:.60}.")
    return content or {}


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what}: not valid YAML: {' '.join(str(error).split())}") from error


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for name in path:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{dotted}: {name!r} is set to {inner!r}, which has no keys of its own."
            )
        tree = inner
    tree[last] = value


def _explain(item: Any, kind: type[BaseModel]) -> str:
    """One sentence for one finding of pydantic."""
    location = [str(part) for part in item["loc"] if part != "function-after"]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        close = _nearest_key(location, kind)
        hint = f" Did you mean {close!r}?" if close else ""
        return f"unknown configuration key {key!r}.{hint}"
    reason = item["msg"].removeprefix("Value error, ")
    where = f"{key}: " if key else ""
    if isinstance(item["input"], dict):  # a whole section, which the reader has before them
        return f"{where}{reason}."
    return f"{where}{reason}; got {item['input']!r:.80}."


def _nearest_key(location: list[str], kind: type[BaseModel]) -> str | None:
    """The known key that is most like an unknown one, from the innermost entry on."""
    kind, location = _entry(kind, location)
    known = known_keys(kind)
    by_last = {name.split(".")[-1]: name for name in known}
    found = difflib.get_close_matches(".".join(location), known, n=1, cutoff=0.5)
    found = found or [by_last[n] for n in difflib.get_close_matches(location[-1], by_last, n=1)]
    return found[0] if found else None


def _entry(kind: type[BaseModel], location: list[str]) -> tuple[type[BaseModel], list[str]]:
    """The innermost model that `known_keys` does not list, and the location from there.

    It is an entry of a tuple or of a dictionary, or what may be left out.
    """
    model = kind
    for depth, name in enumerate(location, 1):
        found: Any = model.model_fields[name].annotation if name in model.model_fields else None
        if _is_model(found):
            model = found
            continue
        inside = next((part for part in get_args(found) if _is_model(part)), None)
        depth += get_origin(found) in (dict, tuple, list)
        return (kind, location) if inside is None else _entry(inside, location[depth:])
    return kind, location


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
