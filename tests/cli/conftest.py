"""The command, run as a user runs it, and a small volume to run it on."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest

from emslice.cli.main import main
from emslice.volumes import create_volume


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capfd):
    """Call ``emslice`` with arguments; gives exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["emslice", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture
def raw(tmp_path):
    """A volume of 6 x 40 x 57 voxels at the small checkpoint's resolution."""
    array = np.random.default_rng(5).integers(1, 256, (6, 40, 57)).astype(np.uint8)
    volume = create_volume(
        tmp_path / "raw.zarr", shape=array.shape, dtype=array.dtype, resolution_nm=(40, 4, 4)
    )
    volume.write(volume.roi, array)
    return volume
