"""The frozen half of the SAM teacher: values as slow twins say, weights from local files."""

import hashlib
import json
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from reference import sam_encoders as reference

from emslice.errors import CheckpointError, ConfigError
from emslice.models.networks import count_parameters
from emslice.models.sam_adapter import SamAdapter
from emslice.models.sam_encoders import ENCODERS, FAMILIES, make_encoder
from emslice.models.sam_weights import read_config

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason='no transformers: pip install "emslice[train]"'
)
OF_TRANSFORMERS = [pytest.param(kind, marks=needs_transformers) for kind in ("sam2", "sam")]

SIZES = {
    "sam2": {"width": 4, "heads": 1, "blocks": [1, 2, 3, 1], "windows": [8, 4, 6, 3],
             "global_blocks": [4], "background": 3},
    "sam": {"width": 8, "heads": 2, "blocks": 3, "window": 3, "side": 5, "global_blocks": [1]},
    "mobile_sam": {"widths": [4, 6, 8, 9], "blocks": [1, 2, 1, 1], "heads": [1, 2, 4, 3],
                   "windows": [7, 3, 2, 4]},
}  # fmt: skip
TWINS = {
    "sam2": (reference.hiera, reference.hiera_shapes),
    "sam": (reference.vit, reference.vit_shapes),
    "mobile_sam": (reference.tiny_vit, reference.tiny_vit_shapes),
}
# SAM: published totals less the 4,064,560 of prompt encoder and decoder. SAM 2.1: ours; they
# differ by what the published totals (38.9, 46, 80.8 and 224.4 million) differ by. MobileSAM:
# the published total of 10,130,092 less the same decoder and the classifier (321,640).
PARAMETERS = {
    ("sam2", "tiny"): 27_219_136,
    ("sam2", "small"): 34_316_992,
    ("sam2", "base_plus"): 69_106_816,
    ("sam2", "large"): 212_703_280,
    ("sam", "base"): 89_670_912,
    ("sam", "large"): 308_278_272,
    ("sam", "huge"): 637_026_048,
    ("mobile_sam", "tiny_vit_5m"): 5_743_892,
}


def sections(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def published(kind, seed=0):
    """Random weights under the authors' names, among others that are not of the encoder."""
    weights = reference.random_weights(TWINS[kind][1](**SIZES[kind]), seed)
    return weights | {"mask_decoder.iou_token.weight": torch.zeros(1, 4)}


@pytest.fixture(params=[*OF_TRANSFORMERS, "mobile_sam"])
def kind(request):
    return request.param


@pytest.fixture
def file(kind, tmp_path):
    """The authors' kind of file."""
    path = tmp_path / "weights.pt"
    weights = published(kind)
    torch.save({"model": weights} if kind == "sam2" else weights, path)
    return path


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_kind_is_tested():
    assert tuple(SIZES) == tuple(TWINS) == ENCODERS == tuple(FAMILIES)


@needs_transformers
@pytest.mark.parametrize(("kind", "size"), PARAMETERS)
def test_parameters_are_as_many_as_published(kind, size):
    family = FAMILIES[kind]
    assert {name for of, name in PARAMETERS if of == kind} == set(family.sizes)
    with torch.device("meta"):
        assert count_parameters(family.body(**family.sizes[size])) == PARAMETERS[kind, size]


@pytest.mark.parametrize("shape", [(160, 160), (256, 256), (160, 256), (96, 32)])
def test_features_are_16_times_coarser_than_the_section(kind, shape):
    encoder = make_encoder(kind, size="random_tiny", seed=0)
    found = encoder(sections((2, 1, *shape)))
    assert found.shape == (2, encoder.channels, shape[0] // 16, shape[1] // 16)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.std((0, 2, 3)).min() > 0  # nothing is dead


@pytest.mark.parametrize("shape", [(64, 96), (96, 32)])
def test_features_are_those_of_the_authors_network(kind, file, shape):
    twin, _ = TWINS[kind]
    section = sections((1, 1, *shape))
    found = make_encoder(kind, file, size=SIZES[kind])(section)
    wanted = twin(published(kind), section, **SIZES[kind])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@needs_transformers
def test_at_the_trained_size_sam_is_that_of_transformers(tmp_path):
    torch.save(published("sam"), tmp_path / "weights.pth")
    encoder = make_encoder("sam", tmp_path / "weights.pth", size=SIZES["sam"])
    image = sections((2, 1, 80, 80))
    with torch.no_grad():
        wanted = encoder.body.model(image.expand(-1, 3, -1, -1)).last_hidden_state
    assert torch.equal(encoder(image), wanted)


@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_voxels_that_are_all_alike_have_features_that_differ_with_their_place(kind):
    found = make_encoder(kind, size="random_tiny")(torch.full((1, 1, 96, 128), 0.4))
    assert found[..., 2:-2, 2:-2].std((2, 3)).max() > 1e-3


def test_an_encoder_is_frozen_and_stays_in_evaluation_mode(kind):
    encoder = make_encoder(kind, size="random_tiny", seed=0)
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(sections((1, 1, 64, 96)).requires_grad_()).requires_grad


def test_a_gradient_reaches_the_adapter_and_not_the_encoder(kind):
    encoder, adapter = make_encoder(kind, size="random_tiny", seed=0), SamAdapter((4, 3, 2, 2), 3)
    first, second = adapter(encoder(sections((1, 1, 64, 96))), encoder(sections((1, 1, 64, 96), 1)))
    (first.square().mean() + second.square().mean()).backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in adapter.parameters())


def test_a_random_encoder_is_told_by_its_seed(kind):
    torch.manual_seed(1)
    state, section = torch.get_rng_state(), sections((1, 1, 64, 96))
    first = make_encoder(kind, size="random_tiny", seed=5)
    again = make_encoder(kind, size="random_tiny", seed=5)
    other = make_encoder(kind, size="random_tiny", seed=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(section), again(section))
    assert first.fingerprint == again.fingerprint
    assert not torch.equal(first(section), other(section))
    assert first.fingerprint != other.fingerprint


def test_a_random_encoder_says_so(kind, caplog):
    assert "random" in make_encoder(kind, size="random_tiny").fingerprint
    assert f"not of {kind}" in caplog.text


def test_the_fingerprint_names_kind_size_and_file(kind, file):
    found = make_encoder(kind, file, size=SIZES[kind]).fingerprint
    assert found.startswith(f"{kind}/sizes-")
    assert f"sha256={sha256_of(file)}" in found
    assert "random" not in found
    narrower = make_encoder(kind, file, size=SIZES[kind], standardise=True).fingerprint
    assert found != narrower


def test_standardised_sections_have_the_mean_and_deviation_of_natural_images(kind, file):
    plain = make_encoder(kind, file, size=SIZES[kind])
    moved = make_encoder(kind, file, size=SIZES[kind], standardise=True)
    section = sections((1, 1, 64, 96))
    colours = torch.cat([(section - m) / s for m, s in
                         [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]], 1)  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(moved(section), plain.body(colours))
    assert not torch.allclose(moved(section), plain(section), atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 1, 64, 90), (1, 3, 64, 96), (1, 64, 96), (1, 1, 0, 64)])
def test_sections_that_do_not_fit_are_refused(kind, shape):
    with pytest.raises(ConfigError, match="multiples of"):
        make_encoder(kind, size="random_tiny")(torch.zeros(shape))


@needs_transformers
def test_an_odd_number_of_features_is_refused_where_levels_are_added():
    section = torch.zeros(1, 1, 48, 64)
    with pytest.raises(ConfigError, match="multiples of 32"):
        make_encoder("sam2", size="random_tiny")(section)
    assert make_encoder("sam", size="random_tiny")(section).shape[2:] == (3, 4)


def test_the_expected_checksum_is_taken_in_either_case(kind, file):
    make_encoder(kind, file, sha256_of(file).upper(), SIZES[kind])


def test_a_wrong_checksum_is_refused_before_anything_is_loaded(kind, file, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match=sha256_of(file)) as caught:
        make_encoder(kind, file, "ab" * 32, SIZES[kind])
    assert "ab" * 32 in str(caught.value)


def test_truncated_weights_are_refused(kind, file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="may be truncated"):
        make_encoder(kind, file, size=SIZES[kind])


@pytest.mark.parametrize("part", ["missing", "foreign", "shape"])
def test_weights_of_another_encoder_are_refused(kind, tmp_path, part):
    weights = published(kind)
    last = next(
        name for name in reversed(weights) if name.endswith("conv.bias") or "neck.3.bias" in name
    )
    if part == "missing":
        del weights[last]
    elif part == "foreign":
        weights["image_encoder.neck.9.bias"] = torch.zeros(3)
    else:
        weights[last] = torch.zeros(3)
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="weights of another encoder"):
        make_encoder(kind, tmp_path / "odd.pt", size=SIZES[kind])


def test_sizes_are_told_by_weights_of_a_published_size(kind, file, monkeypatch):
    monkeypatch.setitem(FAMILIES[kind].sizes, "mine", SIZES[kind])
    assert make_encoder(kind, file).fingerprint.startswith(f"{kind}/mine/")


def test_weights_of_no_published_size_are_refused(kind, file):
    with pytest.raises(CheckpointError, match=f"no published size of {kind}"):
        make_encoder(kind, file)


def test_safetensors_are_read_like_the_authors_file(kind, file, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(published(kind), tmp_path / "weights.safetensors")
    section = sections((1, 1, 64, 96))
    found = make_encoder(kind, tmp_path / "weights.safetensors", size=SIZES[kind])(section)
    assert torch.equal(found, make_encoder(kind, file, size=SIZES[kind])(section))


def test_half_precision_weights_become_float32(kind, tmp_path):
    half = {name: value.half() for name, value in published(kind).items()}
    torch.save(half, tmp_path / "half.pt")
    encoder = make_encoder(kind, tmp_path / "half.pt", size=SIZES[kind])
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("whole", [False, True], ids=["encoder", "whole model"])
@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_a_folder_of_transformers_tells_its_sizes(kind, file, tmp_path, whole):
    encoder = make_encoder(kind, file, size=SIZES[kind])
    model = encoder.body.model
    if kind == "sam":
        from transformers.models.sam.modeling_sam import SamVisionModel

        around = SamVisionModel(model.config)
        around.vision_encoder.load_state_dict(model.state_dict())
        model = around
    folder = tmp_path / "folder"
    model.save_pretrained(folder)
    if whole:
        wrap(kind, folder)
    found = make_encoder(kind, folder, sha256_of(folder / "model.safetensors"))
    section = sections((1, 1, 64, 96))
    assert torch.equal(found(section), encoder(section))


@needs_transformers
@pytest.mark.parametrize(
    ("kind", "module", "name", "size"),
    [
        ("sam2", "sam2", "Sam2VisionConfig", "tiny"),
        ("sam2", "sam2", "Sam2Config", "tiny"),
        ("sam2", "sam2_video", "Sam2VideoConfig", "tiny"),
        ("sam", "sam", "SamVisionConfig", "base"),
        ("sam", "sam", "SamConfig", "base"),
    ],
)
def test_what_a_folder_does_not_say_has_its_default(tmp_path, kind, module, name, size):
    config = import_module(f"transformers.models.{module}.configuration_{module}")
    getattr(config, name)().save_pretrained(tmp_path)
    family = FAMILIES[kind]
    assert family.body.sizes_of(read_config(tmp_path)) == family.sizes[size]


@pytest.mark.parametrize(
    "config", ["{", "[1]", '{"hidden_size": "wide", "backbone_config": {"hidden_size": [2]}}']
)
def test_a_folder_that_describes_something_else_is_refused(kind, tmp_path, config):
    torch.save(published(kind), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        make_encoder(kind, tmp_path)


def wrap(kind, folder):
    """Make a folder of an encoder one of a whole model."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vision_config": config}))
    weights = load_file(folder / "model.safetensors")
    if kind == "sam2":
        weights = {f"vision_encoder.{name}": value for name, value in weights.items()}
    save_file(weights | {"mask_decoder.mask_tokens.weight": torch.zeros(4, 2)},
              folder / "model.safetensors")  # fmt: skip


@needs_transformers
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sam3"}, "'sam3' is none of sam2, sam, mobile_sam"),
        ({"kind": "sam2"}, "sam.weights: missing"),
        ({"kind": "sam", "size": "base"}, "sam.size: random_tiny"),
        ({"kind": "sam", "size": {"width": 8}}, "sam takes blocks, global_blocks"),
        ({"kind": "sam2", "weights": "here.pt", "size": "random_tiny"}, "Drop one"),
        ({"kind": "sam2", "weights": "nowhere.pt"}, "no file nowhere.pt"),
        ({"kind": "sam2", "weights": __file__, "size": "huge"}, "no readable file of weights"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder(**arguments)


def test_a_size_that_is_not_published_is_refused(kind, file):
    with pytest.raises(ConfigError, match=f"'giant' is no size of {kind}"):
        make_encoder(kind, file, size="giant")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        make_encoder("sam2", tmp_path)


@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_a_missing_package_is_named_with_the_way_to_install_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, f"transformers.models.{kind}.modeling_{kind}", None)
    with pytest.raises(ConfigError, match=r'pip install "emslice\[train\]"'):
        make_encoder(kind, size="random_tiny")


def test_mobile_sam_needs_no_other_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    make_encoder("mobile_sam", size="random_tiny")
