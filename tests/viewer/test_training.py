"""Curves of a training, and sections of what it predicts."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from emslice.errors import VolumeError
from emslice.training import loop
from emslice.viewer import training
from emslice.viewer.training import (
    affinity_panels,
    draw_training_curves,
    read_curves,
    smoothed,
    training_figure,
    true_affinity,
)

HEAD = "step,split,name,value\n"


def table(folder, *lines):
    path = folder / "metrics.csv"
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    return path


def test_a_curve_has_a_value_for_each_step_in_order(tmp_path):
    path = table(tmp_path, "20,train,loss,0.5", "10,train,loss,0.9", "20,train,loss,0.4",
                 "30,train,loss,nan", "20,validate,voi,1.5")  # fmt: skip
    curves = read_curves(path)
    at, values = curves["train", "loss"]
    assert (at.tolist(), values.tolist()) == ([10, 20], [0.9, 0.4])  # the later of two stays
    assert curves["validate", "voi"][1].tolist() == [1.5]


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    path = table(tmp_path, "10,train,loss,0.9")
    path.write_text(path.read_text() + "20,train,lo")
    assert read_curves(path)["train", "loss"][0].tolist() == [10]


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", "expected"), (HEAD + "x,train,loss,1\n", "line 2"),
     (HEAD + "1,train,loss\n", "line 2"), ("", "expected")],
)  # fmt: skip
def test_what_is_no_table_is_refused_with_its_line(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(VolumeError, match=words):
        read_curves(tmp_path / "m.csv")


def test_no_table_and_one_without_a_number_are_refused(tmp_path):
    with pytest.raises(VolumeError, match="gone"):
        read_curves(tmp_path / "gone.csv")
    with pytest.raises(VolumeError, match="no number yet"):
        draw_training_curves(table(tmp_path), tmp_path / "m.png")
    assert not (tmp_path / "m.png").exists()


LOSS = [f"{step},train,loss,{1 / step}" for step in range(1, 200)]
VOI = [f"{step},validate,{name},{9 / step}" for step in (50, 100, 150)
       for name in ("voi", "voi_split", "voi_merge", "arand")]  # fmt: skip
RATE = [f"{step},train,learning_rate,0.0001" for step in range(1, 200, 10)]


@pytest.mark.parametrize(
    ("lines", "frames"),
    [(LOSS, 1), (LOSS + VOI, 2), (LOSS + VOI + RATE, 3), (VOI, 1),
     (["1,train,loss,0", "1,validate,voi,0"], 2)],
    ids=["loss", "with scores", "all", "scores", "zeros"],
)  # fmt: skip
def test_there_is_a_frame_for_each_kind_of_curve(tmp_path, lines, frames):
    draw_training_curves(table(tmp_path, *lines), tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as picture:
        width, height = picture.size
    parts = {1: 2, 2: 4, 3: 5}[frames]
    assert width == 1080
    assert height == pytest.approx((0.8 + 1.7 * parts) * 120, abs=1)


def test_seconds_and_thresholds_are_no_losses(tmp_path):
    path = table(tmp_path, "1,train,step_s,3", "1,validate,best_threshold,0.4")
    with pytest.raises(VolumeError, match="no number yet"):
        draw_training_curves(path, tmp_path / "m.png")


def test_curves_of_the_two_thresholds_are_told_apart_and_the_chosen_step_is_marked(tmp_path):
    above = {"default_voi": 0.5, "best_voi": 0, "chosen": 0.5}
    lines = [f"{step},validate,{name},{value + above[name]}" for name in above
             for step, value in ((50, 1.75), (100, 1.25), (150, 1.5))]  # fmt: skip
    (axes,) = training_figure(table(tmp_path, *lines)).axes
    drawn = {line.get_label(): line for line in axes.get_lines()}
    assert list(drawn) == ["default_voi", "best_voi", "chosen, 1.750 at 100"]
    default, best, chosen = drawn.values()
    assert (default.get_linestyle(), best.get_linestyle()) == (":", "-")
    assert same_color(default.get_color(), best.get_color())
    assert same_color(best.get_markerfacecolor(), best.get_color())
    assert not same_color(default.get_markerfacecolor(), default.get_color())
    assert (chosen.get_xdata().tolist(), chosen.get_ydata().tolist()) == ([100], [1.75])
    title = axes.get_legend().get_title().get_text()
    assert title == "solid: best threshold\ndotted: default threshold"


def test_scores_at_one_threshold_need_no_explanation(tmp_path):
    (axes,) = training_figure(table(tmp_path, *VOI)).axes
    assert axes.get_legend().get_title().get_text() == ""
    assert {line.get_linestyle() for line in axes.get_lines()[:4]} == {"-"}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.42, 0.91, {"0.5", "0.6", "0.7", "0.8", "0.9"}), (0.511, 0.518, {"0.512", "0.516"}),
     (0.03, 0.9, {"0.05", "0.1", "0.2", "0.5"}), (3e-4, 20, {"0.001", "0.01", "0.1", "1", "10"})],
)  # fmt: skip
def test_losses_of_any_range_have_plain_numbers_beside_them(tmp_path, low, high, expected):
    figure = training_figure(table(tmp_path, f"1,train,loss,{high}", f"2,train,loss,{low}"))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    least, most = axes.get_ylim()
    marks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    shown = {text.get_text() for at, text in marks if least <= at <= most}
    assert expected <= shown
    assert len(shown) < 12
    assert not any(text.get_text() for text in axes.get_yticklabels(minor=True))


def test_the_chosen_step_is_called_as_training_calls_it():
    assert training.CHOSEN == loop.CHOSEN


def test_smoothing_keeps_the_mean_and_short_curves():
    at = np.arange(200.0)
    middle, mean = smoothed(at, at * 2)
    assert len(middle) < 200
    np.testing.assert_allclose(mean, middle * 2)
    assert len(smoothed(at[:9], at[:9])[0]) == 9


def test_true_affinities_join_voxels_of_one_object_only():
    truth = np.array([[1, 1, 2], [1, 0, 0]], np.uint64)
    before = np.array([[1, 2, 2], [0, 0, 1]], np.uint64)
    along_z, along_y, along_x = true_affinity(truth, before) // 255
    assert along_z.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert along_y.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert along_x.tolist() == [[1, 1, 0], [1, 0, 0]]


def test_without_the_section_before_true_affinities_are_grey(tmp_path):
    truth = np.repeat(np.arange(1, 5, dtype=np.uint16), 6)[None].repeat(7, 0)
    codes = true_affinity(truth.astype(np.uint64))
    np.testing.assert_array_equal(codes[0], codes[1:].min(0))
    raw = np.full(truth.shape, 99, np.uint8)
    affinity_panels(raw, codes, truth, tmp_path / "section.png")
    with Image.open(tmp_path / "section.png") as picture:
        assert picture.width > 4 * truth.shape[1]
