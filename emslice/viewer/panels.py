"""Sections side by side as one PNG: what a person looks at before believing a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

BAR = 18
"""Pixels of the title bar of a panel."""


def grey(section: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey section as RGB, shape (Y, X, 3)."""
    return np.repeat(section[..., None], 3, axis=-1)


def affinity_colours(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Affinities along z, y, x as red, green, blue: white is one object, black is a boundary.

    Parameters
    ----------
    codes : uint8, shape (3, Y, X)
    """
    return np.ascontiguousarray(np.moveaxis(codes, 0, -1))


def label_colours(
    labels: NDArray[np.uint64], raw: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Labels in colours that depend on the id only; 0 is black. Over raw if given.

    Parameters
    ----------
    labels : uint64, shape (Y, X)
    raw : uint8, shape (Y, X), optional
    """
    mixed = labels.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    hue = (mixed & np.uint64(0xFFFF)).astype(float) / 0xFFFF * 6
    light = 0.75 + 0.25 * ((mixed >> np.uint64(16)) & np.uint64(0xFF)).astype(float) / 0xFF
    ramp = np.abs((hue[..., None] + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    colour = light[..., None] * (0.3 + 0.7 * np.clip(ramp, 0, 1)) * 255
    colour[labels == 0] = 0
    if raw is not None:
        colour = 0.6 * colour + 0.4 * raw[..., None]
    return colour.astype(np.uint8)


def save_panels(path: str | Path, panels: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    """Write titled RGB panels of one height from left to right as a PNG.

    Small sections are enlarged by a whole factor, large ones reduced to 768 pixels a side.
    """
    pictures = []
    for title, colours in panels:
        picture = Image.fromarray(colours)
        longest = max(picture.size)
        if longest > 768:
            picture.thumbnail((768, 768))
        elif longest <= 256:
            factor = 512 // longest
            picture = picture.resize(
                (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
            )
        framed = Image.new("RGB", (picture.width, picture.height + BAR), "white")
        framed.paste(picture, (0, BAR))
        ImageDraw.Draw(framed).text((4, 3), title, fill="black")
        pictures.append(framed)
    gap = 4
    width = sum(p.width + gap for p in pictures) - gap
    sheet = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    sheet.save(path, format="PNG")
