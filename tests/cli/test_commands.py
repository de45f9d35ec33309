"""The program knows what each command is for without importing it."""

import sys

import pytest
from typer.main import get_command

from tests.support.commands import ROOT, finished
from vitcli.cli.app import COMMANDS, app
from vitcli.cli.help import SectionedCommand, SectionedGroup


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str):
    program = get_command(app)
    assert isinstance(program, SectionedGroup)
    command = program.commands[name]
    assert isinstance(command, SectionedCommand | SectionedGroup)
    assert command.name in (name, "")
    assert " ".join((command.help or "").partition("\n\n")[0].split()) == COMMANDS[name][1]


def test_no_command_of_a_file_is_left_out():
    found = {name for file in {file for file, _ in COMMANDS.values()} for name in commands_of(file)}
    assert found == set(COMMANDS)


def commands_of(file: str) -> list[str]:
    """The commands that a file adds to the program: its own, or the group that it is."""
    group = get_command(getattr(__import__(f"vitcli.cli.{file}", fromlist=["x"]), f"{file}_app"))
    return list(group.commands) if isinstance(group, SectionedGroup) and not group.help else [file]


def test_help_imports_no_command():
    code = "import sys; from vitcli.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = finished([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    imported = done.stdout.splitlines()[-1].split()
    assert "vitcli.cli.app" in imported
    for module in ("pydantic", "numpy", "torch", "vitcli.recipe.schema", "vitcli.cli.train"):
        assert module not in imported


def test_a_mistyped_command_gets_the_nearest_name():
    done = finished([sys.executable, "-m", "vitcli", "trian"], cwd=ROOT, timeout=60)
    assert done.returncode == 2
    assert "Did you mean 'train'" in done.stderr
