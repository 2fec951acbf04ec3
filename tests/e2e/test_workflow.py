"""Whole jobs as the README and the workflows show them, on real EM."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

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


MISTAKES = {
    "a key": (["--config", "c.yaml"], "treshold"),
    "weights": (["--checkpoint", "gone.ckpt"], "gone.ckpt: cannot be read"),
    "a box": (["--roi", "0:4,0:99,:"], "leaves the volume"),
    "a truth that is gone": (["--truth", "gone.h5:labels"], "gone.h5: no such file"),
    "a truth that is raw": (["--truth", "float.npy"], "expected integer labels"),
    "a truth that is small": (["--truth", "small.npy"], "covers 0:2,0:7,0:11, not all of 0:5,"),
    "a truth outside the box": (
        ["--truth", "small.npy", "--roi", "1:3,:,:"], "covers 0:2,0:7,0:11, not all of 1:3,"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_found_before_anything_is_copied(
    small_checkpoint, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("treshold: 1\n")
    for name, array in (
        ("raw", np.zeros((5, 7, 11), np.uint8)),
        ("float", np.zeros((5, 7, 11))),
        ("small", np.zeros((2, 7, 11), np.uint8)),
    ):
        np.save(name, array)
    checkpoint = str(small_checkpoint)
    if options[0] == "--checkpoint":
        checkpoint, options = options[1], []
    main = runpy.run_path(str(ROOT / "workflows" / "segment_zarr.py"))["main"]
    done = CliRunner().invoke(main, ["raw.npy", checkpoint, "out", *options])
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not Path("out").exists()
