"""Every command and every snippet that the README shows is run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from emslice.cli.main import COMMANDS, main
from emslice.demo.synthetic import synthetic_em
from emslice.volumes import create_volume

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("desk")
    raw, truth = synthetic_em((40, 48, 64), seed=4)
    with h5py.File(folder / "stack.h5", "w") as file:
        file["raw"] = raw
    volume = create_volume(folder / "truth.zarr", shape=truth.shape, dtype=truth.dtype)
    volume.write(volume.roi, truth)
    (folder / "student.ckpt").symlink_to(ROOT / "emslice" / "demo" / "student.ckpt")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder, raw, truth


def test_the_emslice_commands_run_in_order(desk, monkeypatch, capfd):
    """The first as a user runs it; the others in this process, which saves a minute of imports."""
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in commands if line.startswith("emslice ")]
    assert len(commands) >= 4
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        commands[0], shell=True, cwd=desk[0], env={**os.environ, "PATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands[0]}\n{done.stderr}"
    monkeypatch.chdir(desk[0])
    for command in commands[1:]:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code, f"{command}\n{capfd.readouterr().err}"


def test_the_make_targets_exist_and_ci_calls_them():
    targets = {line.split()[1] for block in blocks("sh") for line in block.splitlines()
               if line.startswith("make ")}  # fmt: skip
    assert targets == {"demo", "test"}
    script = (ROOT / ".ci" / "run").read_text()
    rules = (ROOT / "Makefile").read_text()
    for target in targets:
        assert f"make {target}" in script
        assert re.search(rf"^{target}:", rules, flags=re.MULTILINE)


def test_the_notebook_snippet_runs(desk, monkeypatch, capsys):
    folder, raw, truth = desk
    monkeypatch.chdir(folder)
    snippets = blocks("python")
    assert len(snippets) == 1
    names = {"raw": raw[:6], "truth": truth[:6]}
    exec(snippets[0], names)
    assert names["neurons"].shape == (6, 48, 64)
    assert "voi_split" in capsys.readouterr().out


def test_every_command_is_in_the_readme():
    assert len(COMMANDS) >= 5
    shown = README + (ROOT / "Makefile").read_text()
    missing = [name for name in COMMANDS if f"emslice {name}" not in shown and name != "demo"]
    assert not missing


def test_every_file_that_the_docs_link_to_exists():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    ]
    assert len(links) >= 5
    for page, target in links:
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tree_in_the_readme_is_the_package():
    folders = {
        path.name for path in (ROOT / "emslice").iterdir()
        if path.is_dir() and (path / "__init__.py").exists()
    }  # fmt: skip
    tree = README.split("```\nemslice/\n")[1].split("```")[0]
    shown = set(re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE))
    assert shown == folders
