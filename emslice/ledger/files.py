"""Files that are either old or new, never half: written aside, flushed, then renamed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file; after a crash it holds the old bytes or the new ones."""
    with write_aside(path) as partial:
        partial.write_bytes(content)


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """A path to write to, in a folder that exists; what is there in the end becomes the file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a file by rows as CSV, atomically; at least one row, which names the columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def switch_link(link: Path, target: Path) -> None:
    """Point a symbolic link at a target, atomically; relative, so that the folder can move."""
    partial = link.with_name(f".{link.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries: a rename is durable only then."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
