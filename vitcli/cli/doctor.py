"""`vitcli doctor`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from vitcli.cli.help import Commands
from vitcli.cli.options import JsonOption

doctor_app = Commands()


@doctor_app.command()
def doctor(
    run_dir: Annotated[
        Path, Option("--run_dir", metavar="DIR", help="Where runs are written: its disk is looked at.")
    ] = Path("runs"),
    json: JsonOption = None,
) -> None:
    """Check this installation and this machine: versions, devices, memory, disk, limits, known traps.

    The exit code is 0 if nothing will fail, and 2 if there is a problem.
    """
    from vitcli.commands.doctor import doctor as run

    run(run_dir, json_file=json)
