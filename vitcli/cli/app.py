"""The `vitcli` program: its groups of commands, and how an outcome becomes an exit code."""

import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_group

from vitcli.cli.help import Commands, SectionedGroup
from vitcli.errors import UsageError, VitcliError, show, show_brief, show_traceback
from vitcli.output import OptionalOutput, Output
from vitcli.process import end_at_once, end_with_torchrun
from vitcli.slurm import torchrun_variables

#: each command, or group of commands: its file in this folder, and what its help begins with
COMMANDS = {
    "train": ("train", "Train a model, or continue a run."),
    "validate": ("evaluation", "Measure the accuracy of a checkpoint or an exported network on the validation split."),
    "embed": ("evaluation", "Write the features of every image in a folder to one file, with names and labels."),
    "export": ("deployment", "Export a network to another runtime, and verify that it computes the same."),
    "predict": (
        "deployment",
        "Print the most probable classes of images; with task multilabel those that each image has, or none.",
    ),
    "bench": ("deployment", "Measure speed and memory on this machine."),
    "report": (
        "report",
        "Write one HTML page that says what a run is worth: result, curves, classes, mistakes, calibration, recipe.",
    ),
    "doctor": (
        "doctor",
        "Check this installation and this machine: versions, devices, memory, disk, limits, known traps.",
    ),
    "data": ("data", "Look at a data set before training, split it, or pack it."),
    "recipes": ("recipes", "List, show, copy, check and compare recipes."),
    "runs": ("runs", "List, show, compare and remove runs."),
    "models": ("models", "List and describe architectures."),
    "weights": ("weights", "Describe weights, and convert them for other projects."),
}


class _Files(Mapping[str, Any]):
    """The commands by name. A file is imported when one of its commands is used: the schema alone takes 0.3 s."""

    def __getitem__(self, name: str) -> Any:
        file, _ = COMMANDS[name]
        group = get_group(getattr(import_module(f"vitcli.cli.{file}"), f"{file}_app"))
        return group.commands.get(name, group)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Program(SectionedGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Files()  # pyright: ignore[reportAttributeAccessIssue]  # nobody adds to them

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def purposes(self) -> Iterator[tuple[str, str]]:
        for name, (_, purpose) in COMMANDS.items():
            yield name, purpose


app = Commands(
    cls=_Program,
    name="vitcli",
    help="Train, validate and deploy vision transformers from YAML recipes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them takes 0.1 s; the schema needs none
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
