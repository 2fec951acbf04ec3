"""What a training needs to go on is on disk, and only one process goes on."""

import multiprocessing

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from emslice.errors import ConfigError
from emslice.training.state import (
    State,
    is_locked,
    load_state,
    locked,
    save_state,
    trained_weights,
)


class Frozen(nn.Linear):
    frozen = True


class Pupil(nn.Module):
    """A lesson with a part that learns, and one that does not."""

    def __init__(self, seed=0, taught_by=4):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.student = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
            self.teacher = Frozen(3, taught_by)

    def optimiser(self):
        return torch.optim.Adam(self.student.parameters(), lr=0.01, amsgrad=True)


def learn(pupil, optimiser, steps):
    """Steps on random crops; the last loss."""
    for _ in range(steps):
        loss = pupil.student(torch.rand(2, 1, 5, 7)).square().sum() + torch.rand(())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def saved(tmp_path, fabric):
    """A pupil after three steps, its optimiser, and the file."""
    torch.manual_seed(11)
    pupil = Pupil()
    optimiser = pupil.optimiser()
    learn(pupil, optimiser, 3)
    state = State(3, 1.25, 2, {"labels": 0.1 + 0.2, "steps": 3.0})
    save_state(fabric, tmp_path / "state.pt", state, pupil, optimiser)
    return pupil, optimiser, tmp_path / "state.pt"


def test_weights_moments_and_sums_come_back_as_they_were(saved):
    pupil, optimiser, path = saved
    other = Pupil(seed=1)
    theirs = other.optimiser()
    assert load_state(path, other, theirs) == State(3, 1.25, 2, {"labels": 0.1 + 0.2, "steps": 3.0})
    for name, value in pupil.student.state_dict().items():
        assert torch.equal(other.student.state_dict()[name], value), name
    ours, read = (o.state_dict()["state"] for o in (optimiser, theirs))
    assert len(ours) == len(read) == 4
    for key, moments in ours.items():
        assert {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"} <= set(moments)
        assert all(torch.equal(read[key][name], moment) for name, moment in moments.items())


def test_a_training_that_goes_on_is_one_that_was_not_interrupted(saved):
    pupil, optimiser, path = saved
    expected = learn(pupil, optimiser, 2)
    torch.manual_seed(99)  # what has been drawn meanwhile
    other = Pupil(seed=1)
    theirs = other.optimiser()
    load_state(path, other, theirs)
    assert learn(other, theirs, 2) == expected
    for name, value in pupil.student.state_dict().items():
        assert torch.equal(other.student.state_dict()[name], value), name


def test_a_state_before_any_step_has_no_best_one(tmp_path, fabric):
    pupil = Pupil()
    save_state(fabric, tmp_path / "state.pt", State(), pupil, pupil.optimiser())
    found = load_state(tmp_path / "state.pt", pupil, pupil.optimiser())
    assert (found.step, found.best, found.best_step, found.sums) == (0, float("inf"), None, {})


def test_a_frozen_network_is_neither_kept_nor_touched(saved):
    pupil, _, path = saved
    assert {name.split(".")[0] for name in trained_weights(pupil)} == {"student"}
    other = Pupil(seed=1, taught_by=6)
    before = other.teacher.weight.clone()
    load_state(path, other, other.optimiser())
    assert torch.equal(other.teacher.weight, before)


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(saved, fabric):
    pupil, optimiser, path = saved
    save_state(fabric, path, State(step=4), pupil, optimiser)
    assert load_state(path, pupil, optimiser).step == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def deeper(pupil):
    pupil.student.append(nn.Conv2d(3, 2, 1))


def shallower(pupil):
    del pupil.student[1]


@pytest.mark.parametrize("change", [deeper, shallower])
def test_a_state_of_another_network_is_refused(saved, change):
    *_, path = saved
    other = Pupil(seed=1)
    change(other)
    with pytest.raises(ConfigError, match=r"state\.pt: holds another training"):
        load_state(path, other, other.optimiser())


def test_a_folder_is_held_while_the_block_runs_and_free_after(tmp_path):
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    assert not is_locked(tmp_path)


def test_folders_are_held_each_by_itself(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert is_locked(tmp_path / "b")


def look_and_hold(folder, pipe):
    """Another process: at each word it looks, and then it trains until it is killed."""
    pipe.recv()
    pipe.send(is_locked(folder))
    pipe.recv()
    with locked(folder):
        pipe.send("held")
        pipe.recv()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child calls no torch
def test_a_lock_holds_between_processes_and_goes_with_the_one_that_is_killed(tmp_path):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    other = context.Process(target=look_and_hold, args=(tmp_path, there), daemon=True)
    other.start()  # first, since a lock that is held goes to those that are forked
    with locked(tmp_path):
        here.send("look")
        assert here.recv() is True
    here.send("hold")
    assert here.recv() == "held"
    assert is_locked(tmp_path)
    with pytest.raises(ConfigError, match="another process trains it"), locked(tmp_path):
        pass
    other.kill()
    other.join(timeout=30)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass
