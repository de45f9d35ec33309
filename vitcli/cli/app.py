"""The `vitcli` program: its groups of commands, and how an outcome becomes an exit code."""

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from vitcli.cli.data import data_app
from vitcli.cli.deployment import deployment_app
from vitcli.cli.doctor import doctor_app
from vitcli.cli.models import models_app
from vitcli.cli.recipes import recipes_app
from vitcli.cli.report import report_app
from vitcli.cli.runs import runs_app
from vitcli.cli.training import training_app
from vitcli.cli.weights import weights_app
from vitcli.errors import UsageError, VitcliError, show, show_brief, show_traceback
from vitcli.output import OptionalOutput, Output
from vitcli.process import end_at_once, end_with_torchrun
from vitcli.slurm import torchrun_variables

app = typer.Typer(
    name="vitcli",
    help="Train, validate and deploy vision transformers from YAML recipes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(training_app)
app.add_typer(deployment_app)
app.add_typer(report_app)
app.add_typer(doctor_app)
app.add_typer(data_app, name="data")
app.add_typer(recipes_app, name="recipes")
app.add_typer(runs_app, name="runs")
app.add_typer(models_app, name="models")
app.add_typer(weights_app, name="weights")


def _show_version(wanted: bool) -> None:
    if wanted:
        from vitcli.commands.version import version

        version()
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """The options of the program itself."""


def main(words: list[str] | None = None) -> None:
    """Run the command line `words` (default: this process's) and exit with the code of its outcome."""
    sys.excepthook = show_traceback
    end_with_torchrun()
    os.environ.update(torchrun_variables(os.environ))
    streams: tuple[Any, Any] = Output(sys.stdout), OptionalOutput(sys.stderr)
    sys.stdout, sys.stderr = streams
    try:
        app([_underscored(word) for word in (sys.argv[1:] if words is None else words)])
    except VitcliError as error:
        leave(show(error) if os.environ.get("RANK", "0") == "0" else show_brief(error))
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        help = "pip install torch torchvision; without them only `predict` works, on ONNX and OpenVINO artifacts"
        leave(show(UsageError(f"this command needs {error.name}", help=help)))


def train_main() -> None:
    """`python train.py …`."""
    main(["train", *sys.argv[1:]])


def validate_main() -> None:
    """`python validate.py …`."""
    main(["validate", *sys.argv[1:]])


def leave(code: int) -> NoReturn:
    """End this process; one of several ranks ends at once, because a regular exit would wait for the others."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    end_at_once(code)


def _underscored(word: str) -> str:
    """An option may be written with dashes or underscores; typer's own keep their dashes."""
    if not word.startswith("--") or word.startswith(("--install-completion", "--show-completion")):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
