"""Settings of the process that several tasks ask for at a time."""

import pytest
import torch

from emslice.models.gpu import same_kernels


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
