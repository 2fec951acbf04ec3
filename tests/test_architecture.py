"""The layers of the design, as a test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "emslice"
LAYERS = [  # bottom first; a module imports only from lower rows or its own folder
    {"errors", "units", "log"},
    {"geometry"},
    {"ops", "metrics"},
    {"volumes", "ledger", "models"},
    {"engine", "cluster"},
    {"stages", "training"},
    {"config", "viewer"},
    {"service", "recipes"},
    {"demo", "experiments"},  # runs of the service over data of their own, and of recipes
    {"cli", "web"},
]
RANK = {name: row for row, names in enumerate(LAYERS) for name in names}
FREE = {"__init__", "__main__"}  # the package's own front doors
ITS_OWN = {"__version__"}  # names of the package itself, which `import emslice` gives as well
HEAVY = {"torch", "numba", "numpy", "tensorstore"}


def imports(path):
    """(line, folder) of every import of the package, however deep in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "a relative import"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "emslice":
            rest = node.module.split(".")[1:]
            names = rest[:1] or [alias.name for alias in node.names]
            yield from ((node.lineno, name) for name in names if name not in ITS_OWN)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("emslice."):
                    yield node.lineno, alias.name.split(".")[1]


def offences(root):
    """(number of modules, what is wrong with them) of a package."""
    wrong = []
    paths = sorted(root.rglob("*.py"))
    for path in paths:
        here = path.relative_to(root).parts[0].removesuffix(".py")
        if here in FREE:
            continue
        if here not in RANK:
            wrong.append(f"{path.relative_to(root)}: {here} is in no layer")
            continue
        for line, there in imports(path):
            if here != there and RANK.get(there, 99) >= RANK[here]:
                wrong.append(f"{path.relative_to(root)}:{line}: {here} -> {there}")
    return len(paths), wrong


def test_imports_point_down():
    n_modules, wrong = offences(ROOT)
    assert n_modules >= 20, f"is this the package? {ROOT}"
    assert not wrong, "imports must point to a lower layer:\n" + "\n".join(wrong)


def test_every_folder_says_what_lives_there_and_what_never_may():
    folders = [p.parent for p in ROOT.glob("*/*.py") if p.parent.name != "__pycache__"]
    assert len(set(folders)) >= 3
    for folder in sorted(set(folders)):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert text, f"{folder.name}/__init__.py has no docstring"
        assert "Never here:" in text, f"{folder.name}/__init__.py: what must never live there?"


@pytest.fixture
def package(tmp_path):
    """Function that writes a sound package with one more module, and returns what is wrong."""

    def check(name, text):
        modules = {
            "__init__.py": "from emslice.cli import main\n",
            "errors.py": "import numpy\n",
            "ops/blank.py": "from emslice.errors import ConfigError\nimport emslice.ops.lut\n",
            "ops/lut.py": "import emslice_other.cli\n",
            "cli/main.py": "from emslice import ops\nimport emslice.stages.relabel\n",
            name: text,
        }
        for path, content in modules.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(content)
        return offences(tmp_path)[1]

    return check


def test_a_sound_package_has_no_offences(package):
    assert package("ops/more.py", "import emslice.geometry.boxes\n") == []


@pytest.mark.parametrize(
    ("name", "text", "report"),
    [
        ("ops/a.py", "import os\nfrom emslice.stages import b\n", "ops/a.py:2: ops -> stages"),
        ("ops/a.py", "def f():\n    import emslice.volumes.b\n", "ops/a.py:2: ops -> volumes"),
        ("ops/a.py", "from ..errors import b\n", "ops/a.py:1: ops -> a relative import"),
        ("misc/a.py", "", "misc/a.py: misc is in no layer"),
        ("ops/a.py", "from emslice.metrics import b\n", "ops/a.py:1: ops -> metrics"),
        ("ops/a.py", "from emslice import errors, cli\n", "ops/a.py:1: ops -> cli"),
        ("ops/a.py", "from emslice import evaluate\n", "ops/a.py:1: ops -> evaluate"),
        ("errors.py", "import emslice.geometry\n", "errors.py:1: errors -> geometry"),
    ],
    ids=[
        "upward",
        "hidden",
        "relative",
        "no layer",
        "same row",
        "one of two",
        "front door",
        "file",
    ],
)
def test_a_planted_fault_is_reported(package, name, text, report):
    assert package(name, text) == [report]


@pytest.mark.parametrize("module", ["emslice", "emslice.cli.main"])
def test_the_front_door_imports_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def compiled_names(path):
    """Functions of a file that numba compiles."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any("njit" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def borrowed_kernels(root):
    """(number of compiled functions, those that call a compiled function of another file)."""
    kernels = {path: compiled_names(path) for path in sorted(root.rglob("*.py"))}
    everywhere = {name for names in kernels.values() for name in names}
    wrong = []
    for path, own in kernels.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in own:
                called = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                wrong += [f"{path.name}: {node.name} -> {n}" for n in called & everywhere - own]
    return sum(map(len, kernels.values())), wrong


def test_compiled_code_calls_compiled_code_of_its_own_file_only():
    """numba's cache looks at the time stamp of one file: code from another would go stale."""
    n_kernels, wrong = borrowed_kernels(ROOT)
    assert n_kernels > 10
    assert not wrong


def test_a_borrowed_kernel_is_reported(tmp_path):
    (tmp_path / "a.py").write_text("@njit(cache=True)\ndef far():\n    pass\n")
    (tmp_path / "b.py").write_text("@njit\ndef near():\n    return far()\n")
    assert borrowed_kernels(tmp_path) == (2, ["b.py: near -> far"])
