"""Bad input: one line that says what to do, exit code 2, and nothing written."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from emslice.volumes import create_volume


def write(path, array, **facts):
    channels = array.shape[0] if array.ndim == 4 else None
    shape = array.shape[-3:]
    volume = create_volume(path, shape=shape, dtype=array.dtype, channels=channels, **facts)
    volume.write(volume.roi, array)
    return volume.url


def refused(answer, *words):
    assert answer.code == 2, answer
    assert answer.err.count("\n") <= 4  # click's usage errors take four lines
    for word in words:
        assert word in answer.err
    return True


@pytest.fixture
def segment(run, raw, small_checkpoint, tmp_path):
    """Call ``emslice segment`` with parts replaced; checks that no run folder appears."""

    def call(*options, volume=raw.url, folder=tmp_path / "run", weights=small_checkpoint):
        before = sorted(tmp_path.rglob("*"))
        answer = run("segment", volume, folder, "--checkpoint", weights, *options)
        assert sorted(tmp_path.rglob("*")) == before
        return answer

    return call


def test_a_missing_volume(segment, tmp_path):
    assert refused(segment(volume=tmp_path / "absent.zarr"), "absent.zarr", "no such volume")


def test_an_hdf5_file_is_to_be_imported_first(segment, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert refused(segment(volume=tmp_path / "a.h5"), "emslice import")


def test_raw_of_floats(segment, tmp_path):
    url = write(tmp_path / "float.zarr", np.ones((2, 20, 30), np.float32))
    assert refused(segment(volume=url), "float32", "uint8")


def test_bfloat16_on_a_processor_without_it(segment, monkeypatch):
    monkeypatch.setattr("emslice.models.profile.bfloat16_unit", lambda: None)
    answer = segment("--set", "predict.precision=bfloat16")
    assert refused(answer, "predict.precision", "avx512_bf16", "float32")


def test_an_unknown_precision(segment):
    assert refused(segment("--set", "predict.precision=half"), "predict.precision", "bfloat16")


def test_sixteen_bits_without_a_window(segment, tmp_path):
    url = write(tmp_path / "deep.zarr", np.ones((2, 20, 30), np.uint16))
    assert refused(segment(volume=url), "raw.window", "uint16")


def test_raw_with_channels(segment, tmp_path):
    url = write(tmp_path / "channels.zarr", np.ones((3, 2, 20, 30), np.uint8))
    assert refused(segment(volume=url), "3 channels", "--from-affinities")


def test_raw_that_is_a_crop(segment, tmp_path):
    array = np.ones((2, 20, 30), np.uint8)
    url = write(tmp_path / "crop.zarr", array, offset=(1, 0, 0), domain_shape=(9, 20, 30))
    assert refused(segment(volume=url), "crop", "--roi")


def test_a_checkpoint_of_another_network(segment, tmp_path):
    import torch

    torch.save({"model_weights": torch.nn.Linear(3, 4).state_dict()}, tmp_path / "other.ckpt")
    assert refused(segment(weights=tmp_path / "other.ckpt"), "another network", "outc_tn")


def test_a_truncated_checkpoint(segment, small_checkpoint, tmp_path):
    whole = small_checkpoint.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    assert refused(segment(weights=tmp_path / "cut.ckpt"), "truncated", str(len(whole) // 2))


def test_no_checkpoint(run, raw, tmp_path):
    assert refused(run("segment", raw.url, tmp_path / "run"), "--checkpoint")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("roi", ["0:7,:,:", "-1:4,:,:", "3:3,:,:", "0:2", "a:b,:,:", "4:2,:,:"])
def test_a_roi_that_means_nothing_here(segment, roi):
    assert refused(segment("--roi", roi), "--roi")


@pytest.mark.parametrize("size", ["lots", "4 GB", "1 KiB"])
def test_a_node_memory_that_is_no_size(segment, size):
    assert refused(segment("--set", f"agglomeration.node_memory={size}"), "node_memory")


def test_a_roi_outside_tells_the_extent(segment):
    assert refused(segment("--roi", "0:4,0:41,:"), "0:6,0:40,0:57")


def test_an_unknown_key_gets_a_suggestion(segment):
    answer = segment("--set", "agglomeration.treshold=0.4")
    assert refused(answer, "Did you mean 'agglomeration.threshold'?")


def test_an_unknown_linkage(segment):
    assert refused(segment("--linkage", "median"), "agglomeration.linkage", "quantile_max")


def test_dust_that_cannot_be(segment):
    assert refused(segment("--min-size", "-1"), "dust.min_size", "-1")
    assert refused(segment("--min-size", "many"), "--min-size", "many")
    assert refused(segment("--set", "dust.min_size=2.5"), "dust.min_size", "2.5")
    assert refused(segment("--set", "dust.alone=hide"), "dust.alone", "drop", "keep")
    assert refused(segment("--set", "dust.minsize=9"), "Did you mean 'dust.min_size'?")


def test_a_threshold_out_of_range(segment):
    assert refused(segment("--threshold", "1.2"), "agglomeration.threshold", "1.2")


def test_an_existing_run_is_left_alone(segment, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("data")
    assert refused(segment(), "already exists")
    assert (tmp_path / "run" / "precious").read_text() == "data"


def test_a_place_that_cannot_be_written(segment, tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(segment(folder=tmp_path / "file" / "run"), "run")
    assert refused(segment(folder="/proc/emslice-run"), "/proc", "cannot write")


def test_a_block_too_large_for_memory(run, small_checkpoint, tmp_path):
    volume = create_volume(tmp_path / "big.zarr", shape=(4000, 9000, 9000), dtype=np.uint8)
    answer = run("segment", volume.url, tmp_path / "run", "--checkpoint", small_checkpoint,
                 "--block", "4000,9000,9000")  # fmt: skip
    assert answer.code == 2
    assert "iB" in answer.err
    assert not (tmp_path / "run").exists()


def test_weights_are_not_given_with_affinities(run, small_checkpoint, tmp_path):
    url = write(tmp_path / "aff.zarr", np.ones((3, 4, 9, 8), np.uint8))
    answer = run("segment", "--from-affinities", url, tmp_path / "run", "--checkpoint", "x.ckpt")
    assert refused(answer, "checkpoint", "drop")


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, ["NaN", "channel 1"]), (1.5, ["[0, 1]"]), (-0.1, ["[0, 1]"])]
)
def test_affinities_that_are_no_affinities(run, tmp_path, value, words):
    array = np.full((3, 4, 9, 8), 0.5, np.float32)
    array[1, 2, 3, 4] = value
    url = write(tmp_path / "aff.zarr", array)
    assert refused(run("segment", "--from-affinities", url, tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_affinities_with_two_channels(run, tmp_path):
    url = write(tmp_path / "aff.zarr", np.ones((2, 4, 9, 8), np.uint8))
    assert refused(run("segment", "--from-affinities", url, tmp_path / "run"), "(3, Z, Y, X)")


def test_affinities_of_integers(run, tmp_path):
    url = write(tmp_path / "aff.zarr", np.ones((3, 4, 9, 8), np.uint16))
    assert refused(run("segment", "--from-affinities", url, tmp_path / "run"), "uint16")


def test_too_few_arguments_say_which(run, raw):
    assert refused(run("segment", raw.url), "RAW RUN")


def test_labels_of_floats_are_not_scored(run, raw, tmp_path):
    url = write(tmp_path / "f.zarr", np.ones((6, 40, 57), np.float32))
    assert refused(run("evaluate", url, raw.url), "integer labels")


def test_a_truth_that_does_not_cover_the_segmentation(run, raw, tmp_path):
    url = write(tmp_path / "t.zarr", np.ones((5, 40, 57), np.uint8))
    assert refused(run("evaluate", raw.url, url), "TRUTH", "0:5,0:40,0:57")


def test_scores_of_a_volume_against_itself_are_zero(run, raw):
    answer = run("evaluate", raw.url, raw.url, "--json", "--roi", "1:3,:,5:")
    assert json.loads(answer.out) == {"voi_split": 0, "voi_merge": 0, "voi": 0, "arand": 0}


def test_a_full_disk_fails_the_run_and_says_so(raw, small_checkpoint, tmp_path):
    """A real full disk: a tmpfs of 64 kB in a mount namespace of its own."""
    script = f"""
        mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk || exit 77
        python - <<'END'
import sys
from emslice.service import plan as p
p.check_writable = lambda *_: None  # the estimate would refuse: fill the disk in the middle
sys.argv = ["emslice", "segment", "{raw.url}", "{tmp_path}/disk/run", "--checkpoint",
            "{small_checkpoint}", "--affinities", "keep"]
from emslice.cli.main import main
main()
END
        code=$?
        cat {tmp_path}/disk/run/run.yaml > {tmp_path}/record.yaml
        exit $code
    """
    (tmp_path / "disk").mkdir()
    python = f'python() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", python + script], capture_output=True, text=True
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no right to mount a tmpfs here")
    assert done.returncode == 1, done.stderr
    assert "Error" in done.stderr
    assert yaml.safe_load((tmp_path / "record.yaml").read_text())["state"] in ("failed", "running")
