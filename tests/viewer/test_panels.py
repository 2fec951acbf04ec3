"""Pictures: colours depend on ids only, and panels land side by side."""

import numpy as np
from PIL import Image

from emslice.viewer.panels import BAR, affinity_colours, grey, label_colours, save_panels


def test_a_label_has_one_colour_and_zero_is_black():
    labels = np.array([[0, 7, 2**63], [7, 0, 9]], np.uint64)
    colours = label_colours(labels)
    assert not colours[0, 0].any()
    np.testing.assert_array_equal(colours[0, 1], colours[1, 0])
    assert len({tuple(c) for c in colours.reshape(-1, 3)}) == 4


def test_affinity_channels_become_red_green_blue():
    codes = np.zeros((3, 2, 5), np.uint8)
    codes[0, 1, 3] = 200
    assert tuple(affinity_colours(codes)[1, 3]) == (200, 0, 0)


def test_panels_stand_side_by_side_enlarged(tmp_path):
    section = np.full((20, 30), 90, np.uint8)
    save_panels(tmp_path / "p.png", [("one", grey(section)), ("two", grey(section))])
    with Image.open(tmp_path / "p.png") as picture:
        factor = 512 // 30
        assert picture.size == (2 * 30 * factor + 4, 20 * factor + BAR)
        assert picture.getpixel((5, BAR + 5)) == (90, 90, 90)
