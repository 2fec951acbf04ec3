"""URLs to folders, and which files have to be imported first."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from emslice.errors import VolumeError

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png")
IMPORTED_SUFFIXES = (*HDF5_SUFFIXES, *IMAGE_SUFFIXES, ".npy")


def local_path(url: str | Path) -> Path:
    """Absolute path of any local folder or file, from a path or a ``file://`` URL.

    ``~`` is expanded and ``..`` resolved, as tensorstore takes neither; links are kept.

    >>> local_path("file:///data/raw%20em.zarr")
    PosixPath('/data/raw em.zarr')
    >>> local_path("/data/run/../raw.zarr")
    PosixPath('/data/raw.zarr')
    """
    text = str(url)
    if not text:
        raise VolumeError("A path is empty; give a folder.")
    if "://" not in text:
        return Path(os.path.abspath(os.path.expanduser(text)))
    parts = urlsplit(text)
    if parts.scheme != "file":
        raise VolumeError(
            f"{text}: {parts.scheme}:// is not supported in this version; "
            f"give a folder or a file:// URL."
        )
    if parts.netloc not in ("", "localhost"):
        raise VolumeError(
            f"{text}: file:// takes an absolute path, as in file:///data/raw.zarr, "
            f"and got the host {parts.netloc!r}."
        )
    return Path(os.path.abspath(unquote(parts.path)))


def from_root(root: str | Path, path: str) -> str:
    """A path or ``file.h5:dataset`` from a folder, unless it is absolute, of the home or a URL.

    >>> from_root("/data", "ac4/raw.h5:main"), from_root("/data", "~/raw.zarr")
    ('/data/ac4/raw.h5:main', '~/raw.zarr')
    """
    if path.startswith(("/", "~")) or "://" in path:
        return path
    return str(Path(root) / path)


def split_dataset(source: str) -> tuple[str, str | None]:
    """File and dataset of ``file.h5:dataset``; the dataset is None for any other source.

    >>> split_dataset("a/b.h5:volumes/raw")
    ('a/b.h5', 'volumes/raw')
    """
    for suffix in HDF5_SUFFIXES:
        found = source.lower().find(f"{suffix}:")
        if found >= 0 and not Path(source).exists():
            end = found + len(suffix)
            return source[:end], source[end + 1 :]
    return source, None


def import_command(source: str | Path) -> str:
    """The command that turns this file or folder of images into a volume, for a shell.

    >>> import_command("my data/a.h5:raw")
    "emslice import 'my data/a.h5:raw' 'my data/a.zarr'"
    """
    target = Path(split_dataset(str(source))[0]).with_suffix(".zarr")
    return shlex.join(["emslice", "import", str(source), str(target)])
