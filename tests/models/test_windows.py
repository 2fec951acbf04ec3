"""3D networks on volumes: blended as published, and the same for every box and cell."""

import numpy as np
import pytest
from models.teachers import SMALL
from reference.windows import blended_affinities

from emslice.errors import ConfigError
from emslice.geometry import windows
from emslice.geometry.boxes import Roi
from emslice.models.predictor import facts_of, make_predictor
from emslice.models.profile import bfloat16_unit, resolve_profile
from emslice.models.student import Student
from emslice.stages.predict import predict
from emslice.volumes import ArrayVolume

needs_bfloat16 = pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
SIZES = {"crop": (5, 32, 48), "stride": (3, 16, 24)}
MALA_SIZES = {"crop": (31, 214, 214), "stride": (3, 2, 2)}


def raw_volume(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)


def predictor_of(name, shape, precision="float32"):
    network = SMALL[name]()
    sizes = MALA_SIZES if name.startswith("mala") else SIZES
    facts = facts_of(network, shape, **sizes)
    return network, make_predictor(network, facts.lattice, resolve_profile(precision=precision))


def codes_of(raw, predictor, box=None, workers=1):
    volume = ArrayVolume(raw)
    return predict(volume, predictor, box or volume.roi, workers=workers).array


@pytest.mark.parametrize("name", ["embedding", "affinity", "savem3", "mala", "mala affinity"])
def test_codes_are_those_of_the_plain_network_and_its_blending(name):
    raw = raw_volume((4, 3, 5) if name.startswith("mala") else (7, 37, 61))
    network, predictor = predictor_of(name, raw.shape)
    expected = np.minimum(256 * blended_affinities(network, raw, predictor.lattice), 255)
    found = codes_of(raw, predictor)
    assert found.std() > 1
    np.testing.assert_allclose(found, expected - 0.5, atol=0.51)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["embedding", "ssns"])
@pytest.mark.parametrize("box", [((0, 0, 0), (1, 70, 9)), ((5, 13, 40), (9, 33, 12))])
def test_a_box_has_the_codes_that_the_whole_volume_has_there(name, precision, box):
    raw = raw_volume((17, 70, 61))
    _, predictor = predictor_of(name, raw.shape, precision)
    place = tuple(slice(low, low + n) for low, n in zip(*box, strict=True))
    whole = codes_of(raw, predictor)
    np.testing.assert_array_equal(codes_of(raw, predictor, Roi(*box)), whole[:, *place])


def test_the_number_of_workers_and_the_size_of_cells_change_no_code(monkeypatch):
    raw = raw_volume((11, 50, 75))
    _, predictor = predictor_of("embedding", raw.shape)
    whole = codes_of(raw, predictor)
    monkeypatch.setattr(windows, "STEPS", {True: 2, False: 1})
    assert len(list(predictor.lattice.meeting(Roi((0, 0, 0), raw.shape)))) >= 8
    np.testing.assert_array_equal(codes_of(raw, predictor, workers=2), whole)


def test_mala_pastes_its_windows_side_by_side(monkeypatch):
    raw = raw_volume((5, 3, 5))
    _, predictor = predictor_of("mala", raw.shape)
    monkeypatch.setattr(windows, "STEPS", {True: 1, False: 1})
    whole, corner = codes_of(raw, predictor), codes_of(raw, predictor, Roi((3, 2, 4), (2, 1, 1)))
    np.testing.assert_array_equal(corner, whole[:, 3:, 2:, 4:])


def test_a_window_in_which_nothing_was_imaged_has_no_part_in_the_blend(monkeypatch):
    raw = raw_volume((6, 64, 120))
    raw[:, :, 40:] = 0
    _, predictor = predictor_of("embedding", raw.shape)
    seen = []
    run = predictor._runner.affinities
    monkeypatch.setattr(
        predictor._runner, "affinities", lambda crop: seen.append(crop.any()) or run(crop)
    )
    codes = codes_of(raw, predictor)
    assert all(seen)
    assert len(seen) < np.prod([axis.n for axis in predictor.lattice.axes])
    assert not codes[:, :, :, 40:].any()
    assert codes[:, :, :, :40].any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 40, 3), (1, 5, 200)])
def test_volumes_smaller_than_a_window_are_padded(shape):
    _, predictor = predictor_of("affinity", shape)
    assert codes_of(raw_volume(shape), predictor).shape == (3, *shape)


@pytest.mark.parametrize("name", ["embedding", "mala"])
def test_facts_tell_what_is_read(name):
    shape, network = (40, 300, 500), SMALL[name]()
    facts = facts_of(network, shape, **(MALA_SIZES if name == "mala" else SIZES))
    assert facts.neighborhood == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    cells = list(facts.lattice.meeting(Roi((0, 0, 0), shape)))
    assert len(cells) > 2
    for index in cells:
        cell = facts.lattice.owned(index)
        for axis, seen in enumerate(facts.lattice.sources(index, cell)):
            assert cell.begin[axis] - facts.halo[axis] <= seen.min()
            assert seen.max() < cell.end[axis] + facts.halo[axis]


def test_published_sizes_are_the_default():
    lattice = facts_of(SMALL["embedding"](), (100, 1024, 1024)).lattice
    assert (lattice.crop, lattice.stride) == ((18, 160, 160), (10, 80, 80))
    assert [axis.n for axis in lattice.axes] == [10, 13, 13]
    lattice = facts_of(SMALL["mala"](), (100, 1024, 1024)).lattice
    assert (lattice.crop, lattice.stride) == ((53, 268, 268), (25, 56, 56))


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("embedding", {"crop": (18, 150, 160)}, r"predict\.crop.*multiples of 16"),
        ("savem3", {"crop": (18, 160, 100)}, r"predict\.crop.*multiples of 8"),
        ("mala", {"crop": (53, 260, 268)}, r"predict\.crop.*214, 241, 268"),
        ("mala", {"crop": (20, 268, 268)}, r"predict\.crop.*29 and more"),
        ("mala", {"stride": (26, 56, 56)}, r"predict\.stride.*\(25, 56, 56\)"),
    ],
)
def test_sizes_that_a_network_cannot_take_are_refused(name, sizes, message):
    with pytest.raises(ConfigError, match=message):
        facts_of(SMALL[name](), (50, 300, 300), **sizes)


def test_a_student_takes_no_windows():
    with pytest.raises(ConfigError, match=r"predict\.crop.*3D networks.*predict\.tile"):
        facts_of(Student(2, 3), (50, 300, 300), crop=(18, 160, 160))


def test_a_student_is_planned_and_made_the_same_way():
    raw, network = raw_volume((2, 40, 50)), Student(2, 3).eval()
    facts = facts_of(network, raw.shape)
    assert facts.halo == (1, 112, 112)
    assert min(facts.bytes_per_voxel, facts.peak_bytes) > 0
    predictor = make_predictor(network, facts.lattice, resolve_profile())
    assert codes_of(raw, predictor).shape == (3, 2, 40, 50)


@pytest.mark.gpu
def test_a_gpu_gives_nearly_the_codes_of_a_processor():
    raw = raw_volume((7, 37, 61))
    network, predictor = predictor_of("embedding", raw.shape)
    on_gpu = make_predictor(network, predictor.lattice, resolve_profile("cuda"))
    apart = np.abs(codes_of(raw, on_gpu).astype(int) - codes_of(raw, predictor))
    assert (apart <= 1).mean() > 0.99
