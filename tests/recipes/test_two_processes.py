"""Training on several devices; here, two processes of one processor."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from recipes.small import tree

EMSLICE = str(Path(sys.executable).with_name("emslice"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["supervised", "cad"])
def test_two_processes_share_the_crops_of_a_step(volumes, tmp_path, recipe):
    settings = tree(volumes, steps=3, devices=2, data__volume__batch=2)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    run = tmp_path / "run"
    command = [EMSLICE, "train", recipe, "--config", str(tmp_path / "config.yaml"), "--out"]
    done = subprocess.run([*command, str(run)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    state = torch.load(run / "state.pt", weights_only=True)
    assert state["state"]["step"] == 3
    assert (run / "best.ckpt").exists()
    again = subprocess.run([*command, str(run)], capture_output=True, text=True, timeout=300)
    assert again.returncode == 2
    assert "already exists" in again.stderr
