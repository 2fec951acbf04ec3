"""Numbers as people read them."""

from __future__ import annotations

import re


def human_bytes(n: float) -> str:
    """Bytes with a binary prefix.

    >>> human_bytes(3 * 2**30)
    '3.0 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} PiB"


def parse_bytes(text: str) -> int:
    """Bytes from a number with a binary prefix, or with none.

    >>> parse_bytes("1.5 GiB") == 3 * 2**29, parse_bytes("4096")
    (True, 4096)

    Raises
    ------
    ValueError
        Anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])iB|B)?\s*", text)
    if found is None:
        raise ValueError(f"{text!r} is not a number of bytes such as '512 MiB' or '4 GiB'")
    return int(float(found[1]) * 1024 ** (" KMGT".index(found[2] or " ")))


def human_count(n: float) -> str:
    """Count with a decimal prefix; the unit follows at once.

    >>> f"{human_count(162)}voxel/s", f"{human_count(10_485_760)}voxel/s"
    ('162 voxel/s', '10.5 Mvoxel/s')
    """
    for prefix in ("", "k", "M", "G", "T"):
        if n < 1000:
            return f"{n:.1f} {prefix}" if prefix else f"{n:.0f} "
        n /= 1000
    return f"{n:.1f} P"
