import sysconfig
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from emslice.errors import ConfigError, UnfitWorkerError
from emslice.models import profile
from emslice.models.profile import check_worker, resolve_profile


@pytest.mark.parametrize(
    ("unit", "asked", "precision", "hardware"),
    [
        (None, "auto", "float32", ""),
        (None, "float32", "float32", ""),
        ("avx512_bf16", "auto", "bfloat16", " avx512_bf16"),
        ("avx512_bf16", "bfloat16", "bfloat16", " avx512_bf16"),
        ("avx512_bf16", "float32", "float32", ""),
    ],
)
def test_precision_is_resolved_from_what_the_processor_has(
    monkeypatch, unit, asked, precision, hardware
):
    monkeypatch.setattr(profile, "bfloat16_unit", lambda: unit)
    resolved = resolve_profile(precision=asked)
    assert resolved.precision == precision
    assert resolved.hardware == torch.backends.cpu.get_cpu_capability() + hardware


def test_the_faster_unit_is_named_where_there_are_two(monkeypatch):
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True}
    )
    assert profile.bfloat16_unit() == "amx_bf16"


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    found = torch.backends.cpu.get_cpu_capability()
    with pytest.raises(ConfigError, match=rf"bfloat16.*\({found}\).*avx512_bf16"):
        resolve_profile(precision="bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "float8"}, "precision: 'float8'"),
        ({"precision": "float16"}, "float16 is for device cuda"),
        ({"device": "tpu"}, "device: 'tpu'"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        resolve_profile(**arguments)


def test_a_worker_like_the_machine_that_planned_is_accepted():
    check_worker(resolve_profile())


@pytest.mark.parametrize("name", ["hardware", "torch"])
def test_a_worker_of_another_profile_is_refused_with_both(name):
    mine = resolve_profile()
    with pytest.raises(UnfitWorkerError, match=rf"{name}: the run has 'other', this worker '"):
        check_worker(replace(mine, **{name: "other"}))


def test_a_worker_that_would_emulate_bfloat16_is_refused(monkeypatch):
    planned = replace(resolve_profile(precision="float32"), precision="bfloat16")
    monkeypatch.setattr(profile, "bfloat16_unit", lambda: None)
    with pytest.raises(UnfitWorkerError, match=r"cannot predict.*avx512_bf16.*Use workers like"):
        check_worker(planned)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"predict\.device: cuda.*sees no GPU.*Set it to cpu"):
        resolve_profile("cuda")


@pytest.fixture
def seen_gpu(monkeypatch, tmp_path):
    """A GPU as far as a profile looks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA T1")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(profile, "version", lambda name: "3.9.0")
    monkeypatch.setenv("CC", "gcc")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})


@pytest.mark.usefixtures("seen_gpu")
def test_the_profile_of_a_gpu_names_it_and_its_compiler():
    found, cudnn = resolve_profile("cuda"), torch.backends.cudnn.version()
    assert (found.hardware, found.precision) == (
        f"NVIDIA T1, Triton 3.9.0, cuDNN {cudnn}",
        "float16",
    )
    with pytest.raises(ConfigError, match="T1 does not multiply bfloat16"):
        resolve_profile("cuda", precision="bfloat16")


@pytest.mark.usefixtures("seen_gpu")
def test_a_gpu_without_triton_is_refused(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(profile, "version", missing)
    with pytest.raises(ConfigError, match="pip install triton"):
        resolve_profile("cuda")


@pytest.mark.usefixtures("seen_gpu")
def test_a_gpu_without_a_c_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"C compiler.*neither gcc nor clang.*apt-get install"):
        resolve_profile("cuda")


@pytest.mark.usefixtures("seen_gpu")
def test_a_gpu_without_the_headers_of_python_is_refused(monkeypatch, tmp_path):
    (tmp_path / "Python.h").unlink()
    with pytest.raises(ConfigError, match=r"there is no .*Python\.h.*python3-dev"):
        resolve_profile("cuda")
