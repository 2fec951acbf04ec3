"""Methods of choice in a run: the Python API's result in one block, and what blocks do to it."""

import numpy as np
import pytest
from scipy import ndimage

import emslice
from emslice.errors import ConfigError
from emslice.ops.linkage import LINKAGES
from emslice.volumes import create_volume, open_volume
from emslice.volumes.digest import digest_array

SHAPE = (5, 48, 61)
THRESHOLD = 0.75


@pytest.fixture(scope="module")
def codes():
    noise = np.random.default_rng(2).random((3, *SHAPE))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2.5, 2.5))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


@pytest.fixture
def stored(codes, tmp_path):
    volume = create_volume(
        tmp_path / "aff.zarr", shape=SHAPE, dtype=codes.dtype, channels=3, resolution_nm=(40, 4, 4)
    )
    volume.write(volume.roi, codes)
    return volume.url


def segmentation_of(run, stored, folder, *options):
    answer = run(
        "segment",
        "--from-affinities",
        stored,
        folder,
        "--workers",
        "1",
        "--threshold",
        THRESHOLD,
        *options,
    )
    assert answer.code == 0, answer.err
    volume = open_volume(folder / "segmentation.zarr")
    return volume.read(volume.roi)


@pytest.mark.parametrize(
    ("fragments", "method", "linkage"),
    [
        ("flood", "exact", "quantile_max"),
        ("flood", "exact", "quantile"),
        ("mutex", "exact", "quantile_max"),
        ("rainfall", "waterz", "quantile_max"),
    ],
)
def test_one_block_gives_the_segmentation_of_the_python_api(
    run, stored, codes, tmp_path, fragments, method, linkage
):
    for needed in {"flood": ["mahotas"], "mutex": ["bioimage_cpp"]}.get(fragments, ["waterz"]):
        pytest.importorskip(needed)
    chosen = {"fragments.method": fragments, "agglomeration.method": method}
    chosen["agglomeration.linkage"] = linkage
    options = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    segments = segmentation_of(run, stored, tmp_path / "run", *options)
    whole = emslice.segment_affinities(
        codes, THRESHOLD, linkage, fragments=fragments, method=method
    )
    assert digest_array(segments) == digest_array(whole)
    assert len(np.unique(whole)) > 3


def test_flood_fragments_end_at_the_sides_of_a_block_and_not_at_its_top(
    run, stored, codes, tmp_path
):
    pytest.importorskip("mahotas")
    flood = ("--set", "fragments.method=flood")
    whole = emslice.segment_affinities(codes, THRESHOLD, fragments="flood")
    layers = segmentation_of(run, stored, tmp_path / "a", *flood, "--block", "2,48,61")
    np.testing.assert_array_equal(layers, whole)
    columns = segmentation_of(run, stored, tmp_path / "b", *flood, "--block", "5,48,20")
    again = segmentation_of(run, stored, tmp_path / "c", *flood, "--block", "2,48,20")
    np.testing.assert_array_equal(columns, again)
    assert (columns != whole).any()
    assert len(np.unique(columns)) > 3


@pytest.mark.parametrize("linkage", LINKAGES)
def test_waterz_knows_every_linkage_and_needs_no_histograms(run, stored, codes, tmp_path, linkage):
    pytest.importorskip("waterz")
    options = ["--set", "agglomeration.method=waterz", "--set", f"agglomeration.linkage={linkage}"]
    segments = segmentation_of(run, stored, tmp_path / "run", *options)
    whole = emslice.segment_affinities(codes, THRESHOLD, linkage, method="waterz")
    assert digest_array(segments) == digest_array(whole)
    assert not list((tmp_path / "run").rglob("histograms*"))


def test_a_run_of_waterz_has_no_other_thresholds(run, stored, tmp_path):
    pytest.importorskip("waterz")
    segmentation_of(run, stored, tmp_path / "run", "--set", "agglomeration.method=waterz")
    truth = tmp_path / "run" / "segmentation.zarr"
    for command in (["cut", "--threshold", "0.6"], ["sweep", "--truth", truth]):
        answer = run(command[0], tmp_path / "run", *command[1:])
        assert answer.code == 2
        assert "was merged by waterz" in answer.err
    again = run("resume", tmp_path / "run", "--threshold", "0.6")
    assert again.code == 0, again.err


@pytest.mark.parametrize("method", ["flood", "mutex"])
def test_methods_of_sections_are_refused_in_three_dimensions(run, stored, codes, tmp_path, method):
    answer = run(
        "segment", "--from-affinities", stored, tmp_path / "run",
        "--set", f"fragments.method={method}", "--set", "fragments.dimensions=3",
    )  # fmt: skip
    assert answer.code == 2
    assert "fragments.dimensions: 3 needs fragments.method rainfall" in answer.err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"needs fragments\.method rainfall"):
        emslice.segment_affinities(codes, fragments=method, dimensions=3)


@pytest.mark.parametrize("block", ["5,48,60", "4,48,61"])
def test_waterz_is_refused_where_there_is_more_than_one_block(run, stored, tmp_path, block):
    pytest.importorskip("waterz")
    answer = run(
        "segment", "--from-affinities", stored, tmp_path / "run", "--block", block,
        "--set", "agglomeration.method=waterz",
    )  # fmt: skip
    assert answer.code == 2
    assert "Set block to 5,48,61" in answer.err
    assert not (tmp_path / "run").exists()


def test_waterz_is_refused_from_raw(run, raw, small_checkpoint, tmp_path):
    pytest.importorskip("waterz")
    answer = run(
        "segment", raw.url, tmp_path / "run", "--checkpoint", small_checkpoint,
        "--set", "agglomeration.method=waterz",
    )  # fmt: skip
    assert answer.code == 2
    assert "--from-affinities" in answer.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fragments": "rain"}, "fragments.method: unknown method 'rain'; known: rainfall, flood"),
        ({"method": "greedy"}, "agglomeration.method: unknown method 'greedy'; known: exact"),
    ],
)
def test_an_unknown_method_is_refused_by_the_python_api(codes, options, words):
    with pytest.raises(ConfigError, match=words):
        emslice.segment_affinities(codes, **options)
