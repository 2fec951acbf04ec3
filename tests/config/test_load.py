"""Configuration: later sources win, and every mistake is named."""

from pathlib import Path

import pytest

from emslice.config.load import known_keys, load_config
from emslice.config.schema import SegmentConfig
from emslice.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "segment"


def test_file_then_set_then_option_win(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("agglomeration: {threshold: 0.4, quantile: 25}\nworkers: 3\n")
    config = load_config(
        file, ["agglomeration.threshold=0.6", "workers=4"], {"workers": 5, "roi": None}
    )
    assert config.agglomeration.threshold == 0.6
    assert config.agglomeration.quantile == 25
    assert config.workers == 5
    assert config.roi is None


def test_lowest_threshold_is_three_tenths_or_the_threshold():
    assert load_config().agglomeration.lowest == 0.3
    assert load_config(assignments=["agglomeration.threshold=0.2"]).agglomeration.lowest == 0.2


def test_the_radius_follows_the_dimensions_unless_it_is_given():
    for dimensions, default in ((2, 64), (3, 32)):
        chosen = f"fragments.dimensions={dimensions}"
        assert load_config(assignments=[chosen]).fragments.cap == default
        assert load_config(assignments=[chosen, "fragments.radius=9"]).fragments.cap == 9


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("agglomeration.treshold=0.5", "Did you mean 'agglomeration.threshold'"),
        ("treshold=0.5", "Did you mean 'agglomeration.threshold'"),
        ("predct.tile=512", "Did you mean"),
        ("agglomeration.threshold=1.5", "agglomeration.threshold.*less than or equal to 1.*1.5"),
        ("agglomeration.threshold=.nan", "agglomeration.threshold"),
        (
            "agglomeration.linkage=median",
            "linkage.*'mean', 'quantile_max' or 'quantile'",
        ),
        ("agglomeration.lowest_threshold=0.9", "lowest_threshold 0.9 is above threshold 0.5"),
        ("predict.tile=100", "predict.tile"),
        ("predict.tile=520", "predict.tile.*multiple of 16"),
        ("fragments.radius=0", "fragments.radius"),
        ("fragments.dimensions=4", "fragments.dimensions"),
        ("block=[0,4,4]", "block"),
        ("workers=two", "workers"),
        ("agglomeration", "expected key.sub=value"),
        ("agglomeration.threshold=[", "not valid YAML"),
        ("affinities.keep=1", "unknown configuration key|affinities"),
    ],
)
def test_a_mistake_is_named(assignment, message):
    with pytest.raises(ConfigError, match=message):
        load_config(assignments=[assignment])


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_config(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_shipped_configurations_are_valid():
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        load_config(file)


def test_the_default_file_states_every_key_at_its_default():
    assert load_config(CONFIGS / "default.yaml") == SegmentConfig()
    text = (CONFIGS / "default.yaml").read_text()
    keys = [key.split(".")[-1] for key in known_keys() if key not in ("checkpoint", "roi")]
    assert len(keys) >= 10
    assert all(f"{key}:" in text for key in keys)
