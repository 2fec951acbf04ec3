"""Rows of curves: whole ones only, those of steps that count, as exact as they were."""

import math
import sys
from types import SimpleNamespace

import pytest

from emslice.training.metrics import COLUMNS, NAME, Metrics, read_metrics

BOARD = "torch.utils.tensorboard"


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, BOARD, None)


def rows(folder):
    return [tuple(row[name] for name in COLUMNS) for row in read_metrics(folder)]


def written(folder, *steps):
    """A table with a loss for each step, closed."""
    metrics = Metrics(folder, 0)
    for step in steps:
        metrics.add(step, "train", {"loss": 1 / step})
    metrics.close()
    return folder / NAME


def test_a_folder_without_a_table_has_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []


def test_there_is_a_row_for_each_value_in_the_order_given(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.add(10, "train", {"loss": 0.5, "learning_rate": 1e-4})
    metrics.add(10, "validate", {"voi": 2})
    metrics.close()
    assert (tmp_path / NAME).read_text() == (
        "step,split,name,value\n"
        "10,train,loss,0.5\n10,train,learning_rate,0.0001\n10,validate,voi,2.0\n"
    )
    assert rows(tmp_path)[2] == ("10", "validate", "voi", "2.0")


EXACT = (0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.inf, 2**53 + 1.0)


def test_a_value_comes_back_bit_by_bit_even_after_reopening(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step, value in enumerate((*EXACT, math.nan), 1):
        metrics.add(step, "train", {"loss": value})
    metrics.close()
    Metrics(tmp_path, 99).close()
    texts = [row[3] for row in rows(tmp_path)]
    assert texts == [repr(value) for value in (*EXACT, math.nan)]


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_last_row_cut_off_by_a_crash_is_left_out(tmp_path, cut):
    path = written(tmp_path, 10, 20)
    path.write_bytes(path.read_bytes()[:-cut])  # even if only the end of the line is missing
    assert [row[0] for row in rows(tmp_path)] == ["10"]


def test_writing_goes_on_on_a_line_of_its_own_after_a_torn_row(tmp_path):
    path = written(tmp_path, 10, 20)
    path.write_bytes(path.read_bytes()[:-7])
    metrics = Metrics(tmp_path, 10)
    metrics.add(20, "train", {"loss": 0.75})
    metrics.close()
    assert rows(tmp_path) == [("10", "train", "loss", "0.1"), ("20", "train", "loss", "0.75")]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (10, ["10"]), (19, ["10"]), (20, ["10", "20"]),
                                            (35, ["10", "20", "30"])])  # fmt: skip
def test_rows_beyond_the_saved_step_are_cut(tmp_path, step, kept):
    written(tmp_path, 10, 20, 30)
    metrics = Metrics(tmp_path, step)
    assert [row[0] for row in rows(tmp_path)] == kept
    metrics.close()


def test_what_is_written_again_is_the_same_file(tmp_path):
    content = written(tmp_path, 10, 20, 30).read_bytes()
    again = Metrics(tmp_path, 20)
    again.add(30, "train", {"loss": 1 / 30})
    again.close()
    assert (tmp_path / NAME).read_bytes() == content


def test_rows_can_be_read_once_they_are_flushed(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.add(10, "train", {"loss": 0.5})
    metrics.flush()
    assert rows(tmp_path) == [("10", "train", "loss", "0.5")]
    metrics.close()


def test_without_tensorboard_there_is_the_table_alone(tmp_path):
    written(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


class Board:
    """What TensorBoard's writer is asked to do."""

    said: list

    def __init__(self, folder, purge_step):
        self.said.append(("purge", purge_step))

    def add_scalar(self, name, value, step):
        self.said.append((name, value, step))

    def flush(self):
        self.said.append("flush")

    def close(self):
        self.said.append("close")


def test_tensorboard_is_told_the_same_and_forgets_the_same_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(Board, "said", [], raising=False)
    monkeypatch.setitem(sys.modules, BOARD, SimpleNamespace(SummaryWriter=Board))
    metrics = Metrics(tmp_path, 20)
    metrics.add(30, "validate", {"voi": 1.5, "arand": 0.25})
    metrics.close()
    assert Board.said == [
        ("purge", 21), ("validate/voi", 1.5, 30), ("validate/arand", 0.25, 30), "flush", "close"
    ]  # fmt: skip
