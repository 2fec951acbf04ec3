"""What a frozen network says of a section or a crop, kept on disk so that it is said once.

Invariant: the answer is the same, bit for bit, whether it was computed or read, in whatever company
and by whichever process; it depends on the input's bytes and on the fingerprint only. Hence every
input goes through the network in the same number, and every answer through the stored precision.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emslice.errors import ConfigError, PrecisionError

logger = logging.getLogger(__name__)

MAGIC = b"emslice-features-1\n"
DTYPES = {torch.float16: "<f2", torch.float32: "<f4"}
SUFFIX = ".features"
STALE_S = 3600.0
"""Age from which a file that was not finished is taken for that of a dead process."""

ROOM = 0.9
"""Share of the limit that is left after the oldest files went."""


KEPT = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")
PARTIAL = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{32}\.partial")
"""Names of its own files: nothing else in the folder is ever touched."""


class DamagedFileError(ValueError):
    """A file of the cache that does not hold what was written."""


def pack(features: Tensor) -> bytes:
    """A tensor on the CPU as the bytes of a file, with a checksum at the end."""
    dtype = DTYPES[features.dtype]
    array = features.contiguous().numpy().astype(dtype, copy=False)
    text = json.dumps({"dtype": dtype, "shape": list(features.shape)}).encode()
    body = MAGIC + len(text).to_bytes(4, "little") + text + array.tobytes()
    return body + hashlib.sha256(body).digest()


def unpack(content: bytes) -> Tensor:
    """The tensor of a file's bytes, float16 or float32."""
    body, checksum = content[:-32], content[-32:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != checksum:
        raise DamagedFileError(f"{len(content)} bytes whose checksum is wrong")
    start = len(MAGIC) + 4
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    header = json.loads(body[start:end])
    array = np.frombuffer(body[end:], dtype=header["dtype"]).reshape(header["shape"])
    return torch.from_numpy(array.copy())


def _remove(path: Path) -> bool:
    """Whether a file is gone now; one that may not be removed stays."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        return True
    return False


class FeatureCache:
    """Answers of a frozen network, each looked up by its input.

    Several processes may share a folder. A file is whole or absent; one that was damaged later is
    computed again.

    Parameters
    ----------
    folder : Path or None
        Where the files are; made if missing. None keeps nothing and gives the same answers.
    fingerprint : str
        Of the network: everything but the input that its answers depend on.
    limit_bytes : int or None
        What all files may take; those unused for longest go first. Between two looks at the
        folder every process may add a tenth of it.
    dtype : torch.float16 or torch.float32
        How answers are stored. float16 rounds to 11 bits.
    together : int
        Inputs in one call of the network. More are faster on a GPU, but how numbers are rounded
        then depends on which inputs happened to be missing.
    """

    def __init__(
        self,
        folder: Path | None,
        fingerprint: str,
        limit_bytes: int | None = None,
        dtype: torch.dtype = torch.float16,
        together: int = 1,
    ) -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"features are stored as float16 or float32, not as {dtype}.")
        if limit_bytes is not None and limit_bytes < 1:
            raise ConfigError(f"the limit of the cache of features is {limit_bytes} bytes.")
        self.folder = None if folder is None else Path(folder)
        self.fingerprint, self.dtype, self.together = fingerprint, dtype, max(1, together)
        self.limit_bytes = limit_bytes
        self.hits = self.misses = 0
        self._added = 0  # bytes since the last look at the folder
        self._writable = True
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.tidy()

    def __call__(self, encoder: Callable[[Tensor], Tensor], sections: Tensor) -> Tensor:
        """What the network says of a batch, float32, on the device of the batch.

        Parameters
        ----------
        encoder : callable
            From (B, ...) to (B, ...), each answer that of one input; called without a gradient and
            without automatic mixed precision.
        sections : Tensor, shape (B, ...)
            Sections, or crops of a volume.
        """
        # Off for all of it: torch cannot stack float16 under the automatic precision of a CPU.
        with torch.no_grad(), torch.autocast(sections.device.type, enabled=False):
            keys = [self.key(section) for section in sections.cpu()]
            answers = self._stored(keys)
            missing = [key for key in dict.fromkeys(keys) if key not in answers]
            self.misses += len(missing)
            self.hits += len(keys) - len(missing)
            for start in range(0, len(missing), self.together):
                part = missing[start : start + self.together]
                computed = self._compute(encoder, sections[[keys.index(key) for key in part]])
                for key, answer in zip(part, computed, strict=True):
                    answers[key] = answer
                    self._write(key, answer)
            return torch.stack([answers[key].float() for key in keys]).to(sections.device)

    def key(self, section: Tensor) -> str:
        """Name of one input: a hash of its bytes, type and shape and of the fingerprint."""
        facts = [self.fingerprint, str(self.dtype), str(section.dtype), list(section.shape)]
        digest = hashlib.sha256(json.dumps(facts).encode())
        flat = section.detach().cpu().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def tidy(self) -> int:
        """Remove what dead processes left and what is over the limit; bytes that remain."""
        files = []
        for path in self._folder().glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):  # another process was faster, or it is somebody else's
                facts = path.stat()
                files.append((facts.st_mtime, facts.st_size, path))
        for age, _, path in files:
            if PARTIAL.fullmatch(path.name) and time.time() - age > STALE_S:
                _remove(path)
        kept = sorted(file for file in files if KEPT.fullmatch(file[2].name))
        total, self._added = sum(size for _, size, _ in kept), 0
        if self.limit_bytes is None or total <= self.limit_bytes:
            return total
        for _, size, path in kept:
            if total <= ROOM * self.limit_bytes:
                break
            total -= size * _remove(path)
        return total

    def _folder(self) -> Path:
        assert self.folder is not None
        return self.folder

    def _path(self, key: str) -> Path:
        return self._folder() / key[:2] / (key + SUFFIX)

    def _compute(self, encoder: Callable[[Tensor], Tensor], sections: Tensor) -> Tensor:
        """Answers of the network in the stored precision, on the CPU."""
        exact = encoder(sections)
        rounded = exact.to(self.dtype)
        if exact.isfinite().all() and not rounded.isfinite().all():
            raise PrecisionError(
                f"features up to {exact.abs().max():g} do not fit float16, which ends at 65504. "
                f"Store them as float32."
            )
        return rounded.cpu()

    def _stored(self, keys: list[str]) -> dict[str, Tensor]:
        """Those answers that are on disk."""
        found = {key: self._read(key) for key in dict.fromkeys(keys)}
        return {key: answer for key, answer in found.items() if answer is not None}

    def _read(self, key: str) -> Tensor | None:
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            answer = unpack(path.read_bytes())
        except FileNotFoundError:
            return None
        except (DamagedFileError, OSError) as error:
            logger.warning("feature file %s cannot be used and is replaced: %s", path, error)
            return None
        with suppress(OSError):  # gone meanwhile, or somebody else's
            os.utime(path)  # when it was used last
        return answer

    def _write(self, key: str, answer: Tensor) -> None:
        """Keep an answer; a full or broken disk costs time later, not the training."""
        if self.folder is None:
            return
        content, path = pack(answer), self._path(key)
        # A name that no process on any machine has. The folder is not flushed, unlike in
        # ledger.files: a rename that a crash undoes costs one more computation.
        partial = path.with_name(f".{key}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            if self._writable:
                logger.warning("features are not kept in %s: %s", self.folder, error)
            self._writable = False
            return
        self._added += len(content)
        if self.limit_bytes is not None and self._added > (1 - ROOM) * self.limit_bytes:
            self.tidy()
