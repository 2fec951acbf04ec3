"""Test sets: paths, parameters laid over each other, the files that ship."""

from pathlib import Path

import pytest
import yaml

from emslice.config.evaluate import EvaluateConfig, ScoredVolumeConfig, load_test_set
from emslice.errors import ConfigError

FILES = sorted((Path(__file__).parents[2] / "configs" / "evaluate").glob("*.yaml"))


def saved(folder, **content):
    (folder / "set.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "set.yaml"


def test_every_file_that_ships_loads_and_names_its_command():
    assert len(FILES) >= 6
    for path in FILES:
        head = path.read_text().split("\n\n")[0]
        assert f"emslice evaluate --config configs/evaluate/{path.name}" in head
        if path.stem != "zebrafinch":  # its volumes are those that are there
            assert load_test_set(path, root="/data").volumes


def test_no_file_that_ships_touches_the_last_sections_of_the_crop():
    seen = {}
    for path in FILES:
        for volume in (
            load_test_set(path, root="/data").volumes if path.stem != "zebrafinch" else ()
        ):
            if "ac4_crop.h5" in volume.raw:
                seen[path.stem] = volume.roi
    assert seen.pop("ac4_test") == "80:100,:,:"  # to be scored once
    assert seen == {"ac4": "70:80,:,:"}


def test_the_default_file_shows_every_key():
    shown = yaml.safe_load((FILES[0].parent / "default.yaml").read_text())
    assert set(shown) == set(EvaluateConfig.model_fields)
    assert set(shown["volumes"]["example"]) == set(ScoredVolumeConfig.model_fields)


def test_parameters_of_a_volume_lie_over_those_of_all_and_the_command_line_over_both(tmp_path):
    own = {"segment": {"agglomeration": {"threshold": 0.7}}}
    file = saved(
        tmp_path,
        segment={"agglomeration": {"threshold": 0.6, "linkage": "mean"}},
        volumes={"a": {"raw": "r", "truth": "t"}, "b": {"raw": "r", "truth": "t", **own}},
    )
    a, b = load_test_set(file, ["dust.min_size=7"]).volumes
    assert (a.segment.agglomeration.threshold, b.segment.agglomeration.threshold) == (0.6, 0.7)
    assert b.segment.agglomeration.linkage == "mean"
    assert a.segment.dust.min_size == b.segment.dust.min_size == 7


def test_relative_paths_start_from_the_root_and_others_stay(tmp_path):
    entry = {"raw": "a.h5:raw", "truth": "/data/t.zarr"}
    file = saved(tmp_path, root="/here", volumes={"v": entry})
    (volume,) = load_test_set(file).volumes
    assert (volume.raw, volume.truth) == ("/here/a.h5:raw", "/data/t.zarr")
    assert load_test_set(file, root="/there").volumes[0].raw == "/there/a.h5:raw"


def test_sections_of_a_layout_are_boxes():
    (volume,) = load_test_set(FILES[0].parent / "wafer4.yaml", root="/data").volumes
    assert (volume.name, volume.roi) == ("wafer4", "100:125,:,:")
    assert volume.truth == "/data/wafer4/wafer4_labels.h5:main"


REFUSED = {
    "nothing": ({}, "no volume to score"),
    "layout": ({"layout": "cremie"}, "Did you mean 'cremi"),
    "empty": ({"layout": "zebrafinch"}, "has no volume for test"),
    "key": ({"volume": {}}, "Did you mean 'volumes'"),
    "key of a volume": (
        {"volumes": {"a": {"raw": "r", "truht": "t"}}},
        r"set\.yaml: .* key 'volumes\.a\.truht'\. Did you mean 'truth'",
    ),
    "threshold": ({"thresholds": [0.5, 1.5]}, "thresholds"),
    "name": ({"volumes": {"a/b": {"raw": "r", "truth": "t"}}}, "cannot name a picture"),
    "truth": ({"volumes": {"a": {"raw": "r"}}}, "volumes.a.truth"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_test_set_is_refused(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        load_test_set(saved(tmp_path, **content), root=str(tmp_path))
