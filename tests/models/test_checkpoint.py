import hashlib
import os
import pickle
import random
import re
import zipfile

import pytest
import torch
from models.teachers import SMALL

from emslice.errors import CheckpointError
from emslice.models.checkpoint import load_checkpoint, save_checkpoint
from emslice.models.student import Student

RESOLUTION_NM = (40.0, 4.0, 8.0)
PROVENANCE = {"recipe": "cad", "steps": 7, "voi": 0.66}


@pytest.fixture
def network():
    torch.manual_seed(0)
    student = Student(features=2, embedding=3)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return student.eval()


@pytest.fixture
def saved(tmp_path, network):
    """A checkpoint in our format."""
    path = tmp_path / "ours.ckpt"
    save_checkpoint(path, network, RESOLUTION_NM, PROVENANCE)
    return path


@pytest.fixture
def changed(saved, tmp_path):
    """Function that writes our format once more after a change of its content."""

    def write(change):
        content = torch.load(saved, weights_only=True)
        change(content)
        path = tmp_path / "changed.ckpt"
        torch.save(content, path)
        return path

    return write


def assert_refused(path, *words):
    """A `CheckpointError` that names the file and says the words."""
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
        load_checkpoint(path)
    for word in words:
        assert word in str(caught.value)


def refusal_of(path):
    """Text of the `CheckpointError`, or None if the file is accepted."""
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


def outputs(network):
    pair = torch.rand(1, 2, 16, 48, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return torch.stack(network(pair))


def their_key(key):
    """Name of one of our weights in the published files."""
    part, *rest = key.split(".")
    if part.startswith("outc_"):
        return ".".join([part, "conv", *rest])
    if part == "down":
        return ".".join([part, rest[0], "mpconv.1.conv", *rest[1:]])
    return ".".join([part, "conv.conv", *rest])


def test_a_round_trip_keeps_outputs_and_facts(saved, network):
    checkpoint = load_checkpoint(saved)
    assert torch.equal(outputs(checkpoint.network), outputs(network))
    assert (checkpoint.network.features, checkpoint.network.embedding) == (2, 3)
    assert checkpoint.resolution_nm == RESOLUTION_NM
    assert checkpoint.provenance == PROVENANCE
    assert checkpoint.name == "ours"


def test_a_loaded_network_is_in_evaluation_mode(saved, network):
    network.train()
    save_checkpoint(saved, network, RESOLUTION_NM, {})
    assert not any(module.training for module in load_checkpoint(saved).network.modules())


def test_the_identity_is_the_hash_of_the_bytes(saved):
    assert load_checkpoint(saved).sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_half_precision_on_disk_is_float32_in_memory(tmp_path, network):
    path = tmp_path / "half.ckpt"
    save_checkpoint(path, network, RESOLUTION_NM, {}, dtype=torch.float16)
    loaded = load_checkpoint(path).network
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    torch.testing.assert_close(outputs(loaded), outputs(network), rtol=0, atol=0.02)


def test_saving_leaves_no_partial_file_and_the_network_as_it_is(tmp_path, network):
    before = outputs(network)
    save_checkpoint(tmp_path / "a.ckpt", network, RESOLUTION_NM, {}, dtype=torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]
    assert torch.equal(outputs(network), before)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("is_zip", [True, False])
def test_published_names_are_understood(tmp_path, network, prefix, wrapped, is_zip):
    weights = {prefix + their_key(k): v for k, v in network.state_dict().items()}
    content = {"current_iter": 3, "valid_result": None, "model_weights": weights}
    path = tmp_path / "theirs.ckpt"
    torch.save(content if wrapped else weights, path, _use_new_zipfile_serialization=is_zip)
    checkpoint = load_checkpoint(path)
    assert torch.equal(outputs(checkpoint.network), outputs(network))
    assert (checkpoint.name, checkpoint.resolution_nm) == ("theirs", None)


@pytest.mark.parametrize(
    ("name", "resolution_nm"),
    [
        ("cad_AC34", (30, 6, 6)),
        ("cad_CremiA", (40, 4, 4)),
        ("cad_CremiB", (40, 4, 4)),
        ("cad_CremiC", (40, 4, 4)),
        ("cad_wafer4", (35, 8, 8)),
        ("slicecrafter_wafer4", (35, 8, 8)),
    ],
)
def test_published_files_are_known_by_their_bytes(data_dir, tmp_path, name, resolution_nm):
    path = tmp_path / "renamed.pth"
    path.write_bytes((data_dir / "checkpoints" / f"{name}.ckpt").read_bytes())
    checkpoint = load_checkpoint(path)
    assert (checkpoint.name, checkpoint.resolution_nm) == (name, resolution_nm)


@pytest.mark.parametrize("name", SMALL)
def test_every_3d_network_comes_back_as_it_was(tmp_path, name):
    network, path = SMALL[name](), tmp_path / "teacher.ckpt"
    save_checkpoint(path, network, RESOLUTION_NM, PROVENANCE)
    loaded = load_checkpoint(path).network
    assert loaded.spec == network.spec
    assert not any(module.training for module in loaded.modules())
    found, expected = loaded.state_dict(), network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_3d_networks_are_told_by_their_weights(tmp_path, name, prefix):
    network, path = SMALL[name](), tmp_path / "model_3d-001000.ckpt"
    weights = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({"current_iter": 3, "valid_result": None, "model_weights": weights}, path)
    assert load_checkpoint(path).network.spec == network.spec


def test_an_embedding_as_long_as_a_neighborhood_is_told_by_its_spec(tmp_path):
    path = tmp_path / "nine.ckpt"
    save_checkpoint(path, SMALL["embedding"](outputs=9), RESOLUTION_NM, {})
    assert load_checkpoint(path).network.spec["head"] == "embedding"


def test_a_head_that_the_outputs_cannot_be_is_refused(tmp_path):
    path = tmp_path / "ours.ckpt"
    save_checkpoint(path, SMALL["embedding"](), RESOLUTION_NM, {})
    content = torch.load(path, weights_only=True)
    content["spec"]["head"] = "affinity"
    torch.save(content, path)
    assert_refused(path, "superhuman", "no neighborhood has 5 channels")


@pytest.mark.parametrize("key", ["conv2.block3.weight", "up1.1.weight", "conv6.block2.3.weight"])
def test_a_3d_network_with_a_missing_weight_is_refused(tmp_path, key):
    path, weights = tmp_path / "part.ckpt", SMALL["embedding"]().state_dict()
    del weights[key]
    torch.save({"model_weights": weights}, path)
    assert_refused(path, "superhuman")


def test_a_network_larger_than_its_file_is_refused_before_memory_is_taken(tmp_path):
    path, weights = tmp_path / "huge.ckpt", SMALL["embedding"]().state_dict()
    weights["center.block3.weight"] = torch.ones(200_000)
    torch.save({"model_weights": weights}, path)
    assert_refused(path, "parameters is not in the file")


def test_a_missing_file_is_named(tmp_path):
    assert_refused(tmp_path / "nowhere.ckpt", "No such file")


def test_a_folder_is_refused(tmp_path):
    assert_refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 3, 64, 1000, 0.25, 0.5, 0.9, 0.99, -1])
def test_a_truncated_file_is_refused_with_its_size(tmp_path, network, is_zip, kept):
    path = tmp_path / "cut.ckpt"
    weights = {their_key(k): v for k, v in network.state_dict().items()}
    torch.save({"model_weights": weights}, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept % len(content)
    path.write_bytes(content[:size])
    assert_refused(path, f"{size} bytes", "truncated")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, about what the damage looks like
@pytest.mark.parametrize("is_zip", [True, False])
def test_damage_anywhere_is_never_another_error(tmp_path, network, is_zip):
    path, source = tmp_path / "damaged.ckpt", random.Random(1)
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[min(int(source.expovariate(1 / 2000)), len(content) - 1)] = source.randrange(
                256
            )
        path.write_bytes(damaged)
        refusal = refusal_of(path)  # a flipped bit of a weight cannot be seen
        assert refusal is None or str(path) in refusal


@pytest.mark.parametrize("text", ["", "hello\n", "<html>404</html>", "\x80\x02}q\x00."])
def test_a_foreign_file_is_refused(tmp_path, text):
    path = tmp_path / "foreign.ckpt"
    path.write_bytes(text.encode("latin-1"))
    assert_refused(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], 7, "text", None], ids=repr)
def test_what_is_not_a_dict_is_refused(tmp_path, content):
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    assert_refused(path, type(content).__name__, "expected a dict")


@pytest.mark.parametrize("content", [{}, {"conv.weight": torch.zeros(2, 3)}, {7: 8}], ids=repr)
def test_weights_of_another_network_are_refused(tmp_path, content):
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    assert_refused(path, "another network", f"{len(content)} entries")


def test_model_weights_that_are_no_dict_are_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"model_weights": [1, 2]}, path)
    assert_refused(path, "list")


def test_a_missing_weight_is_named(changed):
    path = changed(lambda content: content["weights"].pop("up1.3.bias"))
    assert_refused(path, "up1.3.bias")


def test_a_weight_too_many_is_named(changed):
    path = changed(lambda content: content["weights"].update({"up9.bias": torch.zeros(2)}))
    assert_refused(path, "up9.bias")


def test_a_weight_of_another_shape_is_named(changed):
    path = changed(lambda content: content["weights"].update({"up1.3.bias": torch.zeros(5)}))
    assert_refused(path, "up1.3.bias")


def test_a_weight_that_is_no_tensor_is_refused(changed):
    assert_refused(changed(lambda content: content["weights"].update({"up1.3.bias": None})))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(changed, value):
    path = changed(lambda content: content["weights"]["up1.3.bias"].fill_(value))
    assert_refused(path, "NaN or infinite")


@pytest.mark.parametrize("version", [2, 99, None])
def test_another_version_is_refused_with_both_numbers(changed, version):
    path = changed(lambda content: content.update(version=version))
    assert_refused(path, f"version {version}", "reads 1", "Update emslice")


@pytest.mark.parametrize("key", ["training", "weights"])
@pytest.mark.parametrize("value", [None, 7, [1, 2], "text", {}], ids=repr)
def test_a_broken_field_is_refused(changed, key, value):
    assert_refused(changed(lambda content: content.update({key: value})))


@pytest.mark.parametrize("key", ["training", "weights", "spec"])
def test_a_missing_field_is_refused(changed, key):
    assert_refused(changed(lambda content: content.pop(key)), key)


@pytest.mark.parametrize("value", [None, 4, [4.0, 4.0], ["a", 1, 2], [1, 2, 3, 4]], ids=repr)
def test_a_resolution_that_is_no_triple_is_refused(changed, value):
    assert_refused(changed(lambda content: content["training"].update(resolution_nm=value)))


@pytest.mark.parametrize("value", [[0, 4, 4], [4, -4, 4], [4, 4, float("nan")], [1e999, 4, 4]])
def test_a_resolution_that_is_not_positive_and_finite_is_refused(changed, value):
    path = changed(lambda content: content["training"].update(resolution_nm=value))
    assert_refused(path, "resolution_nm: expected three positive numbers z,y,x, got")


@pytest.mark.parametrize(
    "change", [{"network": "teacher"}, {"features": 4}, {"embedding": 9}], ids=str
)
def test_a_spec_that_contradicts_the_weights_is_refused(changed, change):
    path = changed(lambda content: content["spec"].update(change))
    assert_refused(path, "its spec is", "'features': 2, 'embedding': 3")


def test_a_spec_that_is_no_dict_is_refused(changed):
    assert_refused(changed(lambda content: content.update(spec=[1])), "its spec is [1]")


def test_saving_does_not_touch_a_file_that_only_looks_partial(tmp_path, network):
    (tmp_path / "a.ckpt.partial").write_text("years of work")
    save_checkpoint(tmp_path / "a.ckpt", network, RESOLUTION_NM, {})
    assert (tmp_path / "a.ckpt.partial").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_file_alone(saved, network, monkeypatch):
    before = saved.read_bytes()

    def fail(content, file):
        file.write(b"half")
        raise OSError("full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="full"):
        save_checkpoint(saved, network, RESOLUTION_NM, {})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", ["pickle", "legacy", "zip"])
def test_a_malicious_pickle_is_not_run(tmp_path, kind):
    path, mark = tmp_path / "evil.ckpt", tmp_path / "mark"
    content = {"model_weights": Evil(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
        assert zipfile.is_zipfile(path) == (kind == "zip")
    assert_refused(path)
    assert not mark.exists()
