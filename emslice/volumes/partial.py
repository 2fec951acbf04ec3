"""Where an import grows: one at a time for a destination, and only our own is ever removed.

``DST.partial`` holds a lock, which dies with its process, and the array. A folder without the lock,
or with anything else in it, belongs to somebody else.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emslice.errors import StorageError, VolumeError
from emslice.volumes.tensors import failure

ARRAY, LOCK = "array", "emslice-import.lock"

ATTEMPTS = 20
"""At removing a folder; 0.1 s apart. On NFS a file that is open comes back under another name."""

log = logging.getLogger(__name__)


@contextmanager
def growing(target: Path) -> Iterator[Path]:
    """A free path that becomes ``target`` if the block ends well, and leaves no trace otherwise.

    Raises
    ------
    VolumeError
        ``target`` exists, is being imported, or its ``.partial`` is not ours.
    """
    folder = target.with_name(f"{target.name}.partial")
    _check_ours(folder, target)
    with _locked(folder, target):
        array = folder / ARRAY
        try:
            _remove(array)  # of an import that was killed
            yield array
            _name(array, target)
        finally:
            try:
                _remove(array)
            except StorageError as error:
                log.warning("left behind: %s", error)


def _check_ours(folder: Path, target: Path) -> None:
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and not folder.is_symlink()
    if ours:
        names = set(os.listdir(folder))
        ours = names <= {ARRAY, LOCK} and (ARRAY not in names or LOCK in names)
    if not ours:
        raise VolumeError(
            f"{target}: {folder} is in the way and was not left by an import; "
            f"move it or choose another DST."
        )


@contextmanager
def _locked(folder: Path, target: Path) -> Iterator[None]:
    """The folder, made and held; it goes with the lock."""
    lock = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise failure(f"{target}: cannot be made", error) from error
    try:
        _hold(handle, lock, target)
        try:
            if os.path.lexists(target):  # the import that held the lock before has finished
                raise VolumeError(f"{target}: exists already; choose another DST or remove it.")
            yield
        finally:
            lock.unlink(missing_ok=True)
            try:
                folder.rmdir()
            except OSError as error:  # the next import is in it, or what could not be removed
                log.debug("%s stays: %s", folder, error)
    finally:
        os.close(handle)


def _hold(handle: int, lock: Path, target: Path) -> None:
    """Take the lock, or say that another import has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = lock.exists() and os.path.samestat(os.fstat(handle), os.stat(lock))
    except BlockingIOError:
        mine = False
    except OSError as error:
        raise StorageError(f"{lock}: cannot be locked: {error}") from error
    if not mine:
        raise VolumeError(
            f"{target}: another import to it is running; wait for it or choose another DST."
        )


def _remove(folder: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not os.path.lexists(folder):
                return
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise StorageError(f"{folder}: cannot be removed: {error}") from error
            time.sleep(0.1)


def _name(array: Path, target: Path) -> None:
    """Give the array its name, for good: the folder is synced, too."""
    try:
        array.rename(target)
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageError(f"{target}: cannot take its name: {error}") from error
