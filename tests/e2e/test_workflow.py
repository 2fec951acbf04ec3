"""Whole jobs as the README and the workflows show them, on real EM."""

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_segment_zarr_imports_segments_and_scores(data_dir, tmp_path):
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "workflows" / "segment_zarr.py"),
            f"{data_dir}/ac4_crop.h5:raw", f"{data_dir}/checkpoints/cad_AC34.ckpt",
            str(tmp_path / "out"), "--truth", f"{data_dir}/ac4_crop.h5:labels",
            "--roi", "0:3,0:256,128:384", "--config", str(ROOT / "configs/segment/ac4.yaml"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "VOI" in done.stdout
    record = yaml.safe_load((tmp_path / "out" / "run" / "run.yaml").read_text())
    assert record["roi"] == "0:3,0:256,128:384"
    assert record["config"]["affinities"] == "keep"


def test_a_wrong_key_is_found_before_anything_is_copied(data_dir, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("treshold: 1\n")
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "workflows" / "segment_zarr.py"),
            f"{data_dir}/ac4_crop.h5:raw", "weights.ckpt", str(tmp_path / "out"),
            "--config", str(config),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "treshold" in done.stderr
    assert not (tmp_path / "out").exists()
