"""Runs by variant: means and spreads that can be checked by hand."""

import csv

import pytest

from emslice.errors import ConfigError
from emslice.service.ablation import summarise_runs, write_ablation


def run(variant, seed, **measures):
    return {"variant": variant, "seed": seed, **measures}


ROWS = [
    run("cad", 1, voi_val=1.0, arand=0.1),
    run("cad", 2, voi_val=2.0, arand=0.1),
    run("cad", 3, voi_val=3.0),
    run("plain", 1, voi_val=5.0, arand=0.4, steps=900),
]


def test_means_and_sample_deviations_are_over_the_seeds_that_have_the_measure():
    found = summarise_runs(ROWS)
    cad, plain = found.variants["cad"], found.variants["plain"]
    assert (cad["voi_val"].n, cad["voi_val"].mean, cad["voi_val"].sd) == (3, 2.0, 1.0)
    assert (cad["arand"].n, cad["arand"].sd) == (2, 0.0)
    assert (plain["voi_val"].mean, plain["voi_val"].sd) == (5.0, None)
    assert "steps" not in cad


def test_variants_and_measures_keep_their_order():
    found = summarise_runs(ROWS[::-1])
    assert list(found.variants) == ["plain", "cad"]
    assert found.measures == ("voi_val", "arand", "steps")


def test_the_table_is_for_people_and_the_rows_for_files():
    found = summarise_runs(ROWS)
    lines = found.text().splitlines()
    assert lines[1].split() == ["cad", "3", "2.0000", "+-", "1.0000", "0.1000", "+-", "0.0000"]
    assert lines[2].split() == ["plain", "1", "5.0000", "0.4000", "900.0000"]
    assert found.rows()[1] == {
        "variant": "plain", "seeds": 1, "voi_val_mean": 5.0, "voi_val_sd": "",
        "arand_mean": 0.4, "arand_sd": "", "steps_mean": 900.0, "steps_sd": "",
    }  # fmt: skip


def test_tables_and_a_picture_are_written(tmp_path):
    paths = write_ablation(summarise_runs(ROWS), tmp_path)
    assert [path.name for path in paths] == ["ablation.csv", "ablation_runs.csv", "ablation.png"]
    with paths[0].open(newline="") as file:
        assert [row["voi_val_mean"] for row in csv.DictReader(file)] == ["2.0", "5.0"]
    with paths[1].open(newline="") as file:
        assert [row["arand"] for row in csv.DictReader(file)] == ["0.1", "0.1", "", "0.4"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_values_that_were_texts_in_a_csv_are_numbers():
    found = summarise_runs([run("a", "1", voi="0.5"), run("a", "2", voi="1.5", arand="")])
    assert found.variants["a"]["voi"].mean == 1.0
    assert "arand" not in found.variants["a"]


def test_all_that_is_wrong_with_the_runs_is_said_at_once():
    rows = [run("a", 1, voi=1.0), run("a", 1, voi=2.0), run("b", 1, voi=float("nan")), {"seed": 2}]
    with pytest.raises(ConfigError) as error:
        summarise_runs(rows)
    for words in ("a, seed 1 is there twice", "b, seed 1: voi is nan", "run 4 has no variant"):
        assert words in str(error.value)


def test_no_run_and_a_measure_that_nobody_took_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no finished run"):
        summarise_runs([])
    with pytest.raises(ConfigError, match=r"no run measured 'erl'; known: voi_val"):
        write_ablation(summarise_runs(ROWS), tmp_path, ["erl"])
    assert not list(tmp_path.iterdir())
