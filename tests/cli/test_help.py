"""Help costs no imports, says what the table says, and shows an example."""

import subprocess
import sys

import pytest

from emslice.cli.main import COMMANDS, cli


def test_every_command_says_what_the_table_says_and_shows_an_example(run):
    assert len(COMMANDS) >= 5
    for name, (_, text) in COMMANDS.items():
        answer = run(name, "--help")
        assert answer.code == 0
        assert text in " ".join(answer.out.split())
        assert "Example" in answer.out


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom emslice.cli.main import main\nsys.argv = ['emslice', '-h']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numba', 'numpy', 'tensorstore', 'zarr', 'dask'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", ["digest", "evaluate", "import"])
def test_light_commands_do_not_import_torch(name):
    script = (
        f"import sys\nfrom emslice.cli.main import cli, COMMANDS\n"
        f"command = cli.get_command(None, {name!r})\n"
        "try:\n    command.main(['absent', 'absent'], standalone_mode=False)\n"
        "except Exception:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_command_is_refused(run):
    assert run("segmnt").code == 2
    assert cli.get_command(None, "segmnt") is None
