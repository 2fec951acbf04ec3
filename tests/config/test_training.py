"""Trainings as files say them."""

from pathlib import Path

import pytest
import yaml

from emslice.config.ablation import load_ablation, variant_config
from emslice.config.load import known_keys, load_as
from emslice.config.training import TrainConfig
from emslice.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs/train"
ABLATIONS = sorted(CONFIGS.glob("ablation_*.yaml"))
TRAININGS = sorted(set(CONFIGS.glob("*.yaml")) - set(ABLATIONS))


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_shipped_training_can_be_loaded_and_says_its_command(path):
    config = load_as(TrainConfig, path)
    assert config.data.resolution_nm or path.stem == "default"
    head = path.read_text().split("\n\n")[0]
    assert f"--config configs/train/{path.name}" in head


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_shipped_ablation_can_be_loaded(path):
    ablation = load_ablation(path)
    assert Path(ablation.evaluate).is_file()
    teachers = {name: f"{name}.ckpt" for name in ablation.first}
    for variant in ablation.variants.values():
        assert variant_config(ablation, variant, "/data", 3, **teachers).seed == 3


def test_the_file_of_defaults_holds_every_key_at_its_default():
    shown = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    loaded = load_as(TrainConfig, CONFIGS / "default.yaml")
    assert loaded == TrainConfig(data={"train": shown["data"]["train"]})
    for key in known_keys(TrainConfig):
        inner = shown
        for name in key.split("."):
            assert name in inner, key
            inner = inner[name]


VOLUME = {"raw": "raw.zarr", "labels": "labels.zarr"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "unknown configuration key 'stepz'. Did you mean 'steps'"),
        ({"optimiser": {"rat": 3}}, "unknown configuration key 'optimiser.rat'"),
        ({"data": {"train": [{**VOLUME, "lables": "l"}]}}, "Did you mean 'labels'"),
        ({"sam": {"size": "random_tiny", "wieghts": "w"}}, "Did you mean 'weights'"),
        ({"data": {}}, "data: give the volumes to train on, or a layout"),
        ({"data": {"train": [VOLUME], "layout": "cremi"}}, "and not both"),
        ({"data": {"train": [{**VOLUME, "sections": [5, 5]}]}}, "sections [5, 5] are none"),
        ({"data": {"train": [{**VOLUME, "sections": [0, 5], "roi": "0:1,:,:"}]}}, "not both"),
        ({"teacher": {"frozen": True}}, "a frozen teacher needs teacher.weights"),
        ({"teacher": {"poses": "flips"}}, "poses and cache are for a frozen teacher"),
        ({"teacher": {"frozen": True, "weights": "a", "cache": "b"}}, "set data.distinct"),
        ({"teacher": {"frozen": True, "weights": "a", "mutual": True}}, "drop teacher.frozen or"),
        ({"data": {"train": [VOLUME], "memory": "lots"}}, "data.memory: 'lots'"),
        ({"sam": {"size": "large"}}, "sam.weights: no file is given"),
        ({"optimiser": {"warmup": 300}, "steps": 100}, "warmup 300 is longer than steps 100"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(change, message):
    with pytest.raises(ConfigError) as caught:
        load_as(TrainConfig, base={"data": {"train": [VOLUME]}, **change})
    assert message in str(caught.value)


def test_one_volume_to_validate_on_needs_no_list():
    config = load_as(TrainConfig, base={"data": {"train": [VOLUME], "validate_on": VOLUME}})
    assert len(config.data.validate_on) == 1
