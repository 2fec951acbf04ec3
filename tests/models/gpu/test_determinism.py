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


@pytest.fixture
def short_of_memory(monkeypatch):
    """Function that has the GPU run short of memory; the process is fit again in the end."""
    n = [3]
    monkeypatch.setattr(determinism, "_unfit", None)
    monkeypatch.setattr(determinism, "_n_short", lambda: n[0])

    def run_short():
        n[0] += 1

    return run_short


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_whose_gpu_ran_short_of_memory_does_not_go_on(short_of_memory, fails):
    """Whether or not cuDNN found something else that fits, now and ever after."""
    before = settings()

    def predict(short):
        with same_kernels():
            if short:
                short_of_memory()
            if fails:
                raise torch.OutOfMemoryError

    for short in (True, False):
        with pytest.raises(UnfitWorkerError, match="short of GPU memory"):
            predict(short)
        assert settings() == before


def test_tasks_beside_the_one_that_ran_short_do_not_go_on_either(short_of_memory):
    first, second = same_kernels(), same_kernels()
    first.__enter__()
    short_of_memory()
    second.__enter__()  # after that, and before the first one has noticed
    for task in (second, first):
        with pytest.raises(UnfitWorkerError):
            task.__exit__(None, None, None)


def test_what_was_short_before_any_task_counts_for_nothing(short_of_memory):
    short_of_memory()
    with same_kernels():
        pass
