"""Labelled data in the folders and files that the authors of CAD and EM-SliceCrafter ship.

Every file is HDF5 with one dataset, ``main``, (Z, Y, X): raw in ``*_inputs`` or ``image*``, labels
in ``*_labels`` or ``gt*``, 0 where there is none. The splits are the published ones: the network
trains on the first sections of a volume and is scored on the last, AC3/4 on one volume each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from emslice.errors import ConfigError
from emslice.volumes.places import HDF5_SUFFIXES, local_path

KEY = "main"


class LabelledPart(NamedTuple):
    """Sections of a raw volume and its labels, and what they are for."""

    raw: str
    """``file.h5:main``, as `open_source` takes it."""

    labels: str
    split: str
    """train, validate or test."""

    sections: tuple[int, int] | None
    """From and up to; None is all of them."""


@dataclass(frozen=True)
class Finding:
    """Something about a data set that is not as it ships."""

    path: Path
    text: str
    """What is wrong, what is there, what to do."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True)
class _Shipped:
    """A volume with fixed names."""

    stem: str
    splits: tuple[tuple[str, int, int], ...]
    sections: int
    """Of the whole file, or at least so many."""

    exact: bool = True

    def files(self, root: Path) -> tuple[Path, Path]:
        return root / f"{self.stem}_inputs.h5", root / f"{self.stem}_labels.h5"


_FIRST_100 = (("train", 0, 100), ("test", 100, 125))

_SHIPPED = {
    **{f"cremi{k}": (_Shipped(f"cremi/cremi{k}", _FIRST_100, 125),) for k in "ABC"},
    "ac34": (
        _Shipped("ac3_ac4/AC4", (("train", 0, 80),), 80, exact=False),
        _Shipped("ac3_ac4/AC3", (("test", 0, 100),), 100, exact=False),
    ),
    "wafer4": (_Shipped("wafer4/wafer4", _FIRST_100, 125),),
}
_SHIPPED["cremi"] = tuple(_SHIPPED[f"cremi{k}"][0] for k in "ABC")

_FOLDERS = {"train": "train", "val": "validate", "test": "test"}
"""Of zebrafinch, whose volumes are numbered: ``image*`` goes with ``gt*``."""

LAYOUTS = (*sorted(_SHIPPED), "zebrafinch")


def dataset_layout(name: str, root: str | Path) -> list[LabelledPart]:
    """Raw, labels and split of every part of a data set below a folder.

    Files of fixed names are listed whether they are there or not; see `check_layout`.

    Parameters
    ----------
    name : one of ``LAYOUTS``
    root : folder that the authors call ``data_folder``

    Raises
    ------
    ConfigError
        Unknown name.
    """
    folder = _root(name, root)
    if name == "zebrafinch":
        return [
            LabelledPart(_url(raw), _url(labels), split, None)
            for split, raw, labels in _numbered(folder)
        ]
    return [
        LabelledPart(_url(raw), _url(labels), split, (begin, end))
        for volume in _SHIPPED[name]
        for raw, labels in [volume.files(folder)]
        for split, begin, end in volume.splits
    ]


def check_layout(name: str, root: str | Path) -> list[Finding]:
    """Everything that keeps a data set from being trained and scored on; empty if it is sound.

    Raises
    ------
    ConfigError
        Unknown name.

    Notes
    -----
    Headers are read, and labels section by section up to the first that is not empty.
    """
    folder = _root(name, root)
    if not folder.is_dir():
        return [Finding(folder, "no such folder; data.root names the one that the data are in.")]
    if name != "zebrafinch":
        return [
            finding
            for volume in _SHIPPED[name]
            for finding in _check_pair(folder, *volume.files(folder), volume)
        ]
    findings = []
    for part in _FOLDERS:
        pairs = [(raw, labels) for _, raw, labels in _numbered(folder, [part])]
        if not pairs:
            text = "no image*.h5 and no gt*.h5 here."
            findings.append(Finding(folder / name / part, text + _similar(folder, f"{part}.h5")))
        for raw, labels in pairs:
            findings += _check_pair(folder, raw, labels)
    return findings


def _root(name: str, root: str | Path) -> Path:
    if name not in LAYOUTS:
        close = difflib.get_close_matches(name, LAYOUTS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"data.layout: unknown layout {name!r}; known: {', '.join(LAYOUTS)}.{hint}"
        )
    return local_path(root)


def _url(path: Path) -> str:
    return f"{path}:{KEY}"


def _numbered(root: Path, parts: list[str] | None = None) -> Iterator[tuple[str, Path, Path]]:
    """Split, raw and labels of every number that has one of the two."""
    for part in parts or _FOLDERS:
        folder = root / "zebrafinch" / part
        ends = {path.name.removeprefix("image") for path in folder.glob("image*.h5")}
        ends |= {path.name.removeprefix("gt") for path in folder.glob("gt*.h5")}
        for end in sorted(ends):
            yield _FOLDERS[part], folder / f"image{end}", folder / f"gt{end}"


def _check_pair(
    root: Path, raw: Path, labels: Path, shipped: _Shipped | None = None
) -> list[Finding]:
    findings: list[Finding] = []
    with ExitStack() as stack:
        arrays = {}
        for path in (raw, labels):
            opened = _open(root, path, stack)
            if isinstance(opened, Finding):
                findings.append(opened)
            else:
                arrays[path] = opened
        if raw in arrays and arrays[raw].dtype != np.uint8:
            text = f"{KEY} holds {arrays[raw].dtype}; raw is uint8, 0 black to 255."
            findings.append(Finding(raw, text))
        if labels in arrays:
            findings += _check_labels(labels, arrays[labels], shipped)
        if len(arrays) == 2 and arrays[raw].shape != arrays[labels].shape:
            findings.append(
                Finding(
                    labels,
                    f"its shape is {arrays[labels].shape}, that of {raw.name} is "
                    f"{arrays[raw].shape}; they must be the same voxels.",
                )
            )
        if shipped is not None:
            for path, array in arrays.items():
                findings += _check_sections(path, array.shape[0], shipped)
    return findings


def _open(root: Path, path: Path, stack: ExitStack) -> Any:
    """The dataset, or what keeps it from being read."""
    if not path.is_file():
        return Finding(path, "no such file." + _similar(root, path.name))
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        size = path.stat().st_size
        return Finding(path, f"cannot be read as HDF5 ({size} bytes; {error}); copy it again.")
    found = file.get(KEY)
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(f"{key} {getattr(file[key], 'shape', '(a group)')}" for key in file)
        return Finding(
            path, f"has no dataset {KEY!r}; it has: {there or 'nothing'}. Rename it to {KEY}."
        )
    if len(found.shape) != 3 or 0 in found.shape:
        return Finding(path, f"{KEY} has the shape {found.shape}; expected (Z, Y, X).")
    return found


def _check_labels(path: Path, labels: Any, shipped: _Shipped | None) -> list[Finding]:
    if labels.dtype.kind not in "iu":
        return [Finding(path, f"{KEY} holds {labels.dtype}; labels are integers, 0 is none.")]
    n = labels.shape[0]
    spans = shipped.splits if shipped is not None else (("all", 0, n),)
    findings = []
    for split, begin, end in spans:
        sections = range(begin, min(end, n))
        if len(sections) and not any(labels[z].any() for z in sections):
            what = "" if split == "all" else f" in sections {begin}:{sections.stop} ({split})"
            findings.append(Finding(path, f"every label{what} is 0; is it the file of labels?"))
    return findings


def _check_sections(path: Path, n: int, shipped: _Shipped) -> list[Finding]:
    if n == shipped.sections or (n > shipped.sections and not shipped.exact):
        return []
    least = "" if shipped.exact else "at least "
    splits = ", ".join(f"{split} {begin}:{end}" for split, begin, end in shipped.splits)
    text = f"has {n} sections; the published split ({splits}) counts {least}{shipped.sections}."
    return [Finding(path, text)]


def _similar(root: Path, name: str) -> str:
    """What is there that might be meant."""
    there = {
        str(path.relative_to(root)): path.name
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in HDF5_SUFFIXES
    }
    names = difflib.get_close_matches(name, set(there.values()), n=3, cutoff=0.5)
    close = [place for place, own in there.items() if own in names][:3]
    if close:
        return f" Similar: {', '.join(close)}."
    return f" Below {root} there {'are other' if there else 'are no'} HDF5 files."
