import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from emslice.geometry.lattice import HALO, Span, Tile, TileLattice
from emslice.models.checkpoint import load_checkpoint
from emslice.models.student import Student, Window, upsample
from emslice.ops.affinity import pair_affinity

PUBLISHED = [
    "cad_AC34",
    "cad_CremiA",
    "cad_CremiB",
    "cad_CremiC",
    "cad_wafer4",
    "slicecrafter_wafer4",
]


def random_student(features=4, embedding=5, seed=0):
    """A network whose batch statistics and weights are such that far voxels matter."""
    generator = torch.Generator().manual_seed(seed)
    network = Student(features, embedding).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.02, 0.1, generator=generator)
        elif value.ndim == 4:
            value.normal_(0, 1 / value[0].numel() ** 0.5, generator=generator)
        elif value.is_floating_point() and not name.endswith("weight"):
            value.normal_(0, 0.1, generator=generator)
    return network


@torch.inference_mode()
def whole_affinity(network, pair):
    """Affinities of the later of two whole padded sections, shape (3, Y, X)."""
    before, here = network(pair)
    return pair_affinity(before[0], here[0])


@torch.inference_mode()
def tiled_affinity(network, pair, tiles):
    """The same, each tile's core from a run on its read box."""
    out = torch.full((3, *pair.shape[2:]), torch.nan, dtype=pair.dtype)
    for tile in tiles:
        read_y, read_x = slice(*tile.y.read), slice(*tile.x.read)
        window = Window((tile.y.read[0], tile.x.read[0]), tuple(pair.shape[2:]))
        before, here = network(pair[:, :, read_y, read_x], window)
        answer = pair_affinity(before[0], here[0])
        y, x = tile.y.core, tile.x.core
        inner = tuple(slice(s.core[0] - s.read[0], s.core[1] - s.read[0]) for s in (tile.y, tile.x))
        out[:, slice(*y), slice(*x)] = answer[:, *inner]
    return out


def shortened(tile, missing=16):
    """The same tile with a halo ``missing`` voxels shorter where it does not end at the section."""

    def short(span):
        (lo, hi), (first, last) = span.core, span.read
        first = lo - HALO + missing if lo - first == HALO else first
        return Span(span.core, (first, hi + HALO - missing if last - hi == HALO else last))

    return Tile(short(tile.y), short(tile.x))


def padded_pair(raw, lattice):
    """Two sections in [0, 1], shape (1, 2, Y, X), padded by reflection."""
    pads = [(a.pad, a.padded - a.pad - a.length) for a in lattice.axes]
    padded = np.pad(raw, [(0, 0), *pads], mode="reflect")
    return torch.from_numpy(padded).float()[None] / 255


@pytest.fixture(scope="module")
def published(data_dir):
    """The published network of AC4."""
    return load_checkpoint(data_dir / "checkpoints" / "cad_AC34.ckpt").network


@pytest.fixture(scope="module")
def real_raw(data_dir):
    """Two sections of AC4, shape (2, 512, 512)."""
    import h5py

    with h5py.File(data_dir / "ac4_crop.h5") as file:
        return file["raw"][10:12]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_the_authors_output(data_dir, name):
    checkpoint = load_checkpoint(data_dir / "checkpoints" / f"{name}.ckpt")
    raw = np.load(data_dir / "golden" / "input_synth_3x160x160.npz")["raw"]
    golden = np.load(data_dir / "golden" / f"{name}.npz")
    sections = torch.from_numpy(raw[[0, 0, 1, 2]]).float()[None] / 255
    with torch.inference_mode():
        pairs = checkpoint.network.affinity_embeddings(sections)
        affinity = torch.stack([pair_affinity(a[0], b[0]) for a, b in pairs], 1)
    for found, expected in zip(pairs[1], ("emb_t", "emb_tn"), strict=True):
        np.testing.assert_allclose(found[0].numpy(), golden[expected], rtol=0, atol=1e-4)
    np.testing.assert_allclose(affinity.numpy(), golden["affs"], rtol=0, atol=1e-4)


def test_the_published_student_has_900816_parameters():
    assert sum(p.numel() for p in Student().parameters()) == 900_816


def test_a_run_of_sections_equals_its_pairs_one_by_one():
    network = random_student()
    sections = torch.rand(1, 4, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        run = network.affinity_embeddings(sections)
        pairs = [network(sections[:, z : z + 2]) for z in range(3)]
    assert len(run) == 3
    for found, expected in zip(run, pairs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", [0, 1])
def test_the_two_heads_are_not_the_same(head):
    network = random_student()
    pair = torch.rand(1, 2, 16, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        straight, swapped = network(pair), network(pair.flip(1))
    assert not torch.allclose(straight[head], swapped[1 - head], atol=1e-3)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(height=st.integers(1, 23), width=st.integers(1, 23), seed=st.integers(0, 99))
def test_a_whole_section_is_upsampled_with_aligned_corners(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, height, width, generator=generator)
    found = upsample(features, Window((0, 0), (height, width)))
    expected = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(origin=st.tuples(st.integers(0, 9), st.integers(0, 14)), seed=st.integers(0, 99))
def test_the_inside_of_a_tile_is_upsampled_as_in_the_section(origin, seed):
    features = torch.randn(1, 2, 14, 19, generator=torch.Generator().manual_seed(seed))
    whole = upsample(features, Window((0, 0), (14, 19)))
    y, x = origin
    tile = upsample(features[:, :, y : y + 5, x : x + 5], Window(origin, (14, 19)))
    expected = whole[:, :, 2 * y + 1 : 2 * y + 9, 2 * x + 1 : 2 * x + 9]
    torch.testing.assert_close(tile[:, :, 1:9, 1:9], expected, rtol=0, atol=1e-6)


LATTICES = [
    TileLattice((330, 75), core=64),
    TileLattice((60, 300), core=48),
    TileLattice((266, 203), core=64),
]


def worst_difference(network, pair, tiles):
    """Largest difference between tiles and the whole section on the tiles' cores."""
    tiles = list(tiles)
    assert tiles
    apart = (tiled_affinity(network, pair, tiles) - whole_affinity(network, pair)).abs()
    n_voxels = sum((t.y.core[1] - t.y.core[0]) * (t.x.core[1] - t.x.core[0]) for t in tiles)
    assert int(apart.isfinite().sum()) == 3 * n_voxels
    return apart.nan_to_num().max()


def random_pair(lattice):
    raw = np.random.default_rng(4).integers(0, 256, (2, *lattice.shape), dtype=np.uint8)
    return padded_pair(raw, lattice).double()


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_tiles_of_the_published_network_equal_the_whole_section(published, real_raw, lattice):
    pair = padded_pair(real_raw[:, : lattice.shape[0], : lattice.shape[1]], lattice)
    assert worst_difference(published, pair, lattice.tiles()) < 1e-4


def test_a_halo_one_step_shorter_is_seen_with_the_published_network(published, real_raw):
    lattice = LATTICES[0]
    pair = padded_pair(real_raw[:, : lattice.shape[0], : lattice.shape[1]], lattice)
    assert worst_difference(published, pair, map(shortened, lattice.tiles())) > 1e-4


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_tiles_of_a_random_network_equal_the_whole_section_in_double_precision(lattice):
    network = random_student(features=2).double()
    assert worst_difference(network, random_pair(lattice), lattice.tiles()) < 1e-9


def test_a_halo_one_step_shorter_is_seen_with_a_random_network():
    network, lattice = random_student(features=2).double(), LATTICES[0]
    tiles = map(shortened, lattice.tiles())
    assert worst_difference(network, random_pair(lattice), tiles) > 1e-4


def test_a_tile_that_does_not_know_its_place_is_seen():
    network, lattice = random_student(), LATTICES[0]
    pair = torch.rand(1, 2, 336, 80, generator=torch.Generator().manual_seed(6))
    tile = list(lattice.tiles())[4]
    with torch.inference_mode():
        here = network(pair[:, :, slice(*tile.y.read), slice(*tile.x.read)])[1]
        expected = network(pair)[1]
    lo, hi = tile.y.core
    inner = here[:, :, lo - tile.y.read[0] : hi - tile.y.read[0]]
    assert (inner - expected[:, :, lo:hi, slice(*tile.x.read)]).abs().max() > 1e-2
