"""Settings of the process that several tasks ask for at a time."""

import pytest
import torch

from emslice.errors import UnfitWorkerError
from emslice.models.gpu import determinism, same_kernels


def settings():
    cudnn = torch.backends.cudnn
    return cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_settings_stay_until_the_last_task_leaves(first_to_leave):
    before = settings()
    tasks = [same_kernels(), same_kernels()]
    for task in tasks:
        task.__enter__()
    assert settings() == (True, False, False)
    tasks[first_to_leave].__exit__(None, None, None)
    assert settings() == (True, False, False)
    tasks[1 - first_to_leave].__exit__(None, None, None)
    assert settings() == before
    assert before != (True, False, False)


def test_settings_are_restored_after_an_error():
    before = settings()
    with pytest.raises(ZeroDivisionError), same_kernels():
        1 / 0  # noqa: B018
    assert settings() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_whose_gpu_ran_short_of_memory_does_not_go_on(monkeypatch, fails):
    """Whether or not cuDNN found something else that fits."""
    found, before = iter([3, 4]), settings()
    monkeypatch.setattr(determinism, "_n_short", lambda: next(found))

    def predict():
        with same_kernels():
            if fails:
                raise torch.OutOfMemoryError

    with pytest.raises(UnfitWorkerError, match="short of GPU memory"):
        predict()
    assert settings() == before
