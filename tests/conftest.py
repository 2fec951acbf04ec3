"""Fixtures that every folder of tests may use."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Half of hypothesis' default, for laws that ask for no number of their own: the whole run has a
# limit of time. Sweeps marked slow say how many they want.
settings.register_profile("short", max_examples=50)
settings.load_profile("short")

# Kernels are interpreted where they cannot be compiled. Said here, since Triton's own functions are
# declared the one way or the other as soon as anything imports it.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30
"""Where folders of tests lie, if there is so much room: a run has 1 GB, and three are kept."""

# Runs flush every file. On a disk, which all processes wait for, that is half of the time of the
# tests, and none of them can see it: a flush is for power cuts, and a killed process loses nothing
# that it wrote. PYTEST_DEBUG_TEMPROOT=/tmp has them on a disk all the same.
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real EM data, or a skip."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EMSLICE_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no EM data: set EMSLICE_DATA")
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """Keep torch to one thread: on busy cores threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with random weights and few features: fast, and as exact as any other.

    Normalised over noise, so that noise has affinities of all sizes and falls into many segments.
    """
    import torch

    from emslice.models.checkpoint import save_checkpoint
    from emslice.models.student import Student

    torch.manual_seed(7)
    student = Student(2, 3)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics are those of all that was seen
    with torch.no_grad():
        noise = torch.rand(4, 2, 64, 64)
        student.train()(noise)
        embeddings = student.eval()(noise)
        for layer, embedding in zip((student.outc_t, student.outc_tn), embeddings, strict=True):
            layer.bias -= embedding.mean((0, 2, 3))
    path = tmp_path_factory.mktemp("checkpoint") / "small.ckpt"
    save_checkpoint(path, student, (40.0, 4.0, 4.0), {"source": "random"})
    return path
