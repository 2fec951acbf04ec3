"""Bars of several checkpoints on several volumes."""

import io

import numpy as np
import pytest
from PIL import Image

from emslice.viewer.bars import Bar, draw_bars


@pytest.mark.parametrize("n", [1, 4])
def test_every_checkpoint_on_every_volume_is_a_bar(n):
    bars = [
        Bar(v, f"c{i}", 1, 0.5, 0.2, 1.1, 0.15) for v in "ab"[: max(1, n // 2)] for i in range(n)
    ]
    picture = np.array(Image.open(io.BytesIO(draw_bars(bars))).convert("RGB"))
    blue = (picture == (0x00, 0x72, 0xB2)).all(-1)
    # Legend and bars: runs of blue along the row where most bars are.
    row = blue[blue.sum(1).argmax()]
    assert np.count_nonzero(np.diff(row.astype(int)) == 1) in (len(bars), len(bars) + 1)


def test_a_perfect_score_is_drawn():
    assert draw_bars([Bar("v", "c", 0, 0, 0, 0, 0)]).startswith(b"\x89PNG")
