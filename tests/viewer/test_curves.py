"""A picture of scores is a PNG of a known size, whatever the scores are."""

import io

import numpy as np
import pytest
from PIL import Image

from emslice.viewer.curves import draw_scores


def columns(voi, n=7):
    at = np.linspace(0.3, 1, n)
    return {"threshold": at, "voi": voi, "voi_split": voi * 0.7, "voi_merge": voi * 0.3,
            "arand": voi / 10}  # fmt: skip


@pytest.mark.parametrize(
    "voi", [np.full(7, 0.7), np.zeros(7), np.linspace(0.7, 9, 7), np.array([0.0, *[3.0] * 6])],
    ids=["flat", "perfect", "steep", "perfect once"],
)  # fmt: skip
def test_scores_are_drawn(voi):
    marks = {"best, 0.4": 0.4, "this run, 0.5": 0.5, "default, 0.6": 0.6}
    picture = Image.open(io.BytesIO(draw_scores(columns(voi), marks, "run against truth")))
    assert picture.size == (1080, 840)
    assert len(picture.convert("RGB").getcolors(2**20)) > 50  # lines and letters


def test_a_single_threshold_is_drawn():
    one = {name: values[:1] for name, values in columns(np.ones(7)).items()}
    assert draw_scores(one, {"best, 0.3": 0.3}, "one").startswith(b"\x89PNG")


def test_the_best_and_the_marks_are_seen():
    plain = draw_scores(columns(np.ones(7)), {}, "t")
    marked = draw_scores(columns(np.ones(7)), {"best, 0.44": 0.44}, "t")
    green = [np.array(Image.open(io.BytesIO(p)).convert("RGB")) for p in (plain, marked)]
    count = [(picture == (0x00, 0x9E, 0x73)).all(-1).sum() for picture in green]
    assert count[0] == 0
    assert count[1] > 500
