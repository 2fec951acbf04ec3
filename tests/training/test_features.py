"""The cache of a frozen network's answers: the same bits, whole files, a limit, many processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from emslice.errors import ConfigError, PrecisionError
from emslice.training import features
from emslice.training.features import FeatureCache, pack, unpack


def inputs(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class Network:
    """Something frozen that counts what it is asked."""

    def __init__(self, scale=100.0):
        self.asked, self.scale = [], scale
        self.weight = torch.nn.Parameter(inputs((5, 3), 9))

    def __call__(self, batch):
        self.asked.append(len(batch))
        return torch.einsum("ij,bjyx->biyx", self.weight, batch) * self.scale / 3


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def cache(tmp_path):
    """Function that opens the one folder, as another process would."""

    def opened(fingerprint="net/1", limit_bytes=None, **options):
        return FeatureCache(tmp_path / "cache", fingerprint, limit_bytes, **options)

    return opened


def files_of(folder):
    return sorted((folder / "cache").rglob("*.features"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5, 7), (4, 2, 3, 5)])
def test_a_file_gives_back_what_was_packed(dtype, shape):
    tensor = inputs(shape).to(dtype)
    found = unpack(pack(tensor))
    assert found.dtype == dtype
    assert torch.equal(found, tensor)


def test_an_answer_is_the_same_read_or_computed(cache, network):
    batch = inputs((4, 3, 5, 7))
    computed = cache()(network, batch)
    again = cache()
    assert torch.equal(again(network, batch), computed)
    assert torch.equal(FeatureCache(None, "net/1")(network, batch), computed)
    assert (again.hits, again.misses) == (4, 0)
    assert computed.dtype == torch.float32


def test_an_answer_does_not_depend_on_its_company(cache):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(1, 9, 5).requires_grad_(False)
    batch = inputs((6, 1, 33, 47))
    alone = torch.cat([FeatureCache(None, "c")(convolution, one[None]) for one in batch])
    exact = {"dtype": torch.float32}
    together = cache(**exact)(convolution, batch)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    shuffled = FeatureCache(None, "c", **exact)(convolution, batch[[5, 2, 0, 1, 3, 4]])
    assert torch.equal(shuffled, together[[5, 2, 0, 1, 3, 4]])


def test_only_what_is_missing_is_asked_and_only_once(cache, network):
    batch = inputs((5, 3, 5, 7))
    cache()(network, batch[:2])
    later = cache(together=8)
    found = later(network, batch[[0, 3, 1, 3, 4]])
    assert network.asked == [1, 1, 2]
    assert (later.hits, later.misses) == (3, 2)
    assert torch.equal(found, FeatureCache(None, "x")(network, batch[[0, 3, 1, 3, 4]]))


def test_calls_hold_as_many_inputs_as_allowed(network):
    FeatureCache(None, "x", together=3)(network, inputs((7, 3, 5, 7)))
    assert network.asked == [3, 3, 1]


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4, 6), (2, 1, 3, 4, 6)])
def test_answers_may_have_any_rank(cache, shape):
    batch = inputs(shape)
    for _ in range(2):
        found = cache(dtype=torch.float32)(lambda x: x.flatten(1).cumsum(1), batch)
        assert torch.equal(found, torch.cat([x.flatten()[None].cumsum(1) for x in batch]))


def test_half_precision_is_off_by_less_than_one_part_in_2048(network):
    batch = inputs((3, 3, 8, 9))
    exact = FeatureCache(None, "x", dtype=torch.float32)(network, batch)
    halved = FeatureCache(None, "x")(network, batch)
    assert 0 < ((halved - exact).abs() / exact.abs()).max() <= 2**-11


def test_features_too_large_for_half_precision_are_refused():
    huge, batch = Network(1e6), inputs((1, 3, 5, 7))
    with pytest.raises(PrecisionError, match="Store them as float32"):
        FeatureCache(None, "x")(huge, batch)
    assert FeatureCache(None, "x", dtype=torch.float32)(huge, batch).max() > 65504


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "net/2"},
        {"dtype": torch.float32},
        {"batch": inputs((1, 3, 7, 5))},
        {"batch": inputs((1, 3, 5, 7)).reshape(1, 3, 7, 5)},
        {"batch": inputs((1, 3, 5, 7)).double()},
        {"batch": inputs((1, 3, 5, 7)) + torch.eye(5, 7) * 1e-7},
    ],
)
def test_another_input_network_or_precision_is_another_file(cache, network, tmp_path, other):
    batch = inputs((1, 3, 5, 7))
    cache()(network, batch)
    batch = other.pop("batch", batch)
    network.weight = torch.nn.Parameter(network.weight.to(batch.dtype))
    changed = cache(**other)
    changed(network, batch)
    assert (changed.hits, changed.misses) == (0, 1)
    assert len(files_of(tmp_path)) == 2


def test_an_input_that_is_not_contiguous_is_the_same_input(cache, network):
    batch = inputs((2, 3, 5, 7))
    cache()(network, batch)
    again = cache()
    again(network, batch.transpose(2, 3).contiguous().transpose(2, 3))
    assert again.misses == 0


def test_answers_have_no_gradient_and_no_mixed_precision(network):
    batch = inputs((2, 3, 5, 7)).requires_grad_()
    plain = FeatureCache(None, "x")(network, batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = FeatureCache(None, "x")(network, batch)
    assert not plain.requires_grad
    assert torch.equal(mixed, plain)


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-1],
    "one bit": lambda content: content[:90] + bytes([content[90] ^ 4]) + content[91:],
    "something else": lambda content: b"<html>" * 50,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_computed_again_and_replaced(cache, network, tmp_path, caplog, damage):
    batch = inputs((1, 3, 5, 7))
    known = cache()(network, batch)
    (file,) = files_of(tmp_path)
    sound = file.read_bytes()
    file.write_bytes(DAMAGE[damage](sound))
    again = cache()
    assert torch.equal(again(network, batch), known)
    assert again.misses == 1
    assert str(file) in caplog.text
    assert file.read_bytes() == sound


def test_files_that_were_not_used_for_longest_leave_first(cache, network, tmp_path):
    batch = inputs((10, 3, 5, 7))
    cache()(network, batch)
    size = len(pack(network(batch[:1])[0].detach().half()))
    for age, one in enumerate(batch):  # the last is the oldest
        os.utime(cache()._path(cache().key(one)), (1e9 - age, 1e9 - age))
    cache()(network, batch[9:])  # and is used again
    kept = cache(limit_bytes=4 * size + 1)
    assert len(files_of(tmp_path)) == 3  # nine tenths of the limit
    network.asked.clear()
    kept(network, batch[[9, 0, 1]])
    assert network.asked == []
    kept(network, batch[2:3])
    assert network.asked == [1]


def test_the_limit_holds_while_answers_are_added(cache, network, tmp_path):
    size = len(pack(network(inputs((1, 3, 5, 7)))[0].detach().half()))
    small = cache(limit_bytes=20 * size)
    for seed in range(60):
        small(network, inputs((1, 3, 5, 7), seed))
        assert sum(f.stat().st_size for f in files_of(tmp_path)) <= 22 * size
    assert len(files_of(tmp_path)) >= 18


def test_a_limit_below_one_file_changes_no_answer(cache, network, tmp_path):
    batch = inputs((2, 3, 5, 7))
    assert torch.equal(cache(limit_bytes=1)(network, batch), cache()(network, batch))


def test_what_a_dead_process_left_is_removed_when_it_is_old(cache, network, tmp_path):
    cache()(network, inputs((1, 3, 5, 7)))
    (file,) = files_of(tmp_path)
    old, young = (file.with_name(f".{file.stem}.{digit * 32}.partial") for digit in "01")
    others = [file.with_name(".film.partial"), tmp_path / "film.partial"]
    for path in (old, young, *others):
        path.write_bytes(b"half")
    for path in (old, *others):
        os.utime(path, (time.time() - 2 * features.STALE_S,) * 2)
    cache()
    assert not old.exists()
    assert all(path.exists() for path in (young, file, *others))


def test_a_file_that_may_not_be_removed_ends_nothing(cache, network, tmp_path, monkeypatch):
    batch = inputs((4, 3, 5, 7))
    expected = cache()(network, batch)

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "not yours", str(self))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert torch.equal(cache(limit_bytes=1)(network, batch), expected)


def test_a_disk_that_takes_nothing_costs_no_answer(cache, network, tmp_path, caplog):
    batch, full = inputs((3, 3, 5, 7)), cache()
    for one in batch:  # files where the folders would be
        (tmp_path / "cache" / full.key(one)[:2]).write_bytes(b"")
    found = full(network, batch)
    assert torch.equal(found, FeatureCache(None, "x")(network, batch))
    assert caplog.text.count("are not kept") == 1
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("options", [{"dtype": torch.int32}, {"limit_bytes": 0}])
def test_a_cache_that_cannot_be_is_refused(cache, options):
    with pytest.raises(ConfigError, match="features"):
        cache(**options)


CHILD = """
import sys, os, signal, torch
from pathlib import Path
torch.set_num_threads(1)
from emslice.training.features import FeatureCache
cache = FeatureCache(Path(sys.argv[1]), "net/1", {limit})
def network(batch):
    return batch.cumsum(-1) / 3
batch = torch.rand(40, 1, 6, 9, generator=torch.Generator().manual_seed(7))
"""


def start(folder, body, limit=None):
    code = CHILD.format(limit=limit) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(features.__file__).parents[2])},
    )  # fmt: skip


def test_killed_between_writing_and_renaming_leaves_no_half_file(tmp_path):
    child = start(
        tmp_path / "cache",
        """
        cache(network, batch[:3])
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        cache(network, batch[3:])
        """,
    )
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert len(files_of(tmp_path)) == 3
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    batch = torch.rand(40, 1, 6, 9, generator=torch.Generator().manual_seed(7))
    cache = FeatureCache(tmp_path / "cache", "net/1", None)
    found = cache(lambda b: b.cumsum(-1) / 3, batch)
    assert (cache.hits, cache.misses) == (3, 37)
    assert torch.equal(found, (batch.cumsum(-1) / 3).half().float())


def test_two_processes_share_a_folder_and_its_limit(tmp_path):
    body = """
    wanted = (batch.cumsum(-1) / 3).half().float()
    for order in (torch.arange(40), torch.arange(40).flip(0)):
        assert torch.equal(cache(network, batch[order]), wanted[order])
    print(cache.hits + cache.misses)
    """
    children = [start(tmp_path / "cache", body, limit=9000) for _ in range(2)]
    said = [child.communicate(timeout=60)[0].strip() for child in children]
    assert said == ["80", "80"]
    assert [child.returncode for child in children] == [0, 0]
    assert not list(tmp_path.rglob("*.partial"))
    for file in files_of(tmp_path):
        unpack(file.read_bytes())
